//! The whole heap when the system refuses: every call from the n-th on, or the
//! n-th alone, for each n that the work makes. A refusal is null and nothing
//! else: no block is lost, no byte is changed, and the books balance.
//!
//! The test binary runs on the system's allocator; Tallow is called explicitly.
//! Only what passes of defragmentation move is allocated as in a program, within
//! [`on_tallow`].

#[path = "../tests/block/mod.rs"]
mod block;
mod operations;

use self::block::Block;
use crate::Tallow;
use crate::arena::CENTRAL;
use crate::config::HARDENED;
use crate::defrag::{Defrag, Mover, Relocate, Settings, Visit};
use crate::os::fake::{self, failing_after, failing_at};
use crate::segment::{Entry, Segment};
use crate::thread::each_record;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use std::alloc::System;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

static TALLOW: Tallow = Tallow::new();

/// The books are those of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn balanced() {
    if let Err(error) = crate::audit() {
        panic!("{error}");
    }
}

/// Of longer blocks only the first and the last bytes are written, so that the
/// tests do not spend their time with page faults.
const EDGE: usize = 16 << 10;

/// `None` when memory was refused.
fn obtain(size: usize, align: usize, seed: usize, zeroed: bool) -> Option<Block> {
    Block::new(Layout::from_size_align(size, align).expect("a valid layout"), zeroed, seed)
}

/// Small, large and huge blocks in all ways there are: more than the segments
/// in reserve hold. Frees all of it. Returns how often memory was refused.
fn workload(n: usize) -> usize {
    let (mut live, mut refused, mut tried) = (Vec::new(), 0, 0);
    let mut keep = |block: Option<Block>, live: &mut Vec<Block>| {
        tried += 1;
        match block {
            Some(block) => live.push(block),
            None => refused += 1,
        }
    };
    for i in 0..40 {
        keep(obtain(64 + i * 97, 8, i, i % 3 == 0), &mut live);
        keep(obtain(900 << 10, 1 << (i % 21), i, i % 4 == 0), &mut live);
        if i % 8 == 0 {
            keep(obtain((1 << 20) + i * 70_001, 8, i, i % 16 == 0), &mut live);
            keep(obtain(100, 2 << 20, i, true), &mut live);
        }
        if i % 10 == 9 && i < live.len() {
            live.swap_remove(i).free();
        }
    }
    for i in 0..200 {
        keep(obtain(20_000 + i, 4096, i, false), &mut live);
    }
    let sizes = [10, 5000, 40_000, 300_000, 1 << 20, (1 << 20) + 1, 3 << 20, 9 << 20];
    for i in (0..live.len()).step_by(7) {
        refused += usize::from(!live[i].resize(sizes[(i / 7 + n) % sizes.len()]));
    }
    live.iter().for_each(Block::check);
    assert!(!live.is_empty() || refused == tried);
    balanced();
    while let Some(block) = live.pop() {
        if live.len() % 50 == 0 {
            crate::purge();
            live.iter().for_each(Block::check);
        }
        block.free();
    }
    balanced();
    crate::purge();
    balanced();
    refused
}

/// Runs the workload on a thread that is new to Tallow, under a plan, for each
/// n; checks that nothing is left. Returns the sum of refusals.
fn for_each_call(plan: impl Fn(u64) -> usize + Sync) -> usize {
    let before = crate::stats();
    let mut sum = 0;
    // The first calls one by one, and some of those behind.
    for n in (0..40).chain((40..300).step_by(13)) {
        let worker = thread::scope(|scope| scope.spawn(|| plan(n)).join());
        sum += worker.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The system is kind again, and all can be had. Segments that could
        // not be given back would serve the next round.
        crate::purge();
        let again = if n % 10 == 0 { workload(n as usize) } else { 0 };
        assert_eq!(again, 0);
        balanced();
        let now = crate::stats();
        assert_eq!(now.requested_bytes, before.requested_bytes, "call {n}");
        assert_eq!(now.allocated_bytes, before.allocated_bytes, "call {n}");
        assert_eq!((now.large_count, now.huge_count), (before.large_count, before.huge_count));
    }
    sum
}

#[test]
fn all_calls_from_the_nth_on_are_refused() {
    let _alone = alone();
    let refused = for_each_call(|n| failing_after(n, || workload(n as usize)));
    assert!(refused > 200, "memory hardly ran out: {refused}");
}

#[test]
fn the_nth_call_alone_is_refused() {
    let _alone = alone();
    let calls = AtomicUsize::new(0);
    // Refusals are made good: a reservation of many segments is tried again with one,
    // another one after what is free has been given back, and pages that cannot be given
    // back stay dirty.
    let refused = for_each_call(|n| {
        failing_at(n, || {
            let refused = workload(n as usize);
            calls.fetch_add(usize::from(fake::used_up()), Relaxed);
            refused
        })
    });
    let calls = calls.into_inner();
    assert!(calls >= 40, "calls refused: {calls}");
    assert!(refused <= calls / 10, "{refused} blocks for {calls} calls");
    // With nothing that is free the mapping of a huge block has no second way, but for the
    // place that it begins at where huge pages are wanted for it.
    crate::purge();
    assert!(failing_at(0, || obtain(3 << 20, 8, 0, false)).is_none());
    failing_at(0, || obtain(9 << 20, 8, 0, false)).expect("a block").free();
}

/// What operations without a record have claimed and not returned.
fn claimed_without_record() -> i64 {
    let (mut first, mut sum) = (true, 0);
    each_record(|record| {
        if core::mem::take(&mut first) {
            sum = record.lock.lock().claimed.iter().sum();
        }
    });
    sum
}

#[test]
fn free_regions_of_all_arenas_come_before_a_refusal() {
    let _alone = alone();
    const SIZE: usize = 1536;
    let blocks: Vec<Block> = (0..400).filter_map(|i| obtain(SIZE, 8, i, false)).collect();
    assert_eq!(blocks.len(), 400);
    let (stay, go): (Vec<_>, Vec<_>) =
        blocks.into_iter().enumerate().partition(|(i, _)| i % 10 == 0);
    go.into_iter().for_each(|(_, block)| block.free());
    // So that the regions are in slabs, and all slabs of the class in lists.
    crate::purge();
    let class = crate::class::of_size(SIZE);
    // No page is left that a fresh slab could be made of.
    let pages = || core::iter::from_fn(|| CENTRAL.pages.allocate(1, 1));
    let pages: Vec<_> = failing_after(0, || pages().collect());
    for arena in 0..crate::config::MAX_ARENAS {
        let mut got = ptr::null_mut();
        let n = failing_after(0, || CENTRAL.claim(arena, class, 0, 1, &mut |row| got = row.first));
        assert_eq!(n, 1, "arena {arena}");
        CENTRAL.give_back(class, &[got]);
        CENTRAL.disown_all();
    }
    // SAFETY: lent above, and nobody uses them.
    pages.into_iter().for_each(|page| unsafe { CENTRAL.pages.free(page.start, 1) });
    stay.into_iter().for_each(|(_, block)| block.free());
    balanced();
}

#[test]
fn threads_without_a_record_go_on_without_a_cache() {
    let _alone = alone();
    const THREADS: usize = 24;
    // Room in the slabs, so that only records are refused.
    let warm: Vec<Block> = (0..64).filter_map(|i| obtain(100, 8, i, false)).collect();
    failing_after(0, || while CENTRAL.meta.take(64).is_some() {});
    let before = (crate::stats().requested_bytes, claimed_without_record());
    thread::scope(|scope| {
        // The threads stay until their sender is dropped, so that each needs a
        // record of its own.
        let workers: Vec<_> = (0..THREADS)
            .map(|i| {
                let (go, wait) = mpsc::channel::<()>();
                let (done, answer) = mpsc::channel();
                scope.spawn(move || {
                    let block = failing_after(0, || obtain(100, 8, i, i % 2 == 0));
                    let mut block = block.expect("room in the slabs");
                    let _ = done.send(());
                    let _ = wait.recv();
                    failing_after(0, || assert!(block.resize(104)));
                    let _ = done.send(());
                    let _ = wait.recv();
                    // Now there is memory again: the block was made without a
                    // cache, and is freed with one.
                    block.free();
                    obtain(40_000, 8, i, true).expect("memory").free();
                    let _ = done.send(());
                    let _ = wait.recv();
                });
                answer.recv().expect("a living thread");
                (go, answer)
            })
            .collect();
        let all = |worker: &(mpsc::Sender<()>, mpsc::Receiver<()>)| {
            worker.0.send(()).expect("a living thread");
            worker.1.recv().expect("a living thread");
        };
        balanced();
        let now = (crate::stats().requested_bytes, claimed_without_record());
        assert_eq!(now.0, before.0 + 100 * THREADS as u64);
        assert!(now.1 > before.1, "every thread got a record: metadata was not used up");
        workers.iter().for_each(all);
        balanced();
        assert_eq!(crate::stats().requested_bytes, before.0 + 104 * THREADS as u64);
        workers.iter().for_each(all);
        balanced();
        assert_eq!(crate::stats().requested_bytes, before.0);
    });
    balanced();
    warm.into_iter().for_each(Block::free);
    crate::purge();
    balanced();
}

#[test]
fn a_refused_realloc_keeps_the_block() {
    let _alone = alone();
    // All ways from one route to another, and within each.
    let sizes = [50, 3000, 33_000, 500_000, 1 << 20, 2 << 20, 10 << 20];
    let before = crate::stats();
    let mut refused = 0;
    for from in sizes {
        for to in sizes {
            for align in [8, 8192] {
                let mut block = obtain(from, align, from ^ to, false).expect("memory");
                let at = block.at;
                if !failing_after(0, || block.resize(to)) {
                    refused += 1;
                    assert!(ptr::eq(at, block.at));
                    let asked = before.requested_bytes + from as u64;
                    assert_eq!(crate::stats().requested_bytes, asked, "{from} to {to}");
                    balanced();
                    assert!(block.resize(to));
                }
                let asked = before.requested_bytes + to as u64;
                assert_eq!(crate::stats().requested_bytes, asked, "{from} to {to}");
                balanced();
                block.free();
                crate::purge();
            }
        }
    }
    assert!(refused >= 10, "{refused}");
    assert_eq!(crate::stats().allocated_bytes, before.allocated_bytes);
}

thread_local! {
    static ON_TALLOW: Cell<bool> = const { Cell::new(false) };
}

/// Tallow within [`on_tallow`], else the system's allocator.
struct Switch;

#[global_allocator]
static SWITCH: Switch = Switch;

// SAFETY: each block goes back to where it came from: those of Tallow's that are
// not huge are on its page map, and huge ones are never asked of it.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON_TALLOW.get() && layout.size() <= 1 << 20 && layout.align() <= 4096 {
            // SAFETY: the caller's promise is the same.
            unsafe { TALLOW.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match Segment::entry_of(at.addr()) {
            // SAFETY: the caller's promise is the same.
            Entry::None => unsafe { System.dealloc(at, layout) },
            // SAFETY: as above.
            _ => unsafe { TALLOW.dealloc(at, layout) },
        }
    }
}

/// Runs `f` with this thread's allocations made by Tallow.
pub(crate) fn on_tallow<R>(f: impl FnOnce() -> R) -> R {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON_TALLOW.set(false);
        }
    }
    ON_TALLOW.set(true);
    let _off = Off;
    f()
}

/// What a pass moves: of four lengths, one in ten stays.
struct Sparse(Vec<Option<Box<[u8]>>>);

impl Sparse {
    fn contents(i: usize) -> impl Iterator<Item = u8> {
        let len = [40, 100, 700, 3000][i / 3000];
        (0..len).map(move |j: usize| (i * 31 + j * 7) as u8)
    }

    fn new() -> Self {
        on_tallow(|| {
            let mut list: Vec<_> = (0..12_000).map(|i| Some(Self::contents(i).collect())).collect();
            list.iter_mut().enumerate().filter(|(i, _)| i % 10 != 3).for_each(|(_, it)| *it = None);
            Self(list)
        })
    }

    fn visit(&mut self, at: &mut usize, mover: &mut Mover<'_>) -> Visit {
        let to = (*at + 500).min(self.0.len());
        self.0[*at..to].relocate(mover);
        *at = to;
        if to < self.0.len() { Visit::More } else { Visit::Done }
    }

    fn check(&self) {
        for (i, item) in self.0.iter().enumerate() {
            assert_eq!(item.is_some(), i % 10 == 3);
            if let Some(item) = item {
                assert!(item.iter().copied().eq(Self::contents(i)), "object {i} changed");
            }
        }
        balanced();
    }

    /// Takes steps of a pass to its end; the steps, and whether it did anything.
    fn pass(&mut self, defrag: &mut Defrag<usize>) -> (u64, bool) {
        let mut steps = 1;
        while on_tallow(|| defrag.step(|at, mover| self.visit(at, mover))) {
            balanced();
            steps += 1;
            assert!(steps < 100_000, "a pass without an end");
        }
        self.check();
        (steps, defrag.last_outcome().is_some_and(|it| it.slabs_released > 0))
    }
}

fn evacuating_slabs() -> u64 {
    crate::stats().classes.iter().map(|c| c.slabs_evacuating).sum()
}

/// Runs a pass under each plan; then memory can be had back, and a pass goes well.
fn passes_that_fail(once: bool, plan: impl Fn(u64, &mut dyn FnMut())) {
    let (kept, mut refusals) = (Sparse::new(), 0);
    for n in (0..20).chain((20..200).step_by(37)) {
        crate::purge();
        let mut data = Sparse::new();
        let mut defrag = Defrag::<usize>::new(Settings::default());
        let (before, failed) = (crate::stats(), crate::os::calls().failed);
        let mut worked = false;
        plan(n, &mut || worked = data.pass(&mut defrag).1);
        assert!(worked, "call {n}: {:?}", defrag.last_outcome());
        refusals += crate::os::calls().failed - failed;
        assert_eq!(evacuating_slabs(), 0);
        let after = crate::stats();
        assert_eq!(after.requested_bytes, before.requested_bytes, "call {n}");
        assert_eq!(after.allocated_bytes, before.allocated_bytes, "call {n}");
        let dirty = after.dirty_bytes;
        // What the system refused to take is still known.
        assert!(n > 0 || once || dirty > 0, "nothing is dirty");
        assert!(crate::purge() >= dirty, "call {n}");
        assert_eq!(crate::stats().dirty_bytes, 0, "call {n}");
        assert!(crate::stats().resident_bytes <= before.resident_bytes, "call {n}");
        data.check();
        // The next one finds a place that is free.
        let mut again = Sparse::new();
        assert!(again.pass(&mut defrag).1);
        data.check();
    }
    // Hardened, audits read a file, and take most of the numbers.
    assert!(refusals > if HARDENED { 0 } else { 5 }, "hardly a call was refused: {refusals}");
    kept.check();
}

#[test]
fn a_pass_whose_purging_is_refused_loses_nothing() {
    let _alone = alone();
    passes_that_fail(false, |n, pass| failing_after(n, pass));
    passes_that_fail(true, |n, pass| failing_at(n, pass));
}

/// Takes all that can be had without the system.
fn exhaust() -> Vec<Block> {
    let mut all = Vec::new();
    for size in [900 << 10, 100 << 10, 32 << 10, 24 << 10, 20_000, 16 << 10, 12_000, 8000, 4096] {
        all.extend(core::iter::from_fn(|| obtain(size, 8, 1, false)));
    }
    all
}

#[test]
fn a_pass_for_which_there_is_no_memory_does_nothing() {
    let _alone = alone();
    // What a pass allocates to see whose blocks these are: there is room for that.
    let small = [(24, 8), (100, 4), (1000, 1), (512, 64)];
    let _room: Vec<_> = small.map(|(size, align)| obtain(size, align, 1, false)).into();
    let (mut idle, mut active) = (0, 0);
    for free in 0..40 {
        crate::purge();
        let mut data = Sparse::new();
        let mut defrag = Defrag::<usize>::new(Settings::default());
        failing_after(0, || {
            let mut all = exhaust();
            // Room for none of the planner's lists, for one, or for both.
            all.sort_by_key(|block| core::cmp::Reverse(block.layout.size()));
            all.drain(..free.min(all.len())).for_each(Block::free);
            match data.pass(&mut defrag) {
                (1, false) => idle += 1,
                _ => active += 1,
            }
            assert_eq!(evacuating_slabs(), 0);
            all.into_iter().for_each(Block::free);
        });
        data.check();
        // With memory there is a pass.
        data.pass(&mut defrag);
        assert!(defrag.last_outcome().is_some());
    }
    // Hardened, what is freed is not lent again while the system refuses to unguard it.
    assert!(idle > 0 && (active > 0 || HARDENED), "{idle} idle, {active} active");
}
