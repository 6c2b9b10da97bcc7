//! C++: `operator new` and `operator delete`, by their mangled names (Itanium ABI).
//!
//! When memory is out, the program's *new handler* is called until there is
//! memory or no handler; then `std::bad_alloc` is thrown by the C++ library of the
//! program, which is looked up at that moment: programs without one do not need it.
//! What must not throw is handed to that library whole, since only C++ can catch
//! what a handler throws; it comes back here by the operator that may throw.

use core::ffi::{CStr, c_void};
use heap::raw;

const ALIGN: usize = 16;

/// A function of the program's C++ library.
fn library(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!at.is_null()).then_some(at)
}

type Handler = extern "C-unwind" fn();
type GetHandler = extern "C-unwind" fn() -> Option<Handler>;

type Nothrow = extern "C-unwind" fn(usize, Tag) -> *mut u8;
type AlignedNothrow = extern "C-unwind" fn(usize, usize, Tag) -> *mut u8;

/// The C++ library's own operator that answers null.
fn again_without_throwing(size: usize, align: usize, tag: Tag) -> *mut u8 {
    let name =
        if align >= ALIGN { c"_ZnwmSt11align_val_tRKSt9nothrow_t" } else { c"_ZnwmRKSt9nothrow_t" };
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if at.is_null() {
        return core::ptr::null_mut();
    }
    if align >= ALIGN {
        // SAFETY: that is the operator's type.
        let new = unsafe { core::mem::transmute::<*mut c_void, AlignedNothrow>(at) };
        return new(size, align, tag);
    }
    // SAFETY: as above.
    let new = unsafe { core::mem::transmute::<*mut c_void, Nothrow>(at) };
    new(size, tag)
}

#[cold]
fn again(size: usize, align: usize) -> *mut u8 {
    let get = library(c"_ZSt15get_new_handlerv");
    // SAFETY: that is the type of `std::get_new_handler`.
    let get = get.map(|get| unsafe { core::mem::transmute::<*mut c_void, GetHandler>(get) });
    while let Some(handler) = get.and_then(|get| get()) {
        handler();
        let block = raw::allocate(size, align);
        if !block.is_null() {
            return block;
        }
    }
    if let Some(throw) = library(c"_ZSt17__throw_bad_allocv") {
        // SAFETY: that is the type of `std::__throw_bad_alloc`.
        let throw = unsafe { core::mem::transmute::<*mut c_void, Handler>(throw) };
        throw();
    }
    // No library, or another one than GNU's: the standard's last resort.
    std::process::abort()
}

#[inline(always)]
fn new(size: usize, align: usize, nothrow: Option<Tag>) -> *mut c_void {
    let block = if align <= 8 { raw::allocate_cached(size) } else { core::ptr::null_mut() };
    if block.is_null() { uncached(size, align, nothrow).cast() } else { block.cast() }
}

#[cold]
fn uncached(size: usize, align: usize, nothrow: Option<Tag>) -> *mut u8 {
    let block = raw::allocate(size, align);
    match nothrow {
        _ if !block.is_null() => block,
        Some(tag) => again_without_throwing(size, align, tag),
        None => again(size, align),
    }
}

macro_rules! operators {
    (new $($name:ident($($arg:ident: $kind:ty),*) = $align:expr, $nothrow:expr;)*) => {$(
        /// An `operator new`.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "mangled")]
        pub extern "C-unwind" fn $name(size: usize, $($arg: $kind),*) -> *mut c_void {
            new(size, $align, $nothrow)
        }
    )*};
    (delete $($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        /// An `operator delete`. A size is not believed, only the block is.
        ///
        /// # Safety
        /// A block of `operator new`, or null.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "mangled")]
        pub unsafe extern "C-unwind" fn $name(block: *mut c_void, $($arg: $kind),*) {
            // SAFETY: the caller's promise.
            unsafe { raw::free(block.cast()) }
        }
    )*};
}

type Tag = *const c_void;

operators! { new
    _Znwm() = 8, None;
    _Znam() = 8, None;
    _ZnwmRKSt9nothrow_t(tag: Tag) = 8, Some(tag);
    _ZnamRKSt9nothrow_t(tag: Tag) = 8, Some(tag);
    _ZnwmSt11align_val_t(align: usize) = align.max(ALIGN), None;
    _ZnamSt11align_val_t(align: usize) = align.max(ALIGN), None;
    _ZnwmSt11align_val_tRKSt9nothrow_t(align: usize, tag: Tag) = align.max(ALIGN), Some(tag);
    _ZnamSt11align_val_tRKSt9nothrow_t(align: usize, tag: Tag) = align.max(ALIGN), Some(tag);
}

operators! { delete
    _ZdlPv();
    _ZdaPv();
    _ZdlPvm(_size: usize);
    _ZdaPvm(_size: usize);
    _ZdlPvRKSt9nothrow_t(_tag: Tag);
    _ZdaPvRKSt9nothrow_t(_tag: Tag);
    _ZdlPvSt11align_val_t(_align: usize);
    _ZdaPvSt11align_val_t(_align: usize);
    _ZdlPvmSt11align_val_t(_size: usize, _align: usize);
    _ZdaPvmSt11align_val_t(_size: usize, _align: usize);
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_align: usize, _tag: Tag);
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_align: usize, _tag: Tag);
}
