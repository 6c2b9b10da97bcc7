//! Large blocks: runs of pages of their own, inside segments. Hardened, each lies
//! between two pages that are lent with it and are inaccessible.

use crate::config::{HARDENED, LARGE_MAX_BYTES, LG_PAGE};
use crate::error::Corruption;
use crate::lock::Lock;
use crate::os::{self, Access};
use crate::pages::{Extent, PageHeap, pages_for};
use crate::segment::{Entry, Segment, guard_pages};
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
        let extent = if HARDENED {
            guarded(heap, pages, align)?
        } else {
            heap.allocate(pages, pages_for(align))?
        };
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
        let (run, lent) = if HARDENED { unguarded(segment, first, pages) } else { (at, pages) };
        // SAFETY: the run was lent for this block; its entry is empty now.
        unsafe { heap.free(run, lent) };
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
        if HARDENED && to != pages {
            if !move_guard(heap, segment, first, pages, to) {
                return false;
            }
        } else if to > pages {
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

/// A run of pages between two guards.
fn guarded(heap: &PageHeap, pages: usize, align: usize) -> Option<Extent> {
    let guard = guard_pages();
    // The guard before the block is the last page of a part as long as the alignment.
    let lead = pages_for(align).max(guard);
    let whole = heap.allocate(lead + pages + guard, lead)?;
    if lead > guard {
        // SAFETY: the start of the run, which nobody uses.
        unsafe { heap.free(whole.start, lead - guard) };
    }
    let address = whole.start.addr().get();
    let (segment, first) = (Segment::find(address)?, Segment::page_of(address) + lead);
    set_guard(segment, first - guard, Access::None);
    set_guard(segment, first + pages, Access::None);
    Some(Extent { start: segment.page_at(first), zeroed: whole.zeroed })
}

/// The run of a block with its guards, which are pages like others again.
fn unguarded(segment: &Segment, first: usize, pages: usize) -> (NonNull<u8>, usize) {
    let guard = guard_pages();
    set_guard(segment, first - guard, Access::All);
    set_guard(segment, first + pages, Access::All);
    (segment.page_at(first - guard), pages + 2 * guard)
}

/// Makes a guard's pages accessible or not. Where the system refuses, for too many
/// mappings, the pages are there without being guarded.
fn set_guard(segment: &Segment, page: usize, access: Access) {
    // SAFETY: the pages are lent to the block of which they are the guard.
    unsafe { os::protect(segment.page_at(page), guard_pages() << LG_PAGE, access) };
}

/// Gives a block another number of pages, its guard behind them. A block that cannot
/// grow stays as it was.
fn move_guard(heap: &PageHeap, segment: &Segment, first: usize, pages: usize, to: usize) -> bool {
    let guard = guard_pages();
    let (run, lent) = (segment.page_at(first), pages + guard);
    // SAFETY: the run is lent to this block.
    if to > pages && !unsafe { heap.extend(run, lent, to + guard) } {
        return false;
    }
    set_guard(segment, first + pages, Access::All);
    set_guard(segment, first + to, Access::None);
    if to < pages {
        // SAFETY: the tail is part of the run, and is given up here.
        unsafe { heap.free(segment.page_at(first + to + guard), pages - to) };
    }
    true
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
