//! A worker on mimalloc-pprof.
#[global_allocator]
static ALLOC: mimalloc_pprof::MiMalloc = mimalloc_pprof::MiMalloc;

fn main() {
    versus::child::main()
}
