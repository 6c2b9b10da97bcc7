//! A worker on the system's allocator.
#[global_allocator]
static ALLOC: std::alloc::System = std::alloc::System;

fn main() {
    versus::child::main()
}
