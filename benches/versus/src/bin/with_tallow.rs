//! A worker on Tallow.
#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

fn main() {
    versus::child::main()
}
