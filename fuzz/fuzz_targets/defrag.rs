#![no_main]

#[global_allocator]
static ALLOC: tallow_fuzz::Switch = tallow_fuzz::Switch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallow_fuzz::defrag(data));
