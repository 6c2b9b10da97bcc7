//! Loom models of tallies: a thread's books of an account, read by another.

use super::{Side, Sums, Tallies, Tally, each_tally};
use crate::model::{model, side_by_side, twin};
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use core::ptr::NonNull;

fn new() -> Tally {
    let side = || Side {
        fresh: AtomicU64::new(0),
        until: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        blocks: AtomicU64::new(0),
    };
    Tally { asked: side(), returned: side(), untold_bytes: AtomicI64::new(0) }
}

fn tally() -> &'static Tally {
    let it = new();
    it.set_until(u64::MAX);
    Box::leak(Box::new(it))
}

/// Makes tallies of memory that is zero, which are none of loom's.
pub(super) fn lay_out(at: NonNull<Tallies>) {
    // SAFETY: the caller's memory, which has the room.
    unsafe { at.write(core::array::from_fn(|_| new())) };
}

/// As an account reads one.
fn sums_of(tally: &Tally) -> Sums {
    let (returned_bytes, frees) = tally.returned();
    let (asked_bytes, allocations) = tally.asked();
    Sums { asked_bytes, returned_bytes, allocations, frees }
}

impl Tally {
    fn set_until(&self, until: u64) {
        self.asked.until.store(until, Ordering::Relaxed);
        self.returned.until.store(until, Ordering::Relaxed);
    }

    /// Live bytes that the account has not been told of.
    fn unknown_bytes(&self) -> i64 {
        let (asked, returned) = (self.asked.fresh().0 as i64, self.returned.fresh().0 as i64);
        self.untold_bytes.load(Ordering::Relaxed) + asked - returned
    }
}

/// Live bytes that account `index` has not been told of.
pub(crate) fn unknown_bytes(index: usize) -> i64 {
    let mut bytes = 0;
    each_tally(index, |tally| bytes += tally.unknown_bytes());
    bytes
}

/// As an account is summed by one who reads each thread's tally by itself.
pub(crate) fn sum_one_by_one(index: usize) -> i64 {
    let mut bytes = 0;
    each_tally(index, |tally| bytes += sums_of(tally).live_bytes());
    bytes
}

/// What is fresh becomes told while another thread reads: never too little live (Y2), and
/// too much by what is fresh at most.
fn telling_against_reading(tell: impl FnOnce(&Tally) + 'static) {
    let tally = tally();
    assert!(tally.ask(10, 1) && tally.ask(20, 1) && tally.give(10, 1));
    let ((), sums) = side_by_side(move || tell(tally), || sums_of(tally));
    assert!(sums.live_bytes() >= 20 && sums.live_count() >= 1, "too little live (Y2)");
    // What is told of requests and still fresh, and fresh returns that are struck out.
    assert!(sums.live_bytes() <= 25 + 30 + 10, "too much live");
    assert_eq!((sums_of(tally).live_bytes(), sums_of(tally).live_count()), (25, 2));
}

fn tell(tally: &Tally) {
    tally.enter(5, 1, 0, 0);
}

#[test]
fn telling_and_reading() {
    model("tally: telling against reading", || telling_against_reading(tell));
}

#[test]
fn asking_and_reading() {
    model("tally: a block comes and goes against reading", || {
        let tally = tally();
        assert!(tally.ask(20, 1));
        let comes_and_goes = || {
            tell(tally);
            assert!(tally.ask(10, 1) && tally.give(10, 1));
        };
        let ((), sums) = side_by_side(comes_and_goes, || sums_of(tally));
        assert!(sums.live_bytes() >= 20 && sums.live_count() >= 1, "too little live (Y2)");
        assert_eq!((sums_of(tally).live_bytes(), sums_of(tally).live_count()), (25, 2));
    });
}

/// As [`Tally::sums`] reads, but for the order of the returns.
fn read_fresh_returns_first(tally: &Tally) -> i64 {
    let (fresh, told) = (tally.returned.fresh(), tally.returned.told());
    let returned = told.0 + fresh.0;
    let (fresh, told) = (tally.asked.fresh(), tally.asked.told());
    (told.0 + fresh.0) as i64 - returned as i64
}

#[test]
fn twin_of_reading_that_counts_twice() {
    twin("tally: fresh returns read first", "too little live (Y2)", || {
        let tally = tally();
        assert!(tally.ask(10, 1) && tally.ask(20, 1) && tally.give(10, 1));
        let ((), live) = side_by_side(|| tell(tally), || read_fresh_returns_first(tally));
        assert!(live >= 20, "too little live (Y2)");
    });
}

/// Without the fences, and without the release of a return.
fn tell_relaxed(tally: &Tally) {
    let ((asked, allocations), (returned, frees)) = (tally.asked.fresh(), tally.returned.fresh());
    tally.asked.add(asked, allocations);
    tally.asked.fresh.store(0, Ordering::Relaxed);
    tally.returned.fresh.store(0, Ordering::Relaxed);
    tally.returned.add(returned, frees);
    tally.asked.add(5, 1);
}

#[test]
fn twin_of_telling_without_fences() {
    twin("tally: told without fences", "too little live (Y2)", || {
        telling_against_reading(tell_relaxed);
    });
}

/// The two steps of telling change places.
fn tell_first_zero(tally: &Tally) {
    let (bytes, blocks) = tally.asked.fresh();
    tally.asked.fresh.store(0, Ordering::Release);
    tally.asked.add(bytes, blocks);
    let (bytes, blocks) = tally.returned.fresh();
    tally.returned.fresh.store(0, Ordering::Release);
    tally.returned.add(bytes, blocks);
    tally.asked.add(5, 1);
}

#[test]
fn twin_of_telling_that_strikes_out_first() {
    let expected = "too little live (Y2)";
    twin("tally: struck out before it is told", expected, || {
        telling_against_reading(tell_first_zero);
    });
}
