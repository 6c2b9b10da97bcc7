//! The fuzz target of the request scanner on a stable compiler: the committed inputs, these with
//! bytes changed, and random ones made of what requests are made of.

use keyspace::server::check_requests;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::path::Path;

/// What requests are made of, and what they should not be.
const PIECES: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*-1\r\n",
    b"*01\r\n",
    b"$1\r\na\r\n",
    b"$0\r\n\r\n",
    b"$4\r\nPING\r\n",
    b"$99999999\r\n",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\"",
    b"'",
    b"\\x41",
    b"\0",
    b"PING\r\n",
    b"$",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"abc",
];

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/requests");
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
        check_requests(input);
        for _ in 0..200 {
            let mut changed = input.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..changed.len());
                changed[at] = rng.random();
            }
            check_requests(&changed);
        }
    }
}

#[test]
fn random_inputs() {
    let mut rng = Pcg64Mcg::seed_from_u64(2);
    for _ in 0..5000 {
        let mut input = Vec::new();
        for _ in 0..rng.random_range(0..12) {
            input.extend(PIECES[rng.random_range(0..PIECES.len())]);
        }
        check_requests(&input);
    }
}
