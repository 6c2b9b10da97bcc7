//! Accesses to pages that are inaccessible on purpose: a handler of `SIGSEGV` that
//! tells of them, and then lets the one that was there before go on.

use crate::sync::Ordering;
use crate::sync::unwatched::{AtomicBool, AtomicU32, AtomicUsize};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

/// What an access wanted, where the processor says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Read,
    Write,
    Unknown,
}

impl Wanted {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Unknown => "access",
        }
    }
}

/// Tells of an access to an address, if it knows the page.
pub(crate) type Teller = fn(address: usize, wanted: Wanted);

/// The handlers that were there before, written once, before ours is in place.
struct Before(UnsafeCell<[MaybeUninit<libc::sigaction>; 2]>);
// SAFETY: written before the handler that reads it is in place.
unsafe impl Sync for Before {}
static BEFORE: Before = Before(UnsafeCell::new([const { MaybeUninit::zeroed() }; 2]));
static TELLER: AtomicUsize = AtomicUsize::new(0);
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Has `teller` called for every fault from now on. The first calls see to it that it
/// is: Rust's own handler is put in place after the first allocations of a program.
pub(crate) fn watch(teller: Teller) {
    const CALLS: u32 = 64;
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static LOCK: AtomicBool = AtomicBool::new(false);
    // Relaxed: a count of its own.
    if SEEN.load(Ordering::Relaxed) >= CALLS || LOCK.swap(true, Ordering::Acquire) {
        return;
    }
    SEEN.fetch_add(1, Ordering::Relaxed);
    // Release pairs with the Acquire in `handler`.
    TELLER.store(teller as usize, Ordering::Release);
    for (i, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: all zero is a valid value of this C structure.
        let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        ours.sa_sigaction = handler as *const () as usize;
        // Not on the stack for signals, which has no room for a backtrace: where the
        // stack itself has ended, the system ends the program without a word.
        ours.sa_flags = libc::SA_SIGINFO;
        let mut now = ours;
        // SAFETY: the place is valid.
        unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
        if now.sa_sigaction == ours.sa_sigaction {
            continue;
        }
        let before = BEFORE.0.get().cast::<libc::sigaction>().wrapping_add(i);
        // SAFETY: what was before is kept first, so that the handler finds it; one caller
        // at a time.
        unsafe {
            before.write(now);
            libc::sigaction(signal, &raw const ours, ptr::null_mut());
        }
    }
    LOCK.store(false, Ordering::Release);
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    /// Set while a handler is on its way: one that was put in place after ours may
    /// call ours, which would call it again.
    static BUSY: AtomicBool = AtomicBool::new(false);
    if BUSY.swap(true, Ordering::Relaxed) {
        // SAFETY: the action is valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // Acquire pairs with the Release in `watch`.
    let teller = TELLER.load(Ordering::Acquire);
    // SAFETY: the system gives a valid one.
    let address = unsafe { (*info).si_addr() }.addr();
    if teller != 0 {
        // SAFETY: `watch` stored a function of this type.
        let teller = unsafe { core::mem::transmute::<usize, Teller>(teller) };
        teller(address, wanted(context));
    }
    let i = usize::from(signal != SIGNALS[0]);
    // SAFETY: written by `watch`.
    let before = unsafe { *BEFORE.0.get().cast::<libc::sigaction>().wrapping_add(i) };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access happens again, and ends the program as it would have.
            // SAFETY: the action is valid.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        chained if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Full = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: the flag says that it is such a function.
            let chained = unsafe { core::mem::transmute::<usize, Full>(chained) };
            chained(signal, info, context);
        }
        chained => {
            // SAFETY: without the flag it is a function of one argument.
            let chained = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(chained) };
            chained(signal);
        }
    }
    BUSY.store(false, Ordering::Relaxed);
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn wanted(context: *mut c_void) -> Wanted {
    /// A page fault's number, and the bit of its code that says so.
    const PAGE_FAULT: i64 = 14;
    const WRITE: i64 = 2;
    // SAFETY: the system gives a valid one.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    match (registers[libc::REG_TRAPNO as usize], registers[libc::REG_ERR as usize] & WRITE) {
        (PAGE_FAULT, 0) => Wanted::Read,
        (PAGE_FAULT, _) => Wanted::Write,
        _ => Wanted::Unknown,
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn wanted(_: *mut c_void) -> Wanted {
    Wanted::Unknown
}
