//! What is permitted and not in the books yet: a part of the ceiling's floor.
//!
//! Between the look at the books that permits a block and the entry of that block in them
//! time goes by, a lot of it if the memory comes from the system. Threads that ask meanwhile
//! must find the block taken.
//!
//! - E2: what is in the books and what is pending have been within what `fits` allows at
//!   the moment of each [`enter`](Pending::enter). The word is read before the books, and
//!   changed by compare-and-swap afterwards: what was entered, or has come and gone, in
//!   between makes that fail, since the word also counts the entries. What had gone before is
//!   in the books, and is seen there: it [left](Pending::leave) with `Release`, and the word
//!   is read with `Acquire`.

use crate::config::LG_ADDRESS;
use crate::sync::{AtomicUsize, Ordering, const_unless_loom};

/// Bytes that are pending; above [`LG_ADDRESS`] bits how often some were entered.
pub(crate) struct Pending(AtomicUsize);

/// The part of the word that is bytes.
const BYTES: usize = (1 << LG_ADDRESS) - 1;

/// What has become of an [`enter`](Pending::enter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// They are pending, until they leave.
    Entered,
    /// Others have been entered meanwhile: it may be tried again.
    Overtaken,
    /// With them so many would be pending, and these do not fit.
    Over(usize),
    /// There is no address space for so many.
    Absurd,
}

impl Pending {
    const_unless_loom! {
        pub(crate) fn new() -> Pending {
            Pending(AtomicUsize::new(0))
        }
    }

    /// Enters `bytes`, if `fits` says of all that would be pending then that it fits beside
    /// what is in the books (E2).
    #[inline]
    pub(crate) fn enter(&self, bytes: usize, fits: impl FnOnce(usize) -> bool) -> Entry {
        // Acquire pairs with the Release in `leave`, also through what others did to the word
        // since: each change is a read and a write in one.
        let seen = self.0.load(Ordering::Acquire);
        let sum = (seen & BYTES).saturating_add(bytes);
        if sum > BYTES {
            return Entry::Absurd;
        }
        if !fits(sum) {
            return Entry::Over(sum);
        }
        let next = (seen | BYTES).wrapping_add(1) | sum;
        // Relaxed: what it says of the books was read before.
        match self.0.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Entry::Entered,
            Err(_) => Entry::Overtaken,
        }
    }

    /// `bytes` that were entered are in the books, or will not be.
    #[inline]
    pub(crate) fn leave(&self, bytes: usize) {
        // Release: who reads this finds them in the books (E2).
        self.0.fetch_sub(bytes, Ordering::Release);
    }

    /// In a forked child: the threads that had entered them do not go on here.
    #[cfg(not(loom))]
    pub(crate) fn forget(&self) {
        // Relaxed: there is no other thread.
        self.0.fetch_and(!BYTES, Ordering::Relaxed);
    }

    /// Bytes that are pending now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed) & BYTES
    }

    /// The word, for twins of the models.
    #[cfg(all(test, loom))]
    pub(super) fn word(&self) -> &AtomicUsize {
        &self.0
    }
}
