//! The fuzz target of the trace reader on a stable compiler: the committed inputs, these with
//! bytes changed, and random ones made of what traces are made of.

use keyspace::trace::check;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::path::Path;

/// What traces are made of, and what they should not be.
const PIECES: &[&[u8]] = &[
    b"0,k,1,1,1,get,0\n",
    b"7,q:q:1:8WTfjZU14ee,17,213,4,add,7200\n",
    b"18446744073709551615",
    b"536870913",
    b"65536",
    b"42949671",
    b",",
    b"set",
    b"GET",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\"",
    b"-1",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
];

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/trace");
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    entries
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a readable input"))
        .collect()
}

#[test]
fn the_committed_inputs_and_changed_ones() {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let corpus = corpus();
    assert!(corpus.len() >= 8);
    for input in &corpus {
        check(input);
        for _ in 0..500 {
            let mut changed = input.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..changed.len());
                changed[at] = rng.random();
            }
            check(&changed);
        }
    }
}

#[test]
fn random_inputs() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for _ in 0..20_000 {
        let mut input = Vec::new();
        for _ in 0..rng.random_range(0..16) {
            input.extend(PIECES[rng.random_range(0..PIECES.len())]);
        }
        check(&input);
    }
}
