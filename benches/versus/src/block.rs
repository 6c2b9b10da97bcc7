//! Blocks of raw memory from the global allocator.
//!
//! What `Box<[u8]>` would be, but for three things that the workloads need: any alignment, no
//! writes beyond the first byte, and 16 bytes for a block with its layout.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::hint::black_box;
use std::ptr::NonNull;

/// Bytes of a page, for workloads that touch each.
const PAGE_BYTES: usize = 4096;

/// A block that is freed when dropped. A volatile write, or `black_box` where nothing is written,
/// keeps the compiler from optimising the allocation away; `black_box` alone would cost as much as
/// an allocation (it sends the pointer through memory).
pub struct Block {
    start: NonNull<u8>,
    size: u32,
    align: u32,
}

// SAFETY: a block is owned by who holds it, and contains nothing that belongs to a thread.
unsafe impl Send for Block {}

impl Block {
    /// A block of `size` bytes with the first byte written.
    #[inline]
    pub fn new(size: usize) -> Self {
        Self::aligned(size, 8)
    }

    /// A block of `size` bytes at a multiple of `align`, with the first byte written.
    #[inline]
    pub fn aligned(size: usize, align: usize) -> Self {
        let layout = layout(size, align);
        // SAFETY: `layout` makes none of size 0.
        let block = Self::from_raw(unsafe { alloc(layout) }, layout);
        // SAFETY: the block has room for a byte.
        unsafe { block.start.write_volatile(size as u8) };
        block
    }

    /// A block in which nothing is written.
    #[inline]
    pub fn untouched(size: usize, align: usize) -> Self {
        let layout = layout(size, align);
        // SAFETY: `layout` makes none of size 0.
        Self::from_raw(black_box(unsafe { alloc(layout) }), layout)
    }

    /// A block of zeros, of which only the first byte is read and written.
    #[inline]
    pub fn zeroed(size: usize) -> Self {
        let layout = layout(size, 8);
        // SAFETY: `layout` makes none of size 0.
        let block = Self::from_raw(unsafe { alloc_zeroed(layout) }, layout);
        // SAFETY: the block has a first byte, and it is 0.
        let first = unsafe { block.start.read_volatile() };
        // SAFETY: as above.
        unsafe { block.start.write_volatile(first | 1) };
        block
    }

    fn from_raw(start: *mut u8, layout: Layout) -> Self {
        match NonNull::new(start) {
            Some(start) => Self { start, size: layout.size() as u32, align: layout.align() as u32 },
            None => handle_alloc_error(layout),
        }
    }

    /// Writes the first byte of every page; the sum of what was written.
    pub fn touch_pages(&mut self) -> u64 {
        for at in (0..self.size as usize).step_by(PAGE_BYTES) {
            // SAFETY: `at` is within the block.
            let byte = unsafe { self.start.add(at) };
            // SAFETY: as above; the block is ours.
            unsafe { byte.write_volatile(1) };
        }
        u64::from(self.size).div_ceil(PAGE_BYTES as u64)
    }

    /// Bytes asked for.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Whether the block is where it must be.
    pub fn is_aligned(&self) -> bool {
        self.start.addr().get().is_multiple_of(self.align as usize)
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        let layout = layout(self.size as usize, self.align as usize);
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

#[inline]
fn layout(size: usize, align: usize) -> Layout {
    debug_assert!(align.is_power_of_two());
    Layout::from_size_align(size.max(1), align).expect("sizes and alignments of a workload")
}
