//! Hardened: freed large blocks that wait: how many, in which order they go, and that the
//! books hold meanwhile. On page heaps of their own; what needs all of the heap, at the end.

use super::*;
use crate::Tallow;
use crate::arena::CENTRAL;
use crate::config::{LARGE_WAITING, LARGE_WAITING_BYTES};
use crate::faults::alone;
use crate::os::fake::refusing_reservations;
use core::alloc::{GlobalAlloc, Layout};
use quickcheck::quickcheck;
use std::collections::VecDeque;

const MIB: usize = 1 << 20;

fn guards() -> usize {
    2 * guard_pages()
}

/// Whether the kernel reads at an address for us.
fn is_accessible(at: NonNull<u8>) -> bool {
    let mut ends = [0; 2];
    // SAFETY: room for two ends.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: an address that is not accessible is an error, and no fault.
    let written = unsafe { libc::write(ends[1], at.as_ptr().cast(), 1) };
    for end in ends {
        // SAFETY: opened above.
        unsafe { libc::close(end) };
    }
    written == 1
}

fn find_page(at: NonNull<u8>) -> (&'static Segment, usize) {
    let address = at.addr().get();
    (Segment::find(address).expect("a segment"), Segment::page_of(address))
}

/// Large blocks on a page heap of their own.
struct World {
    large: Large,
    heap: PageHeap,
}

impl World {
    fn new() -> Self {
        Self { large: Large::new(), heap: PageHeap::new() }
    }

    fn take(&self, size: usize) -> NonNull<u8> {
        self.take_aligned(size, 1)
    }

    fn take_aligned(&self, size: usize, align: usize) -> NonNull<u8> {
        self.large.allocate(&self.heap, size, align).expect("memory").start
    }

    fn free(&self, at: NonNull<u8>, size: usize) {
        // SAFETY: a block of that size, by each caller.
        unsafe { self.large.free(&self.heap, at, size) };
    }

    /// As many blocks as that, all freed again, in the order in which they were taken.
    fn freed(&self, count: usize, size: usize) -> Vec<NonNull<u8>> {
        let blocks: Vec<_> = (0..count).map(|_| self.take(size)).collect();
        blocks.iter().for_each(|&block| self.free(block, size));
        blocks
    }

    /// The first pages of those that wait, in order.
    fn waiting(&self) -> Vec<Waiter> {
        let mut state = self.large.state.lock();
        let mut all = Vec::new();
        for _ in 0..state.waiting.len() {
            let it = state.waiting.first().expect("one more");
            state.waiting.remove(0);
            state.waiting.push(it);
            all.push(it);
        }
        all
    }

    fn addresses(&self) -> Vec<usize> {
        self.waiting().iter().map(|it| it.address).collect()
    }

    fn used_pages(&self) -> usize {
        self.heap.books().used_pages()
    }

    /// What waits is said to, is inaccessible, and is counted; what does not, is not.
    fn check(&self, blocks: &[NonNull<u8>]) {
        let waiting = self.waiting();
        for &at in blocks {
            let waiter = waiting.iter().find(|it| it.address == at.addr().get());
            let (segment, first) = find_page(at);
            match (segment.entry(first), waiter) {
                (Entry::Freed { pages }, Some(it)) => assert_eq!(pages, it.pages),
                (Entry::Freed { .. }, None) | (_, Some(_)) => panic!("map and queue differ"),
                _ => {}
            }
            assert_eq!(is_accessible(at), waiter.is_none());
        }
        let pages: usize = waiting.iter().map(|it| it.pages).sum();
        assert_eq!(self.large.state.lock().waiting.bytes(), pages << LG_PAGE);
        let live = self.heap.books().blocks;
        let blocks = live.count + waiting.len();
        assert_eq!(self.used_pages(), (live.bytes >> LG_PAGE) + pages + blocks * guards());
    }
}

fn addresses(blocks: &[NonNull<u8>]) -> Vec<usize> {
    blocks.iter().map(|at| at.addr().get()).collect()
}

quickcheck! {
    /// The ring beside a queue of `std`'s, after every step.
    fn the_ring_is_a_queue(steps: Vec<(bool, u8)>) -> bool {
        let (mut ring, mut queue) = (Waiting::NONE, VecDeque::new());
        // Long enough to go round several times, and to be full in between.
        for (i, (pops, pages)) in steps.iter().cycle().take(steps.len() * 20).enumerate() {
            let it = Waiter { address: i, pages: usize::from(*pages) + 1, since_ms: i as u64 };
            let place = usize::from(*pages) % queue.len().max(1);
            if *pops && i % 3 == 0 && !queue.is_empty() {
                ring.remove(place);
                queue.remove(place);
            } else if ring.has_room(it.pages << LG_PAGE) {
                ring.push(it);
                queue.push_back(it);
            }
            let bytes: usize = queue.iter().map(|it: &Waiter| it.pages << LG_PAGE).sum();
            let may_go = |place: usize| {
                let bytes: usize = queue.iter().skip(place).map(|it| it.pages << LG_PAGE).sum();
                queue.len() - place >= LARGE_WAITING / 2 || bytes >= LARGE_WAITING_BYTES / 2
            };
            assert_eq!((ring.len(), ring.bytes()), (queue.len(), bytes));
            assert_eq!(ring.first(), queue.front().copied());
            for (place, it) in queue.iter().enumerate() {
                let found = ring.find(|other| other == it);
                assert_eq!(found, Some((place, *it)).filter(|_| may_go(place)));
            }
            for more in [1, 16, LARGE_WAITING_BYTES - bytes, LARGE_WAITING_BYTES - bytes + 1] {
                let fits = queue.len() < LARGE_WAITING && bytes + more <= LARGE_WAITING_BYTES;
                assert_eq!(ring.has_room(more), fits);
            }
        }
        true
    }
}

#[test]
fn decay_returns_what_has_waited_a_quarter_of_it() {
    let world = World::new();
    world.heap.set_decay(Some(4000));
    let first = world.freed(2, 40_000);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let last = world.freed(1, 40_000);
    let since: Vec<u64> = world.waiting().iter().map(|it| it.since_ms).collect();
    assert!(since.is_sorted() && since[1] < since[2], "{since:?}");

    world.large.tick(&world.heap, since[0] + 999);
    assert_eq!(world.waiting().len(), 3);
    world.check(&[&first[..], &last].concat());
    world.large.tick(&world.heap, since[1] + 1000);
    assert_eq!(world.addresses(), addresses(&last));
    world.check(&[&first[..], &last].concat());
    world.large.tick(&world.heap, since[2] + 1000);
    assert_eq!((world.waiting().len(), world.used_pages()), (0, 0));
    world.check(&[&first[..], &last].concat());
}

#[test]
fn without_decay_they_wait_and_with_none_they_do_not() {
    let world = World::new();
    world.heap.set_decay(None);
    world.freed(1, 40_000);
    world.large.tick(&world.heap, u64::MAX);
    assert_eq!(world.waiting().len(), 1);
    world.heap.set_decay(Some(0));
    let block = world.freed(1, 40_000);
    assert_eq!(world.waiting().len(), 1);
    world.check(&block);
}

#[test]
fn the_oldest_make_room_for_one_block_too_many() {
    let world = World::new();
    let blocks = world.freed(LARGE_WAITING + 3, 40_000);
    assert_eq!(world.addresses(), addresses(&blocks[3..]));
    world.check(&blocks);
}

#[test]
fn the_oldest_make_room_for_one_byte_too_many() {
    let world = World::new();
    let of_four = world.freed(LARGE_WAITING_BYTES / MIB, MIB);
    assert_eq!(world.addresses(), addresses(&of_four));
    // Two go, for the first of them would not do.
    let (more, most) = (world.freed(1, 36 << 10), world.take(MIB));
    world.free(most, MIB);
    let wanted = [&of_four[2..], &more, &[most]].concat();
    assert_eq!(world.addresses(), addresses(&wanted));
    world.check(&[&of_four[..], &more, &[most]].concat());
}

/// Until half of what may wait does, another block is taken; from then on the one that has
/// waited longest, and no other.
#[test]
fn half_of_the_blocks_are_lent_again_in_order() {
    let world = World::new();
    let blocks = world.freed(LARGE_WAITING / 2 - 1, 40_000);
    let other = world.take(40_000);
    assert!(!blocks.contains(&other), "lent again too early");
    world.free(other, 40_000);
    assert_eq!(world.take(40_000), blocks[0]);
    world.check(&blocks);
    // One fewer than half wait now.
    let other = world.take(40_000);
    assert!(!blocks.contains(&other), "lent again too early");
    world.free(blocks[0], 40_000);
    assert_eq!(world.take(40_000), blocks[1]);
    world.check(&blocks);
}

#[test]
fn half_of_the_bytes_are_lent_again_in_order() {
    let world = World::new();
    let blocks = world.freed(LARGE_WAITING_BYTES / MIB / 2, MIB);
    assert_eq!(world.take(MIB), blocks[0]);
    world.check(&blocks);
    assert!(!blocks.contains(&world.take(MIB)), "lent again too early");
}

#[test]
fn only_what_fits_exactly_is_lent_again() {
    let world = World::new();
    let first = world.freed(1, 48_000);
    let blocks = world.freed(LARGE_WAITING / 2, 40_000);
    let all = || [&first[..], &blocks].concat();
    assert!(!all().contains(&world.take(36_000)) && !all().contains(&world.take(60_000)));
    // Of those of a size the oldest, also behind one of another size; then too few are left.
    assert_eq!(world.take(40_000), blocks[0]);
    assert!(!all().contains(&world.take(40_000)));
    assert_eq!(world.addresses(), addresses(&[&first[..], &blocks[1..]].concat()));
    // As long in pages, and aligned enough or not.
    let align = 1 << (first[0].addr().trailing_zeros() + 1);
    let aligned = world.take_aligned(48_000, align);
    assert!(aligned.addr().get().is_multiple_of(align) && !all().contains(&aligned));
    assert_eq!(world.take(47_500), first[0]);
    world.check(&all());
    world.free(first[0], 47_500);
    world.check(&all());
}

/// What is lent again is not zero because it was inaccessible.
#[test]
fn what_is_lent_again_is_not_taken_for_zero() {
    let world = World::new();
    let block = world.take(MIB);
    // SAFETY: a block of that size.
    unsafe { block.write_bytes(7, MIB) };
    world.free(block, MIB);
    world.freed(1, MIB);
    let again = world.large.allocate(&world.heap, MIB, 1).expect("memory");
    assert_eq!((again.start, again.zeroed), (block, false));
}

#[test]
fn all_that_waits_is_released_at_once() {
    let world = World::new();
    let blocks = [world.freed(3, 40_000), world.freed(2, 300_000)].concat();
    let bytes = (3 * block_pages(40_000) + 2 * block_pages(300_000)) << LG_PAGE;
    assert_eq!(world.large.release_waiting(&world.heap), bytes);
    assert_eq!((world.waiting().len(), world.used_pages()), (0, 0));
    world.check(&blocks);
    assert_eq!(world.large.release_waiting(&world.heap), 0);
    // Their pages are there again, and so are their guards.
    for &at in &blocks {
        let (segment, first) = find_page(at);
        assert!(is_accessible(segment.page_at(first - 1)));
        assert_eq!(segment.entry(first), Entry::None);
    }
    world.heap.purge_all();
    assert_eq!(world.heap.books().dirty_pages, 0);
    world.check(&blocks);
}

/// A block of Tallow's; null when memory is out.
fn allocate(size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, 8).expect("a valid layout");
    // SAFETY: not of size 0.
    unsafe { Tallow::new().alloc(layout) }
}

fn free(block: *mut u8, size: usize) {
    let layout = Layout::from_size_align(size, 8).expect("a valid layout");
    // SAFETY: from `allocate`, with this size.
    unsafe { Tallow::new().dealloc(block, layout) };
}

fn waiting_bytes() -> usize {
    CENTRAL.large.state.lock().waiting.bytes()
}

/// As figures and audits tell it: no blocks any more, but pages in use, until a purge.
#[test]
fn the_books_hold_while_they_wait() {
    let _alone = alone();
    crate::purge();
    assert_eq!(waiting_bytes(), 0, "a purge leaves none");
    let before = crate::stats();
    let blocks = [(); 3].map(|()| allocate(300_000));
    let held = crate::stats();
    let bytes = 3 * (block_pages(300_000) << LG_PAGE) as u64;
    let with_guards = bytes + 3 * (guards() << LG_PAGE) as u64;
    assert_eq!(held.allocated_bytes, before.allocated_bytes + bytes);
    assert_eq!(held.active_bytes, before.active_bytes + with_guards);

    blocks.iter().for_each(|&block| free(block, 300_000));
    assert_eq!(waiting_bytes() as u64, bytes);
    let waiting = crate::stats();
    assert_eq!(waiting.requested_bytes, before.requested_bytes);
    assert_eq!(
        (waiting.large_count, waiting.large_bytes, waiting.allocated_bytes),
        (before.large_count, before.large_bytes, before.allocated_bytes)
    );
    assert_eq!(
        (waiting.active_bytes, waiting.resident_bytes, waiting.mapped_bytes),
        (held.active_bytes, held.resident_bytes, held.mapped_bytes)
    );
    crate::audit().expect("the books hold");

    crate::purge();
    assert_eq!(waiting_bytes(), 0);
    let after = crate::stats();
    assert_eq!((after.active_bytes, after.dirty_bytes), (before.active_bytes, 0));
    crate::audit().expect("the books hold");
}

/// Blocks of Tallow's of these sizes, each until there are no more, with no address space
/// to be had; then what `f` says.
fn with_memory_out(sizes: &[usize], f: impl FnOnce(&mut Vec<(*mut u8, usize)>)) {
    let _alone = alone();
    crate::purge();
    // Some segments, which is all there is from here on.
    let first = (allocate(sizes[0]), sizes[0]);
    refusing_reservations(|| {
        let mut live = vec![first];
        for &size in sizes {
            loop {
                let block = allocate(size);
                if block.is_null() {
                    break;
                }
                live.push((block, size));
            }
        }
        assert_eq!(waiting_bytes(), 0);
        f(&mut live);
        live.into_iter().for_each(|(block, size)| free(block, size));
    });
    crate::audit().expect("the books hold");
    crate::purge();
}

#[test]
fn memory_that_waits_is_lent_before_a_large_block_is_refused() {
    with_memory_out(&[MIB, 300_000, 40_000], |live| {
        let (freed, size) = live.remove(0);
        free(freed, size);
        assert!(waiting_bytes() > 0, "it waits");
        let block = allocate(500_000);
        assert!(!block.is_null(), "refused, while memory waits");
        assert!((freed.addr()..freed.addr() + size).contains(&block.addr()));
        live.push((block, 500_000));
        assert_eq!(waiting_bytes(), 0);
    });
}

#[test]
fn memory_that_waits_is_lent_before_a_small_block_is_refused() {
    const SMALL: usize = 20_000;
    with_memory_out(&[MIB, 300_000, 40_000, SMALL], |live| {
        let at = live.iter().position(|&(_, size)| size == MIB).expect("a large one");
        let (freed, size) = live.remove(at);
        free(freed, size);
        assert!(waiting_bytes() > 0, "it waits");
        let block = allocate(SMALL);
        assert!(!block.is_null(), "refused, while memory waits");
        live.push((block, SMALL));
        assert_eq!(waiting_bytes(), 0);
    });
}
