//! A worker on jemalloc.
#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    versus::child::main_tended(versus::child::Tending { start, ask });
}

/// Its background threads purge what has decayed.
fn start() {
    tikv_jemalloc_ctl::background_thread::write(true).expect("built with background threads");
}

/// All arenas are purged at once.
fn ask() {
    let null = std::ptr::null_mut();
    // SAFETY: an order without a value, as its manual has it (4096: all arenas).
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(c"arena.4096.purge".as_ptr(), null, null.cast(), null, 0)
    };
    assert_eq!(code, 0, "mallctl");
}
