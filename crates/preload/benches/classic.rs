//! The classic malloc benchmarks.

fn main() {}
