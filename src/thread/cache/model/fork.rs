//! Loom models of forks: everything is held while another thread goes on, and what a
//! child finds of that thread.
//!
//! A fork copies the memory at one moment, and one thread. The child's handler runs on the
//! memory as it is then, with no other step in between; what the other thread does
//! afterwards is ignored ([`os::fork`]).

use super::super::RECALL;
use super::{Block, SIZE, allocate, cache, claim_all, class, fill, free};
use crate::arena::CENTRAL;
use crate::config::{MAGAZINE_FEW, MAGAZINE_MAX};
use crate::model::{model, os, side_by_side, twin};
use crate::sync::Ordering;
use crate::thread::fork::{hold_everything, let_everything_go, recover};
use crate::thread::record::{Books, each_record, hold_registry};
use crate::thread::{Cache, with_cache};
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Looks at what is found while everything is held, and lets go.
fn check_and_let_go() {
    let mut books = Books::ZERO;
    each_record(|record| {
        // SAFETY: everything is held.
        books.add(&unsafe { record.lock.value_held() }.books(record));
    });
    // SAFETY: as above.
    assert_eq!(books.claimed[0], unsafe { CENTRAL.taken_held() }, "regions are on their way");
    // SAFETY: as above.
    unsafe { let_everything_go() };
}

/// Everything is held, for an audit or a fork, while another thread goes on.
fn held(hold: fn(), work: impl FnOnce(&'static Cache, Block) + 'static) {
    let cache = cache();
    let block = fill(cache);
    let holds = move || {
        hold();
        check_and_let_go();
    };
    side_by_side(holds, move || work(cache, block));
}

fn ends(cache: &'static Cache, block: Block) {
    free(cache, block);
    cache.give_up();
}

fn starts(_: &'static Cache, _: Block) {
    let cache = cache();
    allocate(cache);
}

fn recalls(cache: &'static Cache, _: Block) {
    cache.recall_all();
}

/// What another thread has at the moment of the fork, by its own account: blocks, and
/// whether it was in the middle of an operation. Not loom's: it must order nothing.
#[derive(Default)]
struct Program {
    blocks: Mutex<Vec<Block>>,
    at_work: Mutex<bool>,
}

impl Program {
    fn allocate(&self, cache: &Cache) {
        self.work(true);
        let block = allocate(cache);
        if !os::is_left_behind() {
            self.blocks.lock().unwrap().extend(block);
        }
        self.work(false);
    }

    fn free(&self, free: impl FnOnce(Block)) {
        self.work(true);
        let block = self.blocks.lock().unwrap().pop();
        free(block.expect("a block"));
        self.work(false);
    }

    fn work(&self, is_at_work: bool) {
        if !os::is_left_behind() {
            *self.at_work.lock().unwrap() = is_at_work;
        }
    }
}

impl Cache {
    /// Touches what the thread's operations write: so loom tries the fork at each step.
    fn look(&self) {
        self.magazines.of(class()).cur.load(Ordering::Relaxed);
        self.requested_bytes();
    }

    /// Sees what the thread has written before the fork, and nothing older.
    fn renew(&self) {
        let magazine = self.magazines.of(class());
        for bound in [magazine.cur, magazine.base, magazine.end] {
            os::renew(bound);
        }
        self.asked_bytes.fetch_add(0, Ordering::Relaxed);
        self.returned_bytes.fetch_add(0, Ordering::Relaxed);
        os::renew(&self.record);
        // SAFETY: T4.
        if let Some(record) = unsafe { self.record.load(Ordering::Relaxed).as_ref() } {
            let few = record.items(class(), 0);
            let many = record.items(class(), 1);
            for items in [few, many].iter().filter(|items| !items.is_null()) {
                let places = if *items == few { MAGAZINE_FEW } else { MAGAZINE_MAX };
                // SAFETY: so many places.
                (0..places).for_each(|i| os::renew(unsafe { &*items.add(i) }));
            }
        }
    }
}

/// How a process forks, while a thread of its is at what kind of work.
#[derive(Clone, Copy)]
struct Fork {
    hold: fn(),
    recover: fn(),
    prepare: fn(&'static Cache, &Program),
    work: fn(&'static Cache, &Program),
}

const SHIPPED: Fork =
    Fork { hold: hold_everything, recover: recover_child, prepare: has_blocks, work: allocates };

fn forked(fork: Fork) {
    let cache = cache();
    let program: &'static Program = Box::leak(Box::default());
    (fork.prepare)(cache, program);
    let child = move || {
        (fork.hold)();
        cache.look();
        os::fork();
        cache.renew();
        (fork.recover)();
        // SAFETY: held, or the only thread.
        unsafe { let_everything_go() };
        check_child(program);
        os::end_child();
    };
    let works = move || {
        let done = catch_unwind(AssertUnwindSafe(|| (fork.work)(cache, program)));
        // What comes after the fork is ignored.
        assert!(done.is_ok() || os::is_left_behind());
    };
    side_by_side(child, works);
}

/// The books of a child, in which the thread is gone, are right, and what it held is
/// handed out to nobody.
fn check_child(program: &Program) {
    let kept = program.blocks.lock().unwrap().clone();
    let most = kept.len() as i64 + i64::from(*program.at_work.lock().unwrap());
    let (blocks, bytes) = super::held();
    let range = kept.len() as i64..=most;
    assert!(range.contains(&blocks), "a child has lost something");
    assert!(bytes <= blocks * SIZE as i64, "more is requested than allocated (T5)");
    assert!(bytes >= (kept.len() * SIZE) as i64, "a child has lost something");
    with_cache(Cache::recall_all);
    assert_eq!(CENTRAL.taken(), blocks, "a child has lost something");
    CENTRAL.claim(0, class(), 0, u32::MAX, &mut |row| {
        row.regions().for_each(|it| assert!(!kept.contains(&it.addr()), "a block is handed out"));
    });
    assert_eq!(claim_all(), 0);
}

fn recover_child() {
    // SAFETY: everything is held, and nobody else comes in between.
    unsafe { recover() };
}

/// Four regions wait, one block is live.
fn has_blocks(cache: &'static Cache, program: &Program) {
    program.blocks.lock().unwrap().push(fill(cache));
}

/// The same, and the cache was recalled: the top one waits.
fn was_recalled(cache: &'static Cache, program: &Program) {
    has_blocks(cache, program);
    with_cache(Cache::recall_all);
}

/// None waits.
fn has_emptied(cache: &'static Cache, program: &Program) {
    has_blocks(cache, program);
    (0..4).for_each(|_| program.allocate(cache));
}

/// The thread has just been started.
fn is_new(_: &'static Cache, _: &Program) {}

fn allocates(cache: &'static Cache, program: &Program) {
    program.allocate(cache);
}

fn frees(cache: &'static Cache, program: &Program) {
    program.free(|block| free(cache, block));
}

fn gives_up(cache: &'static Cache, program: &Program) {
    program.free(|block| free(cache, block));
    cache.give_up();
}

#[test]
fn fork_held() {
    model("fork: all held against a thread's end", || held(hold_everything, ends));
    model("fork: all held against a thread's start", || held(hold_everything, starts));
    model("fork: all held against a recall", || held(hold_everything, recalls));
}

#[test]
fn fork_and_child() {
    let forks = [
        (
            "fork: a child of a thread that allocates",
            has_blocks as fn(_, &_),
            allocates as fn(_, &_),
        ),
        ("fork: a child of a thread that frees", has_blocks, frees),
        ("fork: a child of a thread that refills", has_emptied, allocates),
        ("fork: a child of a thread that begins", is_new, allocates),
        ("fork: a child of a thread that ends", has_blocks, gives_up),
        ("fork: a child of a thread that was recalled", was_recalled, allocates),
    ];
    for (name, prepare, work) in forks {
        model(name, move || forked(Fork { prepare, work, ..SHIPPED }));
    }
}

/// The records come before the recaller's lock.
fn hold_records_first() {
    each_record(|record| record.lock.raw_lock());
    RECALL.raw_lock();
    hold_registry();
    CENTRAL.hold();
}

#[test]
fn twin_of_records_first() {
    twin("fork: records held before recalls", "deadlock", || held(hold_records_first, recalls));
}

/// Records can be made meanwhile.
fn hold_without_registry() {
    RECALL.raw_lock();
    each_record(|record| record.lock.raw_lock());
    CENTRAL.hold();
}

#[test]
fn twin_of_registry_not_held() {
    twin("fork: the list of records not held", "Causality violation", || {
        held(hold_without_registry, starts);
    });
}

/// The records are not held.
fn hold_no_records() {
    RECALL.raw_lock();
    hold_registry();
    CENTRAL.hold();
}

#[test]
fn twin_of_records_not_held() {
    let fork = Fork { hold: hold_no_records, prepare: has_emptied, ..SHIPPED };
    twin("fork: records not held", "Causality violation", move || forked(fork));
}

/// What has been taken from the thread's cache already counts as there.
fn recover_without_taken() {
    each_record(|record| {
        // SAFETY: everything is held.
        unsafe { record.lock.value_held() }.taken.fill(0);
    });
    recover_child();
}

#[test]
fn twin_of_child_that_forgets_what_was_taken() {
    let fork = Fork { recover: recover_without_taken, prepare: was_recalled, ..SHIPPED };
    twin("fork: a child forgets a recall", "a child has lost something", move || forked(fork));
}

/// The block counts as cached before its bytes are struck out.
fn frees_and_strikes_out_late(cache: &'static Cache, program: &Program) {
    program.free(|block| {
        cache.free::<false>(class(), ptr::without_provenance_mut(block), 0);
        cache.give(SIZE);
    });
}

#[test]
fn twin_of_free_that_strikes_out_late() {
    let expected = "more is requested than allocated (T5)";
    let fork = Fork { work: frees_and_strikes_out_late, ..SHIPPED };
    twin("fork: struck out after it is cached", expected, move || forked(fork));
}

/// First the count, then the item.
fn frees_and_counts_first(cache: &'static Cache, program: &Program) {
    program.allocate(cache);
    // Not the block whose place it comes to.
    program.blocks.lock().unwrap().swap(0, 1);
    program.free(|block| {
        cache.give(SIZE);
        let cur = cache.magazines.of(class()).cur;
        let place = cur.load(Ordering::Relaxed);
        // SAFETY: there is a place, since one was taken.
        cur.store(unsafe { place.add(1) }, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { (*place).store(ptr::without_provenance_mut(block), Ordering::Relaxed) };
    });
}

#[test]
fn twin_of_free_that_counts_first() {
    let fork = Fork { work: frees_and_counts_first, ..SHIPPED };
    twin("fork: counted before the item is there", "a block is handed out", move || forked(fork));
}
