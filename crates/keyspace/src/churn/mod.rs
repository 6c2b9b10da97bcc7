//! The churn demo: a cache is filled and used, most of it expires, and what is left is healed.
//!
//! | phase | what happens | what to see |
//! |---|---|---|
//! | *loaded* | filled to the wanted size, then requests, expiries and new keys for 1.25 mean TTLs | memory is as large as the data |
//! | *expired* | hardly any requests; time goes on and TTLs run out until a fifth of the bytes is left | the data shrink, the process does not |
//! | *healed* | tables rebuilt, defragmentation in short steps, free memory given back | the process shrinks too |
//!
//! Everything the store is told follows from the seed and the virtual clock. Wall time decides only
//! how the healing is cut into steps, which moves bytes but changes none. So two runs with the same
//! parameters end each phase with the same requested and allocated bytes.

mod expired;
mod healed;
mod loaded;
mod probe;
mod record;
mod replay;

pub use probe::{Latency, Operations, Queueing, Steps, Times};
pub use record::{ClassGain, Defrag, Phase, PhaseBooks, Point, Recorder, Run};

use crate::clock::{Expiry, Moment};
use crate::gauge::Allocator;
use crate::store::Store;
use crate::workload::{Cluster, Generator};
use probe::Probe;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::path::PathBuf;

/// Bytes of tables per key: a table of 512 buckets for [`KEYS_PER_SHARD`](crate::store::KEYS_PER_SHARD).
const TABLE_BYTES_PER_KEY: f64 = 68.0;
/// How far the store may be over its size, in percent, before it evicts.
const EVICT_ABOVE_PERCENT: u64 = 102;
/// Cron ticks per step of the clock: a step that spans hours stands for at most this many runs of
/// the expiry cycle, one that spans less for at least so many.
const CRON_TICKS_PER_STEP: std::ops::RangeInclusive<u32> = 64..=4096;

/// Where the requests come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Generated with the figures of a real cluster.
    Cluster(&'static Cluster),
    /// Read from a trace.
    Trace(PathBuf),
}

/// How large the store is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// So many bytes taken from the allocator.
    Bytes(u64),
    /// So many keys.
    Keys(u64),
}

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the requests come from.
    pub source: Source,
    /// How large the store is to become.
    pub goal: Goal,
    /// Seed of every random choice.
    pub seed: u64,
    /// The allocator that the process runs on.
    pub allocator: Allocator,
}

/// What a run is going to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Keys at the peak, about. 0 where a trace decides.
    pub keys: u64,
    /// Bytes of the store at the peak.
    pub store_bytes: u64,
    /// Memory that the process may take at the peak.
    pub process_bytes: u64,
}

impl Config {
    /// Works out what the run is going to need.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let bytes_per_key = match &self.source {
            Source::Cluster(cluster) => {
                Generator::new(cluster, self.seed, 1).mean_data_bytes() + TABLE_BYTES_PER_KEY
            }
            Source::Trace(_) => 128.0 + TABLE_BYTES_PER_KEY,
        };
        let (keys, store_bytes) = match self.goal {
            Goal::Bytes(bytes) => ((bytes as f64 / bytes_per_key) as u64, bytes),
            Goal::Keys(keys) => (keys, (keys as f64 * bytes_per_key) as u64),
        };
        // An eighth for the slack around the store (eviction, caches, partly filled slabs) and for
        // the tables rebuilt while the old ones are still there; the rest is the program.
        let process_bytes = store_bytes.saturating_add(store_bytes / 8).saturating_add(48 << 20);
        Plan { keys: keys.max(1), store_bytes, process_bytes }
    }
}

/// Runs the three phases.
///
/// # Errors
/// If the trace is wrong, or the contents or the books are not what they should be at the end.
pub fn run(config: &Config, recorder: Recorder<'_>) -> anyhow::Result<Run> {
    let plan = config.plan();
    let mut churn = Churn {
        store: Store::with_expected_keys(plan.keys),
        generator: match config.source {
            Source::Cluster(cluster) => Some(Generator::new(cluster, config.seed, plan.keys)),
            Source::Trace(_) => None,
        },
        goal: config.goal,
        now: Moment::START,
        rng: Pcg64Mcg::seed_from_u64(!config.seed),
        operations: 0,
        probe: Probe::new(config.seed),
        recorder,
    };
    match &config.source {
        Source::Cluster(cluster) => churn.load(cluster, plan.keys),
        Source::Trace(path) => churn.replay(path)?,
    }
    churn.finish_phase(Phase::Loaded);
    churn.expire();
    churn.finish_phase(Phase::Expired);
    let defrag = churn.heal();
    churn.finish_phase(Phase::Healed);

    let keys = churn.store.verify().map_err(|problem| {
        anyhow::anyhow!("the store's contents are wrong: {problem}; please report this as a bug")
    })?;
    let audit = config.allocator.audit().map_err(|problem| {
        anyhow::anyhow!("the allocator's books are wrong: {problem}; please report this as a bug")
    })?;
    Ok(churn.recorder.into_run(defrag, churn.probe.latency(), keys, audit))
}

/// The state of a run.
struct Churn<'a> {
    store: Store,
    generator: Option<Generator>,
    goal: Goal,
    now: Moment,
    rng: Pcg64Mcg,
    operations: u64,
    probe: Probe,
    recorder: Recorder<'a>,
}

impl Churn<'_> {
    fn is_below_goal(&self) -> bool {
        match self.goal {
            Goal::Bytes(bytes) => self.store.used_bytes() < bytes,
            Goal::Keys(keys) => self.store.keys() < keys,
        }
    }

    /// How much of the goal is reached, from 0.
    fn filled(&self) -> f64 {
        match self.goal {
            Goal::Bytes(bytes) => self.store.used_bytes() as f64 / bytes.max(1) as f64,
            Goal::Keys(keys) => self.store.keys() as f64 / keys.max(1) as f64,
        }
    }

    /// Evicts until the store is back at its limit, as a cache does that would outgrow its memory.
    fn evict_above_goal(&mut self) {
        loop {
            let over = match self.goal {
                Goal::Bytes(bytes) => self.store.used_bytes() / EVICT_ABOVE_PERCENT > bytes / 100,
                Goal::Keys(keys) => self.store.keys() / EVICT_ABOVE_PERCENT > keys / 100,
            };
            let draws = [(); 5].map(|()| 0);
            if !over || !self.store.evict(draws.map(|_: u64| self.rng.random()), self.now) {
                break;
            }
        }
    }

    /// Lets `ticks` of virtual time pass and runs the active expiry cycle for them, stopping early
    /// once the data have come down to `floor_bytes`.
    fn pass_time(&mut self, ticks: u32, floor_bytes: u64) {
        self.now = self.now.after_ticks(ticks);
        // No cycle looks at more keys than there are.
        let max_loops = u32::try_from(self.store.keys() / 20 + 1).unwrap_or(u32::MAX);
        for _ in 0..ticks.clamp(*CRON_TICKS_PER_STEP.start(), *CRON_TICKS_PER_STEP.end()) {
            self.store.expire_cycle(self.now, max_loops, floor_bytes);
        }
    }

    /// Somebody changes the size of a value that happens to be there; it keeps its expiry.
    fn update_any(&mut self) {
        let (place, factor) = (self.rng.random(), self.rng.random_range(0.5..1.5));
        self.store.update_any(place, self.now, |hash, old| {
            let len = ((old.len() as f64 * factor).round() as usize).max(1);
            crate::bytes::value_for(hash, len)
        });
        self.operations += 1;
    }

    fn sample(&mut self, phase: Phase, progress: f64) {
        self.recorder.sample(phase, progress, self.now, &self.store);
    }

    fn finish_phase(&mut self, phase: Phase) {
        self.recorder.finish_phase(phase, self.now, &self.store, self.operations);
    }
}

/// The expiry of a write at `now` with a TTL in seconds, 0 for none.
fn expiry_after(now: Moment, ttl_seconds: u32) -> Expiry {
    match ttl_seconds {
        0 => Expiry::NEVER,
        ttl => Expiry::at(now.after_ticks(ttl.saturating_mul(crate::clock::TICKS_PER_SECOND))),
    }
}
