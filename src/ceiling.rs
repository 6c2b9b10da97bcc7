//! Floor 1: how much may be in use before somebody must look at the limits.
//!
//! A limit is not checked with every operation, nor against a counter of its own:
//! where pages are taken from the page heap, or a mapping from the system, what is
//! in use then, by the books, is compared with one number. Above it the taker is
//! refused, comes back with no lock held, and `limit` looks at everything, makes
//! room or not, and raises the number.
//!
//! - E1: a number that was found by limits which have been set anew since never takes
//!   effect: the word also counts how often they were set, and is raised by
//!   compare-and-swap. Whoever sets limits writes them first and the word then.

#[cfg(all(test, loom))]
mod model;
mod pending;

use crate::config::LG_ADDRESS;
use crate::sync::{AtomicUsize, Ordering, const_unless_loom};
pub(crate) use pending::{Entry, Pending};

/// The number, in bytes of pages and mappings in use; above [`LG_ADDRESS`] bits how often
/// limits were set.
pub(crate) struct Ceiling(AtomicUsize);

/// The word as it was seen.
#[derive(Clone, Copy)]
pub(crate) struct Seen(usize);

/// More than there can be: no number.
const OPEN: usize = (1 << LG_ADDRESS) - 1;

/// Of this process.
#[cfg(not(loom))]
pub(crate) static CEILING: Ceiling = Ceiling::new();

/// Of this process.
#[cfg(not(loom))]
pub(crate) static PENDING: Pending = Pending::new();

impl Seen {
    fn bytes(self) -> usize {
        self.0 & OPEN
    }

    /// Whether there is none: then nothing needs to be looked at.
    pub(crate) fn is_open(self) -> bool {
        self.bytes() == OPEN
    }
}

impl Ceiling {
    const_unless_loom! {
        pub(crate) fn new() -> Ceiling {
            Ceiling(AtomicUsize::new(OPEN))
        }
    }

    /// What it is now; limits that are read afterwards are as new.
    pub(crate) fn seen(&self) -> Seen {
        // Acquire pairs with the Release in `change`.
        Seen(self.0.load(Ordering::Acquire))
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // Relaxed where it is compared: one that is a moment late does no harm.
        Seen(self.0.load(Ordering::Relaxed)).is_open()
    }

    /// Whether that much may be in use.
    #[inline]
    pub(crate) fn permits(&self, bytes: usize) -> bool {
        let seen = Seen(self.0.load(Ordering::Relaxed));
        seen.is_open() || bytes <= seen.bytes()
    }

    /// Limits have been set: the next taker looks, if `limited` says that there are any.
    pub(crate) fn change(&self, limited: impl Fn() -> bool) {
        let mut seen = self.seen();
        loop {
            let bytes = if limited() { 0 } else { OPEN };
            let next = (seen.0 | OPEN).wrapping_add(1) | bytes;
            // Release: the limits are there before. Acquire: so are those that another
            // thread set before, for `limited`.
            match self.0.compare_exchange(seen.0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = Seen(now),
            }
        }
    }

    /// Sets the number, unless limits have been set since `seen`; whether it did (E1). What
    /// another look at the same limits has found meanwhile gives way.
    pub(crate) fn raise(&self, mut seen: Seen, bytes: usize) -> bool {
        let limits = seen.0 & !OPEN;
        let next = limits | bytes.min(OPEN - 1);
        loop {
            // Relaxed: a number of its own.
            let set = self.0.compare_exchange(seen.0, next, Ordering::Relaxed, Ordering::Relaxed);
            match set {
                Ok(_) => return true,
                Err(now) if now & !OPEN == limits => seen = Seen(now),
                Err(_) => return false,
            }
        }
    }
}
