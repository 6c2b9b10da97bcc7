//! A worker on Tallow.
#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

fn main() {
    versus::child::main_tended(versus::child::Tending {
        start: || tallow::janitor::start().expect("one more thread"),
        // The janitor has seen to it.
        ask: || (),
    });
}
