//! Large blocks: runs of pages of their own, inside segments.

use crate::config::{LARGE_MAX_BYTES, LG_PAGE};
use crate::error::Corruption;
use crate::lock::Lock;
use crate::os;
use crate::pages::{Extent, PageHeap, pages_for};
use crate::segment::{Entry, Segment};
use core::ptr::NonNull;

/// How many large blocks there are, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockBooks {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

/// The large blocks. The lock makes page map and books change together.
pub(crate) struct Large {
    books: Lock<BlockBooks>,
}

/// Whether blocks of this layout are large: too big or too strictly aligned
/// for a slab, small enough for a segment.
#[inline]
pub(crate) fn serves(size: usize, align: usize) -> bool {
    size <= LARGE_MAX_BYTES && align <= LARGE_MAX_BYTES
}

/// The pages of a block of `size` bytes, in whole OS pages.
fn block_pages(size: usize) -> usize {
    pages_for(size.max(1).next_multiple_of(os::page_bytes()))
}

impl Large {
    pub(crate) const fn new() -> Self {
        Self { books: Lock::new(BlockBooks { count: 0, bytes: 0 }) }
    }

    /// A block of `size` bytes; `None` when memory is out. May call the OS.
    pub(crate) fn allocate(&self, heap: &PageHeap, size: usize, align: usize) -> Option<Extent> {
        let pages = block_pages(size);
        let mut books = self.books.lock();
        let extent = heap.allocate(pages, pages_for(align))?;
        let address = extent.start.addr().get();
        let segment = Segment::find(address)?;
        segment.set_entry(Segment::page_of(address), 1, Entry::Large { pages });
        books.count += 1;
        books.bytes += pages << LG_PAGE;
        Some(extent)
    }

    /// Takes a block back; aborts when it is not one of that size.
    ///
    /// # Safety
    /// Nobody uses the block any more.
    pub(crate) unsafe fn free(&self, heap: &PageHeap, at: NonNull<u8>, size: usize) {
        let mut books = self.books.lock();
        let (segment, first, pages) = find(at, size);
        segment.set_entry(first, 1, Entry::None);
        books.count -= 1;
        books.bytes -= pages << LG_PAGE;
        // SAFETY: the run was lent for this block; its entry is empty now.
        unsafe { heap.free(at, pages) };
    }

    /// Makes a block larger or smaller where it is, if that can be.
    ///
    /// # Safety
    /// The block is the caller's and has `old` bytes.
    pub(crate) unsafe fn resize(
        &self,
        heap: &PageHeap,
        at: NonNull<u8>,
        old: usize,
        new: usize,
    ) -> bool {
        let to = block_pages(new);
        let mut books = self.books.lock();
        let (segment, first, pages) = find(at, old);
        if to > pages {
            // SAFETY: the run is lent to this block.
            if !unsafe { heap.extend(at, pages, to) } {
                return false;
            }
        } else if to < pages {
            // SAFETY: the tail is part of the run, and is given up here.
            unsafe { heap.free(segment.page_at(first + to), pages - to) };
        }
        segment.set_entry(first, 1, Entry::Large { pages: to });
        books.bytes = books.bytes - (pages << LG_PAGE) + (to << LG_PAGE);
        true
    }

    pub(crate) fn books(&self) -> BlockBooks {
        *self.books.lock()
    }

    /// # Safety
    /// The caller holds the lock by [`Large::raw_lock`].
    pub(crate) unsafe fn books_held(&self) -> BlockBooks {
        // SAFETY: the caller's promise.
        unsafe { *self.books.value_held() }
    }

    pub(crate) fn raw_lock(&self) {
        self.books.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Large::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.books.raw_unlock() }
    }
}

/// Where a block of `size` bytes lies; aborts when `at` is none.
fn find(at: NonNull<u8>, size: usize) -> (&'static Segment, usize, usize) {
    let address = at.addr().get();
    let Some(segment) = Segment::find(address) else {
        os::abort(Corruption::Foreign { address, size });
    };
    let first = Segment::page_of(address);
    match segment.entry(first) {
        Entry::Large { pages }
            if pages == block_pages(size) && address.is_multiple_of(os::page_bytes()) =>
        {
            (segment, first, pages)
        }
        Entry::Large { pages } => os::abort(Corruption::Layout {
            address,
            freed_bytes: size,
            owned_bytes: pages << LG_PAGE,
        }),
        // A slab's region, or nothing that is alive.
        Entry::Slab { .. } | Entry::None => os::abort(Corruption::Foreign { address, size }),
    }
}
