//! A trial of ways to know which keys have expired; `cargo bench -p keyspace --bench expiry` runs it.
//!
//! The same keys come and expire over the same time, which passes as fast as the work is done, and
//! one of three ways removes them from the same table:
//!
//! - the wheel: a database as the server has it, with the slices of its cycle;
//! - sampling, as Redis does it since 6.0: ten times a second the next twenty keys of the table of
//!   those that expire are looked at, where the last look ended, and again while more than a tenth
//!   of them had expired, for at most a quarter of the time; a millisecond between two turns of the
//!   loop while many are believed dead. Its list of keys that expire has 8 bytes a key, in no order,
//!   and cannot forget a key that is deleted, which Redis's own table can, for four times as much;
//! - ordered buckets: a `BTreeMap` from time, in steps of the wheel's 16 ms, to hashes of keys.

use super::{Clock, Db, Entry, UnixMs};
use crate::server::accounts::{Dataset, Tables};
use crate::server::db::secret::Secret;
use crate::server::db::table::Table;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tallow::Purpose;

/// Time of one turn of the event loop, which a quarter of may be spent on expiry.
const TURN_MS: UnixMs = 10;
const SLICE: Duration = Duration::from_micros(500);
const SLICES_PER_TURN: usize = 5;
/// Keys that stay beside those that come and go: one in so many.
const LONG_LIVED: u64 = 4;
const SHORT_TTL_MS: std::ops::RangeInclusive<UnixMs> = 1000..=120_000;
const LONG_TTL_MS: std::ops::RangeInclusive<UnixMs> = 86_400_000..=2_592_000_000;
/// After so long all keys from the beginning are gone, and for so long it is measured.
const WARM_UP_MS: UnixMs = 121_000;
const MEASURED_MS: UnixMs = 30_000;
const START: UnixMs = 1_700_000_000_000;

/// What is measured of one way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Its name.
    pub name: &'static str,
    /// Dead keys that still hold memory, in percent of those that expire: on average,
    pub dead_percent: f64,
    /// and at most.
    pub most_dead_percent: f64,
    /// Time for each key that was removed, with its removal from the table.
    pub expire_ns: f64,
    /// Time to set a key with an expiry.
    pub set_ns: f64,
    /// Memory of the index for each key that expires.
    pub index_bytes: f64,
    /// The longest slice of work: nothing else is done meanwhile.
    pub longest_us: f64,
    /// When four fifths expire within a second: how long it takes until no more than a hundredth of
    /// all keys are dead, from when the last one has expired.
    pub burst_ms: UnixMs,
    /// The longest slice then.
    pub burst_longest_us: f64,
}

/// Runs the trial of all ways with so many keys.
pub fn run(keys: u64) -> Vec<Figures> {
    vec![
        trial::<Wheel>("wheel", keys),
        trial::<Sampling>("sampling", keys),
        trial::<Buckets>("ordered buckets", keys),
    ]
}

/// A way to find the keys that have expired.
trait Way: Default {
    /// Adds a key.
    fn set(&mut self, key: &[u8], at: UnixMs, now: UnixMs);
    /// Does what one turn of the loop does at `now`; returns keys removed, and notes how long each
    /// slice of work took.
    fn turn(&mut self, now: UnixMs, took: &mut impl FnMut(Duration)) -> u64;
}

fn trial<W: Way>(name: &'static str, keys: u64) -> Figures {
    let mut figures = Figures { name, ..Figures::default() };
    steady::<W>(keys, &mut figures);
    burst::<W>(keys, &mut figures);
    figures
}

/// Keys with a known number of those that are due.
struct Keys<W> {
    way: W,
    rng: Pcg64Mcg,
    number: u64,
    /// Keys that come due in each millisecond from the start on.
    due_at: Vec<u32>,
    due: u64,
    now: UnixMs,
    removed: u64,
}

impl<W: Way> Keys<W> {
    fn new(until_ms: UnixMs) -> Self {
        Self {
            way: W::default(),
            rng: Pcg64Mcg::seed_from_u64(7),
            number: 0,
            due_at: vec![0; until_ms as usize + 1],
            due: 0,
            now: START,
            removed: 0,
        }
    }

    fn set(&mut self, ttl_ms: UnixMs) {
        self.number += 1;
        let at = self.now + ttl_ms;
        self.way.set(format!("key:{:012}", self.number).as_bytes(), at, self.now);
        if let Some(count) = self.due_at.get_mut((at - START) as usize) {
            *count += 1;
        }
    }

    /// Lets a turn go by. Returns the keys that are dead after it.
    fn turn(&mut self, mut took: impl FnMut(Duration)) -> u64 {
        for ms in self.now - START + 1..=self.now - START + TURN_MS {
            self.due += u64::from(self.due_at[ms as usize]);
        }
        self.now += TURN_MS;
        self.removed += self.way.turn(self.now, &mut took);
        self.due - self.removed
    }

    fn live(&self) -> u64 {
        self.number - self.removed
    }
}

/// Keys come as fast as they expire.
fn steady<W: Way>(keys: u64, figures: &mut Figures) {
    let until = WARM_UP_MS + MEASURED_MS + TURN_MS;
    let base_bytes = index_bytes();
    let mut it = Keys::<W>::new(until);
    for i in 0..keys {
        let ttl_ms = match i % LONG_LIVED {
            0 => it.rng.random_range(LONG_TTL_MS),
            _ => it.rng.random_range(1..=*SHORT_TTL_MS.end()),
        };
        it.set(ttl_ms);
    }
    let short_lived = keys - keys / LONG_LIVED;
    let mean_ms = (SHORT_TTL_MS.start() + SHORT_TTL_MS.end()) / 2;
    let (mut set_time, mut expire_time, mut longest) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut sets, mut removed, mut dead_sum, mut turns) = (0, 0, 0.0, 0);
    let mut owed = 0;
    while it.now < START + WARM_UP_MS + MEASURED_MS {
        let measured = it.now >= START + WARM_UP_MS;
        owed += short_lived * TURN_MS as u64;
        let started = Instant::now();
        let mut set = 0;
        while owed >= mean_ms as u64 {
            owed -= mean_ms as u64;
            let ttl_ms = it.rng.random_range(SHORT_TTL_MS);
            it.set(ttl_ms);
            set += 1;
        }
        let (took, before) = (started.elapsed(), it.removed);
        let dead = it.turn(|slice| {
            if measured {
                expire_time += slice;
                longest = longest.max(slice);
            }
        });
        if measured {
            set_time += took;
            sets += set;
            removed += it.removed - before;
            let percent = dead as f64 * 100.0 / it.live() as f64;
            dead_sum += percent;
            figures.most_dead_percent = figures.most_dead_percent.max(percent);
            turns += 1;
        }
    }
    figures.dead_percent = dead_sum / f64::from(turns);
    figures.expire_ns = expire_time.as_nanos() as f64 / removed.max(1) as f64;
    figures.set_ns = set_time.as_nanos() as f64 / f64::from(sets.max(1));
    figures.longest_us = longest.as_nanos() as f64 / 1000.0;
    // The counts of due keys are the trial's own.
    let own_bytes = base_bytes + it.due_at.capacity() as u64 * 4;
    figures.index_bytes = index_bytes().saturating_sub(own_bytes) as f64 / it.live() as f64;
}

/// Four fifths expire within a second.
fn burst<W: Way>(keys: u64, figures: &mut Figures) {
    let mut it = Keys::<W>::new(400_000);
    for i in 0..keys {
        let ttl_ms = match i % 5 {
            0 => it.rng.random_range(LONG_TTL_MS),
            _ => it.rng.random_range(10_000..11_000),
        };
        it.set(ttl_ms);
    }
    let mut longest = Duration::ZERO;
    loop {
        let dead = it.turn(|slice| longest = longest.max(slice));
        let since_ms = it.now - START - 11_000;
        if since_ms >= 0 && (dead * 100 <= it.live() || since_ms > 300_000) {
            figures.burst_ms = since_ms;
            break;
        }
    }
    figures.burst_longest_us = longest.as_nanos() as f64 / 1000.0;
}

/// What the program has asked for besides keys and their table.
fn index_bytes() -> u64 {
    let others = Dataset::account().live_bytes() + Tables::account().live_bytes();
    tallow::stats().requested_bytes.saturating_sub(others)
}

/// Slices of the server's cycle, until `work` says that all is done.
fn slices(took: &mut impl FnMut(Duration), mut work: impl FnMut(&mut dyn FnMut() -> bool) -> bool) {
    for _ in 0..SLICES_PER_TURN {
        let started = Instant::now();
        let done = work(&mut || started.elapsed() < SLICE);
        took(started.elapsed());
        if done {
            break;
        }
    }
}

struct Wheel(Db);

impl Default for Wheel {
    fn default() -> Self {
        Self(Db::new())
    }
}

impl Way for Wheel {
    fn set(&mut self, key: &[u8], at: UnixMs, now: UnixMs) {
        let clock = Clock { now_ms: now, ..Clock::default() };
        self.0.insert(Entry::string(key, b"value", Some(at)), clock);
    }

    fn turn(&mut self, now: UnixMs, took: &mut impl FnMut(Duration)) -> u64 {
        let before = self.0.expired_keys;
        slices(took, |goes_on| self.0.expire(now, goes_on, drop));
        self.0.expired_keys - before
    }
}

/// A table without an index.
struct Plain(Table<Entry, Tables>);

impl Default for Plain {
    fn default() -> Self {
        Self(Table::new(Secret::new()))
    }
}

impl Plain {
    fn set(&mut self, key: &[u8], at: UnixMs) -> u64 {
        let hash = self.0.hash(key);
        self.0.insert_hashed(hash, Entry::string(key, b"value", Some(at)));
        hash
    }

    fn remove_due(&mut self, hash: u64, now: UnixMs) -> bool {
        self.0.remove_by_hash(hash, |entry| entry.is_due(now)).is_some()
    }
}

/// Redis's algorithm (`activeExpireCycle`).
#[derive(Default)]
struct Sampling {
    keys: Plain,
    /// In no order, as in a hash table.
    expiring: Vec<u64>,
    /// Where the next look begins.
    cursor: usize,
    rng: Option<Pcg64Mcg>,
    turns: u32,
    /// What is believed to be dead, in percent: a running mean.
    stale_percent: f64,
    was_cut_short: bool,
}

impl Sampling {
    const KEYS_PER_LOOP: usize = 20;
    const ACCEPTED_PERCENT: usize = 10;
    const SLOW_LIMIT: Duration = Duration::from_millis(25);
    const FAST_LIMIT: Duration = Duration::from_millis(1);

    fn cycle(&mut self, now: UnixMs, limit: Duration) -> u64 {
        let (started, mut loops, mut removed, mut sampled) = (Instant::now(), 0, 0, 0);
        self.was_cut_short = false;
        loop {
            let count = Self::KEYS_PER_LOOP.min(self.expiring.len());
            let mut expired = 0;
            for _ in 0..count {
                let at = if self.cursor < self.expiring.len() { self.cursor } else { 0 };
                self.cursor = at + 1;
                if self.keys.remove_due(self.expiring[at], now) {
                    self.expiring.swap_remove(at);
                    expired += 1;
                }
            }
            removed += expired as u64;
            sampled += count as u64;
            loops += 1;
            if loops % 16 == 0 && started.elapsed() > limit {
                self.was_cut_short = true;
                break;
            }
            if count == 0 || expired * 100 <= count * Self::ACCEPTED_PERCENT {
                break;
            }
        }
        let percent = removed as f64 * 100.0 / sampled.max(1) as f64;
        self.stale_percent = percent * 0.05 + self.stale_percent * 0.95;
        removed
    }
}

impl Way for Sampling {
    fn set(&mut self, key: &[u8], at: UnixMs, _: UnixMs) {
        let hash = self.keys.set(key, at);
        self.expiring.push(hash);
        let rng = self.rng.get_or_insert_with(|| Pcg64Mcg::seed_from_u64(1));
        let (last, place) = (self.expiring.len() - 1, rng.random_range(0..self.expiring.len()));
        self.expiring.swap(last, place);
    }

    fn turn(&mut self, now: UnixMs, took: &mut impl FnMut(Duration)) -> u64 {
        self.turns += 1;
        let limit = if self.turns.is_multiple_of(10) {
            Self::SLOW_LIMIT
        } else if self.was_cut_short || self.stale_percent >= Self::ACCEPTED_PERCENT as f64 {
            Self::FAST_LIMIT
        } else {
            return 0;
        };
        let started = Instant::now();
        let removed = self.cycle(now, limit);
        took(started.elapsed());
        removed
    }
}

/// Hashes of keys by when they expire.
#[derive(Default)]
struct Buckets {
    keys: Plain,
    buckets: BTreeMap<UnixMs, Vec<u64>>,
}

impl Buckets {
    const STEP_MS: UnixMs = 16;
}

impl Way for Buckets {
    fn set(&mut self, key: &[u8], at: UnixMs, _: UnixMs) {
        let hash = self.keys.set(key, at);
        self.buckets.entry(at / Self::STEP_MS + 1).or_default().push(hash);
    }

    fn turn(&mut self, now: UnixMs, took: &mut impl FnMut(Duration)) -> u64 {
        let (until, mut removed, mut looks) = (now / Self::STEP_MS, 0, 0u32);
        slices(took, |goes_on| {
            while let Some(mut first) = self.buckets.first_entry()
                && *first.key() <= until
            {
                while let Some(hash) = first.get_mut().pop() {
                    removed += u64::from(self.keys.remove_due(hash, now));
                    looks += 1;
                    if looks.is_multiple_of(32) && !goes_on() {
                        return false;
                    }
                }
                first.remove();
            }
            true
        });
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way removes what has expired, and that alone.
    #[test]
    fn all_ways_come_to_the_same() {
        fn left<W: Way>() -> u64 {
            let mut it = Keys::<W>::new(30_000);
            (0..2000).for_each(|i| it.set(100 + i * 7));
            let mut dead = 0;
            for _ in 0..2000 {
                dead = it.turn(|_| {});
            }
            // Sampling leaves what it takes for little.
            assert!(dead <= 40, "{dead}");
            it.live() - dead
        }
        assert_eq!((left::<Wheel>(), left::<Sampling>(), left::<Buckets>()), (0, 0, 0));
        let mut it = Keys::<Buckets>::new(1000);
        it.set(500);
        (0..49).for_each(|_| _ = it.turn(|_| {}));
        assert_eq!(it.live(), 1);
        (0..4).for_each(|_| _ = it.turn(|_| {}));
        assert_eq!(it.live(), 0);
    }
}
