//! Plain POSIX under Miri, which interprets a program and sees each of its accesses.
//!
//! It has no `madvise`, maps nothing at a chosen address, takes back whole mappings
//! only, and knows no fork handlers. So address space is taken from the system's
//! `malloc` here, and what goes back is never used again: its bytes are made
//! uninitialized, so that a read of them, or a write that nothing orders, is
//! reported.

pub(crate) use super::portable::{REMAPS, alone, now_ms};
pub(super) use super::portable::{
    advise_huge_pages, barrier_everywhere, expect_barriers, extend, huge_pages_always, keep_errno,
    populate, remap, wait, wake_one,
};

use super::unix::Access;
use crate::config::{LG_ADDRESS, PAGE_BYTES};
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::alloc::{GlobalAlloc, Layout, System};

pub(super) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes, align.max(super::page_bytes())).ok()?;
    // SAFETY: nobody reserves nothing.
    let at = unsafe { System.alloc_zeroed(layout) };
    // Later accesses to segments' headers start from integers.
    let end = at.expose_provenance().checked_add(bytes)?;
    if end > 1 << LG_ADDRESS {
        return None;
    }
    NonNull::new(at)
}

/// The pages of a range.
fn pages(at: NonNull<u8>, bytes: usize) -> impl Iterator<Item = *mut [u8; PAGE_BYTES]> {
    (0..bytes / PAGE_BYTES).map(move |page| at.as_ptr().wrapping_add(page * PAGE_BYTES).cast())
}

pub(super) unsafe fn release(at: NonNull<u8>, bytes: usize) -> Option<()> {
    for page in pages(at, bytes) {
        // SAFETY: the caller owns the range and has stopped using it.
        unsafe { page.cast::<MaybeUninit<[u8; PAGE_BYTES]>>().write(MaybeUninit::uninit()) };
    }
    Some(())
}

pub(super) unsafe fn purge(at: NonNull<u8>, bytes: usize) -> Option<()> {
    for page in pages(at, bytes) {
        // SAFETY: the caller owns the range, and nobody needs its contents.
        unsafe { page.write_bytes(0, 1) };
    }
    Some(())
}

/// Refused: there is no such call.
pub(super) unsafe fn protect(_at: NonNull<u8>, _bytes: usize, _access: Access) -> Option<()> {
    None
}

/// Nobody forks.
pub(super) fn at_fork(
    _prepare: unsafe extern "C" fn(),
    _parent: unsafe extern "C" fn(),
    _child: unsafe extern "C" fn(),
) -> bool {
    false
}

/// Nor this.
pub(super) unsafe fn remap_onto(
    _at: NonNull<u8>,
    _old: usize,
    _to: NonNull<u8>,
    _new: usize,
) -> Option<()> {
    None
}
