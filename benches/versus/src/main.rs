//! The driver: builds the workers, runs them in turns, and shows what they found.

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use versus::pairs::{self, PairReport};
use versus::run::{self, Allocator, Job, Settings, Workers};
use versus::summary::Report;
use versus::workloads::{self, Group};
use versus::{html, table};

/// Tallow against other allocators: time, and what a process holds.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    /// Which workloads.
    #[arg(value_enum, required_unless_present = "list")]
    what: Option<What>,
    /// List the workloads and do nothing.
    #[arg(long)]
    list: bool,
    /// How often each workload is run on each allocator [default: 5, with --quick 1]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Small sizes: a smoke test.
    #[arg(long)]
    quick: bool,
    /// Tallow and each of the others at once, on a core each, changed over in each round: ratios
    /// with their intervals, of the timed rows with one thread.
    #[arg(long, conflicts_with_all = ["html", "threads"])]
    pairs: bool,
    /// Only workloads with this in their names.
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Only these allocators [default: all but `tallow-hardened` and `floor`]
    #[arg(long, value_enum, value_delimiter = ',', hide_default_value = true)]
    allocators: Vec<Allocator>,
    /// Only these numbers of threads, of those that a workload is made for.
    #[arg(long, value_delimiter = ',', value_name = "COUNTS")]
    threads: Vec<usize>,
    /// Seconds that one process may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// Run the workers as they were built last.
    #[arg(long)]
    no_build: bool,
    /// Write all figures as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// All workloads, or those of a group.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    All,
    Micro,
    Threads,
    Memory,
    Program,
}

impl What {
    fn includes(self, group: Group) -> bool {
        match self {
            Self::All => true,
            Self::Micro => group == Group::Micro,
            Self::Threads => group == Group::Threads,
            Self::Memory => group == Group::Memory,
            Self::Program => group == Group::Program,
        }
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.list {
        list();
        return Ok(());
    }
    let mut jobs = jobs(&cli);
    if cli.pairs {
        jobs.retain(pairs::takes);
    }
    if jobs.is_empty() {
        bail!(match cli.pairs {
            true => "no such workload that is timed with one thread; `--list` shows all",
            false => "no such workload; `--list` shows them",
        });
    }
    let workers = Workers::locate()?;
    let allocators = built(&cli, &workers);
    if allocators.is_empty() {
        bail!("no worker could be built");
    }
    let settings = Settings {
        rounds: cli.rounds.unwrap_or(if cli.quick { 1 } else { 5 }),
        quick: cli.quick,
        limit: Duration::from_secs(cli.limit),
    };
    // Files after each round: who cannot wait has something.
    if cli.pairs {
        let peers = beside_tallow(&allocators)?;
        let after = |so_far: &PairReport| write_json(&cli, so_far);
        let report = pairs::run(&workers, &peers, &jobs, &settings, after)?;
        print!("{}", table::pairs(&report)?);
        return all_ran(report.failures().count());
    }
    let report = run::run(&workers, &allocators, &jobs, &settings, |so_far| write(&cli, so_far))?;
    print!("{}", table::all(&report)?);
    all_ran(report.failures().count())
}

/// An error if something failed, when all that did not has been shown.
fn all_ran(failures: usize) -> Result<()> {
    match failures {
        0 => Ok(()),
        n => bail!("{n} failed; the tables say what and why"),
    }
}

/// Those of `allocators` that Tallow is run beside.
fn beside_tallow(allocators: &[Allocator]) -> Result<Vec<Allocator>> {
    let (tallow, peers): (Vec<_>, Vec<_>) =
        allocators.iter().partition(|&&a| a == Allocator::Tallow);
    if tallow.is_empty() || peers.is_empty() {
        bail!("`--pairs` needs tallow and another one among the allocators");
    }
    Ok(peers)
}

/// Writes the files that were asked for.
fn write(cli: &Cli, report: &Report) -> Result<()> {
    write_json(cli, report)?;
    if let Some(path) = &cli.html {
        let page = html::page(report).map_err(anyhow::Error::from_boxed)?;
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Writes the file of figures, if it was asked for.
fn write_json(cli: &Cli, report: &impl Serialize) -> Result<()> {
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn list() {
    for workload in workloads::all() {
        let threads: Vec<String> = workload.threads.iter().map(usize::to_string).collect();
        println!(
            "{:<16} {:<8} {:<11} threads {:<6} {}",
            workload.name,
            workload.group,
            workload.unit,
            threads.join(","),
            workload.about
        );
    }
}

/// The workloads that were asked for, at each number of threads.
fn jobs(cli: &Cli) -> Vec<Job> {
    let named = |name: &str| cli.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    // Where there is no choice of threads, `--threads` leaves no row out.
    let wanted = |counts: &[usize], n: &usize| {
        counts.len() == 1 || cli.threads.is_empty() || cli.threads.contains(n)
    };
    workloads::all()
        .filter(|workload| cli.what.is_none_or(|what| what.includes(workload.group)))
        .filter(|workload| named(workload.name))
        .flat_map(|workload| {
            let threads = workload.threads.iter().filter(|n| wanted(workload.threads, n));
            threads.map(move |&threads| Job { workload, threads })
        })
        .collect()
}

/// Builds the workers; the allocators of those that can be run.
fn built(cli: &Cli, workers: &Workers) -> Vec<Allocator> {
    let wanted = Allocator::value_variants();
    let usual = |a: &Allocator| a.is_peer() || *a == Allocator::Tallow;
    let chosen = |a: &Allocator| match cli.allocators.is_empty() {
        true => usual(a),
        false => cli.allocators.contains(a),
    };
    let ready = |&allocator: &Allocator| {
        if cli.no_build {
            return workers.exists(allocator);
        }
        eprintln!("building the worker on {allocator}");
        workers.build(allocator).inspect_err(|error| eprintln!("{error:#}; left out")).is_ok()
    };
    wanted.iter().copied().filter(chosen).filter(ready).collect()
}
