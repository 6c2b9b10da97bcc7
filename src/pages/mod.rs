//! Floor 4: the page heap. It owns all segments and lends runs of pages.
//!
//! ```text
//!   OS --reserve--> segment --allocate--> slab or large block
//!    ^                 ^                        |
//!    | release      purged <--decay, purge-- dirty <--- free
//!    +---- wholly purged segments
//! ```
//!
//! A free page is *dirty* (backed, contents unknown) or *purged* (zero when
//! read, backed by nothing). Allocation takes dirty pages first, in the segment
//! lowest in the table, so that the others drain; decay purges from the top.
//! Free runs are found in bit sets, and two neighbours that are free are one
//! run without anybody merging them. A hint per segment, an upper bound for its
//! longest run, keeps the search from looking where nothing can be.
//!
//! Invariants, under the one lock:
//! - P1: each page of a segment is in exactly one state: header, used (a slab's
//!   or a large block's), free dirty, free purged, purging.
//! - P2: `dirty_pages`, `free_pages`, `purging_pages` equal the sums over the sets.
//! - P3: `free_hint[s]`, `dirty_hint[s]` are at least the longest runs of segment `s`.
//!
//! Pages are purged outside the lock: they are marked *purging* meanwhile. Advice
//! about huge pages is given under it.

pub(crate) mod decay;
mod huge;
#[cfg(all(test, loom))]
mod model;
mod purge;

use crate::bits::round_up;
use crate::class::Class;
use crate::config::{
    HUGE_PAGE_BYTES, LG_PAGE, MAX_SEGMENTS, PAGE_BYTES, RESERVE_SEGMENTS, SEGMENT_BYTES,
    SEGMENT_PAGES,
};
use crate::lock::{Guard, Lock};
use crate::meta::Meta;
use crate::os;
use crate::segment::{Segment, SegmentPages, header_pages};
use crate::settings::{HugePages, SETTINGS};
use crate::sync::const_unless_loom;
use core::ptr::{self, NonNull};
use decay::Decay;

/// A run of pages lent out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) start: NonNull<u8>,
    /// Whether every byte is known to be zero.
    pub(crate) zeroed: bool,
}

/// How many blocks there are, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockBooks {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl BlockBooks {
    pub(crate) const NONE: Self = Self { count: 0, bytes: 0 };

    /// Enters a block.
    #[inline]
    pub(crate) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// Takes a block out.
    #[inline]
    pub(crate) fn remove(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
}

/// The page heap's own counts, in pages but for the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageBooks {
    pub(crate) segments: usize,
    /// Reserved segments that nothing has been put into.
    pub(crate) spare_segments: usize,
    pub(crate) header_pages: usize,
    /// Of these, pages to which nothing was ever written.
    pub(crate) untouched_pages: usize,
    pub(crate) free_pages: usize,
    pub(crate) dirty_pages: usize,
    pub(crate) purging_pages: usize,
    /// Bytes of the segment table that are in use.
    pub(crate) table_bytes: usize,
    /// Of the pages in use, those of large blocks.
    pub(crate) blocks: BlockBooks,
}

impl PageBooks {
    pub(crate) fn mapped_bytes(&self) -> usize {
        (self.segments + self.spare_segments) * SEGMENT_BYTES
    }

    /// Pages of metadata that may be backed by memory.
    pub(crate) fn metadata_pages(&self) -> usize {
        self.header_pages - self.untouched_pages
    }

    /// Pages that are lent out.
    pub(crate) fn used_pages(&self) -> usize {
        self.segments * SEGMENT_PAGES - self.header_pages - self.free_pages - self.purging_pages
    }
}

/// Pages in use from which on another segment is taken to be filled: then the
/// part of it that a huge page backs in vain is a sixteenth of the heap at most.
const DENSE_FROM_PAGES: usize = 16 * HUGE_PAGE_BYTES / PAGE_BYTES;

struct State {
    /// The table: `MAX_SEGMENTS` places each, reserved when first needed.
    segments: *mut *mut Segment,
    sets: *mut *mut SegmentPages,
    free_hint: *mut u16,
    dirty_hint: *mut u16,
    /// Places in use, and free ones among them.
    len: usize,
    spare: [*mut u8; RESERVE_SEGMENTS],
    /// For the page sets; used under this lock only.
    meta: Meta,
    books: PageBooks,
    /// Segments for which huge pages have been asked for.
    advised: usize,
    /// Whether the system has refused to take an empty segment, since purges last tried.
    refused: bool,
    decay: Decay,
}

// SAFETY: the pointers lead to memory that the page heap owns.
unsafe impl Send for State {}

/// Which free pages a search looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Dirty,
    Any,
}

/// The page heap.
pub(crate) struct PageHeap {
    state: Lock<State>,
}

/// The page heap while its lock is held, for whoever changes entries of the page map, or the
/// books of blocks, along with it.
pub(crate) struct Held<'a> {
    heap: &'a PageHeap,
    state: Guard<'a, State>,
}

impl Held<'_> {
    /// As [`PageHeap::allocate`].
    pub(crate) fn allocate(&mut self, pages: usize, align_pages: usize) -> Option<Extent> {
        let unit = os::page_bytes() >> LG_PAGE;
        let (pages, align) = (round_up(pages, unit), align_pages.max(unit));
        let state = &mut *self.state;
        state
            .search(Want::Dirty, pages, align)
            .or_else(|| state.search(Want::Any, pages, align))
            .or_else(|| {
                state.grow()?;
                state.search(Want::Any, pages, align)
            })
    }

    /// Takes pages back, which are dirty from now on, and lets go.
    ///
    /// # Safety
    /// As for [`PageHeap::free`].
    pub(crate) unsafe fn free(mut self, start: NonNull<u8>, pages: usize) {
        let unit = os::page_bytes() >> LG_PAGE;
        self.state.put_back(start, round_up(pages, unit));
        if self.state.decay.time_ms() == Some(0) {
            drop(self.state);
            self.heap.purge_down_to(0, usize::MAX);
        }
    }

    /// As [`PageHeap::extend`].
    ///
    /// # Safety
    /// The run of `pages` at `start` is lent to the caller.
    pub(crate) unsafe fn extend(&mut self, start: NonNull<u8>, pages: usize, to: usize) -> bool {
        let unit = os::page_bytes() >> LG_PAGE;
        let (pages, to) = (round_up(pages, unit), round_up(to, unit));
        let first = Segment::page_of(start.addr().get());
        let Some(segment) = Segment::find(start.addr().get()) else { return false };
        let (behind, more) = (first + pages, to - pages);
        // SAFETY: the lock is held (S3).
        let dirty = segment.with_sets(|p| unsafe {
            let free = (*p).free.contains_all(behind, more);
            free.then(|| (*p).dirty.count_in(behind, more))
        });
        if let Some(dirty) = dirty {
            self.state.take_out(segment, behind, more, dirty);
        }
        dirty.is_some()
    }

    /// The books of large blocks, which the pages' owner keeps.
    pub(crate) fn blocks(&mut self) -> &mut BlockBooks {
        &mut self.state.books.blocks
    }
}

impl PageHeap {
    const_unless_loom! {
        pub(crate) fn new() -> PageHeap {
            PageHeap {
                state: Lock::new(State {
                    segments: ptr::null_mut(),
                    sets: ptr::null_mut(),
                    meta: Meta::new(),
                    free_hint: ptr::null_mut(),
                    dirty_hint: ptr::null_mut(),
                    len: 0,
                    spare: [ptr::null_mut(); RESERVE_SEGMENTS],
                    books: PageBooks {
                        segments: 0,
                        spare_segments: 0,
                        header_pages: 0,
                        untouched_pages: 0,
                        free_pages: 0,
                        dirty_pages: 0,
                        purging_pages: 0,
                        table_bytes: 0,
                        blocks: BlockBooks::NONE,
                    },
                    advised: 0,
                    refused: false,
                    decay: Decay::usual(),
                }),
            }
        }
    }

    /// Lends `pages` pages whose start is a multiple of `align_pages` (a power
    /// of two, at most a segment). `None` when memory is out. May call the OS.
    pub(crate) fn allocate(&self, pages: usize, align_pages: usize) -> Option<Extent> {
        self.hold().allocate(pages, align_pages)
    }

    /// Takes the lock.
    #[inline]
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { heap: self, state: self.state.lock() }
    }

    /// Hardened: enters that the marks of a lent run are written.
    pub(crate) fn touch_marks(&self, class: Class, segment: &Segment, first: usize, pages: usize) {
        let mut state = self.state.lock();
        // SAFETY: the lock is held (S3).
        let fewer = segment.with_sets(|p| unsafe { (*p).touch_marks(class, first, pages) });
        state.books.untouched_pages -= fewer;
    }

    /// Takes pages back. They are dirty from now on.
    ///
    /// # Safety
    /// The run was lent by [`PageHeap::allocate`], its entries are empty, and
    /// nobody uses it.
    pub(crate) unsafe fn free(&self, start: NonNull<u8>, pages: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.hold().free(start, pages) }
    }

    /// Sets the decay time: `Some(0)` purges at once, `None` never.
    pub(crate) fn set_decay(&self, time_ms: Option<u64>) {
        let mut state = self.state.lock();
        state.decay = Decay::new(time_ms);
        if time_ms == Some(0) {
            drop(state);
            self.purge_down_to(0, usize::MAX);
        }
    }

    /// The decay time in milliseconds.
    pub(crate) fn decay_ms(&self) -> Option<u64> {
        self.state.lock().decay.time_ms()
    }

    /// Lends the pages behind a run too, if they are free.
    ///
    /// # Safety
    /// The run of `pages` at `start` is lent to the caller.
    pub(crate) unsafe fn extend(&self, start: NonNull<u8>, pages: usize, to: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.hold().extend(start, pages, to) }
    }

    pub(crate) fn books(&self) -> PageBooks {
        let state = self.state.lock();
        state.books
    }

    /// Calls `f` with every segment, lowest first.
    ///
    /// # Safety
    /// The caller holds the lock by [`PageHeap::raw_lock`].
    pub(crate) unsafe fn each_segment_held(
        &self,
        mut f: impl FnMut(&'static Segment, &SegmentPages),
    ) {
        // SAFETY: the caller's promise.
        let state = unsafe { self.state.value_held() };
        for slot in 0..state.len {
            if let Some(segment) = state.segment(slot) {
                // SAFETY: the lock is held (S3).
                segment.with_sets(|p| f(segment, unsafe { &*p }));
            }
        }
    }

    /// The books, for a caller that holds the lock.
    ///
    /// # Safety
    /// As for [`PageHeap::each_segment_held`].
    pub(crate) unsafe fn books_held(&self) -> PageBooks {
        // SAFETY: the caller's promise.
        unsafe { self.state.value_held() }.books
    }

    /// In a forked child: pages that another thread of the parent was purging
    /// belong to nobody here. They are dirty.
    ///
    /// # Safety
    /// As for [`PageHeap::each_segment_held`]; the caller is the only thread.
    pub(crate) unsafe fn recover_in_child(&self) {
        // SAFETY: the caller's promise.
        let state = unsafe { self.state.value_held() };
        for slot in 0..state.len {
            let Some(segment) = state.segment(slot) else { continue };
            loop {
                // SAFETY: the lock is held (S3).
                let run = segment.with_sets(|p| unsafe { (*p).purging.next_run(0) });
                let Some((first, len)) = run else { break };
                state.end_purge(segment, first, len, false);
            }
        }
    }

    /// For the fork handlers and the audit.
    pub(crate) fn raw_lock(&self) {
        self.state.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`PageHeap::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.raw_unlock() }
    }
}

impl State {
    fn segment(&self, slot: usize) -> Option<&'static Segment> {
        debug_assert!(slot < self.len);
        // SAFETY: `slot < len`, and the table is there once `len > 0`.
        let at = unsafe { *self.segments.add(slot) };
        // SAFETY: a pointer in the table leads to an installed segment.
        unsafe { at.as_ref() }
    }

    fn hints(&mut self, want: Want) -> &mut [u16] {
        if self.len == 0 {
            return &mut [];
        }
        let at = if want == Want::Dirty { self.dirty_hint } else { self.free_hint };
        // SAFETY: the table has `len` places, written when they were taken.
        unsafe { core::slice::from_raw_parts_mut(at, self.len) }
    }

    fn search(&mut self, want: Want, pages: usize, align: usize) -> Option<Extent> {
        if want == Want::Dirty && self.books.dirty_pages < pages {
            return None;
        }
        let mut from = 0;
        loop {
            let ahead = &self.hints(want)[from..];
            let slot = from + ahead.iter().position(|&hint| usize::from(hint) >= pages)?;
            let segment = self.segment(slot)?;
            // SAFETY: the lock is held (S3).
            let (found, longest) = segment.with_sets(|p| unsafe {
                if want == Want::Dirty {
                    (*p).dirty.find_run(pages, align)
                } else {
                    (*p).free.find_run(pages, align)
                }
            });
            if let Some(first) = found {
                let dirty = if want == Want::Dirty {
                    pages
                } else {
                    // SAFETY: as above.
                    segment.with_sets(|p| unsafe { (*p).dirty.count_in(first, pages) })
                };
                self.take_out(segment, first, pages, dirty);
                return Some(Extent { start: segment.page_at(first), zeroed: dirty == 0 });
            }
            self.hints(want)[slot] = longest as u16;
            from = slot + 1;
        }
    }

    /// Takes free pages out of the sets, of which so many are dirty.
    fn take_out(&mut self, segment: &Segment, first: usize, pages: usize, dirty: usize) {
        // SAFETY: the lock is held (S3).
        segment.with_sets(|p| unsafe {
            debug_assert!((*p).free.contains_all(first, pages));
            debug_assert!((*p).dirty.count_in(first, pages) == dirty);
            (*p).free.remove(first, pages);
            (*p).dirty.remove(first, pages);
        });
        self.books.free_pages -= pages;
        self.books.dirty_pages -= dirty;
    }

    fn put_back(&mut self, start: NonNull<u8>, pages: usize) {
        let Some(segment) = Segment::find(start.addr().get()) else { return };
        let first = Segment::page_of(start.addr().get());
        self.insert_free(segment, first, pages, true);
    }

    fn insert_free(&mut self, segment: &Segment, first: usize, pages: usize, dirty: bool) {
        let slot = segment.slot as usize;
        self.books.free_pages += pages;
        let hint = &mut self.hints(Want::Any)[slot];
        // SAFETY: the lock is held (S3).
        segment.with_sets(|p| unsafe { (*p).free.insert(first, pages) });
        // A hint that is as long as a run can be needs no look, which would be a long one.
        if usize::from(*hint) < SEGMENT_PAGES - header_pages() {
            // SAFETY: as above.
            let run = segment.with_sets(|p| unsafe { (*p).free.run_around(first).1 });
            *hint = (*hint).max(run as u16);
        }
        if dirty {
            self.books.dirty_pages += pages;
            // SAFETY: as above.
            let run = segment.with_sets(|p| unsafe {
                (*p).dirty.insert(first, pages);
                (*p).dirty.run_around(first).1
            });
            let hint = &mut self.hints(Want::Dirty)[slot];
            *hint = (*hint).max(run as u16);
        }
    }

    /// Asks for huge pages for a segment before it is used, or for memory at once, if
    /// that is wanted. Its free pages are dirty then: they may be backed.
    fn advise(&mut self, segment: NonNull<Segment>) {
        let wish = match SETTINGS.huge_pages() {
            HugePages::System | HugePages::Blocks => None,
            HugePages::Dense if self.books.used_pages() < DENSE_FROM_PAGES => None,
            HugePages::Dense | HugePages::Always => Some(true),
            HugePages::Never => Some(false),
        };
        let start = segment.cast();
        // SAFETY: a segment of ours.
        let heard = |yes| unsafe { os::advise_huge_pages(start, SEGMENT_BYTES, yes) };
        let advised = wish.is_some_and(heard) && wish == Some(true);
        // SAFETY: as above.
        let backed = SETTINGS.prefault() && unsafe { os::populate(start, SEGMENT_BYTES) };
        if !(advised || backed) {
            return;
        }
        // One write may back all of a huge page: from now on all of it counts.
        // SAFETY: the segment is installed, and the lock held (S3).
        let (slot, pages) = unsafe {
            let segment = segment.as_ref();
            segment.with_sets(|p| {
                (*p).advised = advised;
                (*p).dirty = (*p).free.clone();
                (segment.slot as usize, (*p).free.count())
            })
        };
        self.advised += usize::from(advised);
        self.books.dirty_pages += pages;
        self.hints(Want::Dirty)[slot] = pages as u16;
    }

    /// Adds a segment.
    fn grow(&mut self) -> Option<()> {
        self.make_table()?;
        let slot = (0..self.len).find(|&slot| self.segment(slot).is_none()).unwrap_or(self.len);
        if slot == MAX_SEGMENTS {
            return None;
        }
        let sets = self.sets_for(slot)?;
        let base = self.next_segment()?;
        if slot == self.len {
            self.len += 1;
            let row = size_of::<*mut Segment>() + size_of::<*mut SegmentPages>();
            let row = row + 2 * size_of::<u16>() + size_of::<SegmentPages>();
            self.books.table_bytes = self.len * row;
        }
        // SAFETY: the segment is fresh.
        let segment = unsafe { Segment::install(base, slot, sets) };
        // SAFETY: `slot < len`.
        unsafe { *self.segments.add(slot) = segment.as_ptr() };
        let usable = SEGMENT_PAGES - header_pages();
        self.hints(Want::Any)[slot] = usable as u16;
        self.hints(Want::Dirty)[slot] = 0;
        self.books.segments += 1;
        self.books.header_pages += header_pages();
        // SAFETY: written just now; the lock is held (S3).
        self.books.untouched_pages += unsafe { sets.as_ref() }.untouched_pages();
        self.books.free_pages += usable;
        self.advise(segment);
        // SAFETY: installed.
        unsafe { segment.as_ref() }.guard();
        Some(())
    }

    /// The page sets of a place in the table, which keeps them for ever.
    fn sets_for(&mut self, slot: usize) -> Option<NonNull<SegmentPages>> {
        // SAFETY: `slot < MAX_SEGMENTS`, and the table is there.
        let at = unsafe { &mut *self.sets.add(slot) };
        if at.is_null() {
            *at = self.meta.take(size_of::<SegmentPages>())?.as_ptr().cast();
        }
        NonNull::new(*at)
    }

    fn make_table(&mut self) -> Option<()> {
        if !self.segments.is_null() {
            return Some(());
        }
        let row = size_of::<*mut Segment>() + size_of::<*mut SegmentPages>() + 2 * size_of::<u16>();
        let table = os::reserve_guarded(MAX_SEGMENTS * row, os::page_bytes())?;
        self.segments = table.as_ptr().cast();
        // SAFETY: the four columns lie behind each other in the reservation.
        self.sets = unsafe { self.segments.add(MAX_SEGMENTS) }.cast();
        // SAFETY: as above.
        self.free_hint = unsafe { self.sets.add(MAX_SEGMENTS) }.cast();
        // SAFETY: as above.
        self.dirty_hint = unsafe { self.free_hint.add(MAX_SEGMENTS) };
        Some(())
    }

    fn next_segment(&mut self) -> Option<NonNull<u8>> {
        if self.books.spare_segments == 0 {
            let (start, count) = os::reserve(RESERVE_SEGMENTS * SEGMENT_BYTES, SEGMENT_BYTES)
                .map(|start| (start, RESERVE_SEGMENTS))
                .or_else(|| Some((os::reserve(SEGMENT_BYTES, SEGMENT_BYTES)?, 1)))?;
            for i in 0..count {
                // The last is used first: put the lowest address there.
                let offset = (count - 1 - i) * SEGMENT_BYTES;
                self.spare[i] = start.as_ptr().wrapping_add(offset);
            }
            self.books.spare_segments = count;
        }
        self.books.spare_segments -= 1;
        NonNull::new(self.spare[self.books.spare_segments])
    }
}

/// The number of pages that hold `bytes`.
#[inline]
pub(crate) const fn pages_for(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests;
