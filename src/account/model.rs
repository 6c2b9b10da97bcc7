//! Loom models of accounts: what threads enter and tell, while others sum, begin and end.
//!
//! Accounts, tallies and records are shipped; each thread's cache is its own, and is given
//! up at its end.

use super::{Account, NONE, load_i64};
use crate::config::MAX_ACCOUNTS;
use crate::model::{model, side_by_side, twin};
use crate::sync::Ordering;
use crate::thread::tally_model::{sum_one_by_one, unknown_bytes};
use crate::thread::{GRAIN_BYTES, with_cache};
use loom::thread;

/// Of a block.
const SIZE: usize = 10;
/// Of one that the account is told of.
const GRAIN: usize = GRAIN_BYTES as usize;

fn account() -> &'static Account {
    Box::leak(Box::new(Account::new("model")))
}

impl Account {
    /// As the shipped one does without limits.
    pub(super) fn ask_slow(&'static self, bytes: usize, n: u64, _: bool) -> bool {
        self.enter(bytes, n, 0, 0);
        true
    }

    fn ask_for(&'static self, bytes: usize) {
        assert!(self.ask::<false>(bytes, 1));
    }

    /// The sums are exact, and so is what the account has been told, with what it has not.
    fn check(&self, asked: usize, live: usize) {
        let sums = self.sums();
        let bytes = (sums.asked_bytes as usize, sums.live_bytes());
        assert_eq!(bytes, (asked, live as i64), "the sums are not exact");
        let place = self.place.load(Ordering::Relaxed);
        let unknown = if place == NONE { 0 } else { unknown_bytes(place) };
        let told = load_i64(&self.told_bytes);
        assert_eq!(told + unknown, live as i64, "what was told is not exact");
    }
}

/// A thread that ends its caching.
fn ends<R>(f: impl FnOnce() -> R) -> impl FnOnce() -> R {
    move || {
        let out = f();
        with_cache(crate::thread::Cache::give_up);
        out
    }
}

/// One thread asks, and hands the block to another, which gives it back; a third sums
/// meanwhile: never too little live (Y3).
fn handed_over(account: &'static Account, live: impl FnOnce() -> i64 + 'static) {
    account.ask_for(SIZE);
    let looks = thread::spawn(move || {
        assert!(live() >= SIZE as i64, "too little live (Y3)");
    });
    thread::spawn(ends(move || account.ask_for(SIZE))).join().unwrap();
    account.give(SIZE, 1);
    looks.join().unwrap();
    account.check(2 * SIZE, SIZE);
}

/// One that has used up the places has none of its own.
fn without_place() -> &'static Account {
    for _ in 1..MAX_ACCOUNTS {
        account().register();
    }
    account()
}

/// A thread ends; the next one goes on with its tallies.
fn ended_and_begun(ends: impl FnOnce(&'static Account) + 'static) {
    let account = account();
    account.register();
    let begins = move || {
        account.ask_for(SIZE);
        with_cache(crate::thread::Cache::give_up);
    };
    side_by_side(move || ends(account), begins);
    account.check(3 * SIZE, 2 * SIZE);
}

fn asks_and_ends(account: &'static Account) {
    account.ask_for(SIZE);
    account.ask_for(SIZE);
    account.give(SIZE, 1);
    with_cache(crate::thread::Cache::give_up);
}

/// Two threads are the first to use an account.
fn first_used(register: fn(&'static Account)) {
    let account = account();
    let uses = || {
        ends(move || {
            register(account);
            account.ask_for(SIZE);
        })
    };
    side_by_side(uses(), uses());
    assert!(account.next.load(Ordering::Relaxed).is_null(), "an account is on the list twice");
    account.check(2 * SIZE, 2 * SIZE);
}

/// Two threads tell an account of what they have asked for.
fn told_by_two(tell: fn(&Account, i64) -> u64) {
    let account = account();
    let other = move || {
        tell(account, 50);
        tell(account, -50);
    };
    let (live, ()) = side_by_side(move || tell(account, 100), other);
    assert_eq!(load_i64(&account.told_bytes), 100, "what was told is not exact");
    let peak = load_i64(&account.peak_bytes);
    assert!(peak >= live as i64 && (100..=150).contains(&peak), "the peak is too low");
}

/// Threads enter so much that the account is told of it.
fn told_by_entering() {
    let account = account();
    account.register();
    let one = move || {
        account.ask_for(GRAIN);
        with_cache(crate::thread::Cache::give_up);
    };
    let other = move || {
        account.ask_for(SIZE);
        account.give(SIZE, 1);
        with_cache(crate::thread::Cache::give_up);
    };
    side_by_side(one, other);
    account.check(GRAIN + SIZE, GRAIN);
    assert_eq!(load_i64(&account.peak_bytes), GRAIN as i64, "the peak is too low");
}

#[test]
fn account_handed_over() {
    model("account: a block handed over against a look", || {
        let account = account();
        handed_over(account, || account.sums().live_bytes());
    });
    model("account: the same without tallies", || {
        let account = without_place();
        handed_over(account, || account.sums().live_bytes());
    });
}

#[test]
fn account_of_ended_threads() {
    model("account: exit against start", || ended_and_begun(asks_and_ends));
}

#[test]
fn account_first_used() {
    model("account: first used by two threads", || first_used(Account::register));
}

#[test]
fn account_told() {
    model("account: told by two threads", || told_by_two(Account::tell));
    model("account: told while another enters", told_by_entering);
}

/// Each thread's tally is summed by itself.
#[test]
fn twin_of_handing_over_summed_one_by_one() {
    twin("account: each tally by itself", "too little live (Y3)", || {
        let account = account();
        handed_over(account, || sum_one_by_one(account.place.load(Ordering::Relaxed)));
    });
}

/// Of the shared counters, the returns are read relaxed.
#[test]
fn twin_of_handing_over_without_tallies_read_relaxed() {
    twin("account: shared counters read relaxed", "too little live (Y3)", || {
        let account = without_place();
        let shared = &account.untallied;
        handed_over(account, || {
            let returned = shared.returned_bytes.load(Ordering::Relaxed);
            shared.asked_bytes.load(Ordering::Acquire).wrapping_sub(returned) as i64
        });
    });
}

/// The thread's last entry comes when its record may be another's (Y1).
#[test]
fn twin_of_exit_that_keeps_its_tally() {
    twin("account: a tally kept beyond the exit", "the sums are not exact", || {
        ended_and_begun(|account| {
            account.ask_for(SIZE);
            account.with_tally(|tally| {
                let tally = tally.expect("a place");
                with_cache(crate::thread::Cache::give_up);
                tally.enter(SIZE as u64, 1, 0, 0);
                tally.enter(0, 0, SIZE as u64, 1);
            });
        });
    });
}

/// Both find it not on the list yet, and put it there.
#[test]
fn twin_of_first_use_in_two_steps() {
    twin("account: put on the list in two steps", "an account is on the list twice", || {
        first_used(|account| {
            if !account.listed.load(Ordering::Relaxed) {
                account.listed.store(true, Ordering::Relaxed);
                account.enlist();
            }
        });
    });
}

#[test]
fn twin_of_telling_in_two_steps() {
    twin("account: told in two steps", "what was told is not exact", || {
        told_by_two(|account, more| {
            let live = load_i64(&account.told_bytes) + more;
            account.told_bytes.store(live, Ordering::Relaxed);
            account.tell(0)
        });
    });
}

/// A lower peak is stored over a higher one.
#[test]
fn twin_of_a_peak_that_is_stored() {
    twin("account: the peak is stored", "the peak is too low", || {
        told_by_two(|account, more| {
            let live = account.told_bytes.fetch_add(more, Ordering::Relaxed) + more;
            if live > load_i64(&account.peak_bytes) {
                account.peak_bytes.store(live, Ordering::Relaxed);
            }
            live as u64
        });
    });
}
