//! Accesses to pages that are inaccessible on purpose: a handler of `SIGSEGV` that
//! tells of them, and then lets the one that was there before go on.
//!
//! It runs on the thread's stack for signals, if it has one: the handler before, which
//! may be there for the end of a stack, needs that. But there is no room for a backtrace.
//! So when the access is one to tell of, the handler is put in place anew, without that
//! stack, and comes back: the access happens again, and it runs where there is room.

use crate::sync::Ordering;
use crate::sync::unwatched::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

/// What an access wanted, where the processor says so.
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    allow(dead_code, reason = "no processor but this one is asked")
)]
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

/// Who knows of the pages. Takes no locks.
pub(crate) struct Teller {
    /// Whether it would tell of an access to an address. Needs little of the stack.
    pub(crate) knows: fn(address: usize) -> bool,
    /// Tells of it.
    pub(crate) tell: fn(address: usize, wanted: Wanted),
}

/// The handlers that were there before, written once, before ours is in place.
struct Before(UnsafeCell<[MaybeUninit<libc::sigaction>; 2]>);
// SAFETY: written before the handler that reads it is in place, and never again.
unsafe impl Sync for Before {}
static BEFORE: Before = Before(UnsafeCell::new([const { MaybeUninit::zeroed() }; 2]));
static TELLER: AtomicPtr<Teller> = AtomicPtr::new(ptr::null_mut());
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
pub(crate) fn watch(teller: &'static Teller) {
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
    TELLER.store(ptr::from_ref(teller).cast_mut(), Ordering::Release);
    for (i, signal) in SIGNALS.into_iter().enumerate() {
        let before = BEFORE.0.get().cast::<libc::sigaction>().wrapping_add(i);
        // SAFETY: what was before is kept first, so that the handler finds it; only one
        // caller comes here.
        unsafe {
            before.write(handler_of(signal));
        }
        put_in_place(signal, handler, libc::SA_ONSTACK);
    }
}

/// Makes `handler` that of a signal, on the stack for signals or not.
fn put_in_place(signal: c_int, handler: Handler, stack: c_int) {
    // SAFETY: all zero is a valid value of this C structure.
    let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ours.sa_sigaction = handler as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | stack;
    // SAFETY: the action is valid.
    unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) };
}

fn handler_of(signal: c_int) -> libc::sigaction {
    // SAFETY: all zero is a valid value of this C structure.
    let mut now: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the place is valid.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    now
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The address of an access, if it is one to tell of.
fn known(info: *mut libc::siginfo_t) -> Option<(&'static Teller, usize)> {
    // Acquire pairs with the Release in `watch`.
    let teller = TELLER.load(Ordering::Acquire);
    // SAFETY: the system gives a valid one.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    // SAFETY: `watch` stored one that lives for ever.
    let teller = unsafe { teller.as_ref() }?;
    // Otherwise it was sent by a program, and is no access.
    (code > 0 && (teller.knows)(address)).then_some((teller, address))
}

/// The first to be called, on the stack for signals.
extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if known(info).is_some() {
        put_in_place(signal, tells, 0);
        return;
    }
    go_on(signal, info, context);
}

/// Called when the access happens again; by chance, for another one in between.
extern "C" fn tells(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    /// The thread that is telling of an access; 0 when none is.
    static TELLS: AtomicU64 = AtomicU64::new(0);
    // For whatever comes after this.
    put_in_place(signal, handler, libc::SA_ONSTACK);
    let me = super::thread_number();
    // Relaxed: a number of its own.
    match TELLS.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            if let Some((teller, address)) = known(info) {
                (teller.tell)(address, wanted(context));
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
    go_on(signal, info, context);
}

/// Lets the handler that was there before go on.
fn go_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives a valid one.
    let is_sent = unsafe { (*info).si_code } <= 0;
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
            // SAFETY: the flag says that it is such a function.
            let chained = unsafe { core::mem::transmute::<usize, Handler>(chained) };
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
