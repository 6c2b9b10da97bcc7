//! A worker on what no allocator can do without: size classes, and for each a list of
//! free blocks, linked through the blocks. A block goes in and comes out again by two
//! loads and two stores; nothing is checked, counted, sorted or given back, and there
//! may be one thread only. What the rows of `micro` take on it is the work itself and
//! the least that an allocator adds to it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

/// Up to here sizes are classes; above, the system is asked.
const LG_MOST: u32 = 26;
/// Four classes to each doubling, as in Tallow.
const CLASSES: usize = 4 * LG_MOST as usize;
/// What is taken from the system at a time.
const CHUNK_BYTES: usize = 1 << 20;

struct Floor {
    free: UnsafeCell<[*mut u8; CLASSES]>,
    /// The rest of the newest chunk: where it starts and ends.
    rest: UnsafeCell<(usize, usize)>,
}

// SAFETY: not at all, were there a second thread; the driver runs no workload on it
// that starts one.
unsafe impl Sync for Floor {}

#[global_allocator]
static ALLOC: Floor =
    Floor { free: UnsafeCell::new([null_mut(); CLASSES]), rest: UnsafeCell::new((0, 0)) };

/// Class and bytes of a block; `None` if the system is to be asked.
#[inline(always)]
fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size().next_multiple_of(layout.align()).max(16);
    if size > 1 << LG_MOST || layout.align() > 4096 {
        return None;
    }
    let last = size - 1;
    let lg = last.ilog2();
    let step = 1 << (lg - 2);
    Some(((lg * 4) as usize + ((last >> (lg - 2)) & 3), (last | (step - 1)) + 1))
}

impl Floor {
    #[cold]
    #[inline(never)]
    fn fresh(&self, bytes: usize, align: usize) -> *mut u8 {
        if bytes > CHUNK_BYTES / 8 {
            return Layout::from_size_align(bytes, 4096).map_or(null_mut(), |whole| {
                // SAFETY: the size is not zero.
                unsafe { System.alloc(whole) }
            });
        }
        // SAFETY: one thread.
        let (start, end) = unsafe { &mut *self.rest.get() };
        let mut at = start.next_multiple_of(align);
        if at + bytes > *end {
            let Ok(chunk) = Layout::from_size_align(CHUNK_BYTES, 4096) else { return null_mut() };
            // SAFETY: the size is not zero.
            at = unsafe { System.alloc(chunk) }.expose_provenance();
            if at == 0 {
                return null_mut();
            }
            *end = at + CHUNK_BYTES;
        }
        *start = at + bytes;
        std::ptr::with_exposed_provenance_mut(at)
    }
}

// SAFETY: with one thread, blocks are disjoint, large and aligned enough; the lists
// hold blocks that nobody uses.
unsafe impl GlobalAlloc for Floor {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, bytes)) = class(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: one thread.
        let head = unsafe { &mut (*self.free.get())[class] };
        let block = *head;
        if block.is_null() {
            // A block of the class may be handed out for any alignment that its size has.
            return self.fresh(bytes, (1 << bytes.trailing_zeros()).min(4096));
        }
        // SAFETY: a free block holds the link to the next.
        *head = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((class, _)) = class(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: one thread.
        let head = unsafe { &mut (*self.free.get())[class] };
        // SAFETY: the block is ours again, and has room for a link.
        unsafe { block.cast::<*mut u8>().write(*head) };
        *head = block;
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the new size is allowed.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            (Some(old), Some(new)) if old == new => block,
            // SAFETY: the caller's promise; both are the system's.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            _ => {
                // SAFETY: as for `alloc`.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    // SAFETY: two blocks, of at least so many bytes.
                    unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(size)) };
                    // SAFETY: the caller's promise.
                    unsafe { self.dealloc(block, layout) };
                }
                moved
            }
        }
    }
}

fn main() {
    versus::child::main();
}
