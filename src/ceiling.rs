//! Floor 1: how much may be in use before somebody must look at the limits.
//!
//! A limit is not checked with every operation, nor against a counter of its own:
//! where pages are taken from the page heap, or a mapping from the system, what is
//! in use then, by the books, is compared with one number. Above it the taker is
//! refused, comes back with no lock held, and `limit` looks at everything, makes
//! room or not, and sets the number anew.

use crate::sync::{AtomicUsize, Ordering};

/// The number, in bytes of pages and mappings in use.
pub(crate) struct Ceiling(AtomicUsize);

/// Of this process. Relaxed where it is compared: a number of its own, and one that is
/// a moment late does no harm.
pub(crate) static CEILING: Ceiling = Ceiling(AtomicUsize::new(usize::MAX));

impl Ceiling {
    /// Whether there is none: then nothing needs to be looked at.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == usize::MAX
    }

    /// Whether that much may be in use.
    #[inline]
    pub(crate) fn permits(&self, bytes: usize) -> bool {
        bytes <= self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bytes: usize) {
        // Release pairs with the Acquire in `open`: limits are there before it is.
        self.0.store(bytes, Ordering::Release);
    }

    /// Takes it away; whatever led to the number before is seen now.
    pub(crate) fn open(&self) {
        self.0.swap(usize::MAX, Ordering::Acquire);
    }
}
