//! Floor 0: the atomics and cells that the rest is written with.
//!
//! This is the only file that names an atomic type. Under `--cfg loom` the same
//! names come from loom, so that the models in [`crate::slab`] and
//! [`crate::arena`] run the shipped code and not a copy of it.

#[cfg(not(loom))]
mod imp {
    use core::cell::UnsafeCell;
    pub(crate) use core::sync::atomic::fence;
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    };

    /// A cell whose accesses loom can watch; here it is a plain one.
    #[repr(transparent)]
    pub(crate) struct Cell<T>(UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer to the value, for reading and writing.
        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// Looks at a lock that is held before a thread goes to sleep.
    pub(crate) const SPINS: u32 = 64;

    pub(crate) fn spin() {
        core::hint::spin_loop();
    }

    /// Lets other threads run, one of which must get on before this one can.
    pub(crate) fn give_way() {
        std::thread::yield_now();
    }

    /// Whether a model has failed, which is told by a panic.
    #[inline(always)]
    pub(crate) const fn has_failed() -> bool {
        false
    }

    /// Has the cache line at an address fetched, to be written: out of other processors'
    /// caches. Any address will do; nothing happens where the processor has no such
    /// instruction.
    ///
    /// By its name, since the compiler's own hint becomes one for reading unless the program
    /// is built for newer processors than the first with 64 bits.
    #[inline(always)]
    pub(crate) fn prefetch<T>(at: *const T) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a hint, which never faults, and does nothing where it is not known.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) at.addr(), options(nostack, preserves_flags, nomem));
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("prfm pstl1keep, [{}]", in(reg) at.addr(), options(nostack, preserves_flags, nomem));
        }
        #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
        let _ = at;
    }

    /// So many null pointers.
    pub(crate) const fn nulls<T, const N: usize>() -> [AtomicPtr<T>; N] {
        [const { AtomicPtr::new(core::ptr::null_mut()) }; N]
    }

    /// One half of an asymmetric fence: keeps the compiler from moving accesses
    /// across it and costs no instruction. The other half is
    /// `os::barrier_everywhere`, which makes the processor keep the same order.
    #[inline(always)]
    pub(crate) fn light_fence() {
        core::sync::atomic::compiler_fence(super::Ordering::SeqCst);
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence,
    };

    std::thread_local! {
        /// Of the thread that runs a model; loom's threads are coroutines on it.
        static FENCES: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
    }

    pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(f)
        }
    }

    /// None: it would only make executions longer.
    pub(crate) const SPINS: u32 = 0;

    pub(crate) fn spin() {
        loom::thread::yield_now();
    }

    pub(crate) fn give_way() {
        loom::thread::yield_now();
    }

    pub(crate) fn has_failed() -> bool {
        std::thread::panicking()
    }

    pub(crate) fn prefetch<T>(_: *const T) {}

    pub(crate) fn nulls<T, const N: usize>() -> [AtomicPtr<T>; N] {
        core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Loom has no asymmetric fence: a full one stands in for each half, which orders
    /// the same where a light one meets the other half, and more where two light ones
    /// meet. So a model has light fences on one thread only.
    pub(crate) fn light_fence() {
        if FENCES.with(std::cell::Cell::get) {
            loom::sync::atomic::fence(super::Ordering::SeqCst);
        }
    }

    /// Has [`light_fence`] do nothing from now on.
    pub(crate) fn without_light_fences() {
        FENCES.with(|it| it.set(false));
    }
}

/// Atomics that loom does not watch: of numbers that order nothing.
pub(crate) mod unwatched {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    };
}

/// Atomics of memory that begins as zeros, which are none of loom's; it watches those
/// that a model names.
pub(crate) mod zeroed {
    #[cfg(loom)]
    pub(crate) use crate::model::words::{AtomicU8, AtomicU64, AtomicUsize};
    #[cfg(not(loom))]
    pub(crate) use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
}

/// The atomics that a program's own data may hold.
#[cfg(not(loom))]
pub(crate) mod of_programs {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
        AtomicU32, AtomicU64, AtomicUsize,
    };
}

pub(crate) use core::sync::atomic::Ordering;
pub(crate) use imp::*;

/// Declares statics; under loom each execution has its own.
macro_rules! statics {
    ($($(#[$meta:meta])* pub(super) static $name:ident: $ty:ty = $value:expr;)*) => {
        $($(#[$meta])* #[cfg(not(loom))] pub(super) static $name: $ty = $value;)*
        #[cfg(loom)]
        loom::lazy_static! { $($(#[$meta])* pub(super) static ref $name: $ty = $value;)* }
    };
}
pub(crate) use statics;

/// Declares a constructor that is `const`, except under loom, whose atomics
/// have none.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        $(#[$meta])* #[cfg(not(loom))] $vis const fn $name($($arg: $ty),*) -> $ret $body
        $(#[$meta])* #[cfg(loom)] $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_loom;
