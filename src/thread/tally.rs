//! Tallies: what each thread has done in each account.
//!
//! A thread's tallies are a page of metadata, made when it first uses an account.
//! They belong to its record: the next thread with that record goes on with them,
//! so no sum is lost when a thread ends, nor in a forked child. The thread itself
//! adds by plain loads and stores; everybody may read. Relaxed but for what Y2 says:
//! each field is a sum of its own.
//!
//! - Y1: only the thread whose cache points to a tally writes it. The first tally
//!   of a page is nobody's: it stays zero, so that its account takes the slow path.
//! - Y2: what is fresh is added to the sums before it is taken from the fresh ones of
//!   requests, and after for returns; and it is read in the same order: of requests what
//!   is fresh first, of returns the sums. So whoever reads in between may find too much
//!   live, by what is fresh, but not too little.
//! - Y3: one thread may give back what another asked for. So whoever sums an account over
//!   threads reads the returns of all of them before the requests of any.

#[cfg(loom)]
pub(crate) mod model;

use super::cache::Cache;
use super::record::{Record, each_record};
use crate::arena::CENTRAL;
use crate::config::MAX_ACCOUNTS;
use crate::sync::{AtomicI64, AtomicU64, Ordering, fence};
use core::ptr::NonNull;

/// Bytes that a thread takes or gives back before it looks whether to tell the account,
/// and net, before it tells.
pub(crate) const GRAIN_BYTES: u64 = 32 << 10;

/// What one thread, or the threads that used a record one after the other, did in
/// one account. Two cache lines, of which operations touch the first.
#[repr(C, align(64))]
pub(crate) struct Tally {
    asked: Side,
    returned: Side,
    /// Live bytes that are no longer fresh, but of which the account has not been told.
    untold_bytes: AtomicI64,
}

#[cfg(not(loom))]
static_assertions::const_assert!(size_of::<Tally>() == 128);

/// Requests, or returns.
#[repr(C)]
struct Side {
    /// What the account has not been told: bytes above [`LG_COUNT`] bits, and blocks.
    /// One word, so that an operation is one addition.
    fresh: AtomicU64,
    /// The most that it may be.
    until: AtomicU64,
    bytes: AtomicU64,
    blocks: AtomicU64,
}

/// A block has a byte at least, and the account is told every [`GRAIN_BYTES`].
const LG_COUNT: u32 = 16;
static_assertions::const_assert!(GRAIN_BYTES + 2 < 1 << LG_COUNT);

/// Sums over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) asked_bytes: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
}

/// Adds where only this thread writes. Relaxed: the fences of `settle` order it.
#[inline(always)]
fn add(sum: &AtomicU64, n: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn sum(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0.wrapping_add(other.0), one.1.wrapping_add(other.1))
}

impl Side {
    #[inline(always)]
    fn add_fresh(&self, bytes: u64, blocks: u64, order: Ordering) -> bool {
        /// More than a grain, of which no bit is lost.
        const MOST: u64 = 1 << (u64::BITS - LG_COUNT - 1);
        let more = bytes.min(MOST) << LG_COUNT | blocks;
        let fresh = self.fresh.load(Ordering::Relaxed).wrapping_add(more);
        if fresh > self.until.load(Ordering::Relaxed) {
            return false;
        }
        self.fresh.store(fresh, order);
        true
    }

    /// Enters fresh bytes and blocks as told.
    fn add(&self, bytes: u64, blocks: u64) {
        add(&self.bytes, bytes);
        add(&self.blocks, blocks);
    }

    /// Sets how much fresher it may get.
    fn set_grain(&self, bytes: u64) {
        let fresh = self.fresh.load(Ordering::Relaxed) >> LG_COUNT;
        let blocks = (1 << LG_COUNT) - 1;
        self.until.store((fresh + bytes) << LG_COUNT | blocks, Ordering::Relaxed);
    }

    fn fresh(&self) -> (u64, u64) {
        // Acquire, for others: pairs with the Release of `give`, and with the fences of
        // `settle`. And so in `told` (Y2).
        let fresh = self.fresh.load(Ordering::Acquire);
        (fresh >> LG_COUNT, fresh & ((1 << LG_COUNT) - 1))
    }

    fn told(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Acquire), self.blocks.load(Ordering::Acquire))
    }
}

impl Tally {
    /// Enters bytes asked for, in `n` blocks; `false`, and nothing is entered, when
    /// it is time to tell the account.
    #[inline(always)]
    pub(crate) fn ask(&self, bytes: u64, n: u64) -> bool {
        self.asked.add_fresh(bytes, n, Ordering::Relaxed)
    }

    /// Enters bytes given back, as [`ask`](Self::ask) does.
    #[inline(always)]
    pub(crate) fn give(&self, bytes: u64, n: u64) -> bool {
        // Release: who reads this reads what it belongs to (Y2).
        self.returned.add_fresh(bytes, n, Ordering::Release)
    }

    /// Enters both kinds, also with the signs turned, and what is fresh. Returns the
    /// live bytes that the account does not know of.
    pub(crate) fn enter(&self, asked: u64, allocations: u64, returned: u64, frees: u64) -> i64 {
        let fresh = self.settle();
        self.asked.add(asked, allocations);
        self.returned.add(returned, frees);
        let more = asked.wrapping_sub(returned) as i64;
        self.untold_bytes.load(Ordering::Relaxed).wrapping_add(fresh).wrapping_add(more)
    }

    /// Notes what the account has not been told.
    pub(crate) fn set_untold(&self, bytes: i64) {
        self.untold_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Nothing is fresh any more. Returns the live bytes that were.
    fn settle(&self) -> i64 {
        let ((asked, allocations), (returned, frees)) = (self.asked.fresh(), self.returned.fresh());
        // In this order (Y2), which the fences also give to all later stores.
        self.asked.add(asked, allocations);
        fence(Ordering::Release);
        self.asked.fresh.store(0, Ordering::Relaxed);
        self.returned.fresh.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        self.returned.add(returned, frees);
        asked as i64 - returned as i64
    }

    /// Sets how much may be asked for, and how much returned, before the account is
    /// told again.
    pub(crate) fn set_grain(&self, ask: u64, give: u64) {
        self.asked.set_grain(ask.min(GRAIN_BYTES));
        self.returned.set_grain(give.min(GRAIN_BYTES));
    }

    /// Bytes and blocks given back (Y2).
    fn returned(&self) -> (u64, u64) {
        let told = self.returned.told();
        sum(told, self.returned.fresh())
    }

    /// Bytes and blocks asked for (Y2).
    fn asked(&self) -> (u64, u64) {
        let fresh = self.asked.fresh();
        sum(fresh, self.asked.told())
    }
}

impl Sums {
    /// May be negative for one thread: what one asks for another gives back.
    pub(crate) fn live_bytes(&self) -> i64 {
        self.asked_bytes.wrapping_sub(self.returned_bytes) as i64
    }

    pub(crate) fn live_count(&self) -> i64 {
        self.allocations.wrapping_sub(self.frees) as i64
    }
}

/// The sums of account `index` over all threads that there ever were. All
/// returns are read before any request (Y3).
pub(crate) fn sum_tallies(index: usize) -> Sums {
    let (mut returned, mut asked) = ((0, 0), (0, 0));
    each_tally(index, |tally| returned = sum(returned, tally.returned()));
    each_tally(index, |tally| asked = sum(asked, tally.asked()));
    Sums {
        asked_bytes: asked.0,
        returned_bytes: returned.0,
        allocations: asked.1,
        frees: returned.1,
    }
}

fn each_tally(index: usize, mut f: impl FnMut(&Tally)) {
    each_record(|record| {
        // SAFETY: tallies are never given back, and there are that many.
        if let Some(tallies) = unsafe { record.tallies().as_ref() } {
            f(&tallies[index.min(MAX_ACCOUNTS - 1)]);
        }
    });
}

/// The tallies of one thread.
pub(crate) type Tallies = [Tally; MAX_ACCOUNTS];

impl Cache {
    /// The thread's tally of account `index`; `None` before it has any.
    ///
    /// # Safety
    /// `index` is below [`MAX_ACCOUNTS`].
    #[inline(always)]
    pub(crate) unsafe fn tally(&self, index: usize) -> Option<&Tally> {
        debug_assert!(index < MAX_ACCOUNTS);
        // SAFETY: tallies are never given back.
        let tallies = unsafe { self.tallies().as_ref() }?;
        // SAFETY: the caller's promise.
        Some(unsafe { tallies.get_unchecked(index) })
    }

    /// As [`tally`](Self::tally), making the thread's tallies if need be. `None` when
    /// it must do without: it has no record, or memory is out.
    #[cold]
    pub(crate) fn tally_made(&self, index: usize) -> Option<&Tally> {
        if self.tallies().is_null() {
            self.with_record(|record| self.set_tallies(tallies_of(record)));
        }
        // SAFETY: tallies are never given back.
        unsafe { self.tallies().as_ref() }?.get(index)
    }
}

/// Makes tallies of new memory: it is zero, as they are.
#[cfg(not(loom))]
fn lay_out(_: NonNull<Tallies>) {}
#[cfg(loom)]
use model::lay_out;

/// The record's tallies, made if need be; null when memory is out.
fn tallies_of(record: &Record) -> *mut Tallies {
    if record.tallies().is_null()
        && let Some(node) = CENTRAL.meta.take(size_of::<Tallies>() + align_of::<Tallies>())
    {
        let spare = node.align_offset(align_of::<Tallies>());
        // SAFETY: the node has room for that. It is zero: nodes of this size are never
        // given back, so this one is new, and zero is a valid tally.
        let tallies: NonNull<Tallies> = unsafe { node.byte_add(spare) }.cast();
        lay_out(tallies);
        record.set_tallies(tallies.as_ptr());
    }
    record.tallies()
}
