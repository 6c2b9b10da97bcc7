//! Holding everything still: for audits, and around `fork`.
//!
//! A fork copies one thread and all memory. So that the copy is whole, the
//! parent takes every lock first, in order; both sides let go afterwards. What
//! the parent's other threads had in their magazines is *stranded* in the
//! child: their records keep it, and the next user of a record, or a purge,
//! hands it back. (A region that such a thread was just popping or pushing is
//! in the books as cached or as allocated; it is never handed out twice.)

use super::cache;
use super::record::{self, each_record};
use super::{Cache, with_cache};
use crate::arena::CENTRAL;
use crate::class::Class;
use core::ptr;

/// Takes every lock of the allocator, in order. Hot paths go on; nothing else
/// does.
pub(crate) fn hold_everything() {
    cache::RECALL.raw_lock();
    record::hold_registry();
    each_record(|record| record.lock.raw_lock());
    for arena in &CENTRAL.arenas {
        arena.bins.iter().for_each(super::super::arena::bin::Bin::raw_lock);
    }
    CENTRAL.large.raw_lock();
    CENTRAL.huge.raw_lock();
    CENTRAL.pages.raw_lock();
    CENTRAL.meta.raw_lock();
}

/// Lets go of what [`hold_everything`] took.
///
/// # Safety
/// The caller holds everything. No record was made meanwhile: that needs the
/// registry's lock.
pub(crate) unsafe fn let_everything_go() {
    // SAFETY: held, by the caller's promise; so below.
    unsafe { CENTRAL.meta.raw_unlock() };
    // SAFETY: as above.
    unsafe { CENTRAL.pages.raw_unlock() };
    // SAFETY: as above.
    unsafe { CENTRAL.huge.raw_unlock() };
    // SAFETY: as above.
    unsafe { CENTRAL.large.raw_unlock() };
    for bin in CENTRAL.arenas.iter().flat_map(|arena| &arena.bins) {
        // SAFETY: as above.
        unsafe { bin.raw_unlock() };
    }
    // SAFETY: as above.
    each_record(|record| unsafe { record.lock.raw_unlock() });
    // SAFETY: as above.
    unsafe { record::let_registry_go() };
    // SAFETY: as above.
    unsafe { cache::RECALL.raw_unlock() };
}

pub(super) unsafe extern "C" fn before_fork() {
    hold_everything();
}

pub(super) unsafe extern "C" fn after_fork_in_parent() {
    // SAFETY: `before_fork` took everything, on this thread.
    unsafe { let_everything_go() };
}

pub(super) unsafe extern "C" fn after_fork_in_child() {
    let own: *const Cache = with_cache(ptr::from_ref);
    each_record(|record| {
        // SAFETY: the lock is held, by the parent's handler.
        let shared = unsafe { record.lock.value_held() };
        // SAFETY: the memory of the parent's threads is still there.
        let Some(cache) = (unsafe { shared.cache.as_ref() }) else { return };
        if ptr::eq(shared.cache, own) {
            return;
        }
        for class in Class::all() {
            let taken = usize::from(shared.taken[class.index()]);
            let n = cache.cached(class, record.items(class)) - taken;
            shared.stranded[class.index()] = n as u16;
            shared.has_stranded |= n > 0;
        }
        shared.requested_bytes += cache.requested_bytes();
        shared.cache = ptr::null();
        shared.recalled = false;
        // SAFETY: the registry's lock is held, and this is the only thread.
        unsafe { record::put_away_held(record) };
    });
    // SAFETY: the page heap's lock is held, and this is the only thread.
    unsafe { CENTRAL.pages.recover_in_child() };
    // SAFETY: everything is held, by the parent's handler.
    unsafe { let_everything_go() };
}
