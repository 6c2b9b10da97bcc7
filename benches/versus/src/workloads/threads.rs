//! Several threads: side by side, and with blocks that change hands.
//!
//! Threads are started and joined within the measured time, as a program would; a repetition is
//! long enough for that not to matter. The figures are wall time divided by the operations of all
//! threads together.

use super::Group::Threads;
use super::micro::{Churn, churn_size, pairs};
use super::{Outcome, Params, Unit, Workload, ns_per_op, random};
use crate::block::Block;
use rand::Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

/// The workloads of this module.
pub const LIST: &[Workload] = &[
    threads("pair-threads", &[2, 8, 64], pair, "`pair` on every thread at once"),
    threads("churn-threads", &[2, 8, 64], churn, "`churn-10k` on every thread at once"),
    threads("handover", &[2, 8], handover, "half of the threads allocate, their partners free"),
    threads("ring", &[2, 8], ring, "each thread sends blocks to the next, which frees them"),
    threads(
        "larson",
        &[1, 2, 8],
        larson,
        "a server: threads end and leave their blocks to new ones",
    ),
];

const fn threads(
    name: &'static str,
    threads: &'static [usize],
    run: fn(&Params) -> Outcome,
    about: &'static str,
) -> Workload {
    Workload { name, group: Threads, unit: Unit::Ns, threads, about, run }
}

/// Blocks sent at once.
const BATCH: usize = 100;
/// Batches that may be on the way before the sender waits.
const ON_THE_WAY: usize = 16;
/// Slots of a thread of `larson`.
const LARSON_SLOTS: usize = 1000;
/// Threads of `larson` that follow each other.
const LARSON_GENERATIONS: usize = 20;

type Batch = Vec<Block>;

/// Runs `work` on as many threads as wanted; the sum of what they return.
fn on_each(threads: usize, work: impl Fn(usize) -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads).map(|t| scope.spawn(move || work(t))).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
    })
}

fn pair(params: &Params) -> Outcome {
    let each = params.scale(8_000_000) / params.threads;
    ns_per_op(9, each * params.threads, || on_each(params.threads, |_| pairs(each)))
}

fn churn(params: &Params) -> Outcome {
    let each = params.scale(4_000_000) / params.threads;
    ns_per_op(5, each * params.threads, || {
        on_each(params.threads, |t| Churn::new(10_000, random(t as u64)).replace(each))
    })
}

/// A batch of blocks of 16..528 bytes.
fn batch(random: &mut impl Rng) -> Batch {
    (0..BATCH).map(|_| Block::new(churn_size(random.next_u64()))).collect()
}

fn send(to: &SyncSender<Batch>, batch: Batch) {
    assert!(to.send(batch).is_ok(), "the receiver is gone");
}

/// Frees a batch; the bytes that were in it.
fn free(batch: Batch) -> u64 {
    batch.into_iter().map(|block| block.size()).sum()
}

fn handover(params: &Params) -> Outcome {
    let couples = params.threads / 2;
    let batches = params.scale(12_000) / couples;
    ns_per_op(5, couples * batches * BATCH, || {
        thread::scope(|scope| {
            let receivers: Vec<_> = (0..couples)
                .map(|couple| {
                    let (sender, receiver) = sync_channel(ON_THE_WAY);
                    scope.spawn(move || {
                        let mut random = random(couple as u64);
                        (0..batches).for_each(|_| send(&sender, batch(&mut random)));
                    });
                    scope.spawn(move || receiver.into_iter().map(free).sum::<u64>())
                })
                .collect();
            receivers.into_iter().map(|handle| handle.join().expect("no panic")).sum()
        })
    })
}

/// A thread is never more than one batch ahead of what it has received, so the channels cannot all
/// be full, and no circle of waiting comes about.
fn ring(params: &Params) -> Outcome {
    let n = params.threads;
    let batches = params.scale(12_000) / n;
    ns_per_op(5, n * batches * BATCH, || {
        let (senders, mut receivers): (Vec<_>, Vec<_>) =
            (0..n).map(|_| sync_channel(ON_THE_WAY)).unzip();
        receivers.rotate_right(1);
        let member = |t: usize, to: SyncSender<Batch>, from: Receiver<Batch>| {
            let mut random = random(t as u64);
            (0..batches)
                .map(|_| {
                    send(&to, batch(&mut random));
                    free(from.recv().expect("the one before sends as many"))
                })
                .sum::<u64>()
        };
        thread::scope(|scope| {
            let ends = senders.into_iter().zip(receivers).enumerate();
            let handles: Vec<_> =
                ends.map(|(t, (to, from))| scope.spawn(move || member(t, to, from))).collect();
            handles.into_iter().map(|handle| handle.join().expect("no panic")).sum()
        })
    })
}

/// After Larson and Krishnan, "Memory Allocation for Long-Running Server Applications" (1998).
fn larson(params: &Params) -> Outcome {
    let each = params.scale(2_000_000) / params.threads / LARSON_GENERATIONS;
    let ops = each * LARSON_GENERATIONS * params.threads;
    ns_per_op(5, ops, || {
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for t in 0..params.threads {
                let first = Churn::new(LARSON_SLOTS, random(t as u64));
                generation(scope, first, each, LARSON_GENERATIONS, &sum);
            }
        });
        sum.into_inner()
    })
}

/// A thread that replaces `each` blocks and leaves them to the next generation.
fn generation<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut slots: Churn<impl Rng + Send + 'scope>,
    each: usize,
    left: usize,
    sum: &'scope AtomicU64,
) {
    scope.spawn(move || {
        // Relaxed: read after all threads are joined.
        sum.fetch_add(slots.replace(each), Ordering::Relaxed);
        if left > 1 {
            generation(scope, slots, each, left - 1, sum);
        }
    });
}
