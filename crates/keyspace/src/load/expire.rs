//! Phase *expired*: the TTLs left are compressed into seconds, and the rest of the keys stays.

use super::drive::Driver;
use super::probe::Probe;
use super::wire::Answer;
use crate::churn::{Phase, Times};
use std::thread;
use std::time::{Duration, Instant};

/// How long the server may take after the last key has run out until it has let go of nearly all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys that may still be there then, as a share of those that expired, in percent.
const STALE_PERCENT: u64 = 1;
/// Time between two questions how many there are.
const ASK_EVERY: Duration = Duration::from_millis(50);

impl Driver<'_> {
    /// Lets the wanted share of the keys run out, those with the least time left, in the order and
    /// at the distances of the virtual clock. Returns those that stay, and how long GETs took.
    pub(super) fn expire(&mut self) -> anyhow::Result<(Vec<u64>, Times)> {
        let keys = self.books.by_time_left();
        let going = (keys.len() as f64 * self.config.expire_share).round() as usize;
        let survivors: Vec<u64> = keys[going..].iter().map(|&(id, _)| id).collect();
        let probe = Probe::start(self.config, &self.generator, survivors.clone())?;
        // Those that stay are freed of their time first: they must not be late.
        for &id in &survivors {
            let key = self.generator.key(id);
            self.lanes.request(id, &[b"PERSIST", key.as_bytes()])?;
        }
        self.lanes.flush()?;
        let start = Instant::now();
        let span_ms = self.config.expire.as_millis() as f64;
        let last_ticks = going.checked_sub(1).map_or(1, |last| keys[last].1.max(1));
        for (count, &(id, left)) in keys[..going].iter().enumerate() {
            let at_ms = span_ms * f64::from(left) / f64::from(last_ticks);
            let in_ms = (at_ms - start.elapsed().as_secs_f64() * 1e3).max(1.0) as u64;
            let (key, in_ms) = (self.generator.key(id), in_ms.to_string());
            self.lanes.request(id, &[b"PEXPIRE", key.as_bytes(), in_ms.as_bytes()])?;
            self.books.remove(id);
            if count.is_multiple_of(10_000) {
                (self.progress)(Phase::Expired, Some(0.5 * count as f64 / going as f64));
            }
        }
        self.lanes.flush()?;
        let run_out = start + self.config.expire;
        self.wait_for_expiry(Phase::Expired, run_out, survivors.len() as u64, going as u64)?;
        Ok((survivors, probe.stop()?))
    }

    /// Waits until the server has let go of nearly all of `going` keys, which have run out at
    /// `run_out`, so that little more than `staying` is left.
    pub(super) fn wait_for_expiry(
        &mut self,
        phase: Phase,
        run_out: Instant,
        staying: u64,
        going: u64,
    ) -> anyhow::Result<()> {
        let give_up = run_out + PATIENCE;
        loop {
            let Answer::Integer(count) = self.control.ask(&[b"DBSIZE"])? else { return Ok(()) };
            let left = u64::try_from(count).unwrap_or(0).saturating_sub(staying);
            let now = Instant::now();
            if (now >= run_out && left <= going * STALE_PERCENT / 100) || now >= give_up {
                return Ok(());
            }
            let gone = 1.0 - left as f64 / going.max(1) as f64;
            (self.progress)(phase, Some(0.5 + 0.5 * gone));
            thread::sleep(ASK_EVERY);
        }
    }
}
