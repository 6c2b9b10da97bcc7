//! What a lock tells Helgrind, which cannot see it otherwise (`--cfg tallow_helgrind`):
//! who takes it and lets it go. That tool then knows which locks were held while another
//! one was taken, and says so when the order was ever the other way round, or when a
//! thread waits for a lock that it holds: deadlocks that no run need have met.

use crate::os::valgrind;
use core::ptr;

// The numbers that `valgrind/helgrind.h` promises to keep.
const UNLOCK_PRE: usize = 0x4847_0000 + 256 + 5;
const UNLOCK_POST: usize = UNLOCK_PRE + 1;
const LOCK_PRE: usize = UNLOCK_PRE + 2;
const LOCK_POST: usize = UNLOCK_PRE + 3;

fn tell<T>(what: usize, lock: &T) {
    valgrind::tell(what, ptr::from_ref(lock).addr(), 0);
}

/// A thread is about to take the lock, waiting for it if it must.
pub(super) fn taking<T>(lock: &T) {
    tell(LOCK_PRE, lock);
}

/// A thread has taken it.
pub(super) fn taken<T>(lock: &T) {
    tell(LOCK_POST, lock);
}

/// A thread is about to let it go.
pub(super) fn letting_go<T>(lock: &T) {
    tell(UNLOCK_PRE, lock);
    tell(UNLOCK_POST, lock);
}
