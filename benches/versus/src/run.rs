//! Builds the workers and runs them in turns.

use crate::child::Sample;
use crate::summary::{Cell, Report, Row};
use crate::workloads::{Group, Workload};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::env;
use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use wait_timeout::ChildExt;

/// The allocators, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Allocator {
    /// This repository's.
    Tallow,
    /// The same with the feature `hardened`.
    TallowHardened,
    /// mimalloc v3, by the crate `mimalloc`.
    Mimalloc,
    /// jemalloc, by the crate `tikv-jemallocator`.
    Jemalloc,
    /// snmalloc, by the crate `snmalloc-rs`.
    Snmalloc,
    /// A remake of mimalloc v2 in Rust.
    RustyAlloc,
    /// mimalloc v3 with hooks for profiles, which are off.
    MimallocPprof,
    /// What the C library has.
    System,
    /// Free lists and nothing else, for one thread: no allocator, but what is left of a row
    /// without one. Run if it is asked for, on the rows of `micro`; nobody's peer.
    Floor,
}

impl Allocator {
    /// The name of its binary without `with_`, and of its feature.
    fn feature(self) -> &'static str {
        match self {
            Self::Tallow => "tallow",
            Self::TallowHardened => "tallow_hardened",
            Self::Mimalloc => "mimalloc",
            Self::Jemalloc => "jemalloc",
            Self::Snmalloc => "snmalloc",
            Self::RustyAlloc => "rusty_alloc",
            Self::MimallocPprof => "mimalloc_pprof",
            Self::System => "system",
            Self::Floor => "floor",
        }
    }

    /// Whether it is compared with Tallow, and run without being asked for.
    #[must_use]
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Tallow | Self::TallowHardened | Self::Floor)
    }

    /// Whether it can run such workloads.
    pub(crate) fn takes(self, group: Group) -> bool {
        self != Self::Floor || group == Group::Micro
    }

    /// Whether it needs a lock file of its own.
    fn is_apart(self) -> bool {
        self == Self::MimallocPprof
    }
}

impl fmt::Display for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.feature().replace('_', "-"))
    }
}

/// The workers, beside this executable or where Cargo puts them.
pub struct Workers {
    target: PathBuf,
}

impl Workers {
    /// In the target folder that this executable is in.
    ///
    /// # Errors
    /// If this executable is in none.
    pub fn locate() -> Result<Self> {
        let this = env::current_exe().context("this program has no path")?;
        let target = this.ancestors().nth(2).context("this program is in no target folder")?;
        Ok(Self { target: target.to_owned() })
    }

    fn binary(&self, allocator: Allocator) -> PathBuf {
        self.target.join("release").join(format!("with_{}", allocator.feature()))
    }

    /// Whether the worker has been built at some time.
    #[must_use]
    pub fn exists(&self, allocator: Allocator) -> bool {
        self.binary(allocator).is_file()
    }

    /// Builds a worker with the Cargo that runs this program. Each is built by itself, so that one
    /// that does not build leaves the others alone.
    ///
    /// # Errors
    /// If it does not build; Cargo has said why on stderr.
    pub fn build(&self, allocator: Allocator) -> Result<()> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(cargo);
        command.args(["build", "--release", "--quiet", "--locked", "--target-dir"]);
        command.arg(&self.target).args(["--bin", &format!("with_{}", allocator.feature())]);
        if allocator.is_apart() {
            command.arg("--manifest-path").arg(package.join("apart/Cargo.toml"));
        } else {
            command.arg("--manifest-path").arg(package.join("Cargo.toml"));
            command.args(["--features", allocator.feature()]);
        }
        let status = command.status().context("cargo cannot be started")?;
        if !status.success() {
            bail!("the worker on {allocator} does not build");
        }
        Ok(())
    }

    /// Runs a workload in a process of its own.
    ///
    /// # Errors
    /// If the process dies, takes longer than the limit, or prints no figures.
    fn run(&self, allocator: Allocator, job: &Job, settings: &Settings) -> Result<Sample> {
        self.start(allocator, job, settings, None)?.finish(settings.limit)
    }

    /// Starts a workload in a process of its own, on the core of this number if there is one.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(crate) fn start(
        &self,
        allocator: Allocator,
        job: &Job,
        settings: &Settings,
        core: Option<usize>,
    ) -> Result<Running> {
        let mut command = Command::new(self.binary(allocator));
        command.args(["worker", job.workload.name, "--threads", &job.threads.to_string()]);
        command.args(settings.quick.then_some("--quick"));
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Running { child: command.spawn().context("cannot be started")? })
    }
}

/// A worker at work.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Its figures, when it has ended.
    ///
    /// # Errors
    /// If it dies, takes longer than `limit` from now, or prints no figures.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<Sample> {
        let Some(status) = self.child.wait_timeout(limit)? else {
            self.child.kill()?;
            self.child.wait()?;
            bail!("over {} s", limit.as_secs());
        };
        if !status.success() {
            bail!("{}", how_it_died(&mut self.child, status));
        }
        let mut line = String::new();
        self.child.stdout.take().context("no output")?.read_to_string(&mut line)?;
        serde_json::from_str(&line).context("no figures")
    }
}

/// The signal or exit code, and the last line on stderr.
fn how_it_died(child: &mut Child, status: ExitStatus) -> String {
    let mut how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or(-1)),
    };
    let mut text = Vec::new();
    if let Some(stderr) = &mut child.stderr
        && stderr.read_to_end(&mut text).is_ok()
        && let Some(last) = String::from_utf8_lossy(&text).lines().rfind(|line| !line.is_empty())
    {
        how.push_str(": ");
        how.extend(last.chars().take(160));
    }
    how
}

/// A workload at a number of threads: a row of the tables.
pub struct Job {
    /// The workload.
    pub workload: &'static Workload,
    /// Threads that work at once.
    pub threads: usize,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.threads {
            1 => f.pad(self.workload.name),
            n => f.pad(&format!("{} x{n}", self.workload.name)),
        }
    }
}

/// How the jobs are run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often each is run on each allocator.
    pub rounds: usize,
    /// Small sizes.
    pub quick: bool,
    /// How long a process may take.
    pub limit: Duration,
}

/// More rounds than these tell nothing new of the memory rows, which differ by 2 % at most and
/// spend most of their time asleep.
const MEMORY_ROUNDS: usize = 3;

/// Runs every job on every allocator, in turns: what disturbs the machine for a while disturbs all
/// of them. A cell that failed is not run again, and a memory row not more than
/// [`MEMORY_ROUNDS`] times. `after_round` gets the report so far.
///
/// # Errors
/// What `after_round` says.
pub fn run(
    workers: &Workers,
    allocators: &[Allocator],
    jobs: &[Job],
    settings: &Settings,
    after_round: impl Fn(&Report) -> Result<()>,
) -> Result<Report> {
    let mut rows: Vec<Row> = jobs.iter().map(|job| Row::new(job, allocators)).collect();
    for round in 0..settings.rounds {
        for (job, row) in jobs.iter().zip(&mut rows) {
            if row.group == Group::Memory && round >= MEMORY_ROUNDS {
                continue;
            }
            eprint!("round {} of {}, {job}:", round + 1, settings.rounds);
            // Another one first in each round.
            let places = (0..allocators.len()).map(|i| (i + round) % allocators.len());
            for place in places {
                let cell = &mut row.cells[place];
                if cell.failure.is_none() && cell.allocator.takes(row.group) {
                    take_turn(workers, cell, job, settings);
                }
            }
            eprintln!();
        }
        rows.iter_mut().for_each(compare_checksums);
        after_round(&Report::new(allocators, settings, rows.clone()))?;
    }
    Ok(Report::new(allocators, settings, rows))
}

fn take_turn(workers: &Workers, cell: &mut Cell, job: &Job, settings: &Settings) {
    match workers.run(cell.allocator, job, settings) {
        Ok(sample) => {
            eprint!(" {} {:.3}", cell.allocator, sample.value);
            cell.samples.push(sample);
        }
        Err(error) => {
            eprint!(" {} FAILED ({error:#})", cell.allocator);
            cell.failure = Some(format!("{error:#}"));
        }
    }
}

/// All allocators must have done the same work: what differs from most has failed.
fn compare_checksums(row: &mut Row) {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for sample in row.cells.iter().flat_map(|cell| &cell.samples) {
        *votes.entry(sample.checksum).or_default() += 1;
    }
    let Some(right) = votes.into_iter().max_by_key(|(_, count)| *count).map(|(sum, _)| sum) else {
        return;
    };
    for cell in &mut row.cells {
        if cell.samples.iter().any(|sample| sample.checksum != right) {
            cell.failure = Some("another checksum than the others".to_owned());
        }
    }
}
