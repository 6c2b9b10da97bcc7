//! What Linux does better than the common denominator.

#[cfg(tallow_memcheck)]
mod told;
/// What is said where nobody listens.
#[cfg(not(tallow_memcheck))]
mod told {
    #[inline(always)]
    pub(super) fn mapped(_: usize, _: usize) {}
}

use super::Extended;
use crate::sync::AtomicU32;
use core::ptr::{self, NonNull};

/// `MADV_DONTNEED`: the memory is gone when the call returns, so RSS shows it;
/// `MADV_FREE` would leave it counted until the system is short of memory.
pub(super) unsafe fn purge(at: NonNull<u8>, bytes: usize) -> Option<()> {
    // SAFETY: the caller owns the range, and nobody needs its contents.
    let code = unsafe { libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    (code == 0).then_some(())
}

pub(super) unsafe fn advise_huge_pages(at: NonNull<u8>, bytes: usize, yes: bool) -> Option<()> {
    let advice = if yes { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: the caller owns the range; its contents stay.
    let code = unsafe { libc::madvise(at.as_ptr().cast(), bytes, advice) };
    (code == 0).then_some(())
}

pub(super) unsafe fn populate(at: NonNull<u8>, bytes: usize) -> Option<()> {
    // SAFETY: the caller owns the range; its contents stay.
    let code = unsafe { libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
    (code == 0).then_some(())
}

/// Whether the system changes the size of a range, or moves one.
pub(crate) const REMAPS: bool = true;

pub(super) unsafe fn remap(at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
    // SAFETY: the caller owns the whole mapping.
    let to = unsafe { libc::mremap(at.as_ptr().cast(), old, new, libc::MREMAP_MAYMOVE) };
    (to != libc::MAP_FAILED).then_some(())?;
    to.expose_provenance();
    NonNull::new(to.cast())
}

pub(super) unsafe fn extend(at: NonNull<u8>, old: usize, new: usize) -> Option<Extended> {
    // SAFETY: the caller owns the whole mapping.
    let to = unsafe { libc::mremap(at.as_ptr().cast(), old, new, 0) };
    if to != libc::MAP_FAILED {
        return Some(Extended::InPlace);
    }
    // A range that is no single mapping is another error than one without room.
    // SAFETY: the place is valid as long as the thread.
    let error = unsafe { *libc::__errno_location() };
    (error == libc::ENOMEM).then_some(Extended::NoRoom)
}

pub(super) unsafe fn remap_onto(
    at: NonNull<u8>,
    old: usize,
    to: NonNull<u8>,
    new: usize,
) -> Option<()> {
    let (flags, place) = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to.as_ptr());
    // SAFETY: the caller owns both ranges.
    let moved = unsafe { libc::mremap(at.as_ptr().cast(), old, new, flags, place) };
    (moved == place.cast()).then(|| told::mapped(to.addr().get() + old, new - old))
}

pub(super) fn wait(word: &AtomicU32, seen: u32) {
    // SAFETY: the word is valid; a time-out of null means none.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            ptr::from_ref(word),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            ptr::null::<libc::timespec>(),
        )
    };
}

pub(super) fn wake_one(word: &AtomicU32) {
    // SAFETY: the word is valid.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            ptr::from_ref(word),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        )
    };
}

/// Milliseconds of a clock that never goes back; good to about 4 ms, which is
/// why it costs no more than a few loads.
pub(crate) fn now_ms() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut t) };
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

/// Whether the kernel backs any memory with huge pages that has room for one.
pub(super) fn huge_pages_always() -> bool {
    let (mut text, path) = ([0; 64], c"/sys/kernel/mm/transparent_hugepage/enabled");
    super::read_file(path, &mut text).starts_with(b"[always]")
}

const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// `--cfg tallow_no_barrier` tests what happens on an old kernel, and is for
/// ThreadSanitizer, which does not know what such a barrier orders.
const BARRIERS: bool = cfg!(not(tallow_no_barrier));

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes plain numbers.
    BARRIERS && unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Announces that barriers will be wanted. A process of one thread does that at
/// once; one of several waits for some milliseconds, which a step of
/// defragmentation has not got.
pub(super) fn expect_barriers() {
    membarrier(REGISTER_PRIVATE_EXPEDITED);
}

/// Makes every running thread of the process pass a full memory barrier.
/// `false` where the kernel does not offer it (before Linux 4.14).
pub(super) fn barrier_everywhere() -> bool {
    membarrier(PRIVATE_EXPEDITED)
        || membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED)
}

/// Runs `f` and leaves `errno` as it was.
pub(super) fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the place is valid as long as the thread.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *place };
    let result = f();
    // SAFETY: as above.
    unsafe { *place = before };
    result
}

/// Whether the process has had no thread but this one since it began: what glibc
/// (from 2.32) says in `__libc_single_threaded`, which it clears before it starts
/// the first one. `false` without it. A few loads.
#[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn alone() -> bool {
    let at: *const u8;
    // SAFETY: reads from the table of addresses what the loader has put there: 0
    // where there is no such variable.
    unsafe {
        core::arch::asm!(
            ".weak __libc_single_threaded",
            "mov {at}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
            at = out(reg) at,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: a variable of one byte, which changes only while there is no other
    // thread to change it; volatile, so that it is read anew each time.
    !at.is_null() && unsafe { at.read_volatile() } != 0
}

/// Nobody says whether there are other threads.
#[cfg(not(all(target_env = "gnu", target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn alone() -> bool {
    false
}
