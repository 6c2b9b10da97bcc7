//! A finished run, told: as JSON for programs, as text for a terminal, as a page with charts.

mod charts;
mod html;
pub mod load;
mod text;

pub use html::page;
pub use text::{percent, size, time, workloads, write_summary};

use crate::churn::{ClassGain, Config, Defrag, Goal, Latency, PhaseBooks, Point, Run, Source};
use crate::gauge::Allocator;
use serde::Serialize;

/// The parameters of a run as they go into the report.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// The cluster whose figures were used, unless a trace was.
    pub workload: Option<String>,
    /// The trace that was replayed, if one was.
    pub trace: Option<String>,
    /// The wanted size in bytes, unless keys were given.
    pub size_bytes: Option<u64>,
    /// The wanted number of keys, if given.
    pub keys: Option<u64>,
    /// The seed.
    pub seed: u64,
}

impl From<&Config> for Parameters {
    fn from(config: &Config) -> Self {
        let (workload, trace) = match &config.source {
            Source::Cluster(cluster) => (Some(cluster.name()), None),
            Source::Trace(path) => (None, Some(path.display().to_string())),
        };
        let (size_bytes, keys) = match config.goal {
            Goal::Bytes(bytes) => (Some(bytes), None),
            Goal::Keys(keys) => (None, Some(keys)),
        };
        Self { workload, trace, size_bytes, keys, seed: config.seed }
    }
}

/// What was checked at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Keys whose values were compared with what they must be.
    pub keys_checked: u64,
    /// What the allocator's audit said.
    pub audit: String,
}

/// Everything about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// The allocator it ran on.
    pub allocator: Allocator,
    /// How it was started.
    pub parameters: Parameters,
    /// The run in one sentence.
    pub verdict: String,
    /// The books at the end of the phases `loaded`, `expired`, `healed`.
    pub phases: [PhaseBooks; 3],
    /// What the healing did.
    pub defrag: Defrag,
    /// What its passes gained, class by class.
    pub gains: Vec<ClassGain>,
    /// What they cost the operations beside them.
    pub latency: Latency,
    /// What was checked.
    pub verification: Verification,
    /// The timeline.
    pub timeline: Vec<Point>,
}

impl Report {
    /// The report of `run`, which was started with `config`.
    #[must_use]
    pub fn new(config: &Config, run: Run) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            allocator: run.allocator,
            parameters: Parameters::from(config),
            verdict: verdict(&run),
            phases: run.phases,
            defrag: run.defrag,
            gains: run.gains,
            latency: run.latency,
            verification: Verification { keys_checked: run.verified_keys, audit: run.audit },
            timeline: run.timeline,
        }
    }
}

/// The run in one sentence.
fn verdict(run: &Run) -> String {
    let [loaded, expired, healed] = run.phases.each_ref().map(|phase| &phase.point);
    let surviving = expired.live_keys as f64 / loaded.live_keys.max(1) as f64;
    if surviving > 0.5 {
        return format!(
            "{} of the keys did not expire, having no TTL, so there was little to heal: the \
             process held {:.2}x its data before and {:.2}x after.",
            percent(surviving),
            expired.reading.fragmentation_ratio,
            healed.reading.fragmentation_ratio,
        );
    }
    let before = format!(
        "After expiry the process held {} for {} of data ({:.2}x)",
        size(expired.reading.rss_bytes),
        size(expired.reading.allocated_bytes),
        expired.reading.fragmentation_ratio,
    );
    let after = format!(
        "{} for {} ({:.2}x)",
        size(healed.reading.rss_bytes),
        size(healed.reading.allocated_bytes),
        healed.reading.fragmentation_ratio,
    );
    match run.allocator {
        Allocator::Tallow => format!(
            "{before}; {:.2} s of healing, in steps of {:.1} ms at most, brought that to {after}.",
            (run.defrag.passes_ms + run.defrag.tables_ms) / 1e3,
            run.defrag.longest_step_us as f64 / 1e3,
        ),
        Allocator::System => format!(
            "{before}; the system allocator moves nothing, and after malloc_trim it holds {after}."
        ),
    }
}
