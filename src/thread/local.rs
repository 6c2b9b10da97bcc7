//! Where each thread's cache lies.
//!
//! In a program a `thread_local!` without a destructor is an offset from the
//! thread pointer. In a shared library it is a call of `__tls_get_addr`, twice
//! as long as all the rest; there the *initial-exec* model is asked for (feature
//! `initial-exec`): one load of an offset that the loader fills in. It takes the
//! cache's bytes out of what the loader keeps for libraries that are loaded
//! late, so it is for libraries that are loaded with the program.

use super::cache::Cache;

#[cfg(loom)]
mod place {
    use super::Cache;

    loom::thread_local! {
        static CACHE: Cache = Cache::unused();
    }

    pub(super) fn with<R>(f: impl FnOnce(&Cache) -> R) -> R {
        CACHE.with(f)
    }
}

#[cfg(all(
    not(loom),
    not(all(feature = "initial-exec", target_os = "linux", target_arch = "x86_64"))
))]
mod place {
    use super::Cache;

    thread_local! {
        static CACHE: Cache = const { Cache::unused() };
    }

    #[inline(always)]
    pub(super) fn with<R>(f: impl FnOnce(&Cache) -> R) -> R {
        CACHE.with(f)
    }
}

#[cfg(all(not(loom), all(feature = "initial-exec", target_os = "linux", target_arch = "x86_64")))]
mod place {
    use super::Cache;
    use core::arch::{asm, global_asm};

    // Zero, which is a cache that was never used.
    global_asm!(
        ".section .tbss.tallow_cache,\"awT\",@nobits",
        ".hidden tallow_thread_cache",
        ".globl tallow_thread_cache",
        ".type tallow_thread_cache, @object",
        ".size tallow_thread_cache, {bytes}",
        ".p2align 6",
        "tallow_thread_cache:",
        ".zero {bytes}",
        ".text",
        bytes = const size_of::<Cache>(),
    );
    static_assertions::const_assert!(align_of::<Cache>() <= 64);

    #[inline(always)]
    pub(super) fn with<R>(f: impl FnOnce(&Cache) -> R) -> R {
        let at: *const Cache;
        // SAFETY: reads the thread pointer, and the offset that the loader has
        // put into the table; the answer is the same all through a thread.
        unsafe {
            asm!(
                "mov {at}, qword ptr fs:[0]",
                "add {at}, qword ptr [rip + tallow_thread_cache@GOTTPOFF]",
                at = out(reg) at,
                options(pure, nomem, nostack),
            );
        }
        // SAFETY: a cache for every thread, zero at first, there as long as it.
        f(unsafe { &*at })
    }
}

/// Runs `f` with the calling thread's cache.
#[inline(always)]
pub(crate) fn with_cache<R>(f: impl FnOnce(&Cache) -> R) -> R {
    place::with(f)
}
