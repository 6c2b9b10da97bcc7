//! A worker on the system's allocator.
#[global_allocator]
static ALLOC: std::alloc::System = std::alloc::System;

fn main() {
    versus::child::main_tended(versus::child::Tending {
        ask: trim,
        ..versus::child::Tending::NONE
    });
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
