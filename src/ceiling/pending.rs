//! What is permitted and not in the books yet: a part of the ceiling's floor.
//!
//! Between the look at the books that permits a block and the entry of that block in them
//! time goes by, a lot of it if the memory comes from the system. Threads that ask for blocks
//! meanwhile must find it taken.
//!
//! - E2: what is in the books and what is pending have been within what `fits` allows at
//!   the moment of each [`enter`](Pending::enter). The word is read before the books, and
//!   changed by compare-and-swap afterwards: what was entered, or has come and gone, in
//!   between makes that fail, since the word also counts the entries. What had gone before is
//!   in the books, and is seen there: it [left](Pending::leave) with `Release`, and the word
//!   is read with `Acquire`.
//! - E3: nobody is told that it does not fit because another's bytes were counted twice,
//!   pending and in the books, or were pending for nothing. Who fits without the others'
//!   waits for them to leave; not for ever, as they may be asleep.

use crate::config::LG_ADDRESS;
use crate::sync::{AtomicUsize, Ordering, const_unless_loom, give_way};

/// Bytes that are pending; above [`LG_ADDRESS`] bits how often some were entered.
pub(crate) struct Pending(AtomicUsize);

/// The part of the word that is bytes.
const BYTES: usize = (1 << LG_ADDRESS) - 1;

/// How often a thread gives way to others before it says that there is no room.
const PATIENCE: u32 = 256;

/// What has become of an [`enter`](Pending::enter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// They are pending, until they leave.
    Entered,
    /// They do not fit: so many are too many. These alone, or with what others have had
    /// pending for as long as one may wait.
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
    pub(crate) fn enter(&self, bytes: usize, fits: impl Fn(usize) -> bool) -> Entry {
        let mut sum = bytes;
        for _ in 0..PATIENCE {
            // Acquire pairs with the Release in `leave`, also through what others did to the
            // word since: each change is a read and a write in one.
            let seen = self.0.load(Ordering::Acquire);
            sum = (seen & BYTES).saturating_add(bytes);
            if sum > BYTES {
                return Entry::Absurd;
            }
            if fits(sum) {
                let next = (seen | BYTES).wrapping_add(1) | sum;
                // Relaxed: what it says of the books was read before.
                let change =
                    self.0.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
                if change.is_ok() {
                    return Entry::Entered;
                }
            } else if sum == bytes || !fits(bytes) {
                return Entry::Over(bytes);
            }
            // Others have entered or left, or will leave (E3).
            give_way();
        }
        Entry::Over(sum)
    }

    /// `bytes` that were entered are in the books, or will not be.
    #[inline]
    pub(crate) fn leave(&self, bytes: usize) {
        // There are fewer only in a child that was forked by a signal's handler meanwhile.
        let left = |word: usize| Some(word - bytes.min(word & BYTES));
        // Release: who reads this finds them in the books (E2).
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, left);
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
