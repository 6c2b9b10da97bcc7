//! When the library is loaded: the environment is read, which the first
//! allocations, made by the loader itself, come too early for.

use crate::books::print_to;
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    crate::program::note_own();
    crate::moving::watch_forks();
    heap::raw::configure(&heap::Tallow::builder().environment(true));
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

fn print_at_exit() {
    const FAR: c_int = 1000;
    // SAFETY: plain numbers.
    let kept = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, FAR) };
    // Relaxed: written before there are other threads.
    STDERR.store(if kept < 0 { 2 } else { kept }, Ordering::Relaxed);
    // SAFETY: a valid function, of a library that is never unloaded.
    unsafe { libc::atexit(print) };
}

extern "C" fn print() {
    print_to(STDERR.load(Ordering::Relaxed));
}
