//! What every unix offers in the same way.

use core::ffi::{CStr, c_void};
#[cfg(not(miri))]
use core::mem::MaybeUninit;
#[cfg(not(miri))]
use core::ptr;
use core::ptr::NonNull;
use std::os::fd::RawFd;

pub(super) fn read_page_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Processors that are on line, at least 1. May read a file.
pub(super) fn read_processors() -> usize {
    // SAFETY: sysconf has no preconditions.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(n).unwrap_or(1).max(1)
}

/// Makes a call with all signals blocked but those that tell a thread of its own faults. A
/// thread that it starts keeps them blocked, so that none that is meant for the program is
/// ever delivered there.
#[cfg(not(miri))]
pub(crate) fn without_signals<R>(make: impl FnOnce() -> R) -> R {
    const OWN: [libc::c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    let (mut blocked, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the sets are places of ours; `blocked` is whole after the first line.
    let changed = unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        OWN.iter().for_each(|&signal| {
            libc::sigdelset(blocked.as_mut_ptr(), signal);
        });
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr()) == 0
    };
    let result = make();
    if changed {
        // SAFETY: `before` was written by the call that succeeded.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    result
}

/// It knows no masks.
#[cfg(miri)]
pub(crate) fn without_signals<R>(make: impl FnOnce() -> R) -> R {
    make()
}

/// What may be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: every access is a fault.
    None,
    All,
}

#[cfg_attr(miri, allow(dead_code, reason = "it has its own"))]
pub(super) unsafe fn protect(at: NonNull<u8>, bytes: usize, access: Access) -> Option<()> {
    let may = match access {
        Access::None => libc::PROT_NONE,
        Access::All => libc::PROT_READ | libc::PROT_WRITE,
    };
    // SAFETY: the caller owns the range.
    let code = unsafe { libc::mprotect(at.as_ptr().cast(), bytes, may) };
    (code == 0).then_some(())
}

/// A number that nobody can guess, as far as the system has one; never 0. May call
/// the OS.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0_u8; 8];
    if entropy(&mut bytes) {
        return u64::from_ne_bytes(bytes) | 1;
    }
    // Addresses, which the system may have laid out at random.
    ((&raw const bytes).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// Not all C libraries of Linux have `getentropy`.
#[cfg(target_os = "linux")]
fn entropy(bytes: &mut [u8; 8]) -> bool {
    // SAFETY: room for so many bytes.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    n == bytes.len() as isize
}

#[cfg(not(target_os = "linux"))]
fn entropy(bytes: &mut [u8; 8]) -> bool {
    // SAFETY: room for so many bytes.
    unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) == 0 }
}

/// A number by which the system tells threads apart.
pub(crate) fn thread_number() -> u64 {
    #[cfg(target_os = "linux")]
    // SAFETY: takes nothing.
    let number = unsafe { libc::syscall(libc::SYS_gettid) } as u64;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: takes nothing.
    let number = unsafe { libc::pthread_self() } as u64;
    number
}

/// What tells threads that run apart, without a system call; in a forked child that of the
/// thread that forked.
#[cfg(debug_assertions)]
pub(crate) fn thread_handle() -> usize {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() as usize }
}

/// Has `SIGABRT` end the process, whatever handler there is.
pub(super) fn ignore_handler_of_abort() {
    // SAFETY: the action is valid.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
}

/// Writes all of `bytes` to stderr, as far as it takes them.
pub(crate) fn write_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a slice.
        let n = unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => bytes = &bytes[n.min(bytes.len())..],
            Err(_) if interrupted() => {}
            _ => return,
        }
    }
}

/// Whether the last call gave up for a signal, and is to be made again.
fn interrupted() -> bool {
    std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
}

/// A variable of the environment; `None` also in a program that runs with more
/// rights than its user. The text stays as long as nobody changes the variable.
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: these have no preconditions.
    let raised = unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() };
    // SAFETY: as above. Also set for programs with capabilities of their own.
    #[cfg(target_os = "linux")]
    let raised = raised || unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if raised {
        return None;
    }
    // SAFETY: the name is a C string.
    let text = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a C string, if it is not null.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Reads the start of a file into `out`.
pub(super) fn read_file<'a>(path: &CStr, out: &'a mut [u8]) -> &'a [u8] {
    let open = || -> RawFd {
        // SAFETY: the path is a C string.
        unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
    };
    let mut fd = open();
    while fd < 0 && interrupted() {
        fd = open();
    }
    if fd < 0 {
        return &[];
    }
    let mut len = 0;
    while len < out.len() {
        let rest = &mut out[len..];
        // SAFETY: the pointer and length are those of a slice.
        let n = unsafe { libc::read(fd, rest.as_mut_ptr().cast(), rest.len()) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => len += n,
            Err(_) if interrupted() => {}
            _ => break,
        }
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    &out[..len]
}

/// See [`super::arm_exit_hook`].
pub(super) fn arm_exit_hook(
    hook: unsafe extern "C" fn(*mut c_void),
    value: NonNull<c_void>,
) -> bool {
    use crate::sync::{AtomicUsize, Ordering};
    /// 0: no key yet; otherwise the key + 1.
    static KEY: AtomicUsize = AtomicUsize::new(0);
    // Acquire/Release: a pair of their own; whoever reads the key may use it.
    let mut known = KEY.load(Ordering::Acquire);
    if known == 0 {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: `key` is a valid place, the hook a valid function.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(hook)) } != 0 {
            return false;
        }
        // Of another type on each system, none of which is wider.
        known = key as usize + 1;
        if let Err(first) = KEY.compare_exchange(0, known, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the key is ours, and no value was set for it.
            unsafe { libc::pthread_key_delete(key) };
            known = first;
        }
    }
    let key = (known - 1) as libc::pthread_key_t;
    // SAFETY: the key is live; it is never deleted once published.
    unsafe { libc::pthread_setspecific(key, value.as_ptr()) == 0 }
}
