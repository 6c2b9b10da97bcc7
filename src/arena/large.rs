//! Large blocks: runs of pages of their own, inside segments. Hardened, each lies
//! between two pages that are lent with it and are inaccessible; freed, it is inaccessible
//! too, and waits a while before it is lent again.

#[cfg(all(test, not(loom), feature = "hardened"))]
mod tests;
mod waiting;

use crate::bits::round_up;
use crate::config::{HARDENED, LARGE_MAX_BYTES, LG_PAGE};
use crate::error::Corruption;
use crate::lock::Lock;
use crate::os::{self, Access};
use crate::pages::{Extent, Held, PageHeap, pages_for};
use crate::segment::{Entry, Segment, guard_pages};
use crate::settings::{Moment, Poison, SETTINGS};
use crate::sync::const_unless_loom;
use core::ptr::{self, NonNull};
use waiting::{Waiter, Waiting};

/// The large blocks. Page map and books change together, under the page heap's lock; what
/// the hardened mode keeps of freed blocks has a lock of its own, which comes before.
pub(crate) struct Large {
    state: Lock<State>,
}

struct State {
    /// Hardened: freed blocks whose guards the system did not make accessible. They
    /// count as blocks until it does.
    stuck: *mut Stuck,
    /// Hardened: freed blocks that are not lent again yet. They are no blocks by the books,
    /// and their pages are in use.
    waiting: Waiting,
}

// SAFETY: the list is used under the lock.
unsafe impl Send for State {}

/// What lies at the start of such a block.
struct Stuck {
    next: *mut Self,
    pages: usize,
}

/// Whether blocks of this layout are large: too big or too strictly aligned
/// for a slab, small enough for a segment.
#[inline]
pub(crate) fn serves(size: usize, align: usize) -> bool {
    size <= LARGE_MAX_BYTES && align <= LARGE_MAX_BYTES
}

/// The pages of a block of `size` bytes, in whole OS pages.
fn block_pages(size: usize) -> usize {
    round_up(size.max(1), os::page_bytes()) >> LG_PAGE
}

impl Large {
    const_unless_loom! {
        pub(crate) fn new() -> Large {
            let waiting = Waiting::NONE;
            Large { state: Lock::new(State { stuck: ptr::null_mut(), waiting }) }
        }
    }

    /// A block of `size` bytes; `None` when memory is out. May call the OS.
    pub(crate) fn allocate(&self, heap: &PageHeap, size: usize, align: usize) -> Option<Extent> {
        let pages = block_pages(size);
        if HARDENED {
            return self.state.lock().allocate(heap, pages, align);
        }
        let mut heap = heap.hold();
        let extent = heap.allocate(pages, pages_for(align))?;
        enter(&mut heap, extent.start.addr().get(), pages)?;
        Some(extent)
    }

    /// Takes a block back; aborts when it is not one of that size.
    ///
    /// # Safety
    /// Nobody uses the block any more.
    pub(crate) unsafe fn free(&self, heap: &PageHeap, at: NonNull<u8>, size: usize) {
        if HARDENED {
            // SAFETY: the caller's promise.
            return unsafe { self.state.lock().free(heap, at, size) };
        }
        let heap = heap.hold();
        let (segment, first, pages) = find(at, size);
        // SAFETY: the block's pages, which nobody uses any more.
        unsafe { lend_no_more(heap, segment, first, pages) };
    }

    /// Hardened: gives back what waits, or could not be given back. Returns the bytes.
    pub(crate) fn release_waiting(&self, heap: &PageHeap) -> usize {
        let mut state = self.state.lock();
        state.release_stuck(heap);
        state.release_waiting(heap, |_, _| true)
    }

    /// Hardened: gives back what has waited for long.
    pub(crate) fn tick(&self, heap: &PageHeap, now_ms: u64) {
        let Some(decay_ms) = heap.decay_ms() else { return };
        let is_old = |it: &Waiter, _: &Waiting| now_ms.saturating_sub(it.since_ms) >= decay_ms / 4;
        self.state.lock().release_waiting(heap, is_old);
    }

    /// Bytes of blocks that wait, as pages in use.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state.lock().waiting.bytes()
    }

    /// # Safety
    /// The caller holds the lock by [`Large::raw_lock`].
    pub(crate) unsafe fn waiting_bytes_held(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.state.value_held() }.waiting.bytes()
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
        if HARDENED {
            // SAFETY: the caller's promise.
            return unsafe { self.state.lock().resize(heap, at, old, to) };
        }
        let mut held = heap.hold();
        let (segment, first, pages) = find(at, old);
        // SAFETY: the run is lent to this block.
        if to > pages && !unsafe { held.extend(at, pages, to) } {
            return false;
        }
        change_entry(&mut held, segment, first, pages, to);
        if to < pages {
            let tail = segment.page_at(first + to);
            // SAFETY: the tail was part of the run, and is given up here.
            unsafe { clear_tail(tail, pages - to) };
            // SAFETY: as above.
            unsafe { held.free(tail, pages - to) };
        }
        true
    }

    pub(crate) fn raw_lock(&self) {
        self.state.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Large::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.raw_unlock() }
    }
}

impl State {
    /// [`Large::allocate`], hardened.
    fn allocate(&mut self, heap: &PageHeap, pages: usize, align: usize) -> Option<Extent> {
        if let Some(extent) = self.lend_again(heap, pages, align) {
            return Some(extent);
        }
        let extent = guarded(heap, pages, align)?;
        enter(&mut heap.hold(), extent.start.addr().get(), pages)?;
        Some(extent)
    }

    /// [`Large::free`], hardened.
    ///
    /// # Safety
    /// As for that.
    unsafe fn free(&mut self, heap: &PageHeap, at: NonNull<u8>, size: usize) {
        let (_, _, pages) = find(at, size);
        self.check_not_stuck(at, size);
        self.release_stuck(heap);
        // SAFETY: the caller's promise.
        if !unsafe { self.keep_back(heap, at, pages) } {
            // SAFETY: as above.
            unsafe { self.give_up(heap, at, pages) };
        }
    }

    /// [`Large::resize`], hardened, to so many pages.
    ///
    /// # Safety
    /// As for that.
    unsafe fn resize(&mut self, heap: &PageHeap, at: NonNull<u8>, old: usize, to: usize) -> bool {
        let (segment, first, pages) = find(at, old);
        self.check_not_stuck(at, old);
        if to != pages && !move_guard(heap, segment, first, pages, to) {
            return false;
        }
        change_entry(&mut heap.hold(), segment, first, pages, to);
        true
    }

    /// Aborts if a block has been freed, and waits in the list.
    fn check_not_stuck(&self, at: NonNull<u8>, size: usize) {
        if self.is_stuck(at) {
            os::abort(Corruption::Foreign { address: at.addr().get(), size });
        }
    }

    fn is_stuck(&self, at: NonNull<u8>) -> bool {
        let mut stuck = self.stuck;
        // SAFETY: blocks in the list are whole, and nobody's.
        while let Some(it) = unsafe { stuck.as_ref() } {
            if stuck.addr() == at.addr().get() {
                return true;
            }
            stuck = it.next;
        }
        false
    }

    fn release_stuck(&mut self, heap: &PageHeap) {
        let mut stuck = core::mem::replace(&mut self.stuck, ptr::null_mut());
        while let Some(at) = NonNull::new(stuck) {
            // SAFETY: as above.
            let it = unsafe { at.read() };
            stuck = it.next;
            // SAFETY: as above; it is in the list no more.
            unsafe { self.give_up(heap, at.cast(), it.pages) };
        }
    }

    /// Gives the pages of a block back, with its guards, if it has some. What the system
    /// does not make accessible cannot be lent again, and waits in the list.
    ///
    /// # Safety
    /// A block of so many pages, which nobody uses any more, and which is in no list.
    unsafe fn give_up(&mut self, heap: &PageHeap, at: NonNull<u8>, pages: usize) {
        let address = at.addr().get();
        let Some(segment) = Segment::find(address) else { return };
        let first = Segment::page_of(address);
        // SAFETY: the caller's promise.
        unsafe { clear(at, pages) };
        if !unguard(segment, first, pages) {
            let stuck = at.cast::<Stuck>();
            // SAFETY: the block is larger than that, and aligned to a page.
            unsafe { stuck.write(Stuck { next: self.stuck, pages }) };
            self.stuck = stuck.as_ptr();
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { lend_no_more(heap.hold(), segment, first, pages) };
    }

    /// Has a freed block wait, inaccessible, if it may. `false`: nothing was done.
    ///
    /// # Safety
    /// As for [`State::give_up`].
    unsafe fn keep_back(&mut self, heap: &PageHeap, at: NonNull<u8>, pages: usize) -> bool {
        if heap.decay_ms() == Some(0) || SETTINGS.fill().is_some() {
            return false;
        }
        let address = at.addr().get();
        let Some(segment) = Segment::find(address) else { return false };
        let bytes = pages << LG_PAGE;
        self.release_waiting(heap, |_, waiting| !waiting.has_room(bytes));
        if !self.waiting.has_room(bytes) {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { clear(at, pages) };
        // Where the system refuses, it waits all the same.
        // SAFETY: as above.
        unsafe { os::protect(at, bytes, Access::None) };
        self.waiting.push(Waiter { address, pages, since_ms: os::now_ms() });
        let mut heap = heap.hold();
        segment.set_entry(Segment::page_of(address), 1, Entry::Freed { pages });
        heap.blocks().remove(bytes);
        true
    }

    /// A block that waits, as it is with its guards, if it is what is wanted and enough
    /// others wait that were freed after it: two calls of the system's fewer.
    fn lend_again(&mut self, heap: &PageHeap, pages: usize, align: usize) -> Option<Extent> {
        let fits = |it: &Waiter| it.pages == pages && it.address.is_multiple_of(align);
        let (place, it) = self.waiting.find(fits)?;
        let segment = Segment::find(it.address)?;
        let (first, bytes) = (Segment::page_of(it.address), pages << LG_PAGE);
        let start = segment.page_at(first);
        // SAFETY: lent to the block, which nobody uses.
        if !unsafe { os::protect(start, bytes, Access::All) } {
            return None;
        }
        self.waiting.remove(place);
        enter(&mut heap.hold(), it.address, pages)?;
        Some(Extent { start, zeroed: false })
    }

    /// Gives back what has waited longest, as long as it `is_due`. Returns the bytes. What
    /// the system does not make accessible goes on waiting, and what came after it.
    fn release_waiting(
        &mut self,
        heap: &PageHeap,
        is_due: impl Fn(&Waiter, &Waiting) -> bool,
    ) -> usize {
        let mut bytes = 0;
        while let Some(it) = self.waiting.first().filter(|it| is_due(it, &self.waiting)) {
            let Some(segment) = Segment::find(it.address) else { break };
            let (first, guard) = (Segment::page_of(it.address), guard_pages());
            let (run, lent) = (segment.page_at(first - guard), it.pages + 2 * guard);
            // SAFETY: lent to the block, which nobody uses.
            if !unsafe { os::protect(run, lent << LG_PAGE, Access::All) } {
                break;
            }
            self.waiting.remove(0);
            bytes += it.pages << LG_PAGE;
            segment.set_entry(first, 1, Entry::None);
            // SAFETY: as above; it waits no more.
            unsafe { heap.free(run, lent) };
        }
        bytes
    }
}

/// Enters a block into page map and books.
fn enter(heap: &mut Held<'_>, address: usize, pages: usize) -> Option<()> {
    Segment::find(address)?.set_entry(Segment::page_of(address), 1, Entry::Large { pages });
    heap.blocks().add(pages << LG_PAGE);
    Some(())
}

/// Enters a block's new length.
fn change_entry(heap: &mut Held<'_>, segment: &Segment, first: usize, pages: usize, to: usize) {
    segment.set_entry(first, 1, Entry::Large { pages: to });
    let books = heap.blocks();
    books.bytes = books.bytes - (pages << LG_PAGE) + (to << LG_PAGE);
}

/// Takes a block out of page map and books, and gives its pages back, with its guards.
///
/// # Safety
/// The run was lent for this block, which nobody uses any more, and is accessible.
unsafe fn lend_no_more(mut heap: Held<'_>, segment: &Segment, first: usize, pages: usize) {
    segment.set_entry(first, 1, Entry::None);
    heap.blocks().remove(pages << LG_PAGE);
    let (run, lent) = (segment.page_at(first - guard_pages()), pages + 2 * guard_pages());
    // SAFETY: the caller's promise; the entry is empty.
    unsafe { heap.free(run, lent) };
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

/// Makes both guards of a block accessible; `false` if the system refuses.
fn unguard(segment: &Segment, first: usize, pages: usize) -> bool {
    set_guard(segment, first - guard_pages(), Access::All)
        && set_guard(segment, first + pages, Access::All)
}

/// Makes a guard's pages accessible or not; `false` if the system refuses, for too many
/// mappings. A guard that was to be made is there then without guarding.
fn set_guard(segment: &Segment, page: usize, access: Access) -> bool {
    // SAFETY: the pages are lent to the block of which they are the guard.
    unsafe { os::protect(segment.page_at(page), guard_pages() << LG_PAGE, access) }
}

/// Overwrites pages that are given up, if that is wanted.
///
/// # Safety
/// They are the caller's, and nobody needs what they hold.
unsafe fn clear(at: NonNull<u8>, pages: usize) {
    if SETTINGS.poison() == Poison::Zero {
        // SAFETY: the caller's promise.
        unsafe { at.write_bytes(0, pages << LG_PAGE) };
    }
}

/// Overwrites pages that a block loses where it is, if that is wanted.
///
/// # Safety
/// As for [`clear`].
unsafe fn clear_tail(at: NonNull<u8>, pages: usize) {
    match SETTINGS.fill() {
        // SAFETY: the caller's promise.
        Some(fill) => unsafe { at.write_bytes(fill.byte(Moment::Freed), pages << LG_PAGE) },
        // SAFETY: as above.
        None if HARDENED => unsafe { clear(at, pages) },
        None => {}
    }
}

/// Gives a block another number of pages, its guard behind them. `false`: it stays as it
/// was.
fn move_guard(heap: &PageHeap, segment: &Segment, first: usize, pages: usize, to: usize) -> bool {
    let guard = guard_pages();
    let (run, lent) = (segment.page_at(first), pages + guard);
    // SAFETY: the run is lent to this block.
    if to > pages && !unsafe { heap.extend(run, lent, to + guard) } {
        return false;
    }
    // Before anything else: what stays inaccessible can be neither used nor lent.
    if !set_guard(segment, first + pages, Access::All) {
        if to > pages {
            // SAFETY: what was gained just now.
            unsafe { heap.free(segment.page_at(first + pages + guard), to - pages) };
        }
        return false;
    }
    if to < pages {
        // SAFETY: the tail is part of the run, and is given up here.
        unsafe { clear_tail(segment.page_at(first + to), pages - to) };
    }
    set_guard(segment, first + to, Access::None);
    if to < pages {
        // SAFETY: as above.
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
            if pages == block_pages(size) && address & (os::page_bytes() - 1) == 0 =>
        {
            (segment, first, pages)
        }
        Entry::Large { pages } => os::abort(Corruption::Layout {
            address,
            freed_bytes: size,
            owned_bytes: pages << LG_PAGE,
        }),
        // A slab's region, or nothing that is alive.
        Entry::Slab { .. } | Entry::Freed { .. } | Entry::None => {
            os::abort(Corruption::Foreign { address, size })
        }
    }
}
