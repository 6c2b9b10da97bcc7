//! What is measured.
//!
//! A workload is a function from [`Params`] to an [`Outcome`]. It draws its random numbers from
//! fixed seeds, so that every allocator does the same work: the checksums must agree.

pub mod memory;
pub mod micro;
pub mod programs;
pub mod threads;

use crate::child::Memory;
use crate::child::Tending;
use clap::ValueEnum;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Threads that work at once.
    pub threads: usize,
    /// Small sizes: a smoke test.
    pub quick: bool,
    /// What the allocator offers; used by the workloads that say so.
    pub tending: Tending,
}

impl Params {
    /// `n`, or a twentieth of it for a quick run.
    #[must_use]
    pub fn scale(&self, n: usize) -> usize {
        if self.quick { (n / 20).max(1) } else { n }
    }
}

/// What a workload found.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// In the unit of the workload; less is better.
    pub value: f64,
    /// Operations in one repetition.
    pub ops: u64,
    /// The same for every allocator.
    pub checksum: u64,
    /// What the process held when it was idle. `None`: at the end, when all is freed.
    pub memory: Option<Memory>,
}

/// What stands behind a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nanoseconds of wall time for one operation (of all threads together).
    Ns,
    /// Seconds.
    Seconds,
    /// RSS in MiB.
    Mib,
    /// RSS in KiB for each thread.
    KibPerThread,
    /// RSS divided by what is live.
    TimesLive,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ns => "ns/op",
            Self::Seconds => "s",
            Self::Mib => "MiB",
            Self::KibPerThread => "KiB/thread",
            Self::TimesLive => "x live",
        })
    }
}

/// The kinds of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The allocator and nothing else, one thread.
    Micro,
    /// The same on several threads, and blocks that change threads.
    Threads,
    /// What a process holds.
    Memory,
    /// Programs as people write them.
    Program,
}

impl Group {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Micro, Self::Threads, Self::Memory, Self::Program];
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Micro => "micro",
            Self::Threads => "threads",
            Self::Memory => "memory",
            Self::Program => "program",
        })
    }
}

/// An entry of the list.
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its kind.
    pub group: Group,
    /// The unit of its figure.
    pub unit: Unit,
    /// The numbers of threads that make sense.
    pub threads: &'static [usize],
    /// What it stands for, in a line.
    pub about: &'static str,
    /// The work.
    pub run: fn(&Params) -> Outcome,
}

/// The list, in the order of the tables.
pub fn all() -> impl Iterator<Item = &'static Workload> {
    [micro::LIST, threads::LIST, memory::LIST, programs::LIST].into_iter().flatten()
}

/// The workload of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    all().find(|workload| workload.name == name)
}

/// Does the work once to warm up, then `repetitions` times by the clock: the median time of one,
/// in seconds, and the sum of the checksums.
pub fn repeat(repetitions: usize, mut work: impl FnMut() -> u64) -> (f64, u64) {
    let mut checksum = black_box(work());
    let mut seconds: Vec<f64> = (0..repetitions)
        .map(|_| {
            let started = Instant::now();
            let sum = black_box(work());
            let taken = started.elapsed().as_secs_f64();
            checksum = checksum.wrapping_add(sum);
            taken
        })
        .collect();
    seconds.sort_unstable_by(f64::total_cmp);
    (seconds[seconds.len() / 2], checksum)
}

/// [`repeat`], in nanoseconds for each of the `ops` operations of one repetition.
pub fn ns_per_op(repetitions: usize, ops: usize, work: impl FnMut() -> u64) -> Outcome {
    let (seconds, checksum) = repeat(repetitions, work);
    Outcome { value: seconds * 1e9 / ops as f64, ops: ops as u64, checksum, memory: None }
}

/// [`repeat`], in seconds for one repetition.
pub fn seconds(repetitions: usize, ops: usize, work: impl FnMut() -> u64) -> Outcome {
    let (value, checksum) = repeat(repetitions, work);
    Outcome { value, ops: ops as u64, checksum, memory: None }
}

/// Random numbers, the same in every run.
#[must_use]
pub fn random(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}
