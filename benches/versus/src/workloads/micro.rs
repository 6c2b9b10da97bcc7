//! The allocator and nothing else, on one thread.

use super::Group::Micro;
use super::{Outcome, Params, Unit, Workload, ns_per_op, random, seconds};
use crate::block::Block;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use std::hint::black_box;

/// The workloads of this module.
pub const LIST: &[Workload] = &[
    micro("pair", pair, "allocate and free one block of 64 B: the shortest path"),
    micro("pair-mixed", pair_mixed, "allocate and free one block of 16..1024 B"),
    micro("batch-in-order", batch_in_order, "100 000 blocks of 64 B, freed in order"),
    micro("batch-shuffled", batch_shuffled, "100 000 blocks of 64 B, freed in random order"),
    micro("batch-2M", batch_2m, "2 M blocks of 16..128 B, freed in random order"),
    micro("churn-10k", churn_10k, "replace a random one of 10 000 blocks of 16..528 B"),
    micro("churn-1M", churn_1m, "replace a random one of 1 M blocks of 16..528 B"),
    micro("churn-over-8MiB", churn_over_8mib, "`churn-10k` beside 8 MiB of live blocks"),
    micro("churn-over-8GiB", churn_over_8gib, "`churn-10k` beside 8 GiB of live blocks"),
    micro("realloc-small", realloc_small, "grow a Vec<u8> 8 bytes at a time, up to 4 KiB"),
    Workload {
        name: "realloc-600MB",
        group: Micro,
        unit: Unit::Seconds,
        threads: &[1],
        about: "grow one Vec<u8> by 64 KiB at a time to 600 MB",
        run: realloc_600mb,
    },
    micro("align", align, "replace one of 1000 blocks of 8..4096 B aligned to 8..4096"),
    micro("calloc", calloc, "zeroed blocks of 64 B..256 KiB, the first byte touched, 64 live"),
    micro("large", large, "blocks of 64 KiB..8 MiB, every page written, 32 live"),
    micro("large-touchless", large_touchless, "the same without writes"),
    micro("large-loop", large_loop, "one block at a time, of 64 KiB..32 MiB, every page written"),
];

const fn micro(name: &'static str, run: fn(&Params) -> Outcome, about: &'static str) -> Workload {
    Workload { name, group: Micro, unit: Unit::Ns, threads: &[1], about, run }
}

/// The sizes of the churn workloads.
#[inline]
pub(super) fn churn_size(random: u64) -> usize {
    16 + (random % 513) as usize
}

/// `n` times: a block of 64 bytes, and away with it.
pub(super) fn pairs(n: usize) -> u64 {
    let mut sum = 0;
    for _ in 0..n {
        sum += Block::new(black_box(64)).size();
    }
    sum
}

fn pair(params: &Params) -> Outcome {
    let n = params.scale(8_000_000);
    ns_per_op(9, n, || pairs(n))
}

fn pair_mixed(params: &Params) -> Outcome {
    let n = params.scale(4_000_000);
    let mut random = random(1);
    let sizes: Vec<usize> = (0..4096).map(|_| random.random_range(16..=1024)).collect();
    ns_per_op(9, n, || sizes.iter().cycle().take(n).map(|&size| Block::new(size).size()).sum())
}

fn batch_in_order(params: &Params) -> Outcome {
    let n = params.scale(100_000);
    let mut blocks = Vec::with_capacity(n);
    ns_per_op(101, n, || {
        blocks.extend((0..n).map(|_| Block::new(black_box(64))));
        let sum = blocks.len() as u64;
        blocks.clear();
        sum
    })
}

fn batch_shuffled(params: &Params) -> Outcome {
    batch(params.scale(100_000), 61, |_| 64)
}

fn batch_2m(params: &Params) -> Outcome {
    let mut random = random(2);
    batch(params.scale(2_000_000), 3, move |_| random.random_range(16..=128))
}

/// Allocates `n` blocks, then frees them in an order drawn before.
fn batch(n: usize, repetitions: usize, mut size: impl FnMut(usize) -> usize) -> Outcome {
    let sizes: Vec<u8> = (0..n).map(|i| size(i) as u8).collect();
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut random(3));
    let mut blocks: Vec<Option<Block>> = Vec::with_capacity(n);
    ns_per_op(repetitions, n, || {
        blocks.clear();
        blocks.extend(sizes.iter().map(|&size| Some(Block::new(size.into()))));
        order.iter().map(|&at| blocks[at as usize].take().map_or(0, |b| b.size())).sum()
    })
}

/// Live blocks of which random ones are replaced.
pub(super) struct Churn<R> {
    live: Vec<Option<Block>>,
    random: R,
}

impl<R: Rng> Churn<R> {
    pub(super) fn new(count: usize, mut random: R) -> Self {
        let live = (0..count).map(|_| Some(Block::new(churn_size(random.next_u64())))).collect();
        Self { live, random }
    }

    /// Replaces `n` blocks; the sum of the sizes of the old ones.
    pub(super) fn replace(&mut self, n: usize) -> u64 {
        let mut sum = 0;
        for _ in 0..n {
            let word = self.random.next_u64();
            let at = ((word >> 32) as usize * self.live.len()) >> 32;
            let place = &mut self.live[at];
            sum += place.take().map_or(0, |old| old.size());
            *place = Some(Block::new(churn_size(word & 0xFFFF_FFFF)));
        }
        sum
    }
}

fn churn_10k(params: &Params) -> Outcome {
    let n = params.scale(2_000_000);
    let mut churn = Churn::new(10_000, random(4));
    ns_per_op(7, n, || churn.replace(n))
}

fn churn_1m(params: &Params) -> Outcome {
    let n = params.scale(1_000_000);
    let mut churn = Churn::new(n, random(5));
    ns_per_op(5, n, || churn.replace(n))
}

/// The churn beside `bytes` of blocks of 1 KiB that are live and left alone.
fn churn_over(params: &Params, bytes: usize) -> Outcome {
    let ballast: Vec<Block> = (0..params.scale(bytes) >> 10).map(|_| Block::new(1 << 10)).collect();
    let out = churn_10k(params);
    black_box(ballast.len());
    out
}

fn churn_over_8mib(params: &Params) -> Outcome {
    churn_over(params, 8 << 20)
}

fn churn_over_8gib(params: &Params) -> Outcome {
    churn_over(params, 8 << 30)
}

/// One operation is one vector, from nothing to its final length.
fn realloc_small(params: &Params) -> Outcome {
    let n = params.scale(100_000);
    let mut random = random(6);
    let lengths: Vec<usize> = (0..n).map(|_| random.random_range(1..=4096)).collect();
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); 256];
    ns_per_op(7, n, || {
        for (i, &length) in lengths.iter().enumerate() {
            let mut grown = Vec::new();
            while grown.len() < length {
                grown.extend_from_slice(black_box(&[1; 8]));
            }
            kept[i % 256] = grown;
        }
        kept.iter().map(|vec| vec.len() as u64).sum()
    })
}

fn realloc_600mb(params: &Params) -> Outcome {
    let goal = params.scale(600_000_000);
    let piece = [7; 64 << 10];
    seconds(3, goal / piece.len(), || {
        let mut grown: Vec<u8> = Vec::new();
        while grown.len() < goal {
            grown.extend_from_slice(black_box(&piece));
        }
        grown.len() as u64
    })
}

fn align(params: &Params) -> Outcome {
    let n = params.scale(400_000);
    let mut random = random(7);
    let layouts: Vec<(usize, usize)> = (0..4096)
        .map(|_| (random.random_range(8..=4096), 8 << random.random_range(0..10)))
        .collect();
    let mut live: Vec<Option<Block>> = (0..1000).map(|_| None).collect();
    let mut at = 0;
    ns_per_op(7, n, || {
        let mut sum = 0;
        for _ in 0..n {
            let (size, align) = layouts[at % layouts.len()];
            let place = &mut live[at * 7919 % 1000];
            *place = None;
            let block = Block::aligned(size, align);
            sum += u64::from(block.is_aligned());
            *place = Some(block);
            at += 1;
        }
        sum
    })
}

/// Sizes between two powers of two, all magnitudes alike.
fn log_sizes(seed: u64, lg_low: f64, lg_high: f64) -> Vec<usize> {
    let mut random = random(seed);
    (0..1024).map(|_| random.random_range(lg_low..lg_high).exp2() as usize).collect()
}

/// Replaces `live` blocks in turn, `n` times in each repetition.
fn in_turn(
    n: usize,
    live: usize,
    sizes: &[usize],
    mut make: impl FnMut(usize) -> Block,
) -> Outcome {
    let mut blocks: Vec<Option<Block>> = (0..live).map(|_| None).collect();
    let mut at = 0;
    ns_per_op(7, n, || {
        let mut sum = 0;
        for _ in 0..n {
            let place = &mut blocks[at % live];
            *place = None;
            let block = make(sizes[at % sizes.len()]);
            sum += block.size();
            *place = Some(block);
            at += 1;
        }
        sum
    })
}

fn calloc(params: &Params) -> Outcome {
    in_turn(params.scale(50_000), 64, &log_sizes(8, 6.0, 18.0), Block::zeroed)
}

fn touched(size: usize) -> Block {
    let mut block = Block::untouched(size, 8);
    black_box(block.touch_pages());
    block
}

fn large(params: &Params) -> Outcome {
    in_turn(params.scale(600), 32, &log_sizes(9, 16.0, 23.0), touched)
}

fn large_loop(params: &Params) -> Outcome {
    in_turn(params.scale(600), 1, &log_sizes(10, 16.0, 25.0), touched)
}

fn large_touchless(params: &Params) -> Outcome {
    in_turn(params.scale(4_000), 32, &log_sizes(9, 16.0, 23.0), |size| Block::untouched(size, 8))
}
