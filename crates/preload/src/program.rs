//! What the program has of its own: functions, C++'s operators, and a C++ library.

use core::arch::global_asm;
use core::ffi::{CStr, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

pub(crate) type Free = unsafe extern "C-unwind" fn(*mut c_void);
pub(crate) type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
pub(crate) type New = extern "C-unwind" fn(usize) -> *mut c_void;
pub(crate) type NewAligned = extern "C-unwind" fn(usize, usize) -> *mut c_void;
pub(crate) type Delete = unsafe extern "C-unwind" fn(*mut c_void);
pub(crate) type DeleteAligned = unsafe extern "C-unwind" fn(*mut c_void, usize);

/// What other functions forward to: the program's where it has replaced them, as C++
/// allows for each operator alone, and the C library for all that its manual names; and
/// otherwise this library's.
#[repr(C)]
pub(crate) struct Functions {
    pub(crate) free: Free,
    pub(crate) realloc: Realloc,
    pub(crate) new: New,
    pub(crate) new_array: New,
    pub(crate) new_aligned: NewAligned,
    pub(crate) new_array_aligned: NewAligned,
    pub(crate) delete: Delete,
    pub(crate) delete_array: Delete,
    pub(crate) delete_aligned: DeleteAligned,
    pub(crate) delete_array_aligned: DeleteAligned,
}

// The loader looks the names up, in the program first, when it loads this library and
// before anything runs. Not a Rust `static`: functions of one body become one function
// there, whatever their names are.
global_asm!(
    ".pushsection .data.rel.ro.tallow_functions,\"aw\"",
    ".hidden tallow_functions",
    ".globl tallow_functions",
    ".type tallow_functions, %object",
    ".size tallow_functions, {bytes}",
    ".balign {word}",
    "tallow_functions:",
    ".{word}byte free",
    ".{word}byte realloc",
    ".{word}byte _Znwm",
    ".{word}byte _Znam",
    ".{word}byte _ZnwmSt11align_val_t",
    ".{word}byte _ZnamSt11align_val_t",
    ".{word}byte _ZdlPv",
    ".{word}byte _ZdaPv",
    ".{word}byte _ZdlPvSt11align_val_t",
    ".{word}byte _ZdaPvSt11align_val_t",
    ".popsection",
    bytes = const size_of::<Functions>(),
    word = const size_of::<usize>(),
);

unsafe extern "C" {
    #[link_name = "tallow_functions"]
    static FUNCTIONS: Functions;
}

/// One load each.
#[inline(always)]
pub(crate) fn functions() -> &'static Functions {
    // SAFETY: the table above, which is written by the loader and nobody else.
    unsafe { &*ptr::addr_of!(FUNCTIONS) }
}

/// `operator new`, as a bit of [`OWN`].
pub(crate) const NEW: u8 = 1;
/// `operator new[]`.
pub(crate) const NEW_ARRAY: u8 = 2;
/// `operator new` with an alignment.
pub(crate) const NEW_ALIGNED: u8 = 4;
/// `operator new[]` with an alignment.
pub(crate) const NEW_ARRAY_ALIGNED: u8 = 8;

/// Which of the operators are known to be this library's; none before [`note_own`].
static OWN: AtomicU8 = AtomicU8::new(0);

/// Whether all of these are this library's.
#[inline(always)]
pub(crate) fn are_own(all: u8) -> bool {
    // Relaxed: a value of its own, and 0 is right at any time.
    OWN.load(Ordering::Relaxed) & all == all
}

/// Finds out which operators are this library's.
pub(crate) fn note_own() {
    let own = home(ptr::from_ref(&OWN).cast());
    let it = functions();
    let places = [
        (NEW, it.new as *const c_void),
        (NEW_ARRAY, it.new_array as *const c_void),
        (NEW_ALIGNED, it.new_aligned as *const c_void),
        (NEW_ARRAY_ALIGNED, it.new_array_aligned as *const c_void),
    ];
    let ours = places.into_iter().filter(|&(_, at)| own.is_some() && home(at) == own);
    OWN.store(ours.map(|(bit, _)| bit).sum(), Ordering::Relaxed);
}

/// Where the library, or program, begins to which an address belongs.
fn home(at: *const c_void) -> Option<usize> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: a valid place; the address is only looked up.
    let found = unsafe { libc::dladdr(at, info.as_mut_ptr()) };
    // SAFETY: plain pointers, zero at first.
    (found != 0).then(|| unsafe { info.assume_init() }.dli_fbase.addr())
}

/// A function of the program's C++ library: not this library's of that name.
pub(crate) fn library(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if !at.is_null() {
        return Some(at);
    }
    // Programs in other languages load parts in C++ for these parts only.
    [c"libstdc++.so.6", c"libc++.so.1"].into_iter().find_map(|file| {
        // SAFETY: a C string; nothing is loaded that is not there yet.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: an open library, a C string.
        let at = unsafe { libc::dlsym(handle, name.as_ptr()) };
        // SAFETY: opened above. The caller's part keeps it loaded.
        unsafe { libc::dlclose(handle) };
        (!at.is_null()).then_some(at)
    })
}
