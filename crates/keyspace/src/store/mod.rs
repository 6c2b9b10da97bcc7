//! The keyspace: keys, values and expiries in some thousands of shards.
//!
//! # Shape
//! ```text
//!   hash(key): | 32 bits: which shard | 32 bits: the tag, which bucket |
//!
//!   shards:  [ 0 | 1 | 2 | ... | n-1 ]         n follows from the expected number of keys
//!              |
//!              +-- table of a few hundred entries { key -> heap, value -> heap, expiry, tag }
//! ```
//! Shards play the part of a Redis cluster's slots: a unit small enough to be worked on whole
//! (grown, rebuilt, relocated) without anybody waiting for long. One big table would double in one
//! go, and for that moment take three times its memory.
//!
//! # Time
//! No function reads a clock; each is told the [`Moment`]. An expired entry goes when somebody asks
//! for it (lazily) or when the [active cycle](Store::expire_cycle) meets it, as in Redis.
//!
//! # Defragmentation
//! [`Store::relocate`] offers every key and value to a [`Mover`], from a [`Cursor`] and for as long
//! as the mover has time, so that a pass over millions of keys is a series of short steps.

mod shard;

pub use shard::{Entry, Shard};

use crate::bytes;
use crate::clock::{Expiry, Moment};
use tallow::defrag::{Mover, Relocate};

/// Keys a shard is planned for. In a table of 512 buckets (448 usable) this leaves more than four
/// standard deviations of room, so hardly any shard ever doubles.
pub const KEYS_PER_SHARD: u64 = 360;

/// Keys with an expiry that the active cycle samples per loop.
const CYCLE_KEYS_PER_LOOP: usize = 20;
/// Buckets it looks at for them before it gives the loop up.
const CYCLE_BUCKETS_PER_LOOP: usize = 10 * CYCLE_KEYS_PER_LOOP;
/// It stops when no more than this share of a loop's sample had expired.
const CYCLE_ACCEPTABLE_STALE_PERCENT: usize = 10;

/// Entries offered to a mover between two looks at the clock.
const ENTRIES_PER_CLOCK_LOOK: usize = 16;

/// A place in the store at which a walk goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    shard: usize,
    bucket: usize,
}

/// What one active expiry cycle did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CycleReport {
    /// Loops of 20 keys run.
    pub loops: u32,
    /// Keys with an expiry looked at.
    pub sampled: u64,
    /// Keys of those that had expired and were removed.
    pub expired: u64,
}

/// The keyspace.
#[derive(Debug)]
pub struct Store {
    shards: Box<[Shard]>,
    sweep: Cursor,
    keys: u64,
    requested_bytes: u64,
    data_bytes: u64,
    table_bytes: u64,
    expired_keys: u64,
}

impl Store {
    /// An empty store with as many shards as `expected_keys` call for.
    #[must_use]
    pub fn with_expected_keys(expected_keys: u64) -> Self {
        let shards = expected_keys.div_ceil(KEYS_PER_SHARD).clamp(1, 1 << 24) as usize;
        Self {
            shards: (0..shards).map(|_| Shard::new()).collect(),
            sweep: Cursor::default(),
            keys: 0,
            requested_bytes: 0,
            data_bytes: 0,
            table_bytes: 0,
            expired_keys: 0,
        }
    }

    /// Keys held. As in Redis this counts expired keys that nobody has met yet.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Bytes of keys and values as they were asked for.
    #[must_use]
    pub fn requested_bytes(&self) -> u64 {
        self.requested_bytes
    }

    /// Bytes that keys and values take from the allocator (`used_memory_dataset`).
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of the tables.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.table_bytes
    }

    /// Bytes taken from the allocator in all: `used_memory` in Redis's sense, that is usable sizes
    /// of keys, values and tables, without what the allocator adds around them.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.data_bytes + self.table_bytes + size_of_val(&*self.shards) as u64
    }

    /// Keys that expired so far, lazily or actively.
    #[must_use]
    pub fn expired_keys(&self) -> u64 {
        self.expired_keys
    }

    /// The value of `key`, or `None` if there is none (any more).
    pub fn get(&mut self, key: &[u8], now: Moment) -> Option<&[u8]> {
        self.find_live(key, now).map(|entry| &*entry.value)
    }

    /// Stores `value` under `key`, replacing value and expiry of what was there.
    pub fn set(&mut self, key: &[u8], value: Box<[u8]>, expiry: Expiry) {
        let hash = bytes::hash(key);
        let shard = shard_of(&self.shards, hash);
        if let Some(entry) = self.shards[shard].find_mut(hash as u32, key) {
            self.requested_bytes -= entry.value.len() as u64;
            self.requested_bytes += value.len() as u64;
            self.data_bytes -= bytes::usable_bytes(entry.value.len()) as u64;
            self.data_bytes += bytes::usable_bytes(value.len()) as u64;
            entry.value = value;
            entry.expiry = expiry;
        } else {
            self.insert(shard, Entry { key: key.into(), value, expiry, tag: hash as u32 });
        }
    }

    /// Copies the key that `draw` picks into `key`, and returns its value's length and its expiry.
    /// `None` if it has expired or is longer than `max_key_bytes`.
    pub fn sample(
        &self,
        draw: u64,
        now: Moment,
        max_key_bytes: usize,
        key: &mut Vec<u8>,
    ) -> Option<(usize, Expiry)> {
        let at = self.pick(draw)?;
        let entry = self.shards[at.shard].bucket(at.bucket)?;
        if entry.expiry.is_due(now) || entry.key.len() > max_key_bytes {
            return None;
        }
        key.clear();
        key.extend_from_slice(&entry.key);
        Some((entry.value.len(), entry.expiry))
    }

    /// Stores `value` only if `key` is not there. Returns whether it was stored.
    pub fn add(&mut self, key: &[u8], value: Box<[u8]>, expiry: Expiry, now: Moment) -> bool {
        if self.find_live(key, now).is_some() {
            return false;
        }
        self.set(key, value, expiry);
        true
    }

    /// Replaces the value of `key` by what `change` makes of it and keeps the expiry: cas, incr,
    /// append and prepend. Returns whether the key was there.
    pub fn update(
        &mut self,
        key: &[u8],
        now: Moment,
        change: impl FnOnce(u64, Box<[u8]>) -> Box<[u8]>,
    ) -> bool {
        let hash = bytes::hash(key);
        let Some(entry) = self.find_live(key, now) else { return false };
        let (old_len, new_len) = change_value(entry, hash, change);
        self.account_resize(old_len, new_len);
        true
    }

    /// [`update`](Self::update) of a key picked by `draw` among those held. Returns whether it found
    /// one that was live; one that had expired is removed.
    pub fn update_any(
        &mut self,
        draw: u64,
        now: Moment,
        change: impl FnOnce(u64, Box<[u8]>) -> Box<[u8]>,
    ) -> bool {
        let Some(at) = self.pick(draw) else { return false };
        let Some(entry) = self.shards[at.shard].bucket_mut(at.bucket) else { return false };
        if entry.expiry.is_due(now) {
            self.remove_at(at);
            self.expired_keys += 1;
            return false;
        }
        let hash = bytes::hash(&entry.key);
        let (old_len, new_len) = change_value(entry, hash, change);
        self.account_resize(old_len, new_len);
        true
    }

    /// Removes `key`. Returns whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let hash = bytes::hash(key);
        let shard = shard_of(&self.shards, hash);
        match self.shards[shard].remove(hash as u32, key) {
            Some(entry) => {
                self.account_removal(&entry);
                true
            }
            None => false,
        }
    }

    /// Makes room by removing, of a few keys drawn, the one that expires first (Redis's
    /// `volatile-ttl`, with keys that never expire last). Returns `false` on an empty store.
    pub fn evict(&mut self, draws: [u64; 5], now: Moment) -> bool {
        let due = |at: &Cursor| {
            let entry = self.shards[at.shard].bucket(at.bucket);
            entry.and_then(|entry| entry.expiry.remaining_ticks(now)).unwrap_or(u32::MAX)
        };
        let first = draws.iter().filter_map(|&draw| self.pick(draw)).min_by_key(due);
        first.is_some_and(|at| self.remove_at(at))
    }

    /// The active expiry cycle. Loops over samples of 20 keys that have an expiry, by a cursor that
    /// goes round the whole store, and removes those that are due, until a sample has no more than
    /// 10 % of them, `max_loops` are done, or the data have come down to `floor_bytes`.
    ///
    /// Redis bounds the cycle by wall time; here the bound is a count, so that a run repeats
    /// exactly. As there, up to a tenth of the keys held may be expired and not yet removed.
    pub fn expire_cycle(&mut self, now: Moment, max_loops: u32, floor_bytes: u64) -> CycleReport {
        let mut report = CycleReport::default();
        while report.loops < max_loops && self.data_bytes > floor_bytes && self.keys > 0 {
            let (sampled, expired) = self.expire_loop(now);
            report.loops += 1;
            report.sampled += sampled as u64;
            report.expired += expired as u64;
            if expired * 100 <= sampled * CYCLE_ACCEPTABLE_STALE_PERCENT {
                break;
            }
        }
        self.expired_keys += report.expired;
        report
    }

    fn expire_loop(&mut self, now: Moment) -> (usize, usize) {
        let (mut sampled, mut expired) = (0, 0);
        for _ in 0..CYCLE_BUCKETS_PER_LOOP {
            let at = self.sweep;
            if at.bucket >= self.shards[at.shard].buckets() {
                self.sweep = Cursor { shard: (at.shard + 1) % self.shards.len(), bucket: 0 };
                continue;
            }
            self.sweep.bucket += 1;
            let Some(entry) = self.shards[at.shard].bucket(at.bucket) else { continue };
            sampled += usize::from(entry.expiry.is_some());
            if entry.expiry.is_due(now) {
                self.remove_at(at);
                expired += 1;
            }
            if sampled == CYCLE_KEYS_PER_LOOP {
                break;
            }
        }
        (sampled, expired)
    }

    /// Offers the allocations of every entry from `cursor` on to `mover`, until the mover is out of
    /// time or the walk is through. Returns whether it is through; `cursor` then starts over.
    pub fn relocate(&mut self, cursor: &mut Cursor, mover: &mut Mover<'_>) -> bool {
        while let Some(shard) = self.shards.get_mut(cursor.shard) {
            let mut offered = 0;
            while cursor.bucket < shard.buckets() {
                if let Some(entry) = shard.bucket_mut(cursor.bucket) {
                    entry.relocate(mover);
                    offered += 1;
                }
                cursor.bucket += 1;
                if offered == ENTRIES_PER_CLOCK_LOOK {
                    offered = 0;
                    if mover.out_of_time() {
                        return false;
                    }
                }
            }
            *cursor = Cursor { shard: cursor.shard + 1, bucket: 0 };
            if mover.out_of_time() {
                return false;
            }
        }
        *cursor = Cursor::default();
        true
    }

    /// Rebuilds the tables that are more than three quarters empty, shard by shard from `cursor`,
    /// until `out_of_time` says so. Returns whether it is through; `cursor` then starts over.
    ///
    /// Tables are the one part of the store that a mover does not see: after most keys are gone they
    /// would be its largest waste.
    pub fn shrink_tables(
        &mut self,
        cursor: &mut Cursor,
        mut out_of_time: impl FnMut() -> bool,
    ) -> bool {
        while let Some(shard) = self.shards.get_mut(cursor.shard) {
            let before = shard.table_bytes();
            let rebuilt = shard.shrink_if_sparse();
            self.table_bytes -= bytes::usable_bytes(before) as u64;
            self.table_bytes += bytes::usable_bytes(shard.table_bytes()) as u64;
            cursor.shard += 1;
            if rebuilt && out_of_time() {
                return false;
            }
        }
        // A rebuild moves entries to other buckets, so the expiry sweep begins its shard again.
        self.sweep.bucket = 0;
        *cursor = Cursor::default();
        true
    }

    /// The mean time that keys with an expiry have left, in ticks; `None` if no key has one.
    #[must_use]
    pub fn mean_remaining_ticks(&self, now: Moment) -> Option<f64> {
        let remaining = self.entries().filter_map(|entry| entry.expiry.remaining_ticks(now));
        let (sum, count) =
            remaining.fold((0, 0), |(sum, count), ticks| (sum + u64::from(ticks), count + 1_u64));
        (count > 0).then(|| sum as f64 / count as f64)
    }

    /// Checks every value against its key, and the books against a recount.
    ///
    /// # Errors
    /// A sentence naming the first key that is wrong, or the figure that does not add up.
    pub fn verify(&self) -> Result<u64, String> {
        let (mut keys, mut requested, mut data) = (0, 0, 0);
        for (index, shard) in self.shards.iter().enumerate() {
            for entry in shard.iter() {
                let hash = bytes::hash(&entry.key);
                let key = String::from_utf8_lossy(&entry.key);
                if hash as u32 != entry.tag || shard_of(&self.shards, hash) != index {
                    return Err(format!("key \"{key}\" is in the wrong place (shard {index})"));
                }
                if !bytes::is_value_of(hash, &entry.value) {
                    let len = entry.value.len();
                    return Err(format!("the {len} bytes under key \"{key}\" are damaged"));
                }
                keys += 1;
                requested += (entry.key.len() + entry.value.len()) as u64;
                data += data_bytes_of(entry);
            }
        }
        let tables: u64 =
            self.shards.iter().map(|shard| bytes::usable_bytes(shard.table_bytes()) as u64).sum();
        for (name, counted, found) in [
            ("keys", self.keys, keys),
            ("requested bytes", self.requested_bytes, requested),
            ("data bytes", self.data_bytes, data),
            ("table bytes", self.table_bytes, tables),
        ] {
            if counted != found {
                return Err(format!("the store counts {counted} {name} but holds {found}"));
            }
        }
        Ok(keys)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(Shard::iter)
    }

    /// The entry of `key`; one that is due is removed and not found.
    fn find_live(&mut self, key: &[u8], now: Moment) -> Option<&mut Entry> {
        let hash = bytes::hash(key);
        let shard = shard_of(&self.shards, hash);
        if self.shards[shard].find_mut(hash as u32, key)?.expiry.is_due(now) {
            let entry = self.shards[shard].remove(hash as u32, key)?;
            self.account_removal(&entry);
            self.expired_keys += 1;
            return None;
        }
        self.shards[shard].find_mut(hash as u32, key)
    }

    fn insert(&mut self, shard: usize, entry: Entry) {
        self.keys += 1;
        self.requested_bytes += (entry.key.len() + entry.value.len()) as u64;
        self.data_bytes += data_bytes_of(&entry);
        let shard = &mut self.shards[shard];
        let before = shard.table_bytes();
        shard.insert_new(entry);
        if shard.table_bytes() != before {
            self.table_bytes -= bytes::usable_bytes(before) as u64;
            self.table_bytes += bytes::usable_bytes(shard.table_bytes()) as u64;
        }
    }

    fn remove_at(&mut self, at: Cursor) -> bool {
        let Some(entry) = self.shards[at.shard].remove_bucket(at.bucket) else { return false };
        self.account_removal(&entry);
        true
    }

    fn account_removal(&mut self, entry: &Entry) {
        self.keys -= 1;
        self.requested_bytes -= (entry.key.len() + entry.value.len()) as u64;
        self.data_bytes -= data_bytes_of(entry);
    }

    fn account_resize(&mut self, old_len: usize, new_len: usize) {
        self.requested_bytes -= old_len as u64;
        self.requested_bytes += new_len as u64;
        self.data_bytes -= bytes::usable_bytes(old_len) as u64;
        self.data_bytes += bytes::usable_bytes(new_len) as u64;
    }

    /// A full bucket near the place that `draw` names, wrapping round; `None` on an empty store.
    fn pick(&self, draw: u64) -> Option<Cursor> {
        if self.keys == 0 {
            return None;
        }
        let start = shard_of(&self.shards, draw);
        for shard in (start..self.shards.len()).chain(0..start) {
            let buckets = self.shards[shard].buckets();
            if self.shards[shard].is_empty() {
                continue;
            }
            let first = draw as u32 as usize % buckets;
            let full = |bucket: &usize| self.shards[shard].bucket(*bucket).is_some();
            if let Some(bucket) = (first..buckets).chain(0..first).find(full) {
                return Some(Cursor { shard, bucket });
            }
        }
        None
    }
}

fn shard_of(shards: &[Shard], hash: u64) -> usize {
    (((hash >> 32) * shards.len() as u64) >> 32) as usize
}

fn data_bytes_of(entry: &Entry) -> u64 {
    (bytes::usable_bytes(entry.key.len()) + bytes::usable_bytes(entry.value.len())) as u64
}

fn change_value(
    entry: &mut Entry,
    hash: u64,
    change: impl FnOnce(u64, Box<[u8]>) -> Box<[u8]>,
) -> (usize, usize) {
    let old_len = entry.value.len();
    entry.value = change(hash, std::mem::take(&mut entry.value));
    (old_len, entry.value.len())
}

#[cfg(test)]
mod tests;
