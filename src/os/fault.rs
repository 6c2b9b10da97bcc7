//! Accesses to pages that are inaccessible on purpose: a handler of `SIGSEGV` that
//! tells of them, and then lets the one that was there before go on.

use crate::sync::Ordering;
use crate::sync::unwatched::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
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
// SAFETY: written before the handler that reads it is in place, and never again.
unsafe impl Sync for Before {}
static BEFORE: Before = Before(UnsafeCell::new([const { MaybeUninit::zeroed() }; 2]));
static TELLER: AtomicUsize = AtomicUsize::new(0);
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Miri has no handlers of signals.
const SIGNALLED: bool = cfg!(not(miri));

/// Whether Rust's runtime has no handler to come: see [`watch`].
static ALONE: AtomicBool = AtomicBool::new(false);

/// Says that this is no Rust program, or not known to be one: [`watch`] need not wait.
pub(crate) fn expect_no_runtime() {
    // Relaxed: a value of its own.
    ALONE.store(true, Ordering::Relaxed);
}

/// Has `teller` called for every fault from now on. Done once: a handler that another
/// puts in the place of ours later is left there, and calls ours or does not. (A process
/// that another thread forks in the midst of it may be without one.)
///
/// The first calls do nothing while there is no handler: Rust's runtime looks whether
/// there is one, allocates, and puts its own there, which would not call ours. In programs
/// without that runtime they do ([`expect_no_runtime`]).
pub(crate) fn watch(teller: Teller) {
    const FIRST_CALLS: u32 = 16;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    // Relaxed: numbers of their own.
    if !SIGNALLED || DONE.load(Ordering::Relaxed) {
        return;
    }
    let early =
        CALLS.fetch_add(1, Ordering::Relaxed) < FIRST_CALLS && !ALONE.load(Ordering::Relaxed);
    if early && handler_of(SIGNALS[0]).sa_sigaction == libc::SIG_DFL
        || DONE.swap(true, Ordering::Relaxed)
    {
        return;
    }
    // Release pairs with the Acquire in `handler`.
    TELLER.store(teller as usize, Ordering::Release);
    for (i, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: all zero is a valid value of this C structure.
        let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        ours.sa_sigaction = handler as *const () as usize;
        // Not on the stack for signals, which has no room for a backtrace: where the
        // stack itself has ended, the system ends the program without a word.
        ours.sa_flags = libc::SA_SIGINFO;
        let before = BEFORE.0.get().cast::<libc::sigaction>().wrapping_add(i);
        // SAFETY: what was before is kept first, so that the handler finds it; only one
        // caller comes here.
        unsafe {
            before.write(handler_of(signal));
            libc::sigaction(signal, &raw const ours, ptr::null_mut());
        }
    }
}

fn handler_of(signal: c_int) -> libc::sigaction {
    // SAFETY: all zero is a valid value of this C structure.
    let mut now: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the place is valid.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    now
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    /// The thread that is telling of an access; 0 when none is.
    static TELLS: AtomicU64 = AtomicU64::new(0);
    // Acquire pairs with the Release in `watch`.
    let teller = TELLER.load(Ordering::Acquire);
    // SAFETY: the system gives a valid one.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    // Sent by a program, and no access.
    let is_sent = code <= 0;
    let me = super::thread_number();
    // Relaxed: a number of its own.
    match TELLS.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            if teller != 0 && !is_sent {
                // SAFETY: `watch` stored a function of this type.
                let teller = unsafe { core::mem::transmute::<usize, Teller>(teller) };
                teller(address, wanted(context));
            }
            // Before the next handler, which need not come back.
            TELLS.store(0, Ordering::Relaxed);
        }
        Err(other) if other == me => {
            // A fault of the telling itself.
            // SAFETY: the action is valid.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        // Two at a time would be illegible: this one goes on untold.
        Err(_) => {}
    }
    let i = usize::from(signal != SIGNALS[0]);
    // SAFETY: written by `watch`.
    let before = unsafe { *BEFORE.0.get().cast::<libc::sigaction>().wrapping_add(i) };
    match before.sa_sigaction {
        libc::SIG_IGN if is_sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access happens again, and ends the program as it would have; what was
            // sent is sent again.
            // SAFETY: the action is valid.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            if is_sent {
                // SAFETY: the same.
                unsafe { libc::raise(signal) };
            }
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
