//! What libFuzzer does with a target, on a stable compiler: the committed inputs, these with
//! bytes changed, and random ones made of pieces.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::path::Path;

/// Runs the target on all inputs of a folder of `fuzz/corpus`, at least `least` of them, and on
/// each with up to three bytes changed, `changes` times.
pub fn replay(name: &str, least: usize, changes: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    let corpus: Vec<Vec<u8>> = entries
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a readable input"))
        .collect();
    assert!(corpus.len() >= least, "only {} inputs in {}", corpus.len(), folder.display());
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    for input in &corpus {
        target(input);
        // One without bytes has none to change.
        for _ in 0..if input.is_empty() { 0 } else { changes } {
            let mut changed = input.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..changed.len());
                changed[at] = rng.random();
            }
            target(&changed);
        }
    }
}

/// Runs the target on `count` inputs of up to 15 pieces each.
pub fn random(count: usize, pieces: &[&[u8]], target: fn(&[u8])) {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for _ in 0..count {
        let mut input = Vec::new();
        for _ in 0..rng.random_range(0..16) {
            input.extend(pieces[rng.random_range(0..pieces.len())]);
        }
        target(&input);
    }
}
