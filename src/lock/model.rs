//! Loom models of the lock. Its waiters sleep by the rules of the kernel
//! ([`crate::model::os::wait`]): one that nobody wakes stops the model.

use super::{FREE, Guard, HELD, Lock, Shipped, Strength, WAITED};
use crate::model::os::{nap, wake_one};
use crate::model::{FEWER, model, model_with, side_by_side, twin};
use crate::sync::Ordering;
use core::mem::forget;
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

type Held<S> = Guard<'static, u32, S>;

/// One thread gives way between two turns, `others` others take two.
fn gives_way<S: Strength + 'static>(others: usize, way: fn(Held<S>) -> Held<S>) {
    let lock = new::<S>();
    let turns = move || {
        let mut held = lock.lock();
        *held += 1;
        held = way(held);
        *held += 1;
    };
    let third = (others == 2).then(|| thread::spawn(|| add_twice(lock)));
    side_by_side(turns, || add_twice(lock));
    if let Some(third) = third {
        third.join().unwrap();
    }
    assert_eq!(*lock.lock(), 2 + 2 * others as u32, "a turn was lost");
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
    model_with("lock: three threads", FEWER, || counts::<Shipped>(3));
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

#[test]
fn lock_given_way() {
    let name = "lock: one gives way between two turns";
    model(name, || gives_way::<Shipped>(1, Guard::give_way));
    model_with("lock: one gives way to two", FEWER, || gives_way::<Shipped>(2, Guard::give_way));
}

/// The word says that nobody waits from then on.
#[test]
fn twin_of_giving_way_that_does_not_wake() {
    twin("lock: gives way without waking", "deadlock", || {
        gives_way::<Shipped>(1, |held| {
            let lock = held.lock;
            forget(held);
            lock.word.store(FREE, Ordering::Release);
            nap();
            lock.lock()
        });
    });
}

/// The guard is dropped, too: another's lock is let go of.
#[test]
fn twin_of_giving_way_that_lets_go_twice() {
    twin("lock: gives way and lets go again", "Causality violation", || {
        gives_way::<Shipped>(1, |held| {
            let lock = held.lock;
            if lock.word.swap(FREE, Ordering::Release) == WAITED {
                wake_one(&lock.word);
                nap();
            }
            drop(held);
            lock.lock()
        });
    });
}

#[test]
fn twin_of_giving_way_relaxed() {
    twin("lock: gives way relaxed", "Causality violation", || {
        gives_way::<Shipped>(1, |held| {
            let lock = held.lock;
            forget(held);
            if lock.word.swap(FREE, Ordering::Relaxed) == WAITED {
                wake_one(&lock.word);
                nap();
            }
            lock.lock()
        });
    });
}
