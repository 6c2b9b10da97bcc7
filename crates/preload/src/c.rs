//! The functions of C and POSIX, with glibc's answers where those leave a choice.
//!
//! - Size 0 is a block of its own; `realloc(p, 0)` frees and returns null.
//! - Memory that is out, and sizes that overflow: null and `ENOMEM`.
//! - An alignment that is not a power of two: `EINVAL`.

use crate::program::functions;
use core::ffi::{c_int, c_void};
use core::ptr;
use heap::raw;

/// The system's: 4, 16 or 64 KiB.
fn page_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn set_errno(code: c_int) {
    // SAFETY: the place is the calling thread's.
    unsafe { *libc::__errno_location() = code };
}

#[cold]
fn failed(code: c_int) -> *mut c_void {
    set_errno(code);
    ptr::null_mut()
}

#[inline(always)]
fn answer(block: *mut u8) -> *mut c_void {
    if block.is_null() { failed(libc::ENOMEM) } else { block.cast() }
}

/// C: a block of `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    let block = raw::allocate_cached(size);
    if block.is_null() { uncached(size) } else { block.cast() }
}

#[cold]
extern "C" fn uncached(size: usize) -> *mut c_void {
    answer(raw::allocate(size, 8))
}

/// C: takes a block back. (Nothing here unwinds; declared so, the slow path is a
/// jump and not a call.)
///
/// # Safety
/// As in C: a block, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn free(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { raw::free(block.cast()) }
}

/// C: `count * size` zero bytes.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => answer(raw::allocate_zeroed(bytes)),
        None => failed(libc::ENOMEM),
    }
}

/// C: changes a block's size.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    if size == 0 {
        // SAFETY: the caller's promise.
        unsafe { raw::free(block.cast()) };
        return ptr::null_mut();
    }
    // SAFETY: as above.
    answer(unsafe { raw::reallocate(block.cast(), size) })
}

/// BSD: `realloc` of `count * size` bytes, the program's if it has its own.
///
/// # Safety
/// As for `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { (functions().realloc)(block, bytes) },
        None => failed(libc::ENOMEM),
    }
}

/// C: a block at a multiple of `align`.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return failed(libc::EINVAL);
    }
    answer(raw::allocate(size, align.max(8)))
}

/// SunOS: as `aligned_alloc`; an alignment that is not a power of two is rounded up
/// to one.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => failed(libc::EINVAL),
    }
}

/// POSIX: as `aligned_alloc`; the answer is the error, and `errno` is left alone.
///
/// # Safety
/// `out` is a valid place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = raw::allocate(size, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(block.cast()) };
    0
}

/// BSD: a block at the start of a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    answer(raw::allocate(size, page_bytes()))
}

/// SunOS: whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page_bytes()) {
        Some(size) => valloc(size),
        None => failed(libc::ENOMEM),
    }
}

/// glibc: bytes of a block that may be used.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_usable_size(block: *const c_void) -> usize {
    raw::usable_bytes(block.cast()).unwrap_or(0)
}

/// C23: `free`, the program's if it has its own, by one who knows the size. It is not
/// believed, only the block is.
///
/// # Safety
/// As for `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { (functions().free)(block) }
}

/// C23: as `free_sized`.
///
/// # Safety
/// As for `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { (functions().free)(block) }
}

/// SunOS: as `free`.
///
/// # Safety
/// As for `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { (functions().free)(block) }
}

/// glibc: gives back all that can be given back. 1 when that was anything.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: usize) -> c_int {
    (heap::purge() > 0).into()
}

/// glibc: accepted, and without effect. See `TALLOW_*` for what can be set.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_name: c_int, _value: c_int) -> c_int {
    1
}

/// Names by which programs get past an interposed `malloc`. Blocks of theirs
/// would come back to our `free`.
macro_rules! also_called {
    ($($name:ident = $target:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {$(
        /// Another name.
        ///
        /// # Safety
        /// As for the function that it is a name of.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $kind),*) -> $out {
            #[allow(unused_unsafe, reason = "some of them are safe")]
            // SAFETY: the caller's promise.
            unsafe { $target($($arg),*) }
        }
    )*};
}

also_called! {
    __libc_malloc = malloc(size: usize) -> *mut c_void;
    __libc_calloc = calloc(count: usize, size: usize) -> *mut c_void;
    __libc_realloc = realloc(block: *mut c_void, size: usize) -> *mut c_void;
    __libc_memalign = memalign(align: usize, size: usize) -> *mut c_void;
    __libc_valloc = valloc(size: usize) -> *mut c_void;
    __libc_pvalloc = pvalloc(size: usize) -> *mut c_void;
    __libc_free = free(block: *mut c_void) -> ();
    __posix_memalign = posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
}
