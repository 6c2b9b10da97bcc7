//! When the library is loaded: the environment is read, which the first
//! allocations, made by the loader itself, come too early for.

use crate::books::print_to;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    crate::program::note_own();
    crate::moving::watch_forks();
    heap::raw::configure(&heap::Tallow::builder().environment(true));
    #[cfg(target_env = "gnu")]
    crate::stdio::watch_forks();
    if heap::raw::is_on(c"TALLOW_JANITOR")
        && let Err(error) = heap::janitor::start()
    {
        eprintln!("tallow: TALLOW_JANITOR: no thread for it: {error}");
    }
    if heap::raw::is_on(c"TALLOW_STATS") {
        print_at_exit();
    }
}

/// Where the statistics go at exit: stderr, kept open, since many programs close
/// theirs before.
static STDERR: AtomicI32 = AtomicI32::new(2);
/// What that is: a program that closes all its files may have another one by that number.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);

fn print_at_exit() {
    const FAR: c_int = 1000;
    // SAFETY: plain numbers.
    let kept = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, FAR) };
    let file = if kept < 0 { 2 } else { kept };
    let Some((device, inode)) = identity(file) else { return };
    // Relaxed: written before there are other threads.
    STDERR.store(file, Ordering::Relaxed);
    DEVICE.store(device, Ordering::Relaxed);
    INODE.store(inode, Ordering::Relaxed);
    // SAFETY: a valid function, of a library that is never unloaded.
    unsafe { libc::atexit(print) };
}

/// Which file that is; `None` if it is closed.
fn identity(file: c_int) -> Option<(u64, u64)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a place of ours.
    if unsafe { libc::fstat(file, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has written it.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

extern "C" fn print() {
    let file = STDERR.load(Ordering::Relaxed);
    let known = (DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed));
    if identity(file) == Some(known) {
        print_to(file);
    }
}
