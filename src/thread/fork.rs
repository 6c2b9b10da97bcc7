//! Holding everything still: for audits, and around `fork`.
//!
//! A fork copies one thread and all memory. So that the copy is whole, the
//! parent takes every lock first, in order; both sides let go afterwards. What
//! the parent's other threads had in their magazines is *stranded* in the
//! child: their records keep it, and the next user of a record, or a purge,
//! hands it back. (A region that such a thread was just popping or pushing is
//! in the books as cached or as allocated; it is never handed out twice.)

use super::cache;
use super::record::{self, Record, Shared, each_record, orphan};
use super::{Cache, with_cache};
use crate::arena::CENTRAL;
use crate::class::Class;
use crate::os;
use crate::sync::{AtomicBool, AtomicU64, Ordering, statics};
use core::ptr;

/// Has the fork handlers called; once it has been arranged, it is.
#[cfg(not(loom))]
pub(super) fn watch() {
    static DONE: AtomicBool = AtomicBool::new(false);
    // Relaxed: a flag of its own; a second thread need not wait for the first.
    if !DONE.swap(true, Ordering::Relaxed) {
        if !os::at_fork(before_fork, after_fork_in_parent, after_fork_in_child) {
            // Memory is out: the next thread tries again.
            DONE.store(false, Ordering::Relaxed);
        }
        os::expect_barriers();
    }
}

/// A model calls them itself.
#[cfg(loom)]
pub(super) fn watch() {}

/// Takes every lock of the allocator, in order. Hot paths go on; nothing else
/// does.
pub(crate) fn hold_everything() {
    cache::RECALL.raw_lock();
    record::hold_registry();
    each_record(|record| record.lock.raw_lock());
    CENTRAL.hold();
}

/// Lets go of what [`hold_everything`] took.
///
/// # Safety
/// The caller holds everything. No record was made meanwhile: that needs the
/// registry's lock.
pub(crate) unsafe fn let_everything_go() {
    // SAFETY: held, by the caller's promise; so below.
    unsafe { CENTRAL.let_go() };
    // SAFETY: as above.
    each_record(|record| unsafe { record.lock.raw_unlock() });
    // SAFETY: as above.
    unsafe { record::let_registry_go() };
    // SAFETY: as above.
    unsafe { cache::RECALL.raw_unlock() };
}

/// How many forks lie between the first process and this one. Only a child's
/// handler changes it, before any other code runs there.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

statics! {
    pub(super) static GENERATION: AtomicU64 = AtomicU64::new(0);
}

pub(super) unsafe extern "C" fn before_fork() {
    hold_everything();
}

pub(super) unsafe extern "C" fn after_fork_in_parent() {
    // SAFETY: `before_fork` took everything, on this thread.
    unsafe { let_everything_go() };
}

pub(super) unsafe extern "C" fn after_fork_in_child() {
    // SAFETY: `before_fork` took everything, and only this thread is left.
    unsafe { recover() };
    // SAFETY: as above.
    unsafe { let_everything_go() };
}

/// In a forked child: nobody goes on where other threads of the parent were.
///
/// # Safety
/// Everything is held, and the caller is the only thread.
pub(super) unsafe fn recover() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let own: *const Cache = with_cache(ptr::from_ref);
    with_cache(Cache::reseed);
    // SAFETY: the registry's lock is held, and this is the only thread.
    unsafe { record::forget_free_held() };
    each_record(|record| {
        // SAFETY: the lock is held, by the parent's handler.
        let shared = unsafe { record.lock.value_held() };
        if ptr::eq(shared.cache, own) || ptr::eq(record, orphan()) {
            return;
        }
        // SAFETY: the memory of the parent's threads is still there.
        if let Some(cache) = unsafe { shared.cache.as_ref() } {
            strand(shared, cache, record);
        }
        // Also records that were just being taken or put away.
        // SAFETY: the registry's lock is held, and this is the only thread.
        unsafe { record::put_away_held(record) };
    });
    // SAFETY: everything is held, by the parent's handler, and this is the only thread.
    unsafe { CENTRAL.recover_in_child() };
}

/// Notes what a thread of the parent had in its magazines.
fn strand(shared: &mut Shared, cache: &Cache, record: &Record) {
    for class in Class::all() {
        let taken = usize::from(shared.taken[class.index()]);
        let n = cache::rest(cache.cached(class, record.items(class, shared.grown)), taken);
        shared.stranded[class.index()] = n as u16;
        shared.has_stranded |= n > 0 || taken > 0;
    }
    shared.requested_bytes += cache.requested_bytes();
    shared.cache = ptr::null();
    shared.recalled = false;
}
