//! What is read regularly: RSS ten times a second, `used_memory` and its peak much more often.
//!
//! Redis reads RSS and its allocator's figures every 100 ms in one go, so that their ratio is that
//! of one moment, and INFO says those; `used_memory` itself is always of now. It looks at the peak
//! after every command. Here that is done when another command comes than the one before, whoever
//! sends it, and when the commands of a turn are executed ([`Pulse::watch_peak`]): a run of the same
//! command makes memory grow or shrink, and does not do one after the other.

use super::kernel;
use super::meter::Meter;
use crate::gauge::Allocator;
use crate::server::db::UnixMs;
use crate::server::state::Counters;

/// Every so often (Redis: `cronUpdateMemoryStats`).
pub(crate) const EVERY_MS: i64 = 100;
/// A turn of the timer may be so much early.
const TOLERANCE_MS: i64 = 10;
/// Readings that rates are averaged over.
const RATES: usize = 16;
/// The peak may be so much higher than what is told.
const PEAK_GRAIN_BYTES: u64 = 64 * 1024;

/// What was read last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    /// When.
    pub(crate) at_ms: UnixMs,
    /// RSS.
    pub(crate) rss_bytes: u64,
    /// `used_memory` at the same moment.
    pub(crate) used_bytes: u64,
    /// The allocator's figures: what the program holds,
    pub(crate) allocated_bytes: u64,
    /// the pages of that,
    pub(crate) active_bytes: u64,
    /// and those that may have memory behind them, with the allocator's own.
    pub(crate) resident_bytes: u64,
    /// Free regions in slabs that have memory behind them.
    pub(crate) free_bytes: u64,
    /// Operations and bytes in and out per second.
    pub(crate) rates: Rates,
    /// The most `used_memory` that was seen, and when.
    pub(crate) peak: Peak,
    /// What is used now.
    meter: Meter,
}

/// The highest `used_memory`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// How much.
    pub(crate) bytes: u64,
    /// When.
    pub(crate) at_ms: UnixMs,
}

impl Peak {
    fn note(&mut self, used_bytes: u64, now: UnixMs) {
        if used_bytes > self.bytes {
            *self = Self { bytes: used_bytes, at_ms: now };
        }
    }
}

impl Pulse {
    /// Reads everything, if it is time.
    pub(crate) fn tick(&mut self, allocator: Allocator, counters: &Counters, now: UnixMs) {
        // A clock that was set back must not stop it.
        if !(0..EVERY_MS - TOLERANCE_MS).contains(&(now - self.at_ms)) {
            self.rates.note(counters, now);
            self.read(allocator, now);
        }
    }

    /// Reads all figures of memory.
    pub(crate) fn read(&mut self, allocator: Allocator, now: UnixMs) {
        let stats = tallow::stats();
        let system = system_figures(allocator);
        let regions = stats.classes.iter().map(|class| class.regions_free * class.region_bytes);
        self.at_ms = now;
        self.rss_bytes = kernel::rss_bytes();
        self.used_bytes = stats.allocated_bytes + system.allocated_bytes;
        self.allocated_bytes = self.used_bytes;
        self.active_bytes = stats.active_bytes + system.active_bytes;
        self.resident_bytes = stats.resident_bytes + system.active_bytes;
        self.free_bytes = regions.sum::<u64>().saturating_sub(stats.punched_bytes);
        self.note_used(self.used_bytes, now);
    }

    /// Reads `used_memory`.
    pub(crate) fn look(&mut self, allocator: Allocator, now: UnixMs) -> u64 {
        let used_bytes = used_bytes(allocator);
        self.note_used(used_bytes, now);
        used_bytes
    }

    /// Notes `used_memory` as it was just read.
    pub(crate) fn note_used(&mut self, used_bytes: u64, now: UnixMs) {
        self.meter = Meter::at(used_bytes, now);
        self.peak.note(used_bytes, now);
    }

    /// Looks at the peak, if it may be another.
    #[inline]
    pub(crate) fn watch_peak(&mut self, allocator: Allocator, now: UnixMs) {
        if !self.meter.is_fresh(allocator, now)
            || self.meter.about_bytes() > self.peak.bytes + PEAK_GRAIN_BYTES
        {
            self.look(allocator, now);
        }
    }

    /// Whether `used_memory` is at most `limit_bytes` for certain; to know more it must be read.
    #[inline]
    pub(crate) fn is_within(&self, allocator: Allocator, limit_bytes: u64, now: UnixMs) -> bool {
        self.meter.is_fresh(allocator, now) && self.meter.most_bytes() <= limit_bytes
    }
}

/// `used_memory`: the bytes of all regions that the program holds, as Redis counts usable sizes.
pub(crate) fn used_bytes(allocator: Allocator) -> u64 {
    tallow::stats().allocated_bytes + system_figures(allocator).allocated_bytes
}

/// The C library's books, if that is what the program's own allocations come from. What is in an
/// account is Tallow's in any case.
fn system_figures(allocator: Allocator) -> crate::gauge::Reading {
    match allocator {
        Allocator::Tallow => crate::gauge::Reading::default(),
        Allocator::System => allocator.read(0),
    }
}

/// Counters as they were at some readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    readings: [(UnixMs, [u64; 3]); RATES],
    next: usize,
}

impl Rates {
    fn note(&mut self, counters: &Counters, now: UnixMs) {
        let values =
            [counters.commands_processed, counters.net_input_bytes, counters.net_output_bytes];
        self.readings[self.next % RATES] = (now, values);
        self.next += 1;
    }

    /// Commands, bytes in and bytes out per second, over the last readings.
    pub(crate) fn per_second(&self) -> [f64; 3] {
        if self.next < 2 {
            return [0.0; 3];
        }
        let last = self.readings[(self.next - 1) % RATES];
        let first = self.readings[if self.next > RATES { self.next % RATES } else { 0 }];
        let seconds = (last.0 - first.0).max(1) as f64 / 1000.0;
        // After CONFIG RESETSTAT they are smaller than before.
        std::array::from_fn(|i| last.1[i].saturating_sub(first.1[i]) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::accounts::Dataset;

    #[test]
    fn rates_are_those_of_the_last_readings() {
        let mut rates = Rates::default();
        for tick in 0..40 {
            let counters = Counters { commands_processed: tick * 50, ..Counters::default() };
            rates.note(&counters, tick as i64 * 100);
            let expected = if tick == 0 { 0.0 } else { 500.0 };
            assert!((rates.per_second()[0] - expected).abs() < 1e-6, "{tick}");
        }
        rates.note(&Counters::default(), 4000);
        assert_eq!(rates.per_second()[0], 0.0);
    }

    #[test]
    fn the_peak_stays_with_its_moment() {
        let mut peak = Peak::default();
        for (used, now) in [(5, 1), (9, 2), (9, 3), (7, 4)] {
            peak.note(used, now);
        }
        assert_eq!((peak.bytes, peak.at_ms), (9, 2));
    }

    #[test]
    fn the_peak_is_looked_at_when_it_may_be_another() {
        const BYTES: usize = 32 << 20;
        let name = "the_peak_is_looked_at_when_it_may_be_another";
        if !super::super::meter::tests::is_alone(module_path!(), name) {
            return;
        }
        let mut pulse = Pulse::default();
        pulse.watch_peak(Allocator::Tallow, 5);
        let before = pulse.peak.bytes;
        assert!(pulse.is_within(Allocator::Tallow, before + BYTES as u64 / 2, 5));
        assert!(!pulse.is_within(Allocator::Tallow, u64::MAX, 6), "that is another moment");
        let block = crate::server::accounts::block::<Dataset, 1>([&[0; BYTES]]);
        assert!(!pulse.is_within(Allocator::Tallow, before + BYTES as u64 / 2, 5));
        pulse.watch_peak(Allocator::Tallow, 5);
        drop(block);
        assert!(pulse.peak.bytes > before + BYTES as u64 / 2, "{before} {}", pulse.peak.bytes);
    }
}
