//! What an account tells.

use super::{Account, NEWEST};
use crate::limit::Limits;
use crate::sync::Ordering;
use core::fmt;

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
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The books of all accounts that have been used, newest first. Allocates nothing.
pub fn accounts() -> impl Iterator<Item = AccountStats> {
    Account::all().map(Account::stats)
}

impl Account {
    /// All that have been used, newest first.
    pub(super) fn all() -> impl Iterator<Item = &'static Self> {
        // Acquire pairs with the Release in `enlist`.
        let mut at = NEWEST.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: only accounts that live for ever are on the list.
            let account = unsafe { at.as_ref() }?;
            // Relaxed: written before the account was published, never since.
            at = account.next.load(Ordering::Relaxed);
            Some(account)
        })
    }
}
