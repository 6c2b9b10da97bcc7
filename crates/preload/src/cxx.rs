//! C++: `operator new` and `operator delete`, by their mangled names (Itanium ABI).
//!
//! A program may replace any of them. What it has not replaced forwards as the
//! standard's own do: arrays to single objects, a sized `delete` to the plain one, what
//! must not throw to what may.
//!
//! When memory is out, the program's *new handler* is called until there is
//! memory or no handler; then `std::bad_alloc` is thrown by the C++ library of the
//! program, which is looked up at that moment: programs without one do not need it.
//! What must not throw is handed to that library whole, since only C++ can catch
//! what a handler throws; it comes back here by the operator that may throw.

use crate::program::{NEW, NEW_ALIGNED, NEW_ARRAY, NEW_ARRAY_ALIGNED};
use crate::program::{are_own, functions, library};
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use heap::raw;

type Handler = extern "C-unwind" fn();
type GetHandler = extern "C-unwind" fn() -> Option<Handler>;
type Nothrow = extern "C-unwind" fn(usize, Tag) -> *mut c_void;
type AlignedNothrow = extern "C-unwind" fn(usize, usize, Tag) -> *mut c_void;
type Tag = *const c_void;

fn throw() -> ! {
    if let Some(throw) = library(c"_ZSt17__throw_bad_allocv") {
        // SAFETY: that is the type of `std::__throw_bad_alloc`.
        let throw = unsafe { core::mem::transmute::<*mut c_void, Handler>(throw) };
        throw();
    }
    // No library, or another one than GNU's: the standard's last resort.
    std::process::abort()
}

#[cold]
fn again(size: usize, align: usize) -> *mut c_void {
    let get = library(c"_ZSt15get_new_handlerv");
    // SAFETY: that is the type of `std::get_new_handler`.
    let get = get.map(|get| unsafe { core::mem::transmute::<*mut c_void, GetHandler>(get) });
    while let Some(handler) = get.and_then(|get| get()) {
        handler();
        let block = raw::allocate(size, align);
        if !block.is_null() {
            return block.cast();
        }
    }
    throw()
}

#[cold]
extern "C-unwind" fn uncached(size: usize) -> *mut c_void {
    let block = raw::allocate(size, 8);
    if block.is_null() { again(size, 8) } else { block.cast() }
}

#[inline(always)]
fn new(size: usize) -> *mut c_void {
    let block = raw::allocate_cached(size);
    if block.is_null() { uncached(size) } else { block.cast() }
}

fn new_aligned(size: usize, align: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        // No handler could help.
        throw();
    }
    let block = raw::allocate(size, align);
    if block.is_null() { again(size, align) } else { block.cast() }
}

/// Null instead of handlers and exceptions.
#[inline(always)]
fn quiet(size: usize) -> *mut u8 {
    let block = raw::allocate_cached(size);
    if block.is_null() { quiet_aligned(size, 8) } else { block }
}

#[inline(never)]
fn quiet_aligned(size: usize, align: usize) -> *mut u8 {
    // Null also for an alignment that is not a power of two.
    raw::allocate(size, align)
}

/// An operator of the C++ library that calls the one that may throw, and catches.
struct Catching {
    name: &'static CStr,
    /// Looked up when it is first needed.
    at: AtomicPtr<c_void>,
}

impl Catching {
    const fn new(name: &'static CStr) -> Self {
        Self { name, at: AtomicPtr::new(core::ptr::null_mut()) }
    }

    #[cold]
    fn find(&self) -> Option<*mut c_void> {
        // Relaxed: every thread finds the same function.
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return Some(known);
        }
        let found = library(self.name)?;
        self.at.store(found, Ordering::Relaxed);
        Some(found)
    }
}

macro_rules! operators {
    (new $($name:ident($($arg:ident: $kind:ty),*) = $body:expr;)*) => {$(
        /// An `operator new`.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "mangled")]
        pub extern "C-unwind" fn $name(size: usize, $($arg: $kind),*) -> *mut c_void {
            let body: fn(usize, $($kind),*) -> *mut c_void = $body;
            body(size, $($arg),*)
        }
    )*};
    (nothrow $($name:ident($($arg:ident: $kind:ty),*) = $all:expr, $own:expr, $or:ident, $as:ty;)*) => {$(
        /// An `operator new` that answers null. Where all that it forwards to are ours,
        /// the C++ library is asked only when memory is out.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "mangled")]
        pub extern "C-unwind" fn $name(size: usize, $($arg: $kind,)* tag: Tag) -> *mut c_void {
            static CATCHING: Catching = Catching::new(
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name has no zero in it"),
                },
            );
            if are_own($all) {
                let own: fn(usize, $($kind),*) -> *mut u8 = $own;
                let block = own(size, $($arg),*);
                if !block.is_null() {
                    return block.cast();
                }
            }
            if let Some(at) = CATCHING.find() {
                // SAFETY: that is the operator's type.
                let operator = unsafe { core::mem::transmute::<*mut c_void, $as>(at) };
                return operator(size, $($arg,)* tag);
            }
            if are_own($all) {
                return core::ptr::null_mut();
            }
            (functions().$or)(size, $($arg),*)
        }
    )*};
    (delete $($name:ident($($arg:ident: $kind:ty),*) = $to:ident($($pass:ident),*);)*) => {$(
        /// An `operator delete` that another one does the work of. A size is not
        /// believed, only the block is.
        ///
        /// # Safety
        /// A block of `operator new`, or null.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "mangled")]
        pub unsafe extern "C-unwind" fn $name(block: *mut c_void, $($arg: $kind),*) {
            // SAFETY: the caller's promise.
            unsafe { (functions().$to)(block, $($pass),*) }
        }
    )*};
}

operators! { new
    _Znwm() = new;
    _Znam() = |size| (functions().new)(size);
    _ZnwmSt11align_val_t(align: usize) = new_aligned;
    _ZnamSt11align_val_t(align: usize) = |size, align| (functions().new_aligned)(size, align);
}

operators! { nothrow
    _ZnwmRKSt9nothrow_t() = NEW, quiet, new, Nothrow;
    _ZnamRKSt9nothrow_t() = NEW | NEW_ARRAY, quiet, new_array, Nothrow;
    _ZnwmSt11align_val_tRKSt9nothrow_t(align: usize)
        = NEW_ALIGNED, quiet_aligned, new_aligned, AlignedNothrow;
    _ZnamSt11align_val_tRKSt9nothrow_t(align: usize)
        = NEW_ALIGNED | NEW_ARRAY_ALIGNED, quiet_aligned, new_array_aligned, AlignedNothrow;
}

/// C++: takes a block back.
///
/// # Safety
/// A block of `operator new`, or null.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "mangled")]
pub unsafe extern "C-unwind" fn _ZdlPv(block: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { raw::free(block.cast()) }
}

/// As above.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "mangled")]
pub unsafe extern "C-unwind" fn _ZdlPvSt11align_val_t(block: *mut c_void, _align: usize) {
    // SAFETY: the caller's promise.
    unsafe { raw::free(block.cast()) }
}

operators! { delete
    _ZdaPv() = delete();
    _ZdlPvm(_size: usize) = delete();
    _ZdaPvm(_size: usize) = delete_array();
    _ZdlPvRKSt9nothrow_t(_tag: Tag) = delete();
    _ZdaPvRKSt9nothrow_t(_tag: Tag) = delete_array();
    _ZdaPvSt11align_val_t(align: usize) = delete_aligned(align);
    _ZdlPvmSt11align_val_t(_size: usize, align: usize) = delete_aligned(align);
    _ZdaPvmSt11align_val_t(_size: usize, align: usize) = delete_array_aligned(align);
    _ZdlPvSt11align_val_tRKSt9nothrow_t(align: usize, _tag: Tag) = delete_aligned(align);
    _ZdaPvSt11align_val_tRKSt9nothrow_t(align: usize, _tag: Tag) = delete_array_aligned(align);
}
