//! Loom models of the ceiling: limits are set while another thread looks.

use super::{Ceiling, Seen};
use crate::model::{model, side_by_side, twin};
use crate::sync::{AtomicUsize, Ordering};

const NONE: usize = usize::MAX;

/// Two limits, as `limit` has them, and the ceiling.
struct World {
    limits: [AtomicUsize; 2],
    ceiling: Ceiling,
}

impl World {
    fn new() -> &'static Self {
        let limits = [AtomicUsize::new(NONE), AtomicUsize::new(NONE)];
        Box::leak(Box::new(Self { limits, ceiling: Ceiling::new() }))
    }

    fn limited(&self) -> bool {
        self.limits.iter().any(|limit| limit.load(Ordering::Relaxed) != NONE)
    }

    /// As `limit::set`.
    fn set(&self, which: usize, limit: usize) {
        self.limits[which].store(limit, Ordering::Relaxed);
        self.ceiling.change(|| self.limited());
    }

    /// As `limit::look`: all that the limits leave may be taken before the next look.
    fn look(&self, raise: impl Fn(&Ceiling, Seen, usize)) {
        let seen = self.ceiling.seen();
        if seen.is_open() {
            return;
        }
        let limits = self.limits.iter().map(|limit| limit.load(Ordering::Relaxed));
        raise(&self.ceiling, seen, limits.min().unwrap_or(NONE));
    }
}

fn shipped(ceiling: &Ceiling, seen: Seen, bytes: usize) {
    ceiling.raise(seen, bytes);
}

/// The number of a late look takes effect.
fn blind(ceiling: &Ceiling, seen: Seen, bytes: usize) {
    let next = seen.0 & !super::OPEN | bytes.min(super::OPEN - 1);
    ceiling.0.store(next, Ordering::Relaxed);
}

/// A limit is lowered while another thread looks.
fn lowered(raise: fn(&Ceiling, Seen, usize)) {
    let world = World::new();
    world.set(0, 100);
    side_by_side(|| world.set(0, 20), move || world.look(raise));
    assert!(!world.ceiling.permits(21), "beyond a limit without a look");
}

/// The limit is lifted.
fn lifted(raise: fn(&Ceiling, Seen, usize)) {
    let world = World::new();
    world.set(0, 100);
    side_by_side(|| world.set(0, NONE), move || world.look(raise));
    assert!(world.ceiling.is_open(), "a limit is left behind");
}

/// One limit is set while another is lifted.
fn set_and_lifted(lift: impl FnOnce(&World) + 'static) {
    let world = World::new();
    world.set(1, 100);
    side_by_side(|| world.set(0, 20), move || lift(world));
    assert!(!world.ceiling.permits(21), "beyond a limit without a look");
}

#[test]
fn limit_set_and_look() {
    model("limit: lowered against a look", || lowered(shipped));
    model("limit: lifted against a look", || lifted(shipped));
}

#[test]
fn limit_set_and_set() {
    model("limit: set against lifted", || set_and_lifted(|world| world.set(1, NONE)));
}

#[test]
fn twin_of_a_look_that_stores() {
    let expected = "beyond a limit without a look";
    twin("limit: a late look takes effect", expected, || lowered(blind));
}

#[test]
fn twin_of_a_look_that_stores_when_lifted() {
    twin("limit: a late look outlives the limit", "a limit is left behind", || lifted(blind));
}

/// Whether there are limits is asked once, before the word is seen.
#[test]
fn twin_of_a_change_that_asks_once() {
    let expected = "beyond a limit without a look";
    twin("limit: asked once", expected, || {
        set_and_lifted(|world| {
            world.limits[1].store(NONE, Ordering::Relaxed);
            let limited = world.limited();
            world.ceiling.change(|| limited);
        });
    });
}
