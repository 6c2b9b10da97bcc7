//! Phase *healed*: a light load, and whatever the server does about its memory.

use super::drive::Driver;
use super::outcome::Healing;
use super::probe::Probe;
use crate::churn::{Phase, Times};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two SETs; the GETs are the probe's.
const SET_EVERY: Duration = Duration::from_millis(10);

impl Driver<'_> {
    /// Keeps the load up while the server heals. Returns what it said about that, and how long GETs
    /// took.
    pub(super) fn heal(&mut self, survivors: &[u64]) -> anyhow::Result<(Healing, Times)> {
        let probe = Probe::start(self.config, &self.generator, survivors.to_vec())?;
        self.monitor.enter(Phase::Healed);
        let healing = Healing::switch_on(self.config, &mut self.control)?;
        let start = Instant::now();
        let mut next = start;
        let mut round = 0_usize;
        while start.elapsed() < self.config.heal {
            if !survivors.is_empty() {
                // All over the keys, in an order that has nothing to do with where they lie.
                let id = survivors[crate::bytes::mix(round as u64) as usize % survivors.len()];
                let len = self.generator.value_len();
                self.books.resize(id, len);
                let (key, value) = self.key_and_value(id, len);
                self.lanes.request(id, &[b"SET", key.as_bytes(), &value])?;
                self.lanes.flush()?;
            }
            round += 1;
            let done = start.elapsed().as_secs_f64() / self.config.heal.as_secs_f64();
            (self.progress)(Phase::Healed, Some(done));
            next += SET_EVERY;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok((healing, probe.stop()?))
    }
}
