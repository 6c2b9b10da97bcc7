//! A worker on mimalloc (v3).
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    versus::child::main_tended(versus::child::Tending {
        // SAFETY: may be called at any time.
        ask: || unsafe { libmimalloc_sys::mi_collect(true) },
        ..versus::child::Tending::NONE
    });
}
