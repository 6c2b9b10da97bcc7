//! Loom models of the page heap: decay and purging against reuse.
//!
//! A page has a cell: its owner writes to it, and so does the system when it takes the
//! memory back. The cell also says whether the page holds anything, so that an extent
//! that is called zeroed is.

mod map;

use super::{PageHeap, Want};
use crate::config::{LG_PAGE, SEGMENT_BYTES};
use crate::model::os::on_purge;
use crate::model::{FEWER, model, model_with, side_by_side, twin};
use crate::os;
use crate::segment::{Segment, header_pages};
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::thread;

/// Watched pages behind the header of a segment.
const PAGES: usize = 4;
/// Watched segments: those of one reservation.
const SEGMENTS: usize = crate::config::RESERVE_SEGMENTS;
/// Pages that are most of a segment.
const MOST: usize = 600;

struct World {
    heap: PageHeap,
    /// What each page holds.
    cells: Vec<UnsafeCell<u32>>,
}

// SAFETY: the cells are what loom watches.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

#[derive(Clone, Copy)]
struct Run {
    at: NonNull<u8>,
    pages: usize,
}

// SAFETY: an address.
unsafe impl Send for Run {}

impl World {
    fn new() -> &'static Self {
        let cells = (0..SEGMENTS * PAGES).map(|_| UnsafeCell::new(0)).collect();
        let world: &'static Self = Box::leak(Box::new(Self { heap: PageHeap::new(), cells }));
        on_purge(|address, bytes| world.set(address, bytes >> LG_PAGE, 0));
        // Nothing is due at first.
        world.heap.tick(1);
        world
    }

    fn cells(&self, address: usize, pages: usize) -> impl Iterator<Item = &UnsafeCell<u32>> {
        let segment = (address / SEGMENT_BYTES) % SEGMENTS;
        let first = Segment::page_of(address);
        (first..first + pages)
            .filter_map(|page| page.checked_sub(header_pages()))
            .filter(|page| *page < PAGES)
            .map(move |page| &self.cells[segment * PAGES + page])
    }

    fn set(&self, address: usize, pages: usize, value: u32) {
        for cell in self.cells(address, pages) {
            // SAFETY: loom checks that nobody else is at it.
            cell.with_mut(|it| unsafe { *it = value });
        }
    }

    /// Takes a run and writes to it.
    fn take(&self, pages: usize) -> Run {
        let extent = self.heap.allocate(pages, 1).expect("memory");
        let address = extent.start.addr().get();
        for cell in self.cells(address, pages) {
            // SAFETY: as above.
            let held = cell.with(|it| unsafe { *it });
            assert!(!extent.zeroed || held == 0, "an extent that is called zeroed is not");
        }
        self.set(address, pages, 1);
        Run { at: extent.start, pages }
    }

    fn give(&self, run: Run) {
        self.set(run.at.addr().get(), run.pages, 2);
        // SAFETY: `take` has lent it.
        unsafe { self.heap.free(run.at, run.pages) };
    }

    /// The books equal what the sets say (P2), and what is lent.
    fn check(&self, used: usize) {
        self.heap.raw_lock();
        let (mut free, mut dirty, mut purging) = (0, 0, 0);
        // SAFETY: the lock is held.
        unsafe {
            self.heap.each_segment_held(|_, sets| {
                free += sets.free.count();
                dirty += sets.dirty.count();
                purging += sets.purging.count();
                assert_eq!(sets.free.intersection(&sets.dirty), sets.dirty, "dirty, not free");
            });
        }
        // SAFETY: as above.
        let books = unsafe { self.heap.books_held() };
        // SAFETY: as above.
        unsafe { self.heap.raw_unlock() };
        let told = (books.free_pages, books.dirty_pages, books.purging_pages);
        assert_eq!(told, (free, dirty, purging), "the books are wrong (P2)");
        assert_eq!((books.used_pages(), purging), (used, 0), "pages are lost");
    }
}

/// The decay clock has run out for a run of dirty pages, which another thread takes.
fn decay_against_reuse(purge: impl Fn(&World) + Send + 'static) {
    let world = World::new();
    let (run, kept) = (world.take(2), world.take(1));
    world.give(run);
    let (again, ()) = side_by_side(|| world.take(2), move || purge(world));
    world.check(3);
    world.give(again);
    world.give(kept);
    world.check(0);
}

fn run_out(world: &World) {
    world.heap.tick(1_000_000);
}

/// A run is freed beside one that is being purged, and taken again.
fn decay_against_free(purge: impl Fn(&World) + Send + 'static) {
    let world = World::new();
    let (left, right) = (world.take(1), world.take(1));
    world.give(left);
    let takes = move || {
        world.give(right);
        world.take(2)
    };
    let (again, ()) = side_by_side(takes, move || purge(world));
    world.check(2);
    world.give(again);
}

/// Two threads purge, while a third takes what they are at.
fn purge_against_purge() {
    let world = World::new();
    let run = world.take(2);
    world.give(run);
    let others = [0, 1].map(|_| thread::spawn(|| world.heap.purge_all()));
    let again = world.take(1);
    let purged: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
    assert!(purged >> LG_PAGE <= 2, "purged twice");
    world.check(1);
    world.give(again);
}

/// The second of two segments is wholly free and may be released; another thread needs
/// most of a segment.
fn release_against_reuse(release: impl Fn(&World) + Send + 'static) {
    let world = World::new();
    let (first, second) = (world.take(MOST), world.take(MOST));
    world.give(second);
    let (again, ()) = side_by_side(|| world.take(MOST), move || release(world));
    let installed = Segment::find(again.at.addr().get()).is_some();
    assert!(installed, "a segment was released while it was lent from");
    world.check(2 * MOST);
    world.give(again);
    world.give(first);
}

#[test]
fn extent_decay_and_reuse() {
    model("extent: decay against reuse", || decay_against_reuse(run_out));
    model("extent: decay against free", || decay_against_free(run_out));
}

#[test]
fn extent_purge_and_purge() {
    model_with("extent: purge against purge and reuse", FEWER, purge_against_purge);
}

#[test]
fn segment_release_and_reuse() {
    model("segment: release against reuse", || {
        release_against_reuse(|world| {
            world.heap.purge_all();
        });
    });
}

/// The pages stay free and dirty while the system takes them back.
fn purge_unmarked(world: &World) {
    let state = world.heap.state.lock();
    let Some(segment) = state.segment(0) else { return };
    // SAFETY: the lock is held.
    let run = segment.with_sets(|p| unsafe { (*p).dirty.next_run(0) });
    drop(state);
    if let Some((first, pages)) = run {
        // SAFETY: not kept, which is what makes this a twin.
        unsafe { os::purge(segment.page_at(first), pages << LG_PAGE) };
    }
}

#[test]
fn twin_of_decay_that_does_not_mark() {
    let expected = "Causality violation";
    twin("extent: purged unmarked", expected, || decay_against_reuse(purge_unmarked));
}

/// The pages are free and purged as soon as they are marked.
fn purge_announced(world: &World) {
    let mut state = world.heap.state.lock();
    let Some(segment) = state.segment(0) else { return };
    // SAFETY: the lock is held.
    let run = segment.with_sets(|p| unsafe { (*p).dirty.next_run(0) });
    let Some((first, pages)) = run else { return };
    state.take_out(segment, first, pages, pages);
    state.insert_free(segment, first, pages, false);
    drop(state);
    // SAFETY: as above.
    unsafe { os::purge(segment.page_at(first), pages << LG_PAGE) };
}

#[test]
fn twin_of_decay_that_announces_first() {
    let expected = "Causality violation: Concurrent read and write";
    twin("extent: called purged before it is", expected, || decay_against_reuse(purge_announced));
}

/// Whether the segment is empty is looked at, the lock let go of, and then it is
/// released.
fn release_after_an_old_look(world: &World) {
    let slot = 1;
    let mut state = world.heap.state.lock();
    let Some(segment) = state.segment(slot) else { return };
    let (runs, count, _) = state.begin_purge(segment, 0, usize::MAX);
    for &(first, pages) in &runs[..count] {
        // SAFETY: the run is marked.
        unsafe { os::purge(segment.page_at(first.into()), usize::from(pages) << LG_PAGE) };
        state.end_purge(segment, first.into(), pages.into(), true);
    }
    let empty = state.empty_segment(slot);
    drop(state);
    if let Some(segment) = empty {
        world.heap.state.lock().release(segment, slot);
    }
}

#[test]
fn twin_of_release_that_looks_before() {
    let expected = "Causality violation: Concurrent write";
    twin("segment: released after an old look", expected, || {
        release_against_reuse(release_after_an_old_look);
    });
}
