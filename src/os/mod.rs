//! Floor 1: the only door to the operating system.
//!
//! Everything that Tallow asks of the kernel or of libc passes through here:
//! address space, purging, remapping, threads' ends, forks, the clock, `/proc`.
//! Each call is counted ([`calls`]). In the unit tests the door is a fake that
//! can be told to fail on the n-th call of the calling thread (`fake`).
//!
//! Preconditions, stated once: addresses and lengths handed to [`release`],
//! [`purge`] and [`remap`] are multiples of [`page_bytes`] and lie in mappings
//! that [`reserve`] returned. Nothing here allocates.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod fault;
#[cfg(all(target_os = "linux", not(tallow_portable), not(miri)))]
mod linux;
#[cfg(not(miri))]
mod map;
#[cfg(miri)]
mod miri;
#[cfg(not(all(target_os = "linux", not(tallow_portable), not(miri))))]
mod portable;
pub(crate) mod trace;
mod unix;
#[cfg(any(tallow_helgrind, tallow_memcheck))]
pub(crate) mod valgrind;

#[cfg(all(target_os = "linux", not(tallow_portable), not(miri)))]
use linux as native;
#[cfg(miri)]
use miri as native;
#[cfg(miri)]
use miri as map;
#[cfg(miri)]
use miri::protect as set_access;
#[cfg(not(any(miri, all(target_os = "linux", not(tallow_portable)))))]
use portable as native;
#[cfg(not(miri))]
use unix::protect as set_access;

use crate::config::{HARDENED, PAGE_BYTES};
use crate::error::Corruption;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::ffi::{CStr, c_void};
use core::ptr::NonNull;

pub(crate) use native::{REMAPS, alone, now_ms};
#[cfg(debug_assertions)]
pub(crate) use unix::thread_handle;
pub(crate) use unix::{Access, environment, seed, thread_number, without_signals, write_stderr};

/// One counter for each kind of call. Relaxed throughout: they order nothing.
#[derive(Default)]
struct Counters {
    reserve: AtomicU64,
    release: AtomicU64,
    purge: AtomicU64,
    remap: AtomicU64,
    advise: AtomicU64,
    protect: AtomicU64,
    failed: AtomicU64,
}

static CALLS: Counters = Counters {
    reserve: AtomicU64::new(0),
    release: AtomicU64::new(0),
    purge: AtomicU64::new(0),
    remap: AtomicU64::new(0),
    advise: AtomicU64::new(0),
    protect: AtomicU64::new(0),
    failed: AtomicU64::new(0),
};

/// How often Tallow has called the operating system for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OsCalls {
    /// Reservations of address space (`mmap`).
    pub reserve: u64,
    /// Address space given back (`munmap`).
    pub release: u64,
    /// Memory given back, its address space kept (`madvise`).
    pub purge: u64,
    /// Huge blocks grown or shrunk where they are, or moved without a copy (`mremap`).
    pub remap: u64,
    /// Requests for huge pages, against them, or for memory ahead of its use
    /// (`madvise`). A system that does not know one refuses each.
    pub advise: u64,
    /// Pages made inaccessible, or accessible again (`mprotect`): only with the feature
    /// `hardened`.
    pub protect: u64,
    /// Calls of all kinds that the system refused.
    pub failed: u64,
}

/// The calls so far.
pub(crate) fn calls() -> OsCalls {
    let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
    OsCalls {
        reserve: read(&CALLS.reserve),
        release: read(&CALLS.release),
        purge: read(&CALLS.purge),
        remap: read(&CALLS.remap),
        advise: read(&CALLS.advise),
        protect: read(&CALLS.protect),
        failed: read(&CALLS.failed),
    }
}

/// Counts a call and makes it, unless the fake refuses it. `errno` stays what it
/// was: a free between a failed call and the look at its error must not hide it.
fn call<T>(counter: &AtomicU64, door: Door, make: impl FnOnce() -> Option<T>) -> Option<T> {
    counter.fetch_add(1, Ordering::Relaxed);
    let answer = native::keep_errno(|| if permitted(door) { make() } else { None });
    if answer.is_none() {
        CALLS.failed.fetch_add(1, Ordering::Relaxed);
    }
    answer
}

/// What may be refused. Everything else that passes here cannot be: the clock, the
/// environment, the number of processors, waiting and waking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "the fake tells them apart"))]
enum Door {
    Reserve,
    Release,
    Purge,
    Remap,
    Advise,
    Populate,
    Barrier,
    ExitHook,
    ForkHook,
    ReadFile,
    #[cfg_attr(not(feature = "hardened"), allow(dead_code, reason = "nothing is protected"))]
    Protect,
}

#[cfg(test)]
fn permitted(door: Door) -> bool {
    fake::permitted(door)
}
#[cfg(not(test))]
#[inline(always)]
const fn permitted(_: Door) -> bool {
    true
}

/// The OS page size in bytes, read at run time: 4, 16 or 64 KiB.
#[inline]
pub(crate) fn page_bytes() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: every thread computes the same value.
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            let bytes = unix::read_page_bytes().max(crate::config::LEAST_OS_PAGE_BYTES);
            PAGE.store(bytes, Ordering::Relaxed);
            bytes
        }
        bytes => bytes,
    }
}

/// Processors that were on line when it was first asked for, at least 1. That the system may
/// read a file for it is not the caller's: `errno` stays.
pub(crate) fn processors() -> usize {
    static PROCESSORS: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: a number of its own.
    match PROCESSORS.load(Ordering::Relaxed) {
        0 => {
            let n = native::keep_errno(unix::read_processors);
            PROCESSORS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// What every mapping is aligned to: the OS page, also where a larger one is
/// pretended for a test.
pub(crate) fn mapping_align() -> usize {
    unix::read_page_bytes()
}

/// Whether every mapping is a multiple of `align`. Asks the system only where that is more
/// than the smallest page there is.
#[inline]
pub(crate) fn aligns_mappings_to(align: usize) -> bool {
    align <= PAGE_BYTES || align <= mapping_align()
}

/// Reserves `bytes` of readable, writable, zero memory at a multiple of
/// `align`, backed by nothing until it is written. `None` when the system has
/// no more, or when the sum overflows.
pub(crate) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    call(&CALLS.reserve, Door::Reserve, || map::reserve(bytes, align))
}

/// [`reserve`]; hardened, with an inaccessible page on either side, which
/// [`release_guarded`] gives back too. Where the system refuses to protect them they
/// are there all the same.
pub(crate) fn reserve_guarded(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if !HARDENED {
        return reserve(bytes, align);
    }
    let page = page_bytes();
    // The page before is the last one of a part that is as long as the alignment.
    let lead = align.max(page);
    let whole = reserve(bytes.checked_add(lead)?.checked_add(page)?, align)?;
    // SAFETY: inside of the mapping.
    let (at, first) = unsafe { (whole.add(lead), whole.add(lead - page)) };
    // SAFETY: the mapping is fresh; nobody uses it.
    unsafe {
        if lead > page {
            release(whole, lead - page);
        }
        protect(first, page, Access::None);
        protect(at.add(bytes), page, Access::None);
    }
    Some(at)
}

/// Gives back what [`reserve_guarded`] reserved.
///
/// # Safety
/// As for [`release`], and the whole of it.
pub(crate) unsafe fn release_guarded(at: NonNull<u8>, bytes: usize) -> bool {
    if !HARDENED {
        // SAFETY: the caller's promise.
        return unsafe { release(at, bytes) };
    }
    let page = page_bytes();
    // SAFETY: the page before belongs to the reservation.
    let first = unsafe { at.sub(page) };
    // SAFETY: the caller's promise.
    unsafe { release(first, bytes + 2 * page) }
}

/// What may be done with a range from now on. A refusal leaves it as it was.
///
/// # Safety
/// The range lies in mappings of [`reserve`]'s, and the caller owns it.
pub(crate) unsafe fn protect(at: NonNull<u8>, bytes: usize, access: Access) -> bool {
    // SAFETY: the caller's promise.
    call(&CALLS.protect, Door::Protect, || unsafe { set_access(at, bytes, access) }).is_some()
}

/// Moves the memory of a range to the start of another one, without copying; the rest
/// of that one reads as zero. The old range is given back. `None` leaves the old range as
/// it was; the other one may be gone.
///
/// # Safety
/// Both ranges lie in mappings of [`reserve`]'s and are the caller's, the other one is not
/// the shorter one, and nobody needs what it holds.
pub(crate) unsafe fn remap_onto(
    at: NonNull<u8>,
    old_bytes: usize,
    to: NonNull<u8>,
    new_bytes: usize,
) -> Option<()> {
    // SAFETY: the caller's promise.
    call(&CALLS.remap, Door::Remap, || unsafe { native::remap_onto(at, old_bytes, to, new_bytes) })
}

/// Gives address space back.
///
/// # Safety
/// The range lies in a mapping of [`reserve`]'s, and nothing uses it any more.
pub(crate) unsafe fn release(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    call(&CALLS.release, Door::Release, || unsafe { map::release(at, bytes) }).is_some()
}

/// Gives the memory of a range back and keeps its address space. After `true`
/// the range reads as zero; after `false` it is as it was.
///
/// # Safety
/// The range lies in a mapping of [`reserve`]'s, and nobody needs its contents.
pub(crate) unsafe fn purge(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    call(&CALLS.purge, Door::Purge, || unsafe { native::purge(at, bytes) }).is_some()
}

/// Changes the size of a range, moving it if it must, without copying. `None`
/// leaves it as it was; so it does when the range lies in more than one mapping.
///
/// # Safety
/// The range lies in mappings of [`reserve`]'s, and the caller owns it.
pub(crate) unsafe fn remap(
    at: NonNull<u8>,
    old_bytes: usize,
    new_bytes: usize,
) -> Option<NonNull<u8>> {
    // SAFETY: the caller's promise.
    call(&CALLS.remap, Door::Remap, || unsafe { native::remap(at, old_bytes, new_bytes) })
}

/// What came of [`extend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    any(miri, not(target_os = "linux"), tallow_portable),
    allow(dead_code, reason = "refused")
)]
pub(crate) enum Extended {
    /// The range has the new size.
    InPlace,
    /// It is as it was, and may be moved: what lies behind it is another's.
    NoRoom,
}

/// Lets a range grow where it is. `None` where the system does not do that, with this
/// range or at all.
///
/// # Safety
/// As for [`remap`].
pub(crate) unsafe fn extend(
    at: NonNull<u8>,
    old_bytes: usize,
    new_bytes: usize,
) -> Option<Extended> {
    // SAFETY: the caller's promise.
    call(&CALLS.remap, Door::Remap, || unsafe { native::extend(at, old_bytes, new_bytes) })
}

/// Asks the system to back a range with huge pages, or with small ones only. A
/// refusal changes nothing but speed.
///
/// # Safety
/// The range lies in a mapping of [`reserve`]'s.
pub(crate) unsafe fn advise_huge_pages(at: NonNull<u8>, bytes: usize, yes: bool) -> bool {
    // SAFETY: the caller's promise.
    call(&CALLS.advise, Door::Advise, || unsafe { native::advise_huge_pages(at, bytes, yes) })
        .is_some()
}

/// Has a range backed by memory now. A refusal changes nothing but when that
/// happens.
///
/// # Safety
/// The range lies in a mapping of [`reserve`]'s.
pub(crate) unsafe fn populate(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    call(&CALLS.advise, Door::Populate, || unsafe { native::populate(at, bytes) }).is_some()
}

/// Prepares for [`barrier_everywhere`], best while there is one thread.
pub(crate) fn expect_barriers() {
    native::keep_errno(native::expect_barriers);
}

/// Makes every running thread of the process pass a full memory barrier, so
/// that what they do next sees what the caller wrote before. `false` where the
/// system cannot. Some microseconds; interrupts the processors that run them.
pub(crate) fn barrier_everywhere() -> bool {
    native::keep_errno(|| permitted(Door::Barrier) && native::barrier_everywhere())
}

/// Has `hook(value)` called when the calling thread ends, after the destructors of its
/// `thread_local!`s. `false` when the system has no more keys: then the thread must keep
/// nothing.
///
/// `hook` must be the same function at every call.
pub(crate) fn arm_exit_hook(
    hook: unsafe extern "C" fn(*mut c_void),
    value: NonNull<c_void>,
) -> bool {
    permitted(Door::ExitHook) && unix::arm_exit_hook(hook, value)
}

/// Has `prepare` called before each fork, `parent` and `child` after it.
pub(crate) fn at_fork(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) -> bool {
    permitted(Door::ForkHook) && map::at_fork(prepare, parent, child)
}

/// Reads the start of a file into `out` and returns what was read; empty when
/// the file cannot be read. Allocates nothing, so it may run anywhere.
pub(crate) fn read_file<'a>(path: &CStr, out: &'a mut [u8]) -> &'a [u8] {
    if permitted(Door::ReadFile) { unix::read_file(path, out) } else { &[] }
}

/// Threads of the process, where the system says so. Reads a file.
pub(crate) fn threads() -> Option<u64> {
    let mut text = [0; 2048];
    let text =
        native::keep_errno(|| str::from_utf8(read_file(c"/proc/self/status", &mut text))).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// Whether the kernel backs memory with huge pages by itself, wherever there is
/// room for one: purging a part of one splits it. Reads a file.
pub(crate) fn huge_pages_always() -> bool {
    #[cfg(test)]
    if fake::huge_pages() {
        return true;
    }
    native::keep_errno(native::huge_pages_always)
}

/// Waits until `word` is no longer `seen`, or for no reason at all.
pub(crate) fn wait(word: &AtomicU32, seen: u32) {
    native::keep_errno(|| native::wait(word, seen));
}

/// Wakes one thread that waits on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    native::keep_errno(|| native::wake_one(word));
}

/// Sleeps for as long as it takes another thread to wake up and do a little.
pub(crate) fn nap() {
    native::keep_errno(|| std::thread::sleep(core::time::Duration::from_micros(50)));
}

/// The thread that ends the process, by its number; 0 while none does.
static ENDING: AtomicU64 = AtomicU64::new(0);

/// Writes the one line that says what is wrong, and aborts.
#[cold]
pub(crate) fn abort(what: Corruption) -> ! {
    write_stderr(what.line().as_bytes());
    end()
}

/// Aborts. A handler of `SIGABRT` runs with the locks held that the thread holds.
#[cold]
pub(crate) fn end() -> ! {
    let me = thread_number();
    // Relaxed: a number of its own; the handler runs on this thread.
    if ENDING.swap(me, Ordering::Relaxed) == me {
        // By the handler, which is not called again.
        unix::ignore_handler_of_abort();
    }
    std::process::abort()
}

/// Whether a thread ends the process, so that locks may be held for ever. For slow paths.
#[inline]
pub(crate) fn is_ending() -> bool {
    // Relaxed: as above; other threads may as well see it late.
    ENDING.load(Ordering::Relaxed) != 0
}

/// Called before waiting for a lock: the thread that ends the process may hold it, and
/// then ends it now.
pub(crate) fn before_waiting() {
    if is_ending() && ENDING.load(Ordering::Relaxed) == thread_number() {
        end()
    }
}
