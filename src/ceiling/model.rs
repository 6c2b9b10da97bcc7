//! Loom models of the ceiling: limits are set while another thread looks, and blocks are
//! asked for at the same moment.

use super::{Ceiling, Entry, Pending, Seen};
use crate::lock::Lock;
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

/// As pages and huge blocks have them: books under locks of their own.
struct Taking {
    pending: Pending,
    books: [Lock<usize>; 2],
    fits: usize,
}

impl Taking {
    fn new(fits: usize) -> &'static Self {
        let books = [Lock::new(0), Lock::new(0)];
        Box::leak(Box::new(Self { pending: Pending::new(), books, fits }))
    }

    fn in_use(&self) -> usize {
        self.books.iter().map(|book| *book.lock()).sum()
    }

    fn ask(&self) -> Entry {
        self.pending.enter(1, |sum| self.in_use() + sum <= self.fits)
    }

    /// As `limit::Permit`, whose holder takes a block; whether there was one.
    fn take(&self, ask: fn(&Self) -> Entry, which: usize) -> bool {
        if ask(self) != Entry::Entered {
            return false;
        }
        *self.books[which].lock() += 1;
        self.pending.leave(1);
        true
    }
}

/// Two threads ask for a block at once, for the other's kind of books, or for the same, and
/// one block fits, or two.
fn asked_at_once(ask: fn(&Taking) -> Entry, kinds: [usize; 2], fits: usize) {
    let world = Taking::new(fits);
    let (a, b) = side_by_side(move || world.take(ask, kinds[0]), move || world.take(ask, kinds[1]));
    let taken = usize::from(a) + usize::from(b);
    assert!(world.in_use() <= fits, "more than fits");
    assert_eq!(taken, fits, "refused although it fits (E3)");
    assert_eq!(world.in_use(), taken);
    assert_eq!(world.pending.bytes(), 0, "pending for ever");
    assert_eq!(world.ask(), Entry::Over(1), "taken although it is not");
}

#[test]
fn asked_for_at_once() {
    model("limit: two blocks asked for at once", || asked_at_once(Taking::ask, [0, 0], 1));
    model("limit: two blocks of other kinds", || asked_at_once(Taking::ask, [0, 1], 1));
    model("limit: two blocks that fit", || asked_at_once(Taking::ask, [0, 1], 2));
}

/// As an account has them: books of each thread, which anyone may read, under no lock.
struct Tallied {
    pending: Pending,
    tallies: [AtomicUsize; 2],
    fits: usize,
}

impl Tallied {
    fn take(&self, own: usize, leave: fn(&Pending)) -> bool {
        let live = || self.tallies.iter().map(|tally| tally.load(Ordering::Relaxed));
        let entry = self.pending.enter(1, |sum| live().sum::<usize>() + sum <= self.fits);
        if entry == Entry::Entered {
            self.tallies[own].store(1, Ordering::Relaxed);
            leave(&self.pending);
        }
        entry == Entry::Entered
    }
}

fn asked_of_an_account(leave: fn(&Pending), fits: usize) {
    let tallies = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let world: &'static _ = Box::leak(Box::new(Tallied { pending: Pending::new(), tallies, fits }));
    let (a, b) = side_by_side(move || world.take(0, leave), move || world.take(1, leave));
    let taken = usize::from(a) + usize::from(b);
    assert!(taken <= fits, "more than fits");
    assert_eq!(taken, fits, "refused although it fits (E3)");
    assert_eq!(world.pending.bytes(), 0, "pending for ever");
}

#[test]
fn asked_of_an_account_at_once() {
    let leave = |pending: &Pending| pending.leave(1);
    model("limit: two requests of an account at once", move || asked_of_an_account(leave, 1));
    model("limit: two requests of an account that fit", move || asked_of_an_account(leave, 2));
}

/// Who reads of it may miss what is in the tally.
#[test]
fn twin_of_leaving_relaxed() {
    twin("limit: left relaxed", "more than fits", || {
        let leave = |pending: &Pending| {
            pending.word().fetch_sub(1, Ordering::Relaxed);
        };
        asked_of_an_account(leave, 1);
    });
}

/// Nothing is pending: the books alone are looked at.
#[test]
fn twin_of_a_look_at_the_books_alone() {
    twin("limit: the books alone", "more than fits", || {
        let ask = |world: &Taking| match world.in_use() < world.fits {
            true => world.pending.enter(1, |_| true),
            false => Entry::Over(1),
        };
        asked_at_once(ask, [0, 0], 1);
    });
}

/// The word has no count of entries: one that has come and gone leaves no trace.
#[test]
fn twin_of_pending_that_does_not_count() {
    twin("limit: entries are not counted", "more than fits", || {
        let ask = |world: &Taking| {
            let seen = world.pending.bytes();
            if world.in_use() + seen + 1 > world.fits {
                return Entry::Over(1);
            }
            let word = world.pending.word();
            match word.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => Entry::Entered,
                Err(_) => Entry::Over(1),
            }
        };
        asked_at_once(ask, [0, 0], 1);
    });
}

/// The books are looked at before the word.
#[test]
fn twin_of_books_read_first() {
    twin("limit: books read before what is pending", "more than fits", || {
        let ask = |world: &Taking| {
            let in_use = world.in_use();
            world.pending.enter(1, |sum| in_use + sum <= world.fits)
        };
        asked_at_once(ask, [0, 0], 1);
    });
}

/// A block is pending no more before it is in the books.
#[test]
fn twin_of_leaving_before_the_books() {
    twin("limit: left before it is in the books", "more than fits", || {
        let world = Taking::new(1);
        let take = move || {
            let entered = world.ask() == Entry::Entered;
            if entered {
                world.pending.leave(1);
                *world.books[0].lock() += 1;
            }
        };
        side_by_side(take, take);
        assert!(world.in_use() <= world.fits, "more than fits");
    });
}

/// Who does not fit beside what is pending is told so, although that may be in the books by
/// then, and so be counted twice.
#[test]
fn twin_of_an_entry_that_does_not_wait() {
    twin("limit: others are not waited for", "refused although it fits (E3)", || {
        let ask = |world: &Taking| {
            let fits = |_| world.pending.bytes() + world.in_use() < world.fits;
            world.pending.enter(1, fits)
        };
        asked_at_once(ask, [0, 1], 2);
    });
}
