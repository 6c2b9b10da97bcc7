//! The main function of a worker: one workload, one line of JSON.

use crate::workloads::{self, Params, Unit};
use clap::{Parser, Subcommand};
use core_affinity::CoreId;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

/// What the kernel says about a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The highest RSS so far (`VmHWM`).
    pub peak_rss_bytes: u64,
    /// RSS now. Counted page by page (`smaps_rollup`): `VmRSS` may lag behind.
    pub final_rss_bytes: u64,
    /// PSS now: shared pages divided among their users.
    pub pss_bytes: u64,
}

/// What a worker prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The workload's figure; less is better.
    pub value: f64,
    /// The unit of the figure.
    pub unit: Unit,
    /// Operations in one repetition.
    pub ops: u64,
    /// The same for every allocator.
    pub checksum: u64,
    /// At the end, or when the workload was idle.
    #[serde(flatten)]
    pub memory: Memory,
}

/// A worker of `versus`: the same workloads in every binary, each on another allocator.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one workload and print its figures as JSON.
    Worker {
        /// Its name in the list of `versus --list`.
        workload: String,
        /// Threads that work at once.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Small sizes.
        #[arg(long)]
        quick: bool,
        /// Stay on the core of this number.
        #[arg(long, value_name = "NUMBER")]
        core: Option<usize>,
    },
}

/// What an allocator offers a program that wants its memory back.
#[derive(Clone, Copy, Debug)]
pub struct Tending {
    /// Called once, before the work: starts a thread of the allocator's.
    pub start: fn(),
    /// Called when the work is done: asks for what is free to be given back.
    pub ask: fn(),
}

impl Tending {
    /// An allocator that offers nothing.
    pub const NONE: Self = Self { start: || (), ask: || () };
}

/// Runs what the command line asks for, on an allocator that offers nothing.
///
/// # Panics
/// If there is no such workload.
pub fn main() {
    main_tended(Tending::NONE);
}

/// Runs what the command line asks for.
///
/// # Panics
/// If there is no such workload, or no such core.
pub fn main_tended(tending: Tending) {
    let Command::Worker { workload, threads, quick, core } = Cli::parse().command;
    if let Some(id) = core {
        assert!(core_affinity::set_for_current(CoreId { id }), "core {id} is not ours");
    }
    let workload = workloads::find(&workload).expect("a workload of `versus --list`");
    let outcome = (workload.run)(&Params { threads, quick, tending });
    let sample = Sample {
        value: outcome.value,
        unit: workload.unit,
        ops: outcome.ops,
        checksum: outcome.checksum,
        memory: outcome.memory.unwrap_or_else(memory),
    };
    println!("{}", serde_json::to_string(&sample).expect("numbers only"));
}

/// What the kernel says about this process now; zeros where it does not say.
#[must_use]
pub fn memory() -> Memory {
    read_memory().unwrap_or_default()
}

fn read_memory() -> procfs::ProcResult<Memory> {
    let process = Process::myself()?;
    let status = process.status()?;
    let rollup = process.smaps_rollup()?;
    let total = |name| {
        let parts = rollup.memory_map_rollup.iter();
        parts.filter_map(|map| map.extension.map.get(name)).sum::<u64>()
    };
    let final_rss_bytes = total("Rss");
    Ok(Memory {
        peak_rss_bytes: (status.vmhwm.unwrap_or(0) * 1024).max(final_rss_bytes),
        final_rss_bytes,
        pss_bytes: total("Pss"),
    })
}
