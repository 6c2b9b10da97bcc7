//! Plain POSIX, for unix systems other than Linux; `--cfg tallow_portable`
//! chooses it on Linux too, which is how it is tested.

use super::Extended;
use crate::sync::AtomicU32;
use core::ptr::NonNull;

/// Lays a fresh mapping over the range: the one way that gives the memory back
/// everywhere and reads as zero afterwards.
#[cfg_attr(miri, allow(dead_code, reason = "it has its own"))]
pub(super) unsafe fn purge(at: NonNull<u8>, bytes: usize) -> Option<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller owns the range, and nobody needs its contents.
    let got = unsafe { libc::mmap(at.as_ptr().cast(), bytes, access, flags, -1, 0) };
    (got == at.as_ptr().cast()).then_some(())
}

/// Nothing portable does this.
pub(super) unsafe fn advise_huge_pages(_: NonNull<u8>, _: usize, _: bool) -> Option<()> {
    None
}

/// Nor this.
pub(super) unsafe fn populate(_: NonNull<u8>, _: usize) -> Option<()> {
    None
}

/// Whether the system changes the size of a range, or moves one.
pub(crate) const REMAPS: bool = false;

/// No unix but Linux moves a mapping: the caller copies.
pub(super) unsafe fn remap(_at: NonNull<u8>, _old: usize, _new: usize) -> Option<NonNull<u8>> {
    None
}

/// As above.
pub(super) unsafe fn extend(_: NonNull<u8>, _: usize, _: usize) -> Option<Extended> {
    None
}

/// As above.
#[cfg_attr(miri, allow(dead_code, reason = "it has its own"))]
pub(super) unsafe fn remap_onto(
    _at: NonNull<u8>,
    _old: usize,
    _to: NonNull<u8>,
    _new: usize,
) -> Option<()> {
    None
}

pub(super) fn wait(_word: &AtomicU32, _seen: u32) {
    std::thread::yield_now();
}

pub(super) fn wake_one(_word: &AtomicU32) {}

/// Milliseconds of a clock that never goes back.
pub(crate) fn now_ms() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

/// Not that anybody would say so.
pub(super) fn huge_pages_always() -> bool {
    false
}

pub(super) fn expect_barriers() {}

/// Nothing portable does this.
pub(super) fn barrier_everywhere() -> bool {
    false
}

/// There is no portable way to write `errno`.
pub(super) fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Nobody says whether there are other threads.
#[inline(always)]
pub(crate) fn alone() -> bool {
    false
}
