//! The report of `keyspace load`: the same three shapes as that of `churn`, from what a client sees.

mod charts;
mod html;
mod text;

pub use html::page;
pub use text::write_summary;

use super::text::{percent, size, time};
use crate::churn::Phase;
use crate::load::{ActiveDefrag, Config, Healing, Outcome, PhaseEnd, Point, Server};
use serde::Serialize;

/// The parameters of a run as they go into the report.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// The cluster whose figures were used.
    pub workload: String,
    /// Keys at the peak.
    pub keys: u64,
    /// Share of them that was to expire.
    pub expire_share: f64,
    /// The seed.
    pub seed: u64,
    /// Connections that the load came over.
    pub connections: usize,
    /// Requests in a batch on each.
    pub pipeline: usize,
    /// Over how long the TTLs ran out.
    pub expire_seconds: f64,
    /// How long the server had to heal.
    pub heal_seconds: f64,
    /// What was to be done about active defragmentation.
    pub activedefrag: ActiveDefrag,
}

impl From<&Config> for Parameters {
    fn from(config: &Config) -> Self {
        Self {
            workload: config.cluster.name(),
            keys: config.keys,
            expire_share: config.expire_share,
            seed: config.seed,
            connections: config.connections,
            pipeline: config.pipeline,
            expire_seconds: config.expire.as_secs_f64(),
            heal_seconds: config.heal.as_secs_f64(),
            activedefrag: config.activedefrag,
        }
    }
}

/// What was checked at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Verification {
    /// Keys whose values were read and compared with what they must be.
    pub keys_checked: u64,
}

/// Everything about a run.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// The program's version.
    pub version: &'static str,
    /// The server that was driven.
    pub server: Server,
    /// How the run was started.
    pub parameters: Parameters,
    /// The run in a few sentences.
    pub verdict: String,
    /// The ends of the phases `loaded`, `expired`, `healed`.
    pub phases: [PhaseEnd; 3],
    /// What became of the healing.
    pub healing: Healing,
    /// What was checked.
    pub verification: Verification,
    /// All readings.
    pub timeline: Vec<Point>,
}

impl LoadReport {
    /// The report of a run that was started with `config`.
    #[must_use]
    pub fn new(config: &Config, outcome: Outcome) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            parameters: Parameters::from(config),
            verdict: verdict(&outcome),
            server: outcome.server,
            phases: outcome.phases,
            healing: outcome.healing,
            verification: Verification { keys_checked: outcome.keys_checked },
            timeline: outcome.timeline,
        }
    }
}

/// The run in a few sentences.
fn verdict(outcome: &Outcome) -> String {
    let [loaded, expired, healed] = &outcome.phases;
    let gone = 1.0 - expired.point.keys as f64 / loaded.point.keys.max(1) as f64;
    let mut text = format!(
        "{} of the keys expired, and the server held {}.",
        percent(gone),
        held(&expired.point)
    );
    let point = &healed.point;
    text.push_str(&format!(" {}, it held {}", since(outcome), held(point)));
    match outcome.healing.seconds_to_healed {
        Some(seconds) => text.push_str(&format!("; 1.05x was reached after {seconds:.1} s.")),
        None => text.push('.'),
    }
    if let Some(purged) = &outcome.healing.purged {
        text.push_str(&format!(" After MEMORY PURGE it was {:.2}x.", purged.ratio));
    }
    text.push_str(&format!(
        " GETs meanwhile: 99 % within {} ({} in the phase before).",
        time(healed.get.p99_ns),
        time(expired.get.p99_ns),
    ));
    text
}

/// How long the server had, and what it did about defragmentation.
fn since(outcome: &Outcome) -> String {
    let [_, expired, healed] = &outcome.phases;
    let seconds = (healed.point.wall_ms - expired.point.wall_ms) / 1e3;
    let healing = &outcome.healing;
    let how = match healing.activedefrag {
        ActiveDefrag::Yes if healing.was_refused() => "in which it refused active defragmentation",
        ActiveDefrag::Yes => "with active defragmentation",
        ActiveDefrag::No => "without active defragmentation",
        ActiveDefrag::Keep => "left to itself",
    };
    format!("{seconds:.0} s later, {how}")
}

/// `120.0 MiB for 40.0 MiB of data (3.00x)`.
fn held(point: &Point) -> String {
    format!(
        "{} for {} of data ({:.2}x)",
        size(point.rss_bytes),
        size(point.used_memory_bytes),
        point.ratio,
    )
}

/// What the server said to being told to defragment, for people.
fn defrag_answer(healing: &Healing) -> Option<String> {
    let answer = healing.answer.as_deref()?;
    Some(match healing.was_refused() {
        true => format!("CONFIG SET activedefrag yes was refused: {answer}"),
        false => "CONFIG SET activedefrag yes was accepted".to_owned(),
    })
}

/// Readings of one phase. The one after MEMORY PURGE is not among them.
fn of_phase(report: &LoadReport, phase: Phase) -> Vec<&Point> {
    let end_ms = report.phases[2].point.wall_ms;
    report.timeline.iter().filter(|it| it.phase == phase && it.wall_ms <= end_ms).collect()
}
