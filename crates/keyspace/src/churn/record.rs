//! What a run leaves behind: its timeline, the books at the end of each phase, the healing.

use super::{Latency, Steps};
use crate::clock::Moment;
use crate::gauge::{Allocator, ClassUse, Reading, SlabMap};
use crate::store::Store;
use serde::Serialize;
use std::fmt;
use std::time::Instant;

/// Points that a timeline has room for; the phases together keep below it.
const MAX_POINTS: usize = 320;

/// A phase of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Filled and in use.
    Loaded,
    /// Most of it expired.
    Expired,
    /// Defragmented and given back.
    Healed,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 3] = [Self::Loaded, Self::Expired, Self::Healed];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loaded => "loaded",
            Self::Expired => "expired",
            Self::Healed => "healed",
        })
    }
}

/// One point on the timeline.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// The phase it belongs to.
    pub phase: Phase,
    /// Virtual time.
    pub virtual_seconds: f64,
    /// Real time since the start.
    pub wall_ms: f64,
    /// Keys held.
    pub live_keys: u64,
    /// Bytes the store takes from the allocator (Redis's `used_memory`).
    pub used_bytes: u64,
    /// What the gauges said.
    #[serde(flatten)]
    pub reading: Reading,
}

/// The books at the end of a phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseBooks {
    /// The phase.
    pub name: Phase,
    /// The last point of its timeline.
    #[serde(flatten)]
    pub point: PhasePoint,
    /// Requests made since the start.
    pub operations: u64,
    /// Keys that expired since the start.
    pub expired_keys: u64,
    /// Bytes of the store's tables, of `used_bytes`.
    pub table_bytes: u64,
    /// The size classes in use.
    pub classes: Vec<ClassUse>,
    /// Occupancy of all slabs in address order.
    #[serde(skip)]
    pub slab_map: SlabMap,
}

/// A [`Point`] without its phase, which stands beside it as `name`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PhasePoint {
    /// Virtual time.
    pub virtual_seconds: f64,
    /// Real time since the start.
    pub wall_ms: f64,
    /// Keys held.
    pub live_keys: u64,
    /// Bytes the store takes from the allocator.
    pub used_bytes: u64,
    /// What the gauges said.
    #[serde(flatten)]
    pub reading: Reading,
}

/// What the healing did; all 0 on the system allocator but for the tables.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Defrag {
    /// Passes over the store.
    pub passes: u32,
    /// Steps of those passes.
    pub steps: u64,
    /// Longest step, tables included, by the program's own clock.
    pub longest_step_us: u64,
    /// Times of all steps, tables included.
    pub step: Steps,
    /// Share of the phase's wall time that passes and tables took; the rest is requests between
    /// the steps, and giving memory back.
    pub time_share: f64,
    /// Allocations moved.
    pub hits: u64,
    /// Allocations looked at and left where they were.
    pub misses: u64,
    /// Bytes moved.
    pub moved_bytes: u64,
    /// Bytes that the passes had planned to move.
    pub predicted_bytes: u64,
    /// Bytes that the passes had promised to release.
    pub predicted_released_bytes: u64,
    /// Bytes that they released.
    pub released_bytes: u64,
    /// Slabs that they emptied.
    pub slabs_released: u64,
    /// Time that the passes took.
    pub passes_ms: f64,
    /// Bytes by which rebuilding the tables made them smaller.
    pub tables_shrunk_bytes: u64,
    /// Time that took.
    pub tables_ms: f64,
    /// Time that giving free memory back took.
    pub purge_ms: f64,
}

/// What the passes gained in one size class.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassGain {
    /// Bytes of one region.
    pub region_bytes: u64,
    /// Regions moved.
    pub regions_moved: u64,
    /// Slabs emptied.
    pub slabs_emptied: u64,
    /// Bytes of those slabs.
    pub released_bytes: u64,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The allocator it ran on.
    pub allocator: Allocator,
    /// The books at the end of each phase, in order.
    pub phases: [PhaseBooks; 3],
    /// What the healing did.
    pub defrag: Defrag,
    /// What its passes gained, class by class.
    pub gains: Vec<ClassGain>,
    /// What they cost the operations beside them.
    pub latency: Latency,
    /// The timeline.
    pub timeline: Vec<Point>,
    /// Keys whose values were checked at the end.
    pub verified_keys: u64,
    /// What the allocator's audit said.
    pub audit: String,
}

/// Takes the readings. All its memory is taken before the first phase ends, but for the maps and
/// class tables of the phases' ends.
pub struct Recorder<'a> {
    allocator: Allocator,
    start: Instant,
    timeline: Vec<Point>,
    phases: Vec<PhaseBooks>,
    progress: &'a mut dyn FnMut(Phase, Option<f64>),
}

impl<'a> Recorder<'a> {
    /// A recorder that tells `progress` how much of each phase is done, 0 to 1, and `None` when the
    /// phase has ended.
    pub fn new(allocator: Allocator, progress: &'a mut dyn FnMut(Phase, Option<f64>)) -> Self {
        Self {
            allocator,
            start: Instant::now(),
            timeline: Vec::with_capacity(MAX_POINTS),
            phases: Vec::with_capacity(3),
            progress,
        }
    }

    pub(super) fn allocator(&self) -> Allocator {
        self.allocator
    }

    pub(super) fn reading(&self, store: &Store) -> Reading {
        self.allocator.read(store.requested_bytes() + store.table_bytes())
    }

    pub(super) fn sample(&mut self, phase: Phase, progress: f64, now: Moment, store: &Store) {
        (self.progress)(phase, Some(progress));
        // Three places stay free for the phases' ends.
        if self.timeline.len() + 3 < MAX_POINTS {
            self.push(phase, now, store);
        }
    }

    fn push(&mut self, phase: Phase, now: Moment, store: &Store) -> PhasePoint {
        let point = PhasePoint {
            virtual_seconds: now.seconds(),
            wall_ms: self.start.elapsed().as_secs_f64() * 1e3,
            live_keys: store.keys(),
            used_bytes: store.used_bytes(),
            reading: self.reading(store),
        };
        let PhasePoint { virtual_seconds, wall_ms, live_keys, used_bytes, reading } = point;
        self.timeline.push(Point {
            phase,
            virtual_seconds,
            wall_ms,
            live_keys,
            used_bytes,
            reading,
        });
        point
    }

    pub(super) fn finish_phase(
        &mut self,
        phase: Phase,
        now: Moment,
        store: &Store,
        operations: u64,
    ) {
        // The progress bar is gone before the books are read, and what it had allocated with it.
        (self.progress)(phase, None);
        let point = self.push(phase, now, store);
        let group = match phase {
            // The last two maps are looked at side by side: the same slabs to a square.
            Phase::Healed => self.phases.last().map_or(0, |last| last.slab_map.slabs_per_group),
            Phase::Loaded | Phase::Expired => 0,
        };
        self.phases.push(PhaseBooks {
            name: phase,
            point,
            operations,
            expired_keys: store.expired_keys(),
            table_bytes: store.table_bytes(),
            classes: self.allocator.classes(),
            slab_map: self.allocator.slab_map(group),
        });
    }

    pub(super) fn into_run(
        self,
        defrag: Defrag,
        latency: Latency,
        verified_keys: u64,
        audit: String,
    ) -> Run {
        let phases = self.phases.try_into().expect("three phases were finished");
        Run {
            allocator: self.allocator,
            phases,
            defrag,
            gains: gains(),
            latency,
            timeline: self.timeline,
            verified_keys,
            audit,
        }
    }
}

/// From the allocator's books: this process has healed nothing else.
fn gains() -> Vec<ClassGain> {
    let moved = |class: &&tallow::ClassStats| class.regions_moved > 0 || class.slabs_emptied > 0;
    let gain = |class: &tallow::ClassStats| ClassGain {
        region_bytes: class.region_bytes,
        regions_moved: class.regions_moved,
        slabs_emptied: class.slabs_emptied,
        released_bytes: class.slabs_emptied * class.slab_bytes,
    };
    tallow::stats().classes.iter().filter(moved).map(gain).collect()
}
