//! Phase *healed*: the tables are rebuilt, the data defragmented, and free memory given back.

use super::{Churn, Defrag, Phase};
use crate::gauge::Allocator;
use crate::store::{Cursor, Store};
use std::time::{Duration, Instant};
use tallow::defrag::{Defrag as Defragmenter, Mover, Outcome, Prediction, Settings, Visit};

/// The longest the store works on healing before it would serve requests again. Redis 7 took 10 to
/// 25 ms at a time, and its users noticed.
const STEP: Duration = Duration::from_micros(500);
/// Passes at most.
const MAX_PASSES: u32 = 4;
/// No pass is begun that promises less than one part in so many of the allocated bytes.
const MIN_GAIN_FRACTION: u64 = 1000;
/// Wall time between two points on the timeline.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// Points on the timeline for this phase, at most.
const MAX_SAMPLES: u32 = 40;

impl Churn<'_> {
    /// Heals the store and returns what that took.
    pub(super) fn heal(&mut self) -> Defrag {
        let start = Instant::now();
        let mut pace = Pace { last: start, samples: 0, every: SAMPLE_EVERY };
        let mut defrag = Defrag::default();
        self.sample(Phase::Healed, 0.0);
        self.shrink_tables(&mut defrag, &mut pace);
        self.probe.without_pass(&mut self.store, self.now);
        self.probe.arrivals_without_pass(&mut self.store, self.now);
        if self.recorder.allocator() == Allocator::Tallow {
            let mut settings = Settings::default();
            settings.step = STEP;
            let mut defragmenter = Defragmenter::new(settings);
            for pass in 0..MAX_PASSES {
                if !self.defragment(pass, &mut defragmenter, &mut defrag, &mut pace) {
                    break;
                }
            }
        }
        self.sample(Phase::Healed, 0.95);
        let purge = Instant::now();
        self.recorder.allocator().release_free_memory();
        defrag.purge_ms = millis(purge.elapsed());
        defrag.time_share =
            (defrag.passes_ms + defrag.tables_ms) / millis(start.elapsed()).max(f64::MIN_POSITIVE);
        defrag.step = self.probe.steps();
        defrag.longest_step_us = defrag.step.times.max_ns / 1000;
        defrag
    }

    fn shrink_tables(&mut self, defrag: &mut Defrag, pace: &mut Pace) {
        let before = self.store.table_bytes();
        let mut cursor = Cursor::default();
        loop {
            let (start, store) = (Instant::now(), &mut self.store);
            let late = || start.elapsed() >= STEP;
            let done = self.probe.step(|| store.shrink_tables(&mut cursor, late));
            defrag.tables_ms += millis(start.elapsed());
            if done {
                break;
            }
            self.sample_at_pace(pace, 0.05);
        }
        defrag.tables_shrunk_bytes = before - self.store.table_bytes();
    }

    /// The beginning of the first pass, at the pace that a service would take, while requests
    /// arrive. Returns what it predicted, if it began.
    fn defragment_at_pace(&mut self, defragmenter: &mut Defragmenter<Cursor>) -> Prediction {
        let mut predicted = Prediction::default();
        self.probe.arrivals_beside_pass(&mut self.store, self.now, |store| {
            let wait = defragmenter.poll(visitor(store));
            predicted = defragmenter.predicted().unwrap_or(predicted);
            let effort_percent = defragmenter.effort_percent();
            // At rest: the pass is over, or what it would gain is not worth one at this pace.
            (effort_percent > 0).then_some((effort_percent, wait))
        });
        predicted
    }

    /// One pass over the store, at full effort but for the first moments; each step is followed by some requests. Returns
    /// whether another may be worth while.
    fn defragment(
        &mut self,
        pass_number: u32,
        defragmenter: &mut Defragmenter<Cursor>,
        defrag: &mut Defrag,
        pace: &mut Pace,
    ) -> bool {
        let stats = tallow::stats();
        let worth_bytes = stats.allocated_bytes / MIN_GAIN_FRACTION;
        if stats.evacuable_bytes() < worth_bytes {
            return false;
        }
        let first = pass_number == 0;
        let mut predicted =
            if first { self.defragment_at_pace(defragmenter) } else { Prediction::default() };
        let mut under_way = !first || defragmenter.last_outcome().is_none();
        while under_way {
            let visit = visitor(&mut self.store);
            under_way = self.probe.step(|| defragmenter.step(visit));
            predicted = defragmenter.predicted().unwrap_or(predicted);
            self.probe.beside_step(&mut self.store, self.now);
            let pass_share = 0.8 / f64::from(MAX_PASSES);
            self.sample_at_pace(pace, 0.1 + pass_share * f64::from(pass_number));
        }
        let Some(outcome) = defragmenter.last_outcome() else { return false };
        defrag.predicted_released_bytes += predicted.released_bytes;
        defrag.add(&outcome);
        outcome.released_bytes >= worth_bytes
    }

    fn sample_at_pace(&mut self, pace: &mut Pace, progress: f64) {
        if pace.last.elapsed() >= pace.every && pace.samples < MAX_SAMPLES {
            self.sample(Phase::Healed, progress);
            pace.samples += 1;
            // The first points close together, later ones further apart: short and long runs
            // both fit.
            pace.every = pace.every * 21 / 20;
            pace.last = Instant::now();
        }
    }
}

fn visitor(store: &mut Store) -> impl FnOnce(&mut Cursor, &mut Mover<'_>) -> Visit {
    |cursor, mover| if store.relocate(cursor, mover) { Visit::Done } else { Visit::More }
}

/// When the timeline gets its next point. The number of points is bounded, and the room for them
/// taken beforehand: wall time must not decide what is allocated.
struct Pace {
    last: Instant,
    samples: u32,
    every: Duration,
}

impl Defrag {
    fn add(&mut self, outcome: &Outcome) {
        self.passes += 1;
        self.hits += outcome.hits;
        self.misses += outcome.misses;
        self.moved_bytes += outcome.moved_bytes;
        self.predicted_bytes += outcome.predicted_bytes;
        self.released_bytes += outcome.released_bytes;
        self.slabs_released += outcome.slabs_released;
        self.steps += outcome.steps;
        self.passes_ms += millis(outcome.time);
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
