//! Floor 9: `Tallow` as a [`GlobalAlloc`] and as an [`Allocator`].

use crate::heap;
use crate::settings::{Builder, Settings};
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// The allocator. It has no state of its own: all values share one heap.
///
/// ```
/// #[global_allocator]
/// static ALLOC: tallow::Tallow = tallow::Tallow::new();
///
/// let text = "tally".repeat(100);
/// assert!(tallow::stats().allocated_bytes >= text.len() as u64);
/// ```
///
/// Works before `main`, in destructors of thread-locals, and in forked children.
/// When memory is out it returns null. It aborts, with one line on stderr, only
/// when a call proves that memory is corrupt: a block freed twice, a pointer
/// that is not a block, a layout that is not the block's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tallow;

impl Tallow {
    /// The allocator, for a `static`.
    pub const fn new() -> Self {
        Self
    }

    /// The allocator with other settings, for a `static`: see [`Builder`].
    #[must_use]
    pub const fn builder() -> Builder {
        Builder::DEFAULT
    }
}

/// [`Tallow`] with settings chosen at compile time, for a `static`. From
/// [`Tallow::builder`]; see [`Builder`].
#[derive(Clone, Copy, Debug)]
pub struct Tuned {
    settings: Builder,
}

impl Builder {
    /// The allocator with these settings. Those of the first one that is called
    /// hold for the process, which has one heap.
    #[must_use]
    pub const fn build(self) -> Tuned {
        Tuned { settings: self }
    }
}

const DEFAULT: &Settings = &Builder::DEFAULT;

// SAFETY: as for `Tallow`, from which it differs by what settings it brings.
unsafe impl GlobalAlloc for Tuned {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        heap::allocate::<true>(layout, &self.settings)
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { heap::free(ptr, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        heap::allocate_zeroed::<true>(layout, &self.settings)
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { heap::reallocate(ptr, layout, new_size, &self.settings) }
    }
}

// SAFETY: blocks are as large and as aligned as their layout (class C1; page
// runs), belong to nobody else until freed (slab L1), and do not move.
unsafe impl GlobalAlloc for Tallow {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        heap::allocate::<true>(layout, DEFAULT)
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { heap::free(ptr, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        heap::allocate_zeroed::<true>(layout, DEFAULT)
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is the same.
        unsafe { heap::reallocate(ptr, layout, new_size, DEFAULT) }
    }
}

fn block(at: *mut u8, len: usize) -> Result<NonNull<[u8]>, AllocError> {
    let at = NonNull::new(at).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(at, len))
}

/// A block for a layout of size 0: no memory, a well-aligned address.
fn dangling(layout: Layout) -> *mut u8 {
    ptr::without_provenance_mut(layout.align())
}

// SAFETY: as above; all values of `Tallow` are one allocator.
unsafe impl Allocator for Tallow {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return block(dangling(layout), 0);
        }
        block(heap::allocate::<true>(layout, DEFAULT), layout.size())
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return block(dangling(layout), 0);
        }
        block(heap::allocate_zeroed::<true>(layout, DEFAULT), layout.size())
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: the caller's promise is the same.
            unsafe { heap::free(ptr.as_ptr(), layout) }
        }
    }

    unsafe fn grow(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise is the same.
        unsafe { resize(ptr, old, new) }
    }

    unsafe fn shrink(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise is the same.
        unsafe { resize(ptr, old, new) }
    }
}

/// # Safety
/// `ptr` is a block of layout `old`.
unsafe fn resize(ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
    if old.size() > 0 && new.size() > 0 && old.align() == new.align() {
        // SAFETY: the caller's promise; the alignment stays.
        let kept = unsafe { heap::reallocate(ptr.as_ptr(), old, new.size(), DEFAULT) };
        return block(kept, new.size());
    }
    let moved = Tallow.allocate(new)?;
    let n = old.size().min(new.size());
    // SAFETY: both blocks are at least that long, and distinct.
    unsafe { ptr::copy_nonoverlapping(ptr.as_ptr(), moved.cast::<u8>().as_ptr(), n) };
    // SAFETY: the caller's promise.
    unsafe { Tallow.deallocate(ptr, old) };
    Ok(moved)
}
