//! A worker on Tallow.
#[global_allocator]
static ALLOC: tallow::Tuned = tallow::Tallow::builder().environment(true).build();

fn main() {
    versus::child::main()
}
