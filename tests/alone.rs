//! A process that begins with one thread, where slabs take regions back without
//! atomic operations, and goes on with several: the books after each of them.

use std::sync::mpsc;
use std::thread;

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

const BLOCKS: usize = 50_000;

fn blocks(n: usize, seed: usize) -> Vec<Box<[u8]>> {
    (0..n).map(|i| vec![(i ^ seed) as u8; 8 + (i * 7919 + seed) % 700].into()).collect()
}

/// Drops them in an order that jumps from slab to slab; each must be as written.
fn drop_scattered(mut blocks: Vec<Box<[u8]>>, seed: usize) {
    let n = blocks.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| (i * 40_503 + seed) % 65_537);
    for i in order {
        let block = std::mem::take(&mut blocks[i]);
        assert!(block.iter().all(|&byte| byte == (i ^ seed) as u8), "block {i} was overwritten");
    }
}

fn balanced(when: &str) {
    if let Err(error) = tallow::audit() {
        panic!("{when}: {error}");
    }
}

fn live_regions() -> u64 {
    tallow::purge();
    tallow::stats().allocated_bytes
}

fn main() {
    drop_scattered(blocks(BLOCKS, 1), 1);
    let before = live_regions();
    for seed in 2..6 {
        drop_scattered(blocks(BLOCKS, seed), seed);
        balanced("alone");
    }
    assert_eq!(live_regions(), before, "what one thread took is back");

    // What was taken alone goes back from several threads, and the other way round.
    let (to_main, from_threads) = mpsc::channel();
    thread::scope(|scope| {
        for seed in 10..14 {
            let (mine, to_main) = (blocks(BLOCKS, seed), to_main.clone());
            scope.spawn(move || {
                drop_scattered(mine, seed);
                to_main.send((seed + 100, blocks(BLOCKS, seed + 100))).expect("main listens");
            });
        }
        drop(to_main);
        drop_scattered(blocks(BLOCKS, 3), 3);
        for (seed, theirs) in from_threads {
            drop_scattered(theirs, seed);
        }
    });
    balanced("with threads");
    drop_scattered(blocks(BLOCKS, 4), 4);
    balanced("after threads");
    let leaked = live_regions().saturating_sub(before);
    assert!(leaked < 64 << 10, "{leaked} bytes more than before the threads");
    println!("test alone ... ok");
}
