//! The global allocator of the binary: Tallow, or the system's for contrast.
//!
//! A program has one global allocator and it is in use before `main` reads its arguments. So the
//! choice comes from the environment, is made at the first allocation, and holds for good; the
//! option `--allocator` starts the program again with the variable set.

use keyspace::gauge::Allocator;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};
use tallow::{Tallow, Tuned};

/// The variable that names the allocator: `tallow` (as if unset) or `system`.
pub const VARIABLE: &str = "KEYSPACE_ALLOCATOR";
const VARIABLE_C: &std::ffi::CStr = c"KEYSPACE_ALLOCATOR";

const UNDECIDED: u8 = 0;
const TALLOW: u8 = 1;
const SYSTEM: u8 = 2;

/// Which one. Relaxed is enough: whoever decides reads the same environment and comes to the same
/// answer, so it does not matter who is first or who sees it when.
static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);

/// The allocator this process runs on.
pub fn chosen() -> Allocator {
    if is_tallow() { Allocator::Tallow } else { Allocator::System }
}

#[inline]
fn is_tallow() -> bool {
    match MODE.load(Ordering::Relaxed) {
        UNDECIDED => decide(),
        mode => mode == TALLOW,
    }
}

#[cold]
fn decide() -> bool {
    // SAFETY: the name ends with a zero byte. Nobody changes the environment at the same time: the
    // first allocation is made by the runtime before `main`, and this program never changes it.
    let value = unsafe { libc::getenv(VARIABLE_C.as_ptr()) };
    // SAFETY: getenv returns null, which is tested first, or a string that ends with a zero byte.
    let system = !value.is_null() && unsafe { std::ffi::CStr::from_ptr(value) } == c"system";
    MODE.store(if system { SYSTEM } else { TALLOW }, Ordering::Relaxed);
    !system
}

/// Hands every call to the allocator chosen. Tallow's own settings can be changed by its
/// variables, such as `TALLOW_HUGE_PAGES`.
pub struct Switch {
    tallow: Tuned,
}

impl Switch {
    /// Undecided until the first allocation.
    pub const fn new() -> Self {
        Self { tallow: Tallow::builder().environment(true).build() }
    }
}

// SAFETY: all calls of one process go to the same allocator (the choice never changes once made),
// and each of the two keeps the contract.
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_tallow() {
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { self.tallow.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if is_tallow() {
            // SAFETY: the pointer came from `alloc` above, so from this same allocator.
            unsafe { self.tallow.dealloc(pointer, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_tallow() {
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            unsafe { self.tallow.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        if is_tallow() {
            // SAFETY: the pointer came from this same allocator, the rest is the caller's contract.
            unsafe { self.tallow.realloc(pointer, layout, new_bytes) }
        } else {
            // SAFETY: as above.
            unsafe { System.realloc(pointer, layout, new_bytes) }
        }
    }
}
