//! Medians, ratios, geometric means.

use crate::child::Sample;
use crate::run::{Allocator, Job, Settings};
use crate::workloads::{Group, Unit};
use serde::Serialize;
use std::thread;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The workload's own figure.
    Figure,
    /// Peak RSS in bytes.
    PeakRss,
    /// RSS in bytes at the end, or when the workload was idle.
    FinalRss,
    /// PSS in bytes at the same time.
    Pss,
}

impl Metric {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Figure, Self::PeakRss, Self::FinalRss, Self::Pss];

    /// A heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Figure => "Figures (less is better)",
            Self::PeakRss => "Peak RSS, MiB",
            Self::FinalRss => "Final RSS, MiB (all freed; memory rows: while idle)",
            Self::Pss => "Final PSS, MiB",
        }
    }

    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Figure => sample.value,
            Self::PeakRss => sample.memory.peak_rss_bytes as f64,
            Self::FinalRss => sample.memory.final_rss_bytes as f64,
            Self::Pss => sample.memory.pss_bytes as f64,
        }
    }
}

/// One workload on one allocator.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The allocator.
    pub allocator: Allocator,
    /// One for each round.
    pub samples: Vec<Sample>,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Cell {
    /// The median over the rounds; `None` if it failed.
    #[must_use]
    pub fn median(&self, metric: Metric) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        median(self.samples.iter().map(|sample| metric.of(sample)).collect())
    }

    /// Between the least and the greatest figure, divided by the median.
    fn spread(&self) -> Option<f64> {
        let figures = || self.samples.iter().map(|sample| sample.value);
        let (least, most) = (figures().reduce(f64::min)?, figures().reduce(f64::max)?);
        Some((most - least) / self.median(Metric::Figure)?)
    }
}

/// One workload on all allocators.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload, and its threads where they are more than one.
    pub name: String,
    /// Its kind.
    pub group: Group,
    /// The unit of its figure.
    pub unit: Unit,
    /// What it stands for.
    pub about: &'static str,
    /// In the order of the report's allocators.
    pub cells: Vec<Cell>,
}

impl Row {
    /// A row that has not been run yet.
    #[must_use]
    pub fn new(job: &Job, allocators: &[Allocator]) -> Self {
        let cell = |&allocator| Cell { allocator, samples: Vec::new(), failure: None };
        Self {
            name: job.to_string(),
            group: job.workload.group,
            unit: job.workload.unit,
            about: job.workload.about,
            cells: allocators.iter().map(cell).collect(),
        }
    }

    /// What this allocator has.
    #[must_use]
    pub fn median(&self, metric: Metric, allocator: Allocator) -> Option<f64> {
        self.cells.iter().find(|cell| cell.allocator == allocator)?.median(metric)
    }

    /// The best peer, and what it has.
    #[must_use]
    pub fn best_peer(&self, metric: Metric) -> Option<(Allocator, f64)> {
        let peers = self.cells.iter().filter(|cell| cell.allocator.is_peer());
        peers
            .filter_map(|cell| Some((cell.allocator, cell.median(metric)?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Tallow's figure divided by the one of `peer`; below 1, Tallow is better.
    #[must_use]
    pub fn ratio(&self, metric: Metric, peer: Allocator) -> Option<f64> {
        Some(self.median(metric, Allocator::Tallow)? / self.median(metric, peer)?)
    }

    /// Tallow's figure divided by the one of the best peer.
    #[must_use]
    pub fn ratio_to_best(&self, metric: Metric) -> Option<f64> {
        Some(self.median(metric, Allocator::Tallow)? / self.best_peer(metric)?.1)
    }

    /// How far the rounds are apart, in the median of the allocators: a ratio nearer to 1 than this
    /// says little.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        median(self.cells.iter().filter_map(Cell::spread).collect())
    }
}

/// Geometric means of Tallow's ratios over some rows.
#[derive(Clone, Debug, Serialize)]
pub struct Means {
    /// Which rows, and what of them.
    pub title: &'static str,
    /// To each allocator, in the report's order.
    pub to: Vec<Option<f64>>,
    /// To the best peer of each row.
    pub to_best: Option<f64>,
}

/// All that a run has found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Processors that a process may use.
    pub processors: usize,
    /// How often each workload was run on each allocator.
    pub rounds: usize,
    /// Whether the sizes were small.
    pub quick: bool,
    /// In the order of the tables.
    pub allocators: Vec<Allocator>,
    /// In the order of the tables.
    pub rows: Vec<Row>,
    /// Over the rows.
    pub means: Vec<Means>,
}

impl Report {
    /// The report on these rows.
    #[must_use]
    pub fn new(allocators: &[Allocator], settings: &Settings, rows: Vec<Row>) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            processors: thread::available_parallelism().map_or(1, usize::from),
            rounds: settings.rounds,
            quick: settings.quick,
            allocators: allocators.to_vec(),
            means: means(allocators, &rows),
            rows,
        }
    }

    /// What failed: the row, and the allocator with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, Allocator, &str)> {
        let cells = self.rows.iter().flat_map(|row| row.cells.iter().map(move |cell| (row, cell)));
        cells.filter_map(|(row, cell)| {
            Some((row.name.as_str(), cell.allocator, cell.failure.as_deref()?))
        })
    }
}

/// Which rows are averaged, and what of them.
type Kind = (&'static str, Metric, fn(&Row) -> bool);

fn means(allocators: &[Allocator], rows: &[Row]) -> Vec<Means> {
    const KINDS: [Kind; 6] = [
        ("time, micro rows", Metric::Figure, |row| row.group == Group::Micro),
        ("time, threads rows", Metric::Figure, |row| row.group == Group::Threads),
        ("time, program rows", Metric::Figure, |row| row.group == Group::Program),
        ("peak RSS, all rows", Metric::PeakRss, |_| true),
        ("peak RSS, program rows", Metric::PeakRss, |row| row.group == Group::Program),
        ("final RSS, memory rows", Metric::FinalRss, |row| row.group == Group::Memory),
    ];
    let mean = |(title, metric, chosen): Kind| {
        let rows = || rows.iter().filter(move |row| chosen(row));
        Means {
            title,
            to: allocators
                .iter()
                .map(|&peer| geometric_mean(rows().filter_map(|row| row.ratio(metric, peer))))
                .collect(),
            to_best: geometric_mean(rows().filter_map(|row| row.ratio_to_best(metric))),
        }
    };
    KINDS.into_iter().map(mean).collect()
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

pub(crate) fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value.ln(), count + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_multiply() {
        assert_eq!(geometric_mean([].into_iter()), None);
        let mean = geometric_mean([0.5, 2.0, 8.0].into_iter()).expect("three values");
        assert!((mean - 2.0).abs() < 1e-12);
    }
}
