//! The order of locks between a fork and the streams of the C library.
//!
//! `fork` takes the list of open streams after it has called the handlers of programs and
//! libraries, of which one takes all locks of Tallow. glibc's own `malloc` is locked after
//! the list: a thread that flushes all streams holds the list while it waits for a stream,
//! and the one that has that stream may wait for memory (`getline` does). So here the list
//! is taken first too. Its lock may be taken twice by one thread.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// glibc's functions, by address; 0 where there are none.
static LOCK: AtomicUsize = AtomicUsize::new(0);
static UNLOCK: AtomicUsize = AtomicUsize::new(0);
static RESET: AtomicUsize = AtomicUsize::new(0);

/// Has the list taken before Tallow's locks: the handlers that are set last are called
/// first.
pub(crate) fn watch_forks() {
    // The first block has Tallow's handlers called. Not by `malloc` and `free`, which may be
    // the program's.
    drop(core::hint::black_box(Box::new(0_u8)));
    let known =
        [(&LOCK, c"_IO_list_lock"), (&UNLOCK, c"_IO_list_unlock"), (&RESET, c"_IO_list_resetlock")]
            .into_iter()
            .all(|(place, name)| {
                let at = function(name);
                // Relaxed: written before there are other threads.
                place.store(at, Ordering::Relaxed);
                at != 0
            });
    if known {
        // SAFETY: valid functions, of a library that is never unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    }
}

fn function(name: &CStr) -> usize {
    // SAFETY: a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.expose_provenance()
}

fn call(place: &AtomicUsize) {
    let at = core::ptr::with_exposed_provenance::<()>(place.load(Ordering::Relaxed));
    // SAFETY: the address of a function that takes and returns nothing: these are set only
    // where all three are known.
    let function: unsafe extern "C" fn() = unsafe { core::mem::transmute(at) };
    // SAFETY: as the C library calls them around a fork.
    unsafe { function() };
}

unsafe extern "C" fn before() {
    call(&LOCK);
}

unsafe extern "C" fn in_parent() {
    call(&UNLOCK);
}

/// Also where the C library has reset it already.
unsafe extern "C" fn in_child() {
    call(&RESET);
}
