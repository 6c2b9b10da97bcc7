//! Huge pages: which of them are worth splitting.
//!
//! A kernel that backs memory with huge pages splits one when a part of it is given
//! back, and what is left of it costs more address translations from then on. So
//! where it does that, by itself or because a segment was *advised*, holes are
//! punched only in huge pages of which at least half could go. A *survey* counts
//! the holes first. And where huge pages were asked for, decay waits until half of one
//! is due: a segment that is being filled would lose them for a page or two.

use super::{PageHeap, State};
use crate::config::SEGMENT_BYTES;
use crate::os;
use crate::segment::{HUGE_PAGES, PAGES_PER_HUGE, Segment};

impl PageHeap {
    /// Begins a survey: no holes are known.
    pub(crate) fn forget_holes(&self) {
        let state = self.state.lock();
        for segment in (0..state.len).filter_map(|slot| state.segment(slot)) {
            // SAFETY: the lock is held (S3).
            segment.with_sets(|p| unsafe { (*p).holes = [0; HUGE_PAGES] });
        }
    }

    /// Takes note of holes in a slab that starts at `address`: a bit for each page.
    pub(crate) fn note_holes(&self, address: usize, pages: u64) {
        let _state = self.state.lock();
        let Some(segment) = Segment::find(address) else { return };
        let first = Segment::page_of(address);
        for page in (0..64).filter(|page| pages >> page & 1 == 1) {
            let huge = (first + page) / PAGES_PER_HUGE;
            // SAFETY: the lock is held (S3).
            segment.with_sets(|p| unsafe {
                if let Some(holes) = (*p).holes.get_mut(huge) {
                    *holes += 1;
                }
            });
        }
    }

    /// Whether huge pages have been asked for anywhere.
    pub(crate) fn has_advised(&self) -> bool {
        self.state.lock().advised > 0
    }

    /// Whether every huge page that `pages` pages from `address` on lie in, if it is
    /// one, could do without half of its pages, by the last survey and what is free
    /// now. If so, huge pages are not asked for there any more.
    pub(crate) fn is_sparse(&self, address: usize, pages: usize, everywhere: bool) -> bool {
        let mut state = self.state.lock();
        let first = Segment::page_of(address);
        let Some(segment) = Segment::find(address) else { return false };
        // SAFETY: the lock is held (S3).
        if !everywhere && !segment.with_sets(|p| unsafe { (*p).advised }) {
            return true;
        }
        let sparse = (first / PAGES_PER_HUGE..=(first + pages.max(1) - 1) / PAGES_PER_HUGE)
            .all(|huge| state.could_go(segment, huge) >= PAGES_PER_HUGE / 2);
        if sparse {
            state.take_advice_back(segment);
        }
        sparse
    }
}

impl State {
    /// Whether giving so many pages back is worth the huge pages that it may cost.
    pub(super) fn are_worth_huge_pages(&self, pages: usize) -> bool {
        self.advised == 0 || pages >= PAGES_PER_HUGE / 2
    }

    /// Asks for small pages where huge ones had been asked for: otherwise the system
    /// would fill what is given back, by and by.
    pub(super) fn take_advice_back(&mut self, segment: &Segment) {
        // SAFETY: the lock is held (S3).
        if segment.with_sets(|p| unsafe { core::mem::take(&mut (*p).advised) }) {
            self.advised -= 1;
            // SAFETY: a segment of ours.
            unsafe { os::advise_huge_pages(segment.base(), SEGMENT_BYTES, false) };
        }
    }

    fn could_go(&self, segment: &Segment, huge: usize) -> usize {
        // SAFETY: the lock is held (S3).
        segment.with_sets(|p| unsafe {
            let free = (*p).free.count_in(huge * PAGES_PER_HUGE, PAGES_PER_HUGE);
            free + (*p).holes.get(huge).map_or(0, |&n| n.into())
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::config::{DECAY_MS, SEGMENT_PAGES};
    use crate::os::fake::with_huge_pages;
    use crate::pages::{PageHeap, Want};
    use crate::segment::{PAGES_PER_HUGE, Segment, header_pages};
    use crate::{Tallow, faults, purge, stats};
    use core::alloc::{GlobalAlloc, Layout};

    const COUNT: u64 = 32 << 10;
    const TALLOW: Tallow = Tallow::new();

    /// A segment, advised or not, of which one page and whatever is not dirty are in use.
    fn heap_of_one_segment(advised: bool, dirty: usize) -> PageHeap {
        let heap = PageHeap::new();
        let room = SEGMENT_PAGES - header_pages();
        let it = heap.allocate(room - dirty, 1).expect("memory");
        let segment = Segment::find(it.start.addr().get()).expect("a segment");
        let mut state = heap.state.lock();
        // SAFETY: the lock is held (S3).
        let free = segment.with_sets(|p| unsafe {
            (*p).advised = advised;
            (*p).dirty = (*p).free.clone();
            (*p).free.count()
        });
        assert_eq!(free, dirty);
        state.advised = advised.into();
        state.books.dirty_pages = free;
        state.hints(Want::Dirty)[segment.slot as usize] = free as u16;
        drop(state);
        heap
    }

    /// Pages that go with the first step of decay, until all have gone.
    fn first_step_of_decay(heap: &PageHeap) -> usize {
        let (mut dirty, mut first) = (heap.books().dirty_pages, None);
        let mut now = 1;
        heap.tick(now);
        while dirty > 0 {
            now += DECAY_MS / 64 + 1;
            assert!(now < DECAY_MS * 2, "{dirty} pages are left");
            heap.tick(now);
            let left = heap.books().dirty_pages;
            if left < dirty {
                // Advice goes with them.
                first.get_or_insert(dirty - left);
            }
            dirty = left;
        }
        assert!(!heap.has_advised(), "what is half empty is not to be filled again");
        first.expect("some pages")
    }

    #[test]
    fn decay_takes_no_huge_page_for_less_than_half_of_one() {
        let most = SEGMENT_PAGES - header_pages() - 1;
        let half = PAGES_PER_HUGE / 2;
        assert!(first_step_of_decay(&heap_of_one_segment(false, most)) < half);
        let first = first_step_of_decay(&heap_of_one_segment(true, most));
        assert!((half..most).contains(&first), "{first} pages of {most}");
        // Fewer than that go when the time of all has come.
        let few = half / 2;
        assert_eq!(first_step_of_decay(&heap_of_one_segment(true, few)), few);
    }

    /// The page of a block, counted in groups of eight.
    fn page(block: *mut u8) -> usize {
        (block.addr() >> 12) % 8
    }

    #[test]
    fn huge_pages_are_left_whole_until_half_could_go() {
        let _alone = faults::alone();
        let layout = Layout::from_size_align(512, 8).expect("a valid layout");
        let free = |blocks: &mut Vec<*mut u8>, goes: &dyn Fn(usize) -> bool| {
            blocks.retain(|&block| {
                if goes(page(block)) {
                    // SAFETY: allocated below with this layout, and forgotten.
                    unsafe { TALLOW.dealloc(block, layout) };
                }
                !goes(page(block))
            });
        };
        let before = stats().punched_bytes;
        let punched = || stats().punched_bytes - before.min(stats().punched_bytes);
        // SAFETY: the layout has a size.
        let mut blocks: Vec<_> = (0..COUNT).map(|_| unsafe { TALLOW.alloc(layout) }).collect();
        free(&mut blocks, &|page| page == 0);
        let holes = COUNT * 512 / 8;
        with_huge_pages(purge);
        assert!(punched() < holes / 2, "{} of {holes} although they are dense", punched());
        purge();
        assert!(punched() > holes / 4 * 3, "{} of {holes} on small pages", punched());
        free(&mut blocks, &|page| page < 7);
        with_huge_pages(purge);
        assert!(punched() > holes * 5, "{} of {} although they are sparse", punched(), holes * 7);
        free(&mut blocks, &|_| true);
        purge();
        assert!(crate::audit().is_ok());
    }
}
