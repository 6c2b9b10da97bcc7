//! Purging: dirty pages go back to the OS, and wholly purged segments with them.

use super::{PageHeap, State, Want};
use crate::config::{LG_PAGE, MAX_SEGMENTS, SEGMENT_BYTES, SEGMENT_PAGES};
use crate::os;
use crate::segment::{Segment, header_pages};
use core::ptr::{self, NonNull};

/// Runs that one round of purging takes out of a segment.
const PURGE_BATCH: usize = 64;
/// Pages that go with one tick at most: 16 MiB, two milliseconds' work for a thread that
/// has something else to do.
pub(super) const TICK_PAGES: usize = 16 << 20 >> LG_PAGE;

impl PageHeap {
    /// Gives everything that is free and dirty back to the OS, and whole
    /// segments with it. Returns the bytes. Calls the OS.
    pub(crate) fn purge_all(&self) -> usize {
        self.release_refused();
        let bytes = self.purge_down_to(0, usize::MAX);
        let mut state = self.state.lock();
        let dirty = state.books.dirty_pages;
        state.decay.reset(dirty);
        bytes
    }

    /// Lets the decay clock run: purges what its time has come, or a part of it. Returns
    /// whether there is more. Cheap when nothing is due. May call the OS.
    pub(crate) fn tick(&self, now_ms: u64) -> bool {
        let Some(mut state) = self.state.try_lock() else { return false };
        let dirty = state.books.dirty_pages;
        let Some(limit) = state.decay.advance(now_ms, dirty) else { return false };
        if limit == dirty {
            return false;
        }
        if !state.are_worth_huge_pages(dirty - limit) && limit > 0 {
            state.decay.put_off(dirty);
            return false;
        }
        drop(state);
        let purged = self.purge_down_to(limit, TICK_PAGES) >> LG_PAGE;
        let mut state = self.state.lock();
        let left = state.books.dirty_pages;
        let more = purged >= TICK_PAGES && left > limit;
        if more {
            state.decay.go_on(left, limit);
        }
        more
    }

    /// Purges until at most `limit` pages are dirty, or `most` pages are purged;
    /// from the top of the table, a batch of runs at a time, outside the lock.
    /// Returns the bytes purged. Calls the OS.
    pub(crate) fn purge_down_to(&self, limit: usize, most: usize) -> usize {
        let (mut purged_pages, mut slot) = (0, MAX_SEGMENTS);
        while purged_pages < most {
            let Some(dirty) = self.state.lock().last_dirty(slot, limit) else { break };
            slot = dirty;
            let mut from = 0;
            loop {
                let mut state = self.state.lock();
                let Some(segment) = state.segment(slot) else { break };
                let room = state
                    .books
                    .dirty_pages
                    .saturating_sub(limit)
                    .min(most.saturating_sub(purged_pages));
                let (runs, count, next) = state.begin_purge(segment, from, room);
                if count > 0 {
                    state.take_advice_back(segment);
                }
                drop(state);
                if count == 0 {
                    break;
                }
                from = next;
                let mut done = [false; PURGE_BATCH];
                for (run, done) in runs[..count].iter().zip(&mut done) {
                    let at = segment.page_at(usize::from(run.0));
                    // SAFETY: the run is marked purging, so it is ours alone.
                    *done = unsafe { os::purge(at, usize::from(run.1) << LG_PAGE) };
                }
                let mut state = self.state.lock();
                for (&(first, len), done) in runs[..count].iter().zip(done) {
                    state.end_purge(segment, first.into(), len.into(), done);
                    purged_pages += if done { usize::from(len) } else { 0 };
                }
                if next >= SEGMENT_PAGES {
                    break;
                }
            }
            self.state.lock().release_if_empty(slot);
        }
        purged_pages << LG_PAGE
    }

    /// Gives back the empty segments that the system has refused to take before: it may
    /// have had no mapping left to split another one by.
    fn release_refused(&self) {
        let mut state = self.state.lock();
        let slots = if core::mem::take(&mut state.refused) { state.len } else { 0 };
        drop(state);
        for slot in 0..slots {
            self.state.lock().release_if_empty(slot);
        }
    }
}

impl State {
    /// The last segment below `slot` that may have dirty pages, if there are
    /// more than `limit` in all.
    fn last_dirty(&mut self, slot: usize, limit: usize) -> Option<usize> {
        if self.books.dirty_pages <= limit {
            return None;
        }
        let hints = self.hints(Want::Dirty);
        hints[..slot.min(hints.len())].iter().rposition(|&hint| hint > 0)
    }

    /// Marks up to `room` dirty pages of a segment, from page `from` on, as
    /// being purged. Returns the runs, how many, and where to go on.
    pub(super) fn begin_purge(
        &mut self,
        segment: &Segment,
        from: usize,
        room: usize,
    ) -> ([(u16, u16); PURGE_BATCH], usize, usize) {
        let (mut runs, mut count, mut at, mut room) = ([(0, 0); PURGE_BATCH], 0, from, room);
        let unit = os::page_bytes() >> LG_PAGE;
        while count < PURGE_BATCH && room > 0 {
            // SAFETY: the lock is held (S3).
            let run = segment.with_sets(|p| unsafe { (*p).dirty.next_run(at) });
            let Some((first, len)) = run else {
                if from == 0 && count == 0 {
                    self.hints(Want::Dirty)[segment.slot as usize] = 0;
                }
                return (runs, count, SEGMENT_PAGES);
            };
            let len = len.min(room.next_multiple_of(unit));
            self.take_out(segment, first, len, len);
            // SAFETY: as above.
            segment.with_sets(|p| unsafe { (*p).purging.insert(first, len) });
            self.books.purging_pages += len;
            runs[count] = (first as u16, len as u16);
            count += 1;
            at = first + len;
            room = room.saturating_sub(len);
        }
        (runs, count, at)
    }

    pub(super) fn end_purge(&mut self, segment: &Segment, first: usize, len: usize, purged: bool) {
        // SAFETY: the lock is held (S3).
        segment.with_sets(|p| unsafe { (*p).purging.remove(first, len) });
        self.books.purging_pages -= len;
        self.insert_free(segment, first, len, !purged);
    }

    /// Gives a segment back whose pages are all free and purged. One stays, so
    /// that a process at rest does not reserve and release in turn.
    pub(super) fn release_if_empty(&mut self, slot: usize) {
        if let Some(segment) = self.empty_segment(slot)
            && self.books.segments > 1
        {
            self.release(segment, slot);
        }
    }

    /// The segment at that place, if its pages are all free and purged.
    pub(super) fn empty_segment(&self, slot: usize) -> Option<&'static Segment> {
        let segment = self.segment(slot)?;
        // SAFETY: the lock is held (S3).
        let empty = segment.with_sets(|p| unsafe {
            (*p).free.count() == SEGMENT_PAGES - header_pages() && (*p).dirty.count() == 0
        });
        empty.then_some(segment)
    }

    pub(super) fn release(&mut self, segment: &'static Segment, slot: usize) {
        let header = header_pages();
        // SAFETY: the lock is held (S3).
        let (untouched, marked) =
            segment.with_sets(|p| unsafe { ((*p).untouched_pages(), (*p).marked) });
        self.take_advice_back(segment);
        segment.uninstall();
        // SAFETY: nothing in it is used, and it is off the map.
        let released = unsafe { os::release(segment.base(), SEGMENT_BYTES) };
        if !released {
            if let Some(sets) = NonNull::new(segment.sets()) {
                // SAFETY: the segment is mapped and its pages free; S1 again.
                let segment = unsafe { Segment::install(segment.base(), slot, sets).as_ref() };
                // What was written is still there.
                // SAFETY: the lock is held (S3).
                segment.with_sets(|p| unsafe { (*p).marked = marked });
                self.refused = true;
            }
            return;
        }
        // SAFETY: `slot < len`.
        unsafe { *self.segments.add(slot) = ptr::null_mut() };
        self.hints(Want::Any)[slot] = 0;
        self.hints(Want::Dirty)[slot] = 0;
        self.books.segments -= 1;
        self.books.header_pages -= header;
        self.books.untouched_pages -= untouched;
        self.books.free_pages -= SEGMENT_PAGES - header;
    }
}
