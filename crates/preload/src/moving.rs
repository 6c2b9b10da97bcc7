//! Defragmentation for programs that know all of their pointers to a block.
//!
//! ```text
//! tallow_defrag_begin();
//! for each block: if (tallow_should_move(p)) p = tallow_move(p);
//! tallow_defrag_end();
//! ```
//!
//! One pass at a time, on one thread at a time; `tallow_should_move` may be asked
//! by any thread.

use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::time::Duration;
use heap::defrag::{Options, Pass};
use heap::raw;
use std::cell::UnsafeCell;
use std::sync::{Mutex, PoisonError, TryLockError};

/// Boxed: the library's data are in every program's memory.
type Held = Mutex<Option<Box<Pass>>>;

/// A lock that is made anew in a forked child if a thread held it that is not there.
struct Slot(UnsafeCell<Held>);

// SAFETY: the cell is written in a child that has one thread, and shared otherwise.
unsafe impl Sync for Slot {}

static PASS: Slot = Slot(UnsafeCell::new(Mutex::new(None)));

fn with_pass<R>(f: impl FnOnce(&mut Option<Box<Pass>>) -> R) -> R {
    // SAFETY: it is written by `after_fork_in_child` only, when nobody else runs.
    let held: &Held = unsafe { &*PASS.0.get() };
    f(&mut held.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has forked children find the lock free. If memory is out, theirs may not be.
pub(crate) fn watch_forks() {
    // SAFETY: a valid function, of a library that is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork_in_child)) };
}

unsafe extern "C" fn after_fork_in_child() {
    // SAFETY: this is the only thread, and `fork` is not called with the lock held.
    let held: &mut Held = unsafe { &mut *PASS.0.get() };
    if matches!(held.try_lock(), Err(TryLockError::WouldBlock)) {
        // The pass under it may be half changed: it is left alone, and so is its memory.
        core::mem::forget(core::mem::take(held));
    }
}

/// Plans a pass; ends one that is still running. Returns the bytes of slabs that
/// will be empty when every block that should move has been moved; 0: no pass is
/// worth while.
#[unsafe(no_mangle)]
pub extern "C" fn tallow_defrag_begin() -> usize {
    with_pass(|pass| {
        *pass = None;
        let planned = Pass::begin(Options::default());
        let gain = planned.predicted().released_bytes as usize;
        *pass = (gain > 0).then(|| Box::new(planned));
        gain
    })
}

/// Whether a block lies in a slab that the running pass empties. Some loads.
#[unsafe(no_mangle)]
pub extern "C" fn tallow_should_move(block: *const c_void) -> c_int {
    raw::should_move(block.cast()).into()
}

/// Moves a block, with all of its bytes; returns its new address. The same address
/// if it stays; otherwise the old one must not be used any more.
///
/// # Safety
/// A block, or null, to which nobody else holds a pointer that is still used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tallow_move(block: *mut c_void) -> *mut c_void {
    let (Some(at), true) = (NonNull::new(block), raw::should_move(block.cast())) else {
        return block;
    };
    let Some(bytes) = raw::usable_bytes(block.cast()) else { return block };
    let Ok(layout) = Layout::from_size_align(bytes, 8) else { return block };
    with_pass(|pass| {
        let Some(pass) = pass else { return block };
        let mut mover = pass.step(Duration::from_millis(1));
        // SAFETY: a whole region of the class of that size, and the caller's alone.
        let moved = unsafe { mover.move_raw(at.cast(), layout) };
        moved.map_or(block, |moved| moved.as_ptr().cast())
    })
}

/// Ends the pass and gives back what it has freed; returns those bytes.
#[unsafe(no_mangle)]
pub extern "C" fn tallow_defrag_end() -> usize {
    let pass = with_pass(Option::take);
    pass.map_or(0, |pass| pass.finish().released_bytes as usize)
}
