//! What debug builds ask of a lock: whether the thread that waits for it holds it, which
//! would be for ever, and whether its holder panics. Both happen where an assertion inside
//! the allocator fails: the message allocates, and what the lock guards is half done.

use crate::error::Corruption;
use crate::os;
use crate::sync::{AtomicUsize, Ordering};

/// Who holds a lock, or [`NOBODY`].
pub(super) struct Holder(AtomicUsize);

/// No thread's handle: an address, or a small number.
const NOBODY: usize = usize::MAX;

impl Holder {
    pub(super) const fn nobody() -> Holder {
        Holder(AtomicUsize::new(NOBODY))
    }

    /// Notes that this thread has taken the lock.
    #[inline]
    pub(super) fn is_me(&self) {
        // Relaxed throughout: a thread compares with its own handle, which only it writes.
        self.0.store(os::thread_handle(), Ordering::Relaxed);
    }

    /// Notes that the lock is about to be free.
    #[inline]
    pub(super) fn is_nobody(&self) {
        self.0.store(NOBODY, Ordering::Relaxed);
    }

    /// Ends the process if this thread would wait for itself.
    pub(super) fn check(&self) {
        if self.0.load(Ordering::Relaxed) == os::thread_handle() {
            os::abort(Corruption::Reentry);
        }
    }
}

/// Whether a thread was panicking when it took a lock.
pub(super) struct Calm(bool);

impl Calm {
    #[inline]
    pub(super) fn now() -> Calm {
        Calm(!std::thread::panicking())
    }

    /// Ends the process if it panics now, and did not before.
    #[inline]
    pub(super) fn check(&self) {
        if self.0 && std::thread::panicking() {
            os::abort(Corruption::Panic);
        }
    }
}
