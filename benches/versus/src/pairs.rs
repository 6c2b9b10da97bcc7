//! Tallow and one other at once, each on a core of its own, changed over in every round.
//!
//! Turns ([`run`](crate::run::run)) are disturbed by whatever the machine does in one turn and not
//! in the next: on a shared host the rounds of a row are tens of per cents apart. What disturbs two
//! processes at the same time is in both, and what one core has over the other is taken out by the
//! change. So a round is two pairs of processes, one for each way to put two allocators on two
//! cores, and its figure is the geometric mean of the two ratios. Rows with several threads cannot
//! be run like this.

use crate::run::{Allocator, Job, Settings, Workers};
use crate::summary::{geometric_mean, median};
use crate::workloads::Unit;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt;

/// The probability that an interval holds the median, at least.
const CONFIDENCE: f64 = 0.95;

/// Whether a row can be run in pairs: it is timed, and has one thread.
#[must_use]
pub fn takes(job: &Job) -> bool {
    job.threads == 1 && matches!(job.workload.unit, Unit::Ns | Unit::Seconds)
}

/// What a pair of processes found, in the row's unit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// Tallow's figure.
    pub tallow: f64,
    /// The other's.
    pub peer: f64,
}

/// A row beside one other allocator.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// The other.
    pub peer: Allocator,
    /// One for each round: with Tallow on the first core, and on the second.
    pub rounds: Vec<[Pair; 2]>,
    /// Tallow's figure divided by the other's.
    pub ratio: Option<Estimate>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// A row beside all others.
#[derive(Clone, Debug, Serialize)]
pub struct PairRow {
    /// The workload.
    pub name: String,
    /// The unit of its figure.
    pub unit: Unit,
    /// In the order of the table.
    pub against: Vec<Against>,
}

impl PairRow {
    /// The peer that Tallow's ratio to is the greatest: the best, as far as pairs can tell.
    #[must_use]
    pub fn best_peer(&self) -> Option<(Allocator, Estimate)> {
        let peers = self.against.iter().filter(|against| against.peer.is_peer());
        peers
            .filter_map(|against| Some((against.peer, against.ratio?)))
            .max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
    }
}

/// A median of rounds, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Of the rounds.
    pub median: f64,
    /// The ends of an interval that holds the true median with 95 % or more, however the rounds are
    /// distributed; `None` where they are too few for one (below 6).
    pub interval: Option<(f64, f64)>,
}

impl Estimate {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let outside = values_outside(values.len());
        let interval = outside.map(|k| (values[k], values[values.len() - 1 - k]));
        Some(Self { median: median(values)?, interval })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interval {
            Some((low, high)) => f.pad(&format!("{:.2} ({low:.2}..{high:.2})", self.median)),
            None => f.pad(&format!("{:.2}", self.median)),
        }
    }
}

/// How many of `n` sorted values may be left out at each end, so that those that remain still hold
/// the median with [`CONFIDENCE`]. Each value is below it with probability 1/2, so the number of
/// those below is binomial.
fn values_outside(n: usize) -> Option<usize> {
    // Probability that exactly k of n are below, and that at most k are.
    let mut exactly = 0.5_f64.powi(i32::try_from(n).ok()?);
    let (mut at_most, mut outside) = (exactly, None);
    for k in 0..n / 2 {
        if 2.0 * at_most > 1.0 - CONFIDENCE {
            break;
        }
        outside = Some(k);
        exactly *= (n - k) as f64 / (k + 1) as f64;
        at_most += exactly;
    }
    outside
}

/// All that a run in pairs has found.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    /// Changes over of each row and peer.
    pub rounds: usize,
    /// Whether the sizes were small.
    pub quick: bool,
    /// In the order of the table.
    pub rows: Vec<PairRow>,
}

impl PairReport {
    /// What failed: the row, and the other allocator with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, Allocator, &str)> {
        let all = self.rows.iter().flat_map(|row| row.against.iter().map(move |it| (row, it)));
        all.filter_map(|(row, it)| Some((row.name.as_str(), it.peer, it.failure.as_deref()?)))
    }
}

/// Runs every job on Tallow beside each of `peers`. `after_round` gets the report so far.
///
/// # Errors
/// If there are no two cores, and what `after_round` says.
pub fn run(
    workers: &Workers,
    peers: &[Allocator],
    jobs: &[Job],
    settings: &Settings,
    after_round: impl Fn(&PairReport) -> Result<()>,
) -> Result<PairReport> {
    let cores = two_cores()?;
    let beside = |&peer| Against { peer, rounds: Vec::new(), ratio: None, failure: None };
    let row = |job: &Job| PairRow {
        name: job.to_string(),
        unit: job.workload.unit,
        against: peers.iter().map(beside).collect(),
    };
    let rows = jobs.iter().map(row).collect();
    let mut report = PairReport { rounds: settings.rounds, quick: settings.quick, rows };
    for round in 0..settings.rounds {
        for (job, row) in jobs.iter().zip(&mut report.rows) {
            eprint!("round {} of {}, {job}:", round + 1, settings.rounds);
            for against in row.against.iter_mut().filter(|a| a.failure.is_none()) {
                if !against.peer.takes(job.workload.group) {
                    continue;
                }
                take_round(workers, against, job, settings, cores);
            }
            eprintln!();
        }
        after_round(&report)?;
    }
    Ok(report)
}

fn take_round(
    workers: &Workers,
    against: &mut Against,
    job: &Job,
    settings: &Settings,
    [a, b]: [usize; 2],
) {
    let pair = |tallow, peer| take_pair(workers, against.peer, job, settings, tallow, peer);
    match pair(a, b).and_then(|first| Ok([first, pair(b, a)?])) {
        Ok(round) => {
            against.rounds.push(round);
            let ratio = |round: &[Pair; 2]| {
                geometric_mean(round.iter().map(|pair| pair.tallow / pair.peer))
            };
            against.ratio = Estimate::of(against.rounds.iter().filter_map(ratio).collect());
            if let Some(last) = ratio(&round) {
                eprint!(" {} {last:.2}", against.peer);
            }
        }
        Err(error) => {
            eprint!(" {} FAILED ({error:#})", against.peer);
            against.failure = Some(format!("{error:#}"));
        }
    }
}

/// Two processes at once, Tallow's on the core `tallow`, the other's on the core `peer`.
fn take_pair(
    workers: &Workers,
    other: Allocator,
    job: &Job,
    settings: &Settings,
    tallow: usize,
    peer: usize,
) -> Result<Pair> {
    let ours = workers.start(Allocator::Tallow, job, settings, Some(tallow))?;
    let theirs = workers.start(other, job, settings, Some(peer));
    // Waited for in any case: no process is left behind.
    let ours = ours.finish(settings.limit).context("tallow");
    let theirs = theirs?.finish(settings.limit)?;
    let ours = ours?;
    if ours.checksum != theirs.checksum {
        bail!("another checksum than Tallow's");
    }
    Ok(Pair { tallow: ours.value, peer: theirs.value })
}

/// The first two cores that this process may use.
fn two_cores() -> Result<[usize; 2]> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    match cores[..] {
        [a, b, ..] => Ok([a.id, b.id]),
        _ => bail!("`--pairs` runs two processes at once and needs two cores; leave it out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of tables of the sign test.
    #[test]
    fn as_many_are_outside_as_a_sign_test_allows() {
        assert_eq!([0, 1, 5].map(values_outside), [None; 3]);
        assert_eq!([6, 8, 9, 11, 12, 20, 40].map(values_outside), [0, 0, 1, 1, 2, 5, 13].map(Some));
        assert_eq!([16, 25, 30, 50, 100].map(values_outside), [3, 7, 9, 17, 39].map(Some));
    }

    #[test]
    fn an_estimate_is_the_middle_and_what_is_around_it() {
        assert_eq!(Estimate::of(vec![]), None);
        let few = Estimate::of(vec![1.0, 3.0]).expect("two values");
        assert_eq!((few.median, few.interval), (2.0, None));
        let ten = Estimate::of((1..=10).rev().map(f64::from).collect()).expect("ten values");
        assert_eq!((ten.median, ten.interval), (5.5, Some((2.0, 9.0))));
    }
}
