//! All locks of what the threads share, held at once: for audits and around forks.
//!
//! They are taken in the order of [`crate::arena`]. Whoever holds them finds every slab in
//! a bin or gone, and every block on its table, whose pages are lent.

#[cfg(all(test, loom))]
mod model;

use super::bin::Bin;
use super::guarded::GUARDED;
use super::huge::Huge;
use super::large::Large;
use crate::config::HARDENED;
use crate::meta::Meta;
use crate::pages::PageHeap;
use crate::slab::Protocol;

/// What has a lock, but for the bins.
pub(super) struct Locks<'a> {
    pub(super) large: &'a Large,
    pub(super) huge: &'a Huge,
    pub(super) pages: &'a PageHeap,
    pub(super) meta: &'a Meta,
}

impl Locks<'_> {
    /// Takes all locks.
    pub(super) fn hold<'a, P: Protocol + 'a>(&self, bins: impl Iterator<Item = &'a Bin<P>>) {
        bins.for_each(Bin::raw_lock);
        self.large.raw_lock();
        self.huge.raw_lock();
        if HARDENED {
            GUARDED.raw_lock();
        }
        self.pages.raw_lock();
        self.meta.raw_lock();
    }

    /// Lets go of them.
    ///
    /// # Safety
    /// The caller holds all, by [`hold`](Self::hold).
    pub(super) unsafe fn let_go<'a, P: Protocol + 'a>(
        &self,
        bins: impl Iterator<Item = &'a Bin<P>>,
    ) {
        // SAFETY: held, by the caller's promise; so below.
        unsafe { self.meta.raw_unlock() };
        // SAFETY: as above.
        unsafe { self.pages.raw_unlock() };
        if HARDENED {
            // SAFETY: as above.
            unsafe { GUARDED.raw_unlock() };
        }
        // SAFETY: as above.
        unsafe { self.huge.raw_unlock() };
        // SAFETY: as above.
        unsafe { self.large.raw_unlock() };
        for bin in bins {
            // SAFETY: as above.
            unsafe { bin.raw_unlock() };
        }
    }
}
