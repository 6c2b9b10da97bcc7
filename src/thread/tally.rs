//! Tallies: what each thread has done in each account.
//!
//! A thread's tallies are a page of metadata, made when it first uses an account.
//! They belong to its record: the next thread with that record goes on with them,
//! so no sum is lost when a thread ends, nor in a forked child. The thread itself
//! adds by plain loads and stores; everybody may read. Relaxed throughout: each
//! field is a sum of its own.
//!
//! - Y1: only the thread whose cache points to a tally writes it. The first tally
//!   of a page is nobody's: it stays zero, so that its account takes the slow path.

use super::cache::Cache;
use super::record::{Record, each_record};
use crate::arena::CENTRAL;
use crate::config::MAX_ACCOUNTS;
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use core::ptr::NonNull;

/// Bytes that a thread takes or gives back before it tells the account.
pub(crate) const GRAIN_BYTES: u64 = 32 << 10;

/// What one thread, or the threads that used a record one after the other, did in
/// one account. A cache line.
#[repr(C, align(64))]
pub(crate) struct Tally {
    asked_bytes: AtomicU64,
    returned_bytes: AtomicU64,
    allocations: AtomicU64,
    frees: AtomicU64,
    /// The sums at which the account is told.
    asked_until: AtomicU64,
    returned_until: AtomicU64,
    /// Bytes asked for less bytes returned, as the account knows them.
    told_bytes: AtomicI64,
}

static_assertions::const_assert!(size_of::<Tally>() == 64);

/// Sums over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) asked_bytes: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
}

/// Adds where only this thread writes.
#[inline(always)]
fn add(sum: &AtomicU64, n: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

impl Tally {
    /// Enters bytes asked for, in `n` blocks; `false`, and nothing is entered, when
    /// it is time to tell the account.
    #[inline(always)]
    pub(crate) fn ask(&self, bytes: u64, n: u64) -> bool {
        let asked = self.asked_bytes.load(Ordering::Relaxed).wrapping_add(bytes);
        if asked > self.asked_until.load(Ordering::Relaxed) {
            return false;
        }
        self.asked_bytes.store(asked, Ordering::Relaxed);
        add(&self.allocations, n);
        true
    }

    /// Enters bytes given back, as [`ask`](Self::ask) does.
    #[inline(always)]
    pub(crate) fn give(&self, bytes: u64, n: u64) -> bool {
        let returned = self.returned_bytes.load(Ordering::Relaxed).wrapping_add(bytes);
        if returned > self.returned_until.load(Ordering::Relaxed) {
            return false;
        }
        self.returned_bytes.store(returned, Ordering::Relaxed);
        add(&self.frees, n);
        true
    }

    /// Takes a request back that came to nothing.
    pub(crate) fn unask(&self, bytes: u64, n: u64) {
        add(&self.asked_bytes, bytes.wrapping_neg());
        add(&self.allocations, n.wrapping_neg());
    }

    /// Enters both kinds without a look at what has been told.
    pub(crate) fn enter(&self, asked: u64, allocations: u64, returned: u64, frees: u64) {
        add(&self.asked_bytes, asked);
        add(&self.allocations, allocations);
        add(&self.returned_bytes, returned);
        add(&self.frees, frees);
    }

    /// What the account does not know yet; it is told now.
    pub(crate) fn tell(&self) -> i64 {
        let net = self.sums().live_bytes();
        let told = self.told_bytes.load(Ordering::Relaxed);
        self.told_bytes.store(net, Ordering::Relaxed);
        net.wrapping_sub(told)
    }

    /// Sets how much may be asked for, and how much returned, before the account is
    /// told again.
    pub(crate) fn set_grain(&self, ask: u64, give: u64) {
        let sums = self.sums();
        self.asked_until.store(sums.asked_bytes.saturating_add(ask), Ordering::Relaxed);
        self.returned_until.store(sums.returned_bytes.saturating_add(give), Ordering::Relaxed);
    }

    fn sums(&self) -> Sums {
        // The returns first: what they belong to was asked for before.
        let returned_bytes = self.returned_bytes.load(Ordering::Relaxed);
        let frees = self.frees.load(Ordering::Relaxed);
        Sums {
            asked_bytes: self.asked_bytes.load(Ordering::Relaxed),
            returned_bytes,
            allocations: self.allocations.load(Ordering::Relaxed),
            frees,
        }
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

    fn add(&mut self, other: &Self) {
        self.asked_bytes = self.asked_bytes.wrapping_add(other.asked_bytes);
        self.returned_bytes = self.returned_bytes.wrapping_add(other.returned_bytes);
        self.allocations = self.allocations.wrapping_add(other.allocations);
        self.frees = self.frees.wrapping_add(other.frees);
    }
}

/// The sums of account `index` over all threads that there ever were.
pub(crate) fn sum_tallies(index: usize) -> Sums {
    let mut sum = Sums::default();
    each_record(|record| {
        // SAFETY: tallies are never given back, and there are that many.
        if let Some(tallies) = unsafe { record.tallies().as_ref() } {
            sum.add(&tallies[index.min(MAX_ACCOUNTS - 1)].sums());
        }
    });
    sum
}

/// The tallies of one thread.
pub(crate) type Tallies = [Tally; MAX_ACCOUNTS];

impl Cache {
    /// The thread's tally of account `index`; `None` before it has any.
    #[inline(always)]
    pub(crate) fn tally(&self, index: usize) -> Option<&Tally> {
        debug_assert!(index < MAX_ACCOUNTS);
        // SAFETY: tallies are never given back, and there are that many.
        unsafe { self.tallies().as_ref() }?.get(index)
    }

    /// As [`tally`](Self::tally), making the thread's tallies if need be. `None` when
    /// it must do without: it has no record, or memory is out.
    #[cold]
    pub(crate) fn tally_made(&self, index: usize) -> Option<&Tally> {
        if self.tallies().is_null() {
            self.with_record(|record| self.set_tallies(tallies_of(record)));
        }
        self.tally(index)
    }
}

/// The record's tallies, made if need be; null when memory is out.
fn tallies_of(record: &Record) -> *mut Tallies {
    if record.tallies().is_null()
        && let Some(node) = CENTRAL.meta.take(size_of::<Tallies>() + align_of::<Tallies>())
    {
        let spare = node.align_offset(align_of::<Tallies>());
        // SAFETY: the node has room for that. It is zero: nodes of this size are never
        // given back, so this one is new, and zero is a valid tally.
        let tallies: NonNull<Tallies> = unsafe { node.byte_add(spare) }.cast();
        record.set_tallies(tallies.as_ptr());
    }
    record.tallies()
}
