//! Loom models of the lock. Its waiters sleep by the rules of the kernel
//! ([`crate::model::os::wait`]): one that nobody wakes stops the model.

use super::{HELD, Lock, Shipped, Strength};
use crate::model::{model, twin};
use crate::sync::Ordering;
use loom::thread;

/// Stays for ever: a model that is stopped cannot drop what its threads share.
fn new<S: Strength + 'static>() -> &'static Lock<u32, S> {
    Box::leak(Box::new(Lock::of_strength(0)))
}

/// `threads` threads add to a number, twice each.
fn counts<S: Strength + 'static>(threads: usize) {
    let lock = new::<S>();
    let others: Vec<_> = (1..threads).map(|_| thread::spawn(|| add_twice(lock))).collect();
    add_twice(lock);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(*lock.lock(), 2 * threads as u32, "a turn was lost");
}

fn add_twice<S: Strength>(lock: &Lock<u32, S>) {
    *lock.lock() += 1;
    *lock.lock() += 1;
}

/// One thread only tries.
fn tries<S: Strength + 'static>() {
    let lock = new::<S>();
    let other = thread::spawn(|| lock.try_lock().map(|mut value| *value += 1).is_some());
    *lock.lock() += 1;
    let had = other.join().unwrap();
    assert_eq!(*lock.lock(), 1 + u32::from(had), "a turn was lost");
}

struct RelaxedTake;
impl Strength for RelaxedTake {
    const TAKE: Ordering = Ordering::Relaxed;
}

struct RelaxedLetGo;
impl Strength for RelaxedLetGo {
    const LET_GO: Ordering = Ordering::Relaxed;
}

/// A waiter leaves no word that it waits.
struct Silent;
impl Strength for Silent {
    const WAITED: u32 = HELD;
}

#[test]
fn lock_has_one_holder() {
    model("lock: one holder at a time, no sleeper forgotten", || counts::<Shipped>(2));
    model("lock: three threads", || counts::<Shipped>(3));
    model("lock: a try", tries::<Shipped>);
}

#[test]
fn twin_of_lock_that_takes_relaxed() {
    twin("lock: taken relaxed", "Causality violation", || counts::<RelaxedTake>(2));
}

#[test]
fn twin_of_lock_that_lets_go_relaxed() {
    twin("lock: let go of relaxed", "Causality violation", tries::<RelaxedLetGo>);
}

#[test]
fn twin_of_lock_whose_waiters_are_silent() {
    twin("lock: a waiter leaves no word", "deadlock", || counts::<Silent>(2));
}
