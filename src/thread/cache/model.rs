//! Loom models of thread caches: their recall, and their end, against everybody else.
//!
//! One thread's cache is at work, another recalls it or sums the books; regions come
//! from [`crate::model::central`], which notices what is given back twice, and their new
//! owners write to them, which loom notices if the old one may still.

mod fork;

use super::{Cache, Record, Shared, Stage, give_back, take_recalled};
use crate::arena::CENTRAL;
use crate::class::Class;
use crate::model::{model, os, side_by_side, twin};
use crate::settings::Settings;
use crate::slab::Row;
use crate::sync::{self, Ordering};
use crate::thread::record::{each_record, sum_books};
use core::ptr;
use loom::thread;

/// Of each block.
const SIZE: usize = 8;

/// A cache stays for ever, as its thread's memory does while others may look.
fn cache() -> &'static Cache {
    Box::leak(Box::new(Cache::unused()))
}

fn class() -> Class {
    Class::new(0).expect("a class")
}

/// A region's address: pointers do not go to other threads.
type Block = usize;

/// A block, written to; `None` when others have them all.
fn allocate(cache: &Cache) -> Option<Block> {
    let region = cache
        .allocate::<true>(class(), SIZE)
        .unwrap_or_else(|| cache.allocate_slow(class(), SIZE, &Settings::DEFAULT));
    (!region.is_null()).then(|| {
        CENTRAL.write(region);
        region.addr()
    })
}

fn free(cache: &Cache, block: Block) {
    let region = ptr::without_provenance_mut(block);
    CENTRAL.write(region);
    cache.free::<true>(class(), region, SIZE);
}

/// Takes what there is without a cache, as another thread may; returns how many.
fn claim_all() -> i64 {
    let mut write = |row: Row| row.regions().for_each(|it| CENTRAL.write(it));
    CENTRAL.claim(0, class(), 0, u32::MAX, &mut write).into()
}

/// The thread's record.
fn record(cache: &Cache) -> &'static Record {
    // SAFETY: T4.
    unsafe { cache.record.load(Ordering::Relaxed).as_ref() }.expect("registered")
}

/// Fills the cache: four regions wait, one block is live.
fn fill(cache: &Cache) -> Block {
    let blocks: Vec<_> = (0..4).map(|_| allocate(cache).expect("enough")).collect();
    blocks[1..].iter().for_each(|&block| free(cache, block));
    let items = record(cache).items(class(), 1);
    assert_eq!(cache.cached(class(), items), 4);
    blocks[0]
}

/// What the program holds, by the books: blocks, and bytes.
fn held() -> (i64, i64) {
    let books = sum_books();
    (books.claimed[0] - books.cached[0], books.requested_bytes)
}

fn check_held(blocks: i64) {
    assert_eq!(held(), (blocks, blocks * SIZE as i64), "the books have lost something");
}

/// One thread's cache is recalled while the thread does what `work` does, which returns
/// how many more blocks are live then. What is taken from it has new owners at once.
fn recalled(
    work: impl FnOnce(&'static Cache, Block) -> i64 + 'static,
    recall: impl FnOnce(&'static Cache) + 'static,
) {
    let (cache, other) = (self::cache(), self::cache());
    let block = fill(cache);
    let recaller = move || {
        recall(other);
        claim_all()
    };
    let (claimed, more) = side_by_side(recaller, move || work(cache, block));
    let live = 1 + more;
    cache.give_up();
    assert_eq!(CENTRAL.taken(), claimed + live, "a region was lost");
    assert_eq!(held(), (live, live * SIZE as i64), "the books have lost something");
}

fn pops(cache: &'static Cache, _: Block) -> i64 {
    let blocks = [allocate(cache), allocate(cache)];
    blocks.iter().flatten().count() as i64
}

fn pushes(cache: &'static Cache, block: Block) -> i64 {
    let first = cache.pop(class(), SIZE).map(|region| {
        CENTRAL.write(region);
        region.addr()
    });
    // The popped one was not counted, so it goes back in the same way.
    if let Some(at) = first {
        let region = ptr::without_provenance_mut(at);
        CENTRAL.write(region);
        cache.free::<false>(class(), region, 0);
    }
    free(cache, block);
    -1
}

fn ends(cache: &'static Cache, _: Block) -> i64 {
    cache.give_up();
    0
}

#[test]
fn magazine_recall_and_pop() {
    model("magazine: recall against pops", || recalled(pops, Cache::recall_all));
}

#[test]
fn magazine_recall_and_push() {
    model("magazine: recall against a pop and pushes", || recalled(pushes, Cache::recall_all));
}

#[test]
fn magazine_recall_and_exit() {
    model("magazine: recall against exit", || recalled(ends, Cache::recall_all));
}

#[test]
fn twin_of_recall_without_a_barrier() {
    let expected = "Causality violation: Concurrent write";
    twin("magazine: no barrier", expected, || {
        os::without_barriers();
        recalled(pops, Cache::recall_all);
    });
}

#[test]
fn twin_of_recall_without_light_fences() {
    let expected = "Causality violation: Concurrent write";
    twin("magazine: no light fences", expected, || {
        sync::without_light_fences();
        recalled(pops, Cache::recall_all);
    });
}

/// The recall takes the top item too.
fn recall_with_top(cache: &'static Cache) {
    cache.recall_all();
    each_record(|record| {
        let shared = &mut *record.lock.lock();
        // SAFETY: a cache is valid while it is in a record, whose lock is held.
        let Some(cache) = (unsafe { shared.cache.as_ref() }) else { return };
        if shared.recalled {
            let items = record.items(class(), shared.grown);
            let n = cache.cached(class(), items);
            let taken = usize::from(shared.taken[0]);
            if n > taken {
                // SAFETY: the cache's items; that the top one is not ours is the twin's
                // fault.
                give_back(shared, class(), unsafe { items.add(taken) }, n - taken);
                shared.taken[0] = n as u16;
            }
        }
    });
}

#[test]
fn twin_of_recall_that_takes_the_top() {
    let expected = "Causality violation: Concurrent write";
    twin("magazine: the top item is taken too", expected, || recalled(pops, recall_with_top));
}

/// A thread ends while another sums the books.
fn exit_against_snapshot(end: impl FnOnce(&'static Cache) + 'static) {
    let cache = cache();
    fill(cache);
    side_by_side(|| check_held(1), move || end(cache));
    check_held(1);
    assert_eq!(CENTRAL.taken(), 1, "a region was lost");
}

/// A thread ends while another begins, which may get its record, and a third sums the
/// books.
fn exit_against_start(end: impl FnOnce(&'static Cache) + 'static) {
    let (old, new) = (cache(), cache());
    fill(old);
    let others =
        (thread::spawn(move || end(old)), thread::spawn(move || allocate(new).expect("enough")));
    let (blocks, bytes) = held();
    assert!((1..=2).contains(&blocks), "the books have lost something");
    assert!((1..=2).contains(&(bytes / SIZE as i64)), "the books have lost something");
    others.0.join().unwrap();
    others.1.join().unwrap();
    check_held(2);
    new.give_up();
    check_held(2);
    assert_eq!(CENTRAL.taken(), 2, "a region was lost");
}

#[test]
fn thread_exit_and_snapshot() {
    model("thread: exit and drain against a snapshot", || exit_against_snapshot(Cache::give_up));
}

#[test]
fn thread_exit_and_start() {
    model("thread: exit against start and snapshot", || exit_against_start(Cache::give_up));
}

/// What a thread's end does, but for the locks.
fn leave(cache: &Cache, shared: &mut Shared) {
    shared.requested_bytes += cache.requested_bytes();
    cache.asked_bytes.store(0, Ordering::Relaxed);
    cache.returned_bytes.store(0, Ordering::Relaxed);
    cache.record.store(ptr::null_mut(), Ordering::Relaxed);
    cache.stage.store(Stage::Dead as u32, Ordering::Relaxed);
}

/// The cache leaves the record in one turn, its books enter it in the next.
fn end_in_two_turns(cache: &'static Cache) {
    let record = record(cache);
    {
        let mut shared = record.lock.lock();
        cache.drain(&mut shared, record);
        shared.cache = ptr::null();
    }
    leave(cache, &mut record.lock.lock());
    record.put_away();
}

#[test]
fn twin_of_exit_in_two_turns() {
    let expected = "the books have lost something";
    twin("thread: books follow the cache", expected, || exit_against_snapshot(end_in_two_turns));
}

/// The record can be had by another thread before it is done with.
fn end_put_away_first(cache: &'static Cache) {
    let record = record(cache);
    record.put_away();
    let mut shared = record.lock.lock();
    cache.drain(&mut shared, record);
    leave(cache, &mut shared);
    shared.cache = ptr::null();
}

#[test]
fn twin_of_exit_that_puts_its_record_away_first() {
    let expected = "the books have lost something";
    twin("thread: record put away first", expected, || exit_against_start(end_put_away_first));
}

/// The recaller takes what it finds at once, before the barrier.
fn recall_before_the_barrier(_: &'static Cache) {
    each_record(|record| {
        let mut shared = record.lock.lock();
        // SAFETY: a cache is valid while it is in a record, whose lock is held.
        let Some(cache) = (unsafe { shared.cache.as_ref() }) else { return };
        let magazine = cache.magazines.of(class());
        magazine.set_bounds(ptr::without_provenance_mut(usize::MAX), ptr::null_mut());
        shared.recalled = true;
        take_recalled(&mut shared, record);
    });
    os::barrier_everywhere();
}

#[test]
fn twin_of_recall_that_takes_before_the_barrier() {
    let expected = "Causality violation: Concurrent write";
    twin("magazine: taken before the barrier", expected, || {
        recalled(pops, recall_before_the_barrier);
    });
}
