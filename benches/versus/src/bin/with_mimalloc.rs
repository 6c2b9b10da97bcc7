//! A worker on mimalloc (v3).
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    versus::child::main()
}
