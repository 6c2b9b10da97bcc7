//! What a process holds while it does nothing.
//!
//! The memory is read while the threads and the live data still exist. Nobody asks the allocator to
//! purge, but for `spike-tended`.

use super::Group::Memory;
use super::micro::churn_size;
use super::{Outcome, Params, Unit, Workload, random};
use crate::block::Block;
use crate::child;
use rand::{Rng, RngExt};
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

/// The workloads of this module.
pub const LIST: &[Workload] = &[
    Workload {
        name: "spike-idle",
        group: Memory,
        unit: Unit::TimesLive,
        threads: &[4],
        about: "200 MB of 16..1024 B on 4 threads, 1 of 16 kept, then 12 s of sleep",
        run: spike_idle,
    },
    Workload {
        name: "spike-tended",
        group: Memory,
        unit: Unit::TimesLive,
        threads: &[4],
        about: "the same, with all that the allocator offers: its thread, a purge at the end",
        run: spike_tended,
    },
    Workload {
        name: "small-program",
        group: Memory,
        unit: Unit::Mib,
        threads: &[1],
        about: "a program with 1 MB of live data, replaced many times",
        run: small_program,
    },
    Workload {
        name: "idle-threads",
        group: Memory,
        unit: Unit::KibPerThread,
        threads: &[100],
        about: "threads that allocate and free 100 objects of mixed sizes, then sleep",
        run: idle_threads,
    },
];

const MIB: f64 = (1 << 20) as f64;
const KEPT_OF: usize = 16;

/// Allocates `bytes` of small objects and keeps one in sixteen.
fn spike(seed: u64, bytes: usize) -> Vec<Box<[u8]>> {
    let mut random = random(seed);
    let mut objects = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let len = random.random_range(16..=1024);
        objects.push(vec![len as u8; len].into_boxed_slice());
        left = left.saturating_sub(len);
    }
    let mut index = 0;
    objects.retain(|_| {
        index += 1;
        index % KEPT_OF == 0
    });
    objects.shrink_to_fit();
    objects
}

fn spike_tended(params: &Params) -> Outcome {
    (params.tending.start)();
    spike_then_idle(params, params.tending.ask)
}

fn spike_idle(params: &Params) -> Outcome {
    spike_then_idle(params, || ())
}

fn spike_then_idle(params: &Params, ask: impl FnOnce()) -> Outcome {
    let idle = Duration::from_secs(if params.quick { 3 } else { 12 });
    let each = params.scale(200_000_000) / params.threads;
    let (ready, done) = (Barrier::new(params.threads + 1), Barrier::new(params.threads + 1));
    thread::scope(|scope| {
        // The threads stay, and sleep: an allocator must reach their caches.
        let threads: Vec<_> = (0..params.threads)
            .map(|t| {
                let (ready, done) = (&ready, &done);
                scope.spawn(move || {
                    let kept = spike(t as u64, each);
                    ready.wait();
                    done.wait();
                    kept.iter().map(|object| object.len() as u64).sum::<u64>()
                })
            })
            .collect();
        ready.wait();
        thread::sleep(idle);
        ask();
        let memory = child::memory();
        done.wait();
        let live: u64 = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
        Outcome {
            value: memory.final_rss_bytes as f64 / live as f64,
            ops: (each * params.threads) as u64,
            checksum: live,
            memory: Some(memory),
        }
    })
}

fn small_program(params: &Params) -> Outcome {
    const LIVE_BYTES: usize = 1_000_000;
    let mut random = random(1);
    let mut live: Vec<Option<Block>> = Vec::new();
    let mut bytes = 0;
    while bytes < LIVE_BYTES {
        let size = churn_size(random.next_u64());
        bytes += size;
        live.push(Some(Block::new(size)));
    }
    let n = params.scale(1_000_000);
    let mut sum = 0;
    for _ in 0..n {
        let at = random.random_range(0..live.len());
        sum += live[at].take().map_or(0, |old| old.size());
        live[at] = Some(Block::new(churn_size(random.next_u64())));
    }
    let memory = child::memory();
    let value = memory.final_rss_bytes as f64 / MIB;
    drop(live);
    Outcome { value, ops: n as u64, checksum: sum, memory: Some(memory) }
}

fn idle_threads(params: &Params) -> Outcome {
    let (ready, done) = (Barrier::new(params.threads + 1), Barrier::new(params.threads + 1));
    let before = child::memory();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..params.threads)
            .map(|t| {
                let (ready, done) = (&ready, &done);
                scope.spawn(move || {
                    let sum = hundred_objects(t as u64);
                    ready.wait();
                    done.wait();
                    sum
                })
            })
            .collect();
        ready.wait();
        thread::sleep(Duration::from_millis(200));
        let memory = child::memory();
        done.wait();
        let sum = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
        let grown = memory.final_rss_bytes.saturating_sub(before.final_rss_bytes);
        Outcome {
            value: grown as f64 / 1024.0 / params.threads as f64,
            ops: params.threads as u64 * 100,
            checksum: sum,
            memory: Some(memory),
        }
    })
}

/// Allocates and frees a hundred objects of 16..4096 bytes.
fn hundred_objects(seed: u64) -> u64 {
    let mut random = random(seed);
    let objects: Vec<Vec<u8>> = (0..100)
        .map(|_| {
            let len = random.random_range(16..=4096);
            vec![len as u8; len]
        })
        .collect();
    black_box(&objects).iter().map(|object| object.len() as u64).sum()
}
