//! Floor 9: accounts: what the program's memory is for.
//!
//! An [`Account`] is a name with exact books: bytes and blocks that are live now,
//! how many there have been. It is an [`Allocator`], so a collection is told once
//! where its memory belongs; blocks bear no mark.
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

use crate::config::MAX_ACCOUNTS;
use crate::global::Tallow;
use crate::heap;
use crate::limit::{self, Limits, Measure, Pressure};
use crate::settings::Builder;
use crate::sync::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::thread::{GRAIN_BYTES, Sums, Tally, sum_tallies, with_cache};
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// The place of an account without tallies: nothing has been entered in it yet, or
/// there are too many others. The tally there is nobody's (thread, Y1).
const NONE: usize = 0;

/// A purpose that memory is used for, with its own books and limits.
///
/// For a `static`, once for each purpose; [`account!`](crate::account!) makes one
/// together with a type to name it by. `&'static Account` is an [`Allocator`] of 8
/// bytes in each collection, [`In`] one of none.
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
    soft_bytes: AtomicU64,
    hard_bytes: AtomicU64,
    /// The soft limit counts as passed again above this.
    armed_bytes: AtomicU64,
    soft_hits: AtomicU64,
    refusals: AtomicU64,
}

/// Counters that threads share. Relaxed: sums of their own.
struct Untallied {
    asked_bytes: AtomicU64,
    returned_bytes: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
}

/// The accounts that have been used, newest first; never taken off.
static NEWEST: AtomicPtr<Account> = AtomicPtr::new(ptr::null_mut());
/// How many places have been given away. No lock, which a fork could leave locked.
static PLACES: AtomicUsize = AtomicUsize::new(0);

/// The books of an [`Account`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct AccountStats {
    /// Its name.
    pub name: &'static str,
    /// Bytes asked for and not given back: exact, as
    /// [`requested_bytes`](crate::Snapshot::requested_bytes) is for the process.
    pub live_bytes: u64,
    /// Blocks of those.
    pub live_count: u64,
    /// The most that was live at once: exact to 64 KiB for each thread.
    pub peak_bytes: u64,
    /// Bytes asked for so far.
    pub asked_bytes: u64,
    /// Blocks allocated so far.
    pub allocations: u64,
    /// Blocks freed so far.
    pub frees: u64,
    /// Its limits.
    pub limits: Limits,
    /// How often the soft limit was passed.
    pub soft_hits: u64,
    /// Allocations refused because of the hard one.
    pub refusals: u64,
}

impl Account {
    /// An account without limits.
    pub const fn new(name: &'static str) -> Self {
        let none = u64::MAX;
        Self {
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
            soft_bytes: AtomicU64::new(none),
            hard_bytes: AtomicU64::new(none),
            armed_bytes: AtomicU64::new(none),
            soft_hits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
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

    /// Its books: exact when no thread uses it meanwhile. Some loads for each thread
    /// there ever was; allocates nothing.
    pub fn stats(&self) -> AccountStats {
        let sums = self.sums();
        let live = sums.live_bytes().max(0);
        AccountStats {
            name: self.name,
            live_bytes: live as u64,
            live_count: sums.live_count().max(0) as u64,
            peak_bytes: self.peak_bytes.load(Ordering::Relaxed).max(live) as u64,
            asked_bytes: sums.asked_bytes,
            allocations: sums.allocations,
            frees: sums.frees,
            limits: self.limits(),
            soft_hits: self.soft_hits.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
        }
    }

    /// Sets limits on its live bytes, in place of those before. Beyond the soft one,
    /// free memory is purged and the [callback](limit::on_pressure) called; beyond
    /// the hard one allocation fails.
    ///
    /// With one thread the limits are exact; with several, each may be past them by
    /// up to 64 KiB, since it tells the account no more often. A change reaches a
    /// thread with its next 32 KiB.
    pub fn set_limits(&self, limits: Limits) {
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        // Relaxed throughout: numbers of their own.
        self.soft_bytes.store(number(limits.soft_bytes), Ordering::Relaxed);
        self.armed_bytes.store(number(limits.soft_bytes), Ordering::Relaxed);
        self.hard_bytes.store(number(limits.hard_bytes), Ordering::Relaxed);
        let place = self.place.load(Ordering::Relaxed);
        if place != NONE {
            // The calling thread heeds it at once.
            with_cache(|cache| {
                // SAFETY: as in `ask`.
                unsafe { cache.tally(place) }.map(|tally| tally.set_grain(0, GRAIN_BYTES))
            });
        }
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        let limit = |kept: &AtomicU64| {
            let bytes = kept.load(Ordering::Relaxed);
            (bytes != u64::MAX).then_some(bytes)
        };
        Limits { soft_bytes: limit(&self.soft_bytes), hard_bytes: limit(&self.hard_bytes) }
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
        let returned_bytes = shared.returned_bytes.load(Ordering::Relaxed);
        let frees = shared.frees.load(Ordering::Relaxed);
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

    #[cold]
    #[inline(never)]
    fn ask_slow(&'static self, bytes: usize, n: u64, forced: bool) -> bool {
        if !forced && !self.makes_room(bytes as u64) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            limit::note(true);
            return false;
        }
        self.enter(bytes, n, 0, 0);
        true
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
                shared.returned_bytes.fetch_add(returned, Ordering::Relaxed);
                shared.frees.fetch_add(frees, Ordering::Relaxed);
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
        if self.listed.swap(true, Ordering::Relaxed) {
            return;
        }
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

    /// Whether `bytes` more fit below the hard limit, after room was made if it had to
    /// be.
    fn makes_room(&'static self, bytes: u64) -> bool {
        let load = |limit: &AtomicU64| limit.load(Ordering::Relaxed);
        let (hard, armed) = (load(&self.hard_bytes), load(&self.armed_bytes));
        let told = load_i64(&self.told_bytes).max(0) as u64;
        if is_far(told.saturating_add(bytes), hard.min(armed)) {
            return true;
        }
        let soft = load(&self.soft_bytes);
        let mut sum = self.live_bytes().saturating_add(bytes);
        if sum <= hard && sum <= armed {
            if sum < soft {
                self.armed_bytes.store(soft, Ordering::Relaxed);
            }
            return true;
        }
        heap::purge();
        for (limit, is_hard) in [(armed, false), (hard, true)] {
            if sum > limit {
                if !is_hard {
                    self.soft_hits.fetch_add(1, Ordering::Relaxed);
                    limit::note(false);
                }
                limit::call_back(&Pressure {
                    account: Some(self.name),
                    measure: Measure::Allocated,
                    limit_bytes: if is_hard { hard } else { soft },
                    bytes: sum,
                    is_hard,
                });
                sum = self.live_bytes().saturating_add(bytes);
            }
        }
        // While it stays above, it is passed anew with every 32nd part more.
        let armed = if sum > soft { sum.saturating_add(soft / 32) } else { soft };
        self.armed_bytes.store(armed, Ordering::Relaxed);
        sum <= hard
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

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The books of all accounts that have been used, newest first. Allocates nothing.
pub fn accounts() -> impl Iterator<Item = AccountStats> {
    // Acquire pairs with the Release in `register`.
    let mut at = NEWEST.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        // SAFETY: only accounts that live for ever are on the list.
        let account = unsafe { at.as_ref() }?;
        // Relaxed: written before the account was published, never since.
        at = account.next.load(Ordering::Relaxed);
        Some(account.stats())
    })
}

const DEFAULT: &Builder = &Builder::DEFAULT;

/// A block of `layout`, entered in `account`.
#[inline(always)]
fn allocate(
    account: &'static Account,
    layout: Layout,
    zeroed: bool,
) -> Result<NonNull<[u8]>, AllocError> {
    let size = layout.size();
    if size == 0 {
        return Tallow.allocate(layout);
    }
    if !account.ask::<false>(size, 1) {
        return Err(AllocError);
    }
    let block = if zeroed {
        heap::allocate_zeroed::<true>(layout, DEFAULT)
    } else {
        heap::allocate::<true>(layout, DEFAULT)
    };
    let Some(block) = NonNull::new(block) else {
        account.unask(size, 1);
        return Err(AllocError);
    };
    Ok(NonNull::slice_from_raw_parts(block, size))
}

/// Takes a block back.
///
/// # Safety
/// It was allocated in `account` with `layout`, and is used no more.
#[inline(always)]
unsafe fn deallocate(account: &'static Account, block: NonNull<u8>, layout: Layout) {
    if layout.size() > 0 {
        // SAFETY: the caller's promise.
        unsafe { heap::free(block.as_ptr(), layout) }
        account.give(layout.size(), 1);
    }
}

/// Changes a block's layout.
///
/// # Safety
/// As for [`Allocator::grow`] and [`Allocator::shrink`].
unsafe fn resize(
    account: &'static Account,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    // What becomes a block, or stops to be one, counts as one.
    let more = new.size().saturating_sub(old.size());
    let begins = u64::from(old.size() == 0 && new.size() > 0);
    if more > 0 && !account.ask::<false>(more, begins) {
        return Err(AllocError);
    }
    // SAFETY: the caller's promise.
    let resized = unsafe {
        if new.size() >= old.size() {
            Tallow.grow(block, old, new)
        } else {
            Tallow.shrink(block, old, new)
        }
    };
    match resized {
        Err(_) if more > 0 => account.unask(more, begins),
        Ok(_) if old.size() > new.size() => {
            account.give(old.size() - new.size(), u64::from(new.size() == 0));
        }
        _ => {}
    }
    resized
}

macro_rules! allocator_in {
    ($type:ty, [$($generics:tt)*], $self:ident => $account:expr) => {
        // SAFETY: blocks are Tallow's; the books beside them change nothing.
        unsafe impl<$($generics)*> Allocator for $type {
            #[inline]
            fn allocate(&$self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate($account, layout, false)
            }

            #[inline]
            fn allocate_zeroed(&$self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate($account, layout, true)
            }

            #[inline]
            unsafe fn deallocate(&$self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise.
                unsafe { deallocate($account, block, layout) }
            }

            unsafe fn grow(
                &$self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize($account, block, old, new) }
            }

            unsafe fn shrink(
                &$self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize($account, block, old, new) }
            }
        }
    };
}

allocator_in!(&'static Account, [], self => self);
allocator_in!(In<P>, [P: Purpose], self => P::account());

/// A type that names an account, so that it takes no room to say which. Made by
/// [`account!`](crate::account!).
pub trait Purpose: 'static {
    /// The account.
    fn account() -> &'static Account;
}

/// An [`Allocator`] of no size, which enters what it allocates in the account of `P`.
pub struct In<P>(PhantomData<fn() -> P>);

impl<P> In<P> {
    /// The allocator.
    pub const NEW: Self = Self(PhantomData);
}

impl<P> Clone for In<P> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for In<P> {}

impl<P> Default for In<P> {
    #[inline]
    fn default() -> Self {
        Self::NEW
    }
}

impl<P: Purpose> fmt::Debug for In<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "In({})", P::account().name())
    }
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
