//! Floor 9: accounts: what the program's memory is for.
//!
//! An [`Account`] is a name with exact books: bytes and blocks that are live now,
//! how many there have been. It is an [`Allocator`](allocator_api2::alloc::Allocator), so a
//! collection is told once where its memory belongs; blocks bear no mark.
//!
//! ```
//! use tallow::Purpose;
//! use allocator_api2::vec::Vec;
//!
//! #[global_allocator]
//! static ALLOC: tallow::Tallow = tallow::Tallow::new();
//!
//! tallow::account!(pub Sessions = "sessions");
//! tallow::account!(pub Pictures = "pictures");
//!
//! let mut session: Vec<u8, tallow::In<Sessions>> = Vec::new_in(tallow::In::NEW);
//! session.extend_from_slice(&[7; 1000]);
//! let picture: Vec<u8, tallow::In<Pictures>> = Vec::with_capacity_in(1 << 20, tallow::In::NEW);
//! assert_eq!(Pictures::account().stats().live_bytes, 1 << 20);
//! drop(picture);
//! for account in tallow::accounts() {
//!     println!("{}: {} bytes, {} at most", account.name, account.live_bytes, account.peak_bytes);
//! }
//! assert_eq!(Pictures::account().stats().live_bytes, 0);
//! ```
//!
//! # What it costs
//! One addition to a line of the thread's own with each operation; nothing is shared
//! between threads but for a message when 32 KiB more, or less, are live. Each thread
//! that uses accounts has 128 bytes of tally for each of them.

#[cfg(not(loom))]
mod allocator;
#[cfg(not(loom))]
mod limits;
#[cfg(all(test, loom))]
mod model;
#[cfg(not(loom))]
mod stats;

use crate::ceiling::Pending;
use crate::config::MAX_ACCOUNTS;
use crate::sync::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering, const_unless_loom, statics,
};
use crate::thread::{GRAIN_BYTES, Sums, Tally, sum_tallies, with_cache};
use core::ptr;

#[cfg(not(loom))]
pub use allocator::{In, Purpose};
#[cfg(not(loom))]
pub use stats::{AccountStats, accounts};

/// The place of an account without tallies: nothing has been entered in it yet, or
/// there are too many others. The tally there is nobody's (thread, Y1).
const NONE: usize = 0;

/// A purpose that memory is used for, with its own books and limits.
///
/// For a `static`, once for each purpose; [`account!`](crate::account!) makes one
/// together with a type to name it by. `&'static Account` is an
/// [`Allocator`](allocator_api2::alloc::Allocator) of 8 bytes in each collection, [`In`] one
/// of none.
///
/// The first 63 accounts that are used have tallies for each thread; those beyond
/// are as exact, but their threads share a counter.
pub struct Account {
    name: &'static str,
    /// Which tally is its own, below [`MAX_ACCOUNTS`].
    place: AtomicUsize,
    /// Whether it is on the list.
    listed: AtomicBool,
    next: AtomicPtr<Account>,
    /// Live bytes as far as threads have told: off by what they have not.
    told_bytes: AtomicI64,
    peak_bytes: AtomicI64,
    /// What threads without tallies did.
    untallied: Untallied,
    /// Requests that have been permitted, and are not in a tally yet.
    #[cfg_attr(loom, expect(dead_code, reason = "limits are not modelled"))]
    pending: Pending,
    soft_bytes: AtomicU64,
    hard_bytes: AtomicU64,
    /// The soft limit counts as passed again above this.
    armed_bytes: AtomicU64,
    soft_hits: AtomicU64,
    refusals: AtomicU64,
}

/// Counters that threads share.
struct Untallied {
    asked_bytes: AtomicU64,
    returned_bytes: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
}

statics! {
    /// The accounts that have been used, newest first; never taken off.
    pub(super) static NEWEST: AtomicPtr<Account> = AtomicPtr::new(ptr::null_mut());
    /// How many places have been given away. No lock, which a fork could leave locked.
    pub(super) static PLACES: AtomicUsize = AtomicUsize::new(0);
}

impl Account {
    const_unless_loom! {
        /// An account without limits.
        pub fn new(name: &'static str) -> Account {
            let none = u64::MAX;
            Account {
                name,
                place: AtomicUsize::new(NONE),
                listed: AtomicBool::new(false),
                next: AtomicPtr::new(ptr::null_mut()),
                told_bytes: AtomicI64::new(0),
                peak_bytes: AtomicI64::new(0),
                untallied: Untallied {
                    asked_bytes: AtomicU64::new(0),
                    returned_bytes: AtomicU64::new(0),
                    allocations: AtomicU64::new(0),
                    frees: AtomicU64::new(0),
                },
                pending: Pending::new(),
                soft_bytes: AtomicU64::new(none),
                hard_bytes: AtomicU64::new(none),
                armed_bytes: AtomicU64::new(none),
                soft_hits: AtomicU64::new(0),
                refusals: AtomicU64::new(0),
            }
        }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes that are live now. A few loads for each thread there ever was.
    pub fn live_bytes(&self) -> u64 {
        self.sums().live_bytes().max(0) as u64
    }

    /// Enters memory that was not allocated through the account: another library's
    /// that takes no allocator. It must be given back by [`credit`](Self::credit).
    pub fn charge(&'static self, bytes: usize) {
        if !self.ask::<true>(bytes, 1) {
            self.enter(bytes, 1, 0, 0);
        }
    }

    /// Strikes out what was entered by [`charge`](Self::charge).
    pub fn credit(&'static self, bytes: usize) {
        self.give(bytes, 1);
    }

    fn sums(&self) -> Sums {
        let shared = &self.untallied;
        // The returns first: what they belong to was asked for before (thread, Y3). Acquire
        // pairs with the Release in `enter_told`.
        let returned_bytes = shared.returned_bytes.load(Ordering::Acquire);
        let frees = shared.frees.load(Ordering::Acquire);
        let mut sums = match self.place.load(Ordering::Relaxed) {
            NONE => Sums::default(),
            place => sum_tallies(place),
        };
        sums.returned_bytes = sums.returned_bytes.wrapping_add(returned_bytes);
        sums.frees = sums.frees.wrapping_add(frees);
        let asked = shared.asked_bytes.load(Ordering::Relaxed);
        sums.asked_bytes = sums.asked_bytes.wrapping_add(asked);
        sums.allocations =
            sums.allocations.wrapping_add(shared.allocations.load(Ordering::Relaxed));
        sums
    }

    /// Enters a request of `bytes` in `n` blocks; `false` when it is over a limit
    /// (never if `FORCED`).
    #[inline(always)]
    fn ask<const FORCED: bool>(&'static self, bytes: usize, n: u64) -> bool {
        let place = self.place.load(Ordering::Relaxed);
        with_cache(|cache| {
            // SAFETY: `register` gives no other places.
            unsafe { cache.tally(place) }.is_some_and(|tally| tally.ask(bytes as u64, n))
        }) || self.ask_slow(bytes, n, FORCED)
    }

    /// Enters what is given back.
    #[inline(always)]
    fn give(&'static self, bytes: usize, n: u64) {
        let place = self.place.load(Ordering::Relaxed);
        let entered = with_cache(|cache| {
            // SAFETY: as above.
            unsafe { cache.tally(place) }.is_some_and(|tally| tally.give(bytes as u64, n))
        });
        if !entered {
            self.enter(0, 0, bytes, n);
        }
    }

    /// Takes a request back that came to nothing.
    #[cold]
    fn unask(&'static self, bytes: usize, n: u64) {
        self.enter_told((bytes as u64).wrapping_neg(), n.wrapping_neg(), 0, 0);
    }

    /// Enters, and tells the account.
    #[cold]
    #[inline(never)]
    fn enter(&'static self, asked: usize, allocations: u64, returned: usize, frees: u64) {
        self.enter_told(asked as u64, allocations, returned as u64, frees);
    }

    fn enter_told(&'static self, asked: u64, allocations: u64, returned: u64, frees: u64) {
        self.with_tally(|tally| {
            let hard = self.hard_bytes.load(Ordering::Relaxed);
            let nearest = hard.min(self.armed_bytes.load(Ordering::Relaxed));
            let Some(tally) = tally else {
                let shared = &self.untallied;
                shared.asked_bytes.fetch_add(asked, Ordering::Relaxed);
                shared.allocations.fetch_add(allocations, Ordering::Relaxed);
                // Release: who reads this reads what it belongs to (thread, Y3).
                shared.returned_bytes.fetch_add(returned, Ordering::Release);
                shared.frees.fetch_add(frees, Ordering::Release);
                self.tell(asked.wrapping_sub(returned) as i64);
                return;
            };
            let more = tally.enter(asked, allocations, returned, frees);
            let told = load_i64(&self.told_bytes).max(0) as u64;
            if more.unsigned_abs() < GRAIN_BYTES && is_far(told, nearest) {
                // What comes and goes needs no message.
                tally.set_untold(more);
                tally.set_grain(GRAIN_BYTES, GRAIN_BYTES);
                return;
            }
            tally.set_untold(0);
            let live = self.tell(more);
            // Not beyond a limit without asking.
            tally.set_grain(nearest.saturating_sub(live), GRAIN_BYTES);
        });
    }

    /// Takes note of more live bytes; returns all it knows of.
    fn tell(&self, more: i64) -> u64 {
        let live = self.told_bytes.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
        // Looked at first: it is seldom higher.
        if live > load_i64(&self.peak_bytes) {
            self.peak_bytes.fetch_max(live, Ordering::Relaxed);
        }
        live.max(0) as u64
    }

    /// Runs `f` with the calling thread's tally; without one where there is none.
    fn with_tally(&'static self, f: impl FnOnce(Option<&Tally>)) {
        if !self.listed.load(Ordering::Relaxed) {
            self.register();
        }
        let place = self.place.load(Ordering::Relaxed);
        with_cache(|cache| f(if place == NONE { None } else { cache.tally_made(place) }));
    }

    /// Puts the account on the list, and gives it a place if there is one left.
    #[cold]
    fn register(&'static self) {
        // Relaxed: one thread is the first; others may do without a tally meanwhile.
        if !self.listed.swap(true, Ordering::Relaxed) {
            self.enlist();
        }
    }

    fn enlist(&'static self) {
        let place = PLACES.fetch_add(1, Ordering::Relaxed) + 1;
        if place < MAX_ACCOUNTS {
            self.place.store(place, Ordering::Relaxed);
        }
        let this = ptr::from_ref(self).cast_mut();
        let mut newest = NEWEST.load(Ordering::Relaxed);
        loop {
            self.next.store(newest, Ordering::Relaxed);
            // Release pairs with the Acquire in `accounts`: the link is there.
            match NEWEST.compare_exchange(newest, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => newest = now,
            }
        }
    }
}

/// Whether a limit is so far away that what threads have not told, two grains each,
/// does not matter.
fn is_far(told: u64, limit: u64) -> bool {
    limit == u64::MAX || told.saturating_add(128 * GRAIN_BYTES) < limit
}

fn load_i64(sum: &AtomicI64) -> i64 {
    sum.load(Ordering::Relaxed)
}

/// Declares an account, and a type that names it: `account!(pub Sessions =
/// "sessions")`. See [`Account`] and [`In`].
#[macro_export]
macro_rules! account {
    ($(#[$meta:meta])* $vis:vis $name:ident = $label:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis enum $name {}

        impl $crate::Purpose for $name {
            #[inline(always)]
            fn account() -> &'static $crate::Account {
                static ACCOUNT: $crate::Account = $crate::Account::new($label);
                &ACCOUNT
            }
        }
    };
}
