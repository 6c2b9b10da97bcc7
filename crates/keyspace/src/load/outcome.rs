//! What a run leaves behind.

use super::ActiveDefrag;
use crate::churn::{Phase, Times};
use serde::Serialize;
use std::fmt;

/// The ratio that a healed server should come down to.
pub const HEALED_RATIO: f64 = 1.05;

/// Where the RSS comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RssSource {
    /// `VmRSS` in `/proc/PID/status`.
    Kernel {
        /// The server's process.
        process_id: u32,
    },
    /// `used_memory_rss` of INFO.
    Info,
}

impl fmt::Display for RssSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { process_id } => write!(f, "VmRSS in /proc/{process_id}/status"),
            Self::Info => f.write_str("used_memory_rss of INFO"),
        }
    }
}

/// The server that was driven.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Where it is.
    pub address: String,
    /// What it calls itself; Redis does not.
    pub name: String,
    /// The version of Redis that it is, or is like.
    pub version: String,
    /// What it says its allocator is.
    pub allocator: String,
    /// Where its RSS was read.
    pub rss_source: RssSource,
}

/// One reading.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// The phase it belongs to.
    pub phase: Phase,
    /// Time since the start.
    pub wall_ms: f64,
    /// DBSIZE.
    pub keys: u64,
    /// `used_memory` of INFO.
    pub used_memory_bytes: u64,
    /// The process's memory.
    pub rss_bytes: u64,
    /// `rss_bytes / used_memory_bytes`, nothing subtracted.
    pub ratio: f64,
    /// `expired_keys` of INFO.
    pub expired_keys: u64,
    /// `active_defrag_running` of INFO: percent of one processor, 0 when it rests.
    pub active_defrag_running: u64,
    /// `active_defrag_hits` of INFO: allocations moved.
    pub active_defrag_hits: u64,
}

/// The end of a phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PhaseEnd {
    /// The phase.
    pub name: Phase,
    /// The last reading.
    pub point: Point,
    /// Requests of the load since the start.
    pub requests: u64,
    /// How long GETs took in this phase, seen from a client.
    pub get: Times,
}

/// What became of the healing.
#[derive(Clone, Debug, Serialize)]
pub struct Healing {
    /// What was to be done about active defragmentation.
    pub activedefrag: ActiveDefrag,
    /// What the server said to `CONFIG SET activedefrag yes`, if it was told.
    pub answer: Option<String>,
    /// Time from the start of the phase until the ratio was 1.05 or less and stayed there.
    pub seconds_to_healed: Option<f64>,
    /// The reading after MEMORY PURGE at the end, where the server has that.
    pub purged: Option<Point>,
}

impl Default for Healing {
    fn default() -> Self {
        let activedefrag = ActiveDefrag::Keep;
        Self { activedefrag, answer: None, seconds_to_healed: None, purged: None }
    }
}

impl Healing {
    /// Whether the server refused to defragment.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.answer.as_deref().is_some_and(|answer| answer != "OK")
    }

    /// Works out when the ratio had come down for good.
    pub(super) fn judge(&mut self, timeline: &[Point]) {
        let end_ms = self.purged.map_or(f64::MAX, |point| point.wall_ms);
        let before = timeline.iter().rfind(|point| point.phase == Phase::Expired);
        let start_ms = before.map_or(0.0, |point| point.wall_ms);
        let healing =
            || timeline.iter().filter(|it| it.phase == Phase::Healed && it.wall_ms < end_ms);
        let last_high = healing().rfind(|point| point.ratio > HEALED_RATIO);
        let high_ms = last_high.map_or(start_ms, |point| point.wall_ms);
        let first_low = healing().find(|point| point.wall_ms > high_ms);
        self.seconds_to_healed = first_low.map(|point| (point.wall_ms - start_ms) / 1e3);
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The server.
    pub server: Server,
    /// The ends of the phases, in order.
    pub phases: [PhaseEnd; 3],
    /// What became of the healing.
    pub healing: Healing,
    /// All readings.
    pub timeline: Vec<Point>,
    /// Keys whose values were compared with what they must be.
    pub keys_checked: u64,
}
