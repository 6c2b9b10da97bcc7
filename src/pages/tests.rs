//! The page heap beside a plain list of what it has lent, compared after every
//! step; and with a system that refuses.

use super::purge::TICK_PAGES;
use super::*;
use crate::bits::PageSet;
use crate::config::DECAY_MS;
use crate::os::fake::{failing_after, failing_at};
use crate::segment::first_page;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Allocate {
        pages: usize,
        lg_align: u32,
    },
    /// Frees the run at this place in the list of those lent.
    Free {
        at: usize,
    },
    Extend {
        at: usize,
        by: usize,
    },
    Purge,
    Tick {
        ms: u64,
    },
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let most = *g.choose(&[4, 16, 16, 64, 256]).unwrap_or(&4);
        let pages = usize::arbitrary(g) % most + 1;
        match u8::arbitrary(g) % 16 {
            0..=6 => Self::Allocate {
                pages,
                lg_align: if bool::arbitrary(g) { 0 } else { u32::arbitrary(g) % 9 },
            },
            7..=11 => Self::Free { at: usize::arbitrary(g) },
            12..=13 => Self::Extend { at: usize::arbitrary(g), by: pages },
            14 => Self::Tick { ms: u64::arbitrary(g) % 12_000 },
            _ => Self::Purge,
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match *self {
            Self::Allocate { pages, lg_align } => {
                Box::new((pages - 1, lg_align).shrink().map(|(p, lg_align)| Self::Allocate {
                    pages: p + 1,
                    lg_align: lg_align.min(8),
                }))
            }
            Self::Free { at } => Box::new(at.shrink().map(|at| Self::Free { at })),
            Self::Extend { at, by } => {
                Box::new((at, by - 1).shrink().map(|(at, by)| Self::Extend { at, by: by + 1 }))
            }
            Self::Tick { ms } => Box::new(ms.shrink().map(|ms| Self::Tick { ms })),
            Self::Purge => Box::new(std::iter::empty()),
        }
    }
}

fn plain(set: &PageSet) -> Vec<bool> {
    (0..SEGMENT_PAGES).map(|page| set.count_in(page, 1) == 1).collect()
}

/// Whether `set` has a run of `pages` that starts at a multiple of `align`.
fn has_run(set: &[bool], pages: usize, align: usize) -> bool {
    let mut run = 0;
    for page in (0..set.len()).rev() {
        run = if set[page] { run + 1 } else { 0 };
        if run >= pages && page % align == 0 {
            return true;
        }
    }
    false
}

fn longest(set: &[bool]) -> usize {
    set.split(|&b| !b).map(<[bool]>::len).max().unwrap_or(0)
}

/// A page heap of its own, and what it has lent.
struct Model {
    heap: PageHeap,
    /// Address to length in pages.
    lent: BTreeMap<usize, usize>,
    now_ms: u64,
    ticked: bool,
}

impl Model {
    fn new() -> Self {
        Self { heap: PageHeap::new(), lent: BTreeMap::new(), now_ms: 1, ticked: false }
    }

    /// Free and dirty pages of each segment.
    fn sets(&self) -> Vec<(Vec<bool>, Vec<bool>)> {
        let mut out = Vec::new();
        self.heap.raw_lock();
        // SAFETY: the lock is held.
        unsafe {
            self.heap
                .each_segment_held(|_, sets| out.push((plain(&sets.free), plain(&sets.dirty))));
        }
        // SAFETY: as above.
        unsafe { self.heap.raw_unlock() };
        out
    }

    /// Recounts everything (P1, P2, P3).
    fn check(&self) {
        let state = self.heap.state.lock();
        let mut counted = PageBooks {
            segments: 0,
            header_pages: 0,
            untouched_pages: 0,
            free_pages: 0,
            dirty_pages: 0,
            ..state.books
        };
        let mut used = 0;
        for slot in 0..state.len {
            let Some(segment) = state.segment(slot) else { continue };
            assert_eq!(segment.slot as usize, slot);
            let base = segment.base().addr().get();
            assert!(Segment::find(base + 1).is_some_and(|s| ptr::eq(s, segment)), "off the map");
            // SAFETY: the lock is held (S3).
            let (free, dirty, purging) = segment.with_sets(|p| unsafe {
                (plain(&(*p).free), plain(&(*p).dirty), (*p).purging.count())
            });
            assert_eq!(purging, 0, "nobody is purging");
            let mut states = vec![0; SEGMENT_PAGES];
            states[..first_page()].fill(1);
            states[SEGMENT_PAGES - (header_pages() - first_page())..].fill(1);
            for (&start, &pages) in self.lent.range(base..base + SEGMENT_BYTES) {
                let first = Segment::page_of(start);
                states[first..first + pages].iter_mut().for_each(|n| *n += 1);
                used += pages;
            }
            for page in 0..SEGMENT_PAGES {
                let n = states[page] + usize::from(free[page]);
                assert_eq!(n, 1, "P1: page {page} has {n} owners");
                assert!(free[page] || !dirty[page], "P1: page {page} is dirty and not free");
            }
            // SAFETY: `slot < len`.
            let hints = unsafe { (*state.free_hint.add(slot), *state.dirty_hint.add(slot)) };
            assert!(usize::from(hints.0) >= longest(&free), "P3: {}", hints.0);
            assert!(usize::from(hints.1) >= longest(&dirty), "P3: {}", hints.1);
            counted.segments += 1;
            counted.header_pages += header_pages();
            // SAFETY: as above.
            counted.untouched_pages += segment.with_sets(|p| unsafe { (*p).untouched_pages() });
            counted.free_pages += free.iter().filter(|&&b| b).count();
            counted.dirty_pages += dirty.iter().filter(|&&b| b).count();
        }
        assert_eq!(state.books, counted, "P2");
        assert_eq!(state.books.purging_pages, 0);
        assert_eq!(state.books.used_pages(), used);
        assert_eq!(used, self.lent.values().sum::<usize>(), "a run lies in no segment");
    }

    /// `false` when memory was refused.
    fn allocate(&mut self, pages: usize, align: usize) -> bool {
        let before = self.sets();
        let reusable = before.iter().any(|(_, dirty)| has_run(dirty, pages, align));
        let room = before.iter().any(|(free, _)| has_run(free, pages, align));
        let Some(Extent { start, zeroed }) = self.heap.allocate(pages, align) else {
            assert!(!room, "refused {pages} pages, though there is room");
            return false;
        };
        let at = start.addr().get();
        assert_eq!(at % (align * PAGE_BYTES), 0, "not aligned to {align} pages");
        assert!(!(reusable && zeroed), "purged pages were taken before dirty ones");
        let below = self.lent.range(..at).next_back();
        assert!(below.is_none_or(|(&s, &n)| s + n * PAGE_BYTES <= at), "overlaps the one below");
        let above = self.lent.range(at..).next();
        assert!(above.is_none_or(|(&s, _)| at + pages * PAGE_BYTES <= s), "overlaps the one above");
        // SAFETY: the run is ours.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), pages * PAGE_BYTES) };
        if zeroed {
            assert!(bytes.iter().all(|&b| b == 0), "called zero, but is not");
        }
        mark(bytes);
        self.lent.insert(at, pages);
        true
    }

    fn nth(&self, at: usize) -> Option<(usize, usize)> {
        let n = at.checked_rem(self.lent.len())?;
        self.lent.iter().nth(n).map(|(&start, &pages)| (start, pages))
    }

    fn free(&mut self, at: usize) {
        let Some((start, pages)) = self.nth(at) else { return };
        let block = NonNull::new(ptr::with_exposed_provenance_mut(start)).expect("not null");
        check_mark(block, pages);
        self.lent.remove(&start);
        // SAFETY: lent, without entries, and used no more.
        unsafe { self.heap.free(block, pages) };
    }

    fn extend(&mut self, at: usize, by: usize) {
        let Some((start, pages)) = self.nth(at) else { return };
        let first = Segment::page_of(start);
        let to = pages + by;
        let block = NonNull::new(ptr::with_exposed_provenance_mut(start)).expect("not null");
        // SAFETY: the lock is held.
        let free = Segment::find(start).expect("a segment").with_sets(|p| {
            let _lock = self.heap.state.lock();
            // SAFETY: the lock is held (S3).
            unsafe { plain(&(*p).free) }
        });
        let can = first + to <= SEGMENT_PAGES && free[first + pages..first + to].iter().all(|&b| b);
        // SAFETY: the run is lent to us.
        assert_eq!(unsafe { self.heap.extend(block, pages, to) }, can);
        check_mark(block, pages);
        if can {
            // SAFETY: the longer run is ours now.
            mark(unsafe { core::slice::from_raw_parts_mut(block.as_ptr(), to * PAGE_BYTES) });
            self.lent.insert(start, to);
        }
    }

    fn purge(&mut self) {
        let dirty = self.heap.books().dirty_pages;
        assert_eq!(self.heap.purge_all(), dirty * PAGE_BYTES);
        assert_eq!(self.heap.books().dirty_pages, 0);
        if self.lent.is_empty() {
            assert!(self.heap.books().segments <= 1, "an empty segment was kept");
        }
    }

    fn tick(&mut self, ms: u64) {
        let before = self.heap.books();
        self.now_ms += ms;
        while self.heap.tick(self.now_ms) {}
        let after = self.heap.books();
        assert!(after.dirty_pages <= before.dirty_pages);
        if self.ticked && ms > DECAY_MS + DECAY_MS / 16 {
            assert_eq!(after.dirty_pages, 0, "its time was over");
        }
        self.ticked = true;
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Allocate { pages, lg_align } => assert!(self.allocate(pages, 1 << lg_align)),
            Op::Free { at } => self.free(at),
            Op::Extend { at, by } => self.extend(at, by),
            Op::Purge => self.purge(),
            Op::Tick { ms } => self.tick(ms),
        }
        self.check();
    }

    /// Gives everything back, and checks that it can be.
    fn end(&mut self) {
        while !self.lent.is_empty() {
            self.free(0);
        }
        self.check();
        self.purge();
        self.check();
        assert_eq!(self.heap.books().used_pages(), 0);
    }
}

/// A page heap stays for ever; that of a test must not.
impl Drop for Model {
    fn drop(&mut self) {
        let state = self.heap.state.lock();
        for slot in 0..state.len {
            if let Some(segment) = state.segment(slot) {
                segment.uninstall();
                // SAFETY: the test is over, nobody uses it.
                unsafe { os::release(segment.base(), SEGMENT_BYTES) };
            }
        }
        for &spare in &state.spare[..state.books.spare_segments] {
            let spare = NonNull::new(spare).expect("a spare segment");
            // SAFETY: nothing was ever put into it.
            unsafe { os::release(spare, SEGMENT_BYTES) };
        }
        if let Some(table) = NonNull::new(state.segments) {
            let bytes = MAX_SEGMENTS * (size_of::<*mut Segment>() + 2 * size_of::<u16>());
            // SAFETY: reserved by `make_table` with this size.
            unsafe { os::release(table.cast(), bytes) };
        }
    }
}

/// Writes to every page, so that memory that is called zero without being so,
/// or is lost, is found out.
fn mark(bytes: &mut [u8]) {
    for (i, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        page[i % PAGE_BYTES] = 0xA5;
        page[PAGE_BYTES - 1] = i as u8 | 1;
    }
}

fn check_mark(start: NonNull<u8>, pages: usize) {
    // SAFETY: the run is lent to the caller.
    let bytes = unsafe { core::slice::from_raw_parts(start.as_ptr(), pages * PAGE_BYTES) };
    for (i, page) in bytes.chunks(PAGE_BYTES).enumerate() {
        assert_eq!(page[i % PAGE_BYTES], 0xA5, "page {i} was purged or overwritten");
        assert_eq!(page[PAGE_BYTES - 1], i as u8 | 1, "page {i} was purged or overwritten");
    }
}

#[test]
fn agrees_with_a_plain_list() {
    fn property(ops: Vec<Op>) -> bool {
        let mut model = Model::new();
        ops.iter().for_each(|op| model.step(op));
        model.end();
        true
    }
    QuickCheck::new().tests(60).quickcheck(property as fn(Vec<Op>) -> bool);
}

/// A thread that has something else to do gives back 16 MiB at a time.
#[test]
fn a_tick_ends_soon() {
    let mut model = Model::new();
    for _ in 0..24 {
        assert!(model.allocate(500, 1));
    }
    assert!(!model.heap.tick(1));
    while !model.lent.is_empty() {
        model.free(0);
    }
    let dirty = model.heap.books().dirty_pages;
    assert_eq!(dirty, 12_000);
    for rest in [12_000 - TICK_PAGES, 12_000 - 2 * TICK_PAGES, 0] {
        let more = model.heap.tick(10 * DECAY_MS);
        assert_eq!((model.heap.books().dirty_pages, more), (rest, rest > 0));
        model.check();
    }
    model.end();
}

/// Fills about six segments, empties them in two ways, purges and decays.
/// Returns how many allocations were refused.
fn workload(model: &mut Model) -> usize {
    let mut refused = 0;
    for i in 0..24 {
        refused += usize::from(!model.allocate(250 - i % 3, 1 << (i % 4)));
        model.check();
        if i % 5 == 4 {
            model.free(i);
            model.extend(i, 3);
            model.check();
        }
    }
    for i in 0..12 {
        model.free(i * 7);
    }
    model.check();
    model.now_ms += 1;
    model.heap.tick(model.now_ms);
    model.now_ms += DECAY_MS / 2;
    model.heap.tick(model.now_ms);
    model.check();
    for i in 0..8 {
        refused += usize::from(!model.allocate(i + 1, 1));
    }
    while !model.lent.is_empty() {
        model.free(0);
    }
    model.check();
    model.heap.purge_all();
    model.check();
    refused += usize::from(!model.allocate(40, 1));
    model.check();
    refused
}

/// System calls that the workload makes, and some.
const CALLS: u64 = 70;

#[test]
fn loses_nothing_when_the_system_refuses_everything_from_some_call_on() {
    let mut some = 0;
    for n in 0..CALLS {
        let mut model = Model::new();
        let refused = failing_after(n, || workload(&mut model));
        some += usize::from(refused > 0);
        assert!(n > 0 || refused == 33, "nothing can be had without the system");
        model.check();
        // The system is kind again.
        assert!(model.allocate(256, 256));
        model.check();
        model.end();
    }
    assert!(some >= 2, "the workload never ran out");
}

#[test]
fn loses_nothing_when_the_system_refuses_one_call() {
    for n in 0..CALLS {
        let mut model = Model::new();
        let refused = failing_at(n, || workload(&mut model));
        // A table or a segment refused is asked for again, by the next one.
        assert!(refused <= 1, "{refused} refused though the system gave in again");
        model.check();
        model.end();
    }
}

#[test]
fn a_refused_purge_leaves_pages_dirty() {
    let mut model = Model::new();
    for _ in 0..10 {
        assert!(model.allocate(100, 1));
    }
    for i in 0..5 {
        model.free(i);
    }
    let before = model.heap.books();
    assert_eq!(before.dirty_pages, 500);
    let purged = failing_after(0, || model.heap.purge_all());
    assert_eq!(purged, 0);
    assert_eq!(model.heap.books(), before);
    model.check();
    failing_after(0, || {
        model.heap.tick(1);
        model.heap.tick(10 * DECAY_MS);
    });
    assert_eq!(model.heap.books(), before);
    model.check();
    // One run in five is refused: the others go.
    let purged = failing_at(2, || model.heap.purge_all());
    assert_eq!(purged, 400 * PAGE_BYTES);
    assert_eq!(model.heap.books().dirty_pages, 100);
    model.check();
    model.purge();
    model.end();
}

#[test]
fn a_refused_release_keeps_the_segment() {
    let mut model = Model::new();
    for _ in 0..8 {
        assert!(model.allocate(900, 1));
    }
    while !model.lent.is_empty() {
        model.free(0);
    }
    assert_eq!(model.heap.books().segments, 8);
    // Each purge is followed by a release. The first one that is tried, of the
    // last segment, is refused: that segment is the one that stays.
    let last = |model: &Model| model.heap.state.lock().segment(7).is_some();
    failing_at(1, || model.heap.purge_all());
    assert_eq!(model.heap.books().segments, 1);
    assert!(last(&model));
    model.check();
    // The rest of its slots are used again.
    for _ in 0..8 {
        assert!(model.allocate(900, 1));
        model.check();
    }
    assert_eq!(model.heap.books().segments, 8);
    model.end();
    assert!(!last(&model));
}

#[test]
fn a_refused_release_is_tried_again() {
    let mut model = Model::new();
    assert!(model.allocate(900, 1) && model.allocate(900, 1));
    model.free(1);
    // The purge is followed by a release.
    failing_at(1, || model.heap.purge_all());
    let books = model.heap.books();
    assert_eq!((books.segments, books.dirty_pages), (2, 0));
    model.check();
    model.heap.purge_all();
    assert_eq!(model.heap.books().segments, 1);
    model.check();
    model.end();
}

#[test]
fn fills_the_lowest_segment_first_and_drains_the_others() {
    let mut model = Model::new();
    for _ in 0..40 {
        assert!(model.allocate(100, 1));
    }
    let in_one = (SEGMENT_PAGES - header_pages()) / 100;
    assert_eq!(model.heap.books().segments, 40usize.div_ceil(in_one));
    let places: Vec<usize> = model.lent.keys().copied().collect();
    for start in places.iter().step_by(2) {
        let at = model.lent.keys().position(|s| s == start).expect("lent");
        model.free(at);
    }
    // The table's order is that of addresses here: the holes are filled from
    // the lowest one on.
    for start in places.iter().step_by(2) {
        assert!(model.allocate(100, 1));
        assert!(model.lent.contains_key(start));
    }
    model.end();
}
