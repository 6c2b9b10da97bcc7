//! The fuzz targets on a stable compiler: the committed inputs, then random
//! ones for `TALLOW_FUZZ_SECONDS` seconds (2 unless told), the same in each run.

#[path = "../fuzz/src/lib.rs"]
mod targets;

#[global_allocator]
static ALLOC: targets::Switch = targets::Switch;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The books are those of the whole process: one input at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits for the thread of the test before, too, which may not be gone yet: a region of each
/// class stays in its cache until then, and cannot be moved out of its slab.
fn alone() -> MutexGuard<'static, ()> {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Instant::now();
    loop {
        tallow::purge();
        if tallow::stats().classes.iter().all(|class| class.regions_cached == 0) {
            return alone;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "a thread does not end");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Replays the corpus of a target; says which input it was that failed.
fn replay(name: &str, target: fn(&[u8])) {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let input = std::fs::read(&path).expect("a readable input");
        count += 1;
        let result = std::panic::catch_unwind(|| target(&input));
        assert!(result.is_ok(), "{} fails", path.display());
    }
    assert!(count >= 3, "only {count} inputs in {}", folder.display());
}

/// They share the time.
const TARGETS: f64 = 5.0;

fn seconds() -> f64 {
    let wanted = std::env::var("TALLOW_FUZZ_SECONDS").ok();
    wanted.map_or(2.0, |s| s.parse().expect("TALLOW_FUZZ_SECONDS is a number"))
}

/// Random bytes, longer and longer.
fn smoke(seed: u64, target: fn(&[u8])) {
    let _alone = alone();
    let (started, time) = (Instant::now(), Duration::from_secs_f64(seconds() / TARGETS));
    let (mut state, mut runs) = (seed, 0usize);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 24
    };
    while started.elapsed() < time || runs < 10 {
        let len = next() as usize % (runs * 4 + 16).min(4096);
        let input: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        let result = std::panic::catch_unwind(|| target(&input));
        assert!(result.is_ok(), "run {runs} fails: {input:?}");
        runs += 1;
    }
    println!("{runs} runs");
}

macro_rules! targets {
    ($($name:ident $corpus:ident $random:ident $seed:literal;)*) => {$(
        #[test]
        fn $corpus() {
            replay(stringify!($name), targets::$name);
        }

        #[test]
        fn $random() {
            smoke($seed, targets::$name);
        }
    )*};
}

targets! {
    operations operations_corpus operations_at_random 0x9E37_79B9_7F4A_7C15;
    layouts layouts_corpus layouts_at_random 0xD1B5_4A32_D192_ED03;
    transfers transfers_corpus transfers_at_random 0x2545_F491_4F6C_DD1D;
    defrag defrag_corpus defrag_at_random 0x94D0_49BB_1331_11EB;
    settings settings_corpus settings_at_random 0xBF58_476D_1CE4_E5B9;
}
