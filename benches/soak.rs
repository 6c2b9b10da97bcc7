//! A long life in a short time: `cargo bench --bench soak`.
//!
//! Threads come and go; each allocates, resizes and frees blocks of random sizes in bursts,
//! and leaves some to others. Among that live 100 000 blocks of sizes that stay the same, of
//! which one in ten is replaced in each round. Between two rounds all is quiet for a moment:
//! the books are audited, and RSS is read. In the end a line is laid through the figures of
//! the rounds: what grows without bound shows as a slope, however little it is.
//!
//! 10^8 operations unless told: `cargo bench --bench soak -- --operations 1e10` is what a
//! service does in a day that makes 100 000 allocations and frees a second.

#![allow(missing_docs, reason = "a program, not a library")]

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

const OPERATIONS: f64 = 1e8;
const ROUNDS: usize = 200;
/// Rounds in which the process grows to its size.
const WARM_UP: usize = 60;
const THREADS: u64 = 4;
/// Blocks that one thread holds at most, and that it leaves when it ends.
const HELD: usize = 20_000;
const LEFT: usize = 2000;
/// Blocks that live for ten rounds.
const LONG_LIVED: usize = 100_000;
const REPLACED_OF: usize = 10;
/// Bytes that may be added in a whole run, by the slope: the noise of RSS over rounds.
const MOST_GROWTH_BYTES: f64 = (2 << 20) as f64;

type Block = Box<[u8]>;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Mostly small, a few large, hardly any huge.
    fn size(&mut self) -> usize {
        let size = match self.below(4096) {
            0 => self.below(3 << 20),
            1..=8 => self.below(200 << 10),
            9..=200 => self.below(32 << 10),
            201..=1200 => self.below(2000),
            _ => self.below(200),
        };
        size as usize + 1
    }
}

/// A block whose ends say whose it is.
fn block(size: usize, seed: u8) -> Block {
    let mut bytes: Vec<u8> = Vec::with_capacity(size);
    // What is in the middle stays as it was: the allocator is at work here, not the memory.
    bytes.resize(size.min(64), seed);
    if size > 64 {
        bytes.resize(size.min(4096), seed);
        bytes.reserve_exact(size - bytes.len());
        bytes.resize(size, seed);
    }
    bytes.into_boxed_slice()
}

fn check(block: &Block) {
    assert_eq!(block.first(), block.last(), "a block of {} bytes changed", block.len());
}

/// Blocks that a thread has left for others.
static LEFTOVERS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// The size of the long-lived block at a place.
fn size_at(place: usize) -> usize {
    Random(place as u64 * 0x9E37_79B9 + 0x1234_5678).below(600) as usize + 1
}

/// Takes `operations` turns: bursts of one kind, and its share of the long-lived blocks now
/// and then. Returns how many there were.
fn work(seed: u64, operations: u64, long_lived: &mut [Block]) -> u64 {
    let mut random = Random(seed * 0x9E37_79B9 + 1);
    let mut held: Vec<Block> = Vec::with_capacity(HELD);
    held.append(&mut LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut done, mut replaced) = (0, 0);
    while done < operations {
        // Evenly spread over the round.
        let due = done as usize * (long_lived.len() / REPLACED_OF) / operations as usize;
        while replaced < due {
            let at = random.below(long_lived.len() as u64) as usize;
            check(&long_lived[at]);
            long_lived[at] = block(long_lived[at].len(), random.0 as u8);
            (replaced, done) = (replaced + 1, done + 2);
        }
        // Some bursts are long, most are short.
        let most = if random.below(50) == 0 { 5000 } else { 60 };
        let burst = random.below(most) + 1;
        done += burst;
        match random.below(8) {
            0..=3 => {
                for _ in 0..burst {
                    if held.len() == HELD {
                        held.truncate(HELD / 2);
                        done += HELD as u64 / 2;
                    }
                    held.push(block(random.size(), random.0 as u8));
                }
            }
            4..=6 => {
                for _ in 0..burst {
                    if held.is_empty() {
                        break;
                    }
                    let at = random.below(held.len() as u64) as usize;
                    check(&held.swap_remove(at));
                }
            }
            _ => {
                for _ in 0..burst.min(200) {
                    let Some(block) = held.pop() else { break };
                    let (seed, mut bytes) = (block[0], block.into_vec());
                    bytes.resize(random.size(), seed);
                    bytes.shrink_to_fit();
                    held.insert(held.len() / 2, bytes.into_boxed_slice());
                }
            }
        }
    }
    held.truncate(LEFT);
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner).append(&mut held);
    done
}

/// The slope of a line through `ys` at 0, 1, 2, ...: least squares.
fn slope(ys: &[f64]) -> f64 {
    let n = ys.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, ys.iter().sum::<f64>() / n);
    let (mut above, mut below) = (0.0, 0.0);
    for (i, y) in ys.iter().enumerate() {
        let x = i as f64 - mean_x;
        above += x * (y - mean_y);
        below += x * x;
    }
    above / below
}

fn operations() -> f64 {
    let mut args = std::env::args().skip_while(|arg| arg != "--operations").skip(1);
    args.next().map_or(OPERATIONS, |n| n.parse().expect("--operations is a number"))
}

fn main() -> ExitCode {
    let wanted = operations();
    let share = (wanted / ROUNDS as f64 / THREADS as f64).ceil().max(1.0) as u64;
    tallow::set_decay(Some(Duration::from_secs(1)));
    let (started, mut done) = (Instant::now(), 0u64);
    let (mut rss, mut metadata) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let mut long_lived: Vec<Block> = (0..LONG_LIVED).map(|i| block(size_at(i), i as u8)).collect();
    for round in 0..ROUNDS as u64 {
        thread::scope(|scope| {
            let parts = long_lived.chunks_mut(LONG_LIVED / THREADS as usize);
            let workers: Vec<_> = (1..)
                .zip(parts)
                .map(|(i, part)| scope.spawn(move || work(round * THREADS + i, share, part)))
                .collect();
            done += workers.into_iter().map(|it| it.join().expect("no panic")).sum::<u64>();
        });
        LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner).clear();
        tallow::purge();
        if let Err(error) = tallow::audit() {
            panic!("round {round}: {error}");
        }
        rss.push(tallow::process().rss_bytes as f64);
        metadata.push(tallow::stats().metadata_bytes as f64);
        if round % 20 == 19 {
            println!(
                "{:>4} rounds {:>9.2e} operations {:>8.1} s  RSS {:>9} B  metadata {:>9} B",
                round + 1,
                done as f64,
                started.elapsed().as_secs_f64(),
                rss[round as usize],
                metadata[round as usize]
            );
        }
    }
    report(done, started.elapsed(), &rss[WARM_UP..], &metadata[WARM_UP..])
}

fn report(done: u64, took: Duration, rss: &[f64], metadata: &[f64]) -> ExitCode {
    let (of_rss, of_metadata) = (slope(rss), slope(metadata));
    let mean = rss.iter().sum::<f64>() / rss.len() as f64;
    let growth = of_rss * rss.len() as f64;
    let per_operations = 1e9 / (done as f64 / ROUNDS as f64);
    println!("{done} operations in {:.1} s", took.as_secs_f64());
    println!(
        "RSS, quiet, rounds {WARM_UP} to {ROUNDS}: mean {mean:.0} B, slope {of_rss:+.1} B a round, {:+.0} B for 10^9 operations",
        of_rss * per_operations
    );
    println!("metadata: slope {of_metadata:+.1} B a round");
    if growth > MOST_GROWTH_BYTES {
        println!("RSS grows: {growth:.0} B over the rounds");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
