//! The data: databases of entries, and what is known about them.
//!
//! | module | what it is |
//! |---|---|
//! | [`entry`] | a key with its value in one block, its expiry and access time |
//! | [`value`], [`hash`], [`list`] | the kinds of values |
//! | [`table`] | the hash table that grows in small steps |
//! | [`expiry`] | which keys expire when |
//! | [`evict`], [`lfu`] | which key to give up when memory is short, and how often one is used |
//! | [`lazyfree`] | freeing big values on another thread |
//! | [`walk`] | visiting everything in slices, for defragmentation |
//!
//! # Invariants
//! 1. D1: `with_expiry` is the number of entries that have an expiry, and each of them has an item
//!    in the index (W1).
//! 2. D2: no hash or list in a table is empty: who takes the last element out removes the key.
//! 3. D3: what has expired is not seen: every lookup removes it first.

pub(crate) mod entry;
pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod hash;
pub(crate) mod lazyfree;
pub(crate) mod lfu;
pub(crate) mod list;
pub(crate) mod table;
pub(crate) mod value;
pub(crate) mod walk;

pub(crate) use entry::{Entry, UnixMs};
pub(crate) use value::{Value, ValueRef};

use super::accounts::Tables;
use expiry::ExpiryIndex;
use lfu::Lfu;
use std::hash::RandomState;
use table::{Keyed, Table};

impl Keyed for Entry {
    #[inline]
    fn key(&self) -> &[u8] {
        Self::key(self)
    }
}

/// The time, read once for each turn of the event loop.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Unix time.
    pub(crate) now_ms: UnixMs,
    /// 24 bits of seconds, which a lookup writes into the entry,
    pub(crate) access: u32,
    /// unless entries have counters.
    pub(crate) lfu: Option<Lfu>,
}

/// A database.
#[derive(Debug)]
pub(crate) struct Db {
    table: Table<Entry, Tables>,
    expiry: ExpiryIndex,
    with_expiry: usize,
    /// Keys removed because their time had come.
    pub(crate) expired_keys: u64,
    /// The last of the numbers that counters of use are raised by.
    drawn: u64,
}

impl Db {
    /// An empty database without memory.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(RandomState::new()),
            expiry: ExpiryIndex::new(),
            with_expiry: 0,
            expired_keys: 0,
            drawn: 0,
        }
    }

    /// Keys, those too that have expired and were not met since.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Keys that expire.
    pub(crate) fn with_expiry(&self) -> usize {
        self.with_expiry
    }

    /// The table, to be read.
    pub(crate) fn table(&self) -> &Table<Entry, Tables> {
        &self.table
    }

    /// The table, for walks that change no key and no expiry.
    pub(crate) fn table_mut(&mut self) -> &mut Table<Entry, Tables> {
        &mut self.table
    }

    /// The expiry index, to be read.
    pub(crate) fn expiry(&self) -> &ExpiryIndex {
        &self.expiry
    }

    /// The entry of a key, noted as used.
    #[inline]
    pub(crate) fn lookup(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        let Some(lfu) = clock.lfu else {
            let entry = self.peek(key, clock)?;
            entry.set_access(clock.access);
            return Some(entry);
        };
        let draw = self.draw();
        let entry = self.peek(key, clock)?;
        entry.set_access(lfu.used(entry.access(), draw));
        Some(entry)
    }

    /// The entry of a key.
    #[inline]
    pub(crate) fn peek(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        match self.table.get_or_remove(key, |entry| entry.is_due(clock.now_ms))? {
            Ok(entry) => Some(entry),
            Err(_) => {
                self.with_expiry -= 1;
                self.expiry.remove();
                self.expired_keys += 1;
                None
            }
        }
    }

    /// Puts an entry in, in place of the one with its key, which is returned.
    #[inline]
    pub(crate) fn insert(&mut self, mut entry: Entry, clock: Clock) -> Option<Entry> {
        entry.set_access(clock.lfu.map_or(clock.access, Lfu::fresh));
        let at = entry.expires_at();
        let hash = at.map(|_| self.table.hash(entry.key()));
        let old = self.table.insert(entry);
        let before = old.as_ref().and_then(Entry::expires_at);
        if before.is_some() || at.is_some() {
            self.index(hash.unwrap_or(0), before, at, clock);
        }
        old
    }

    /// A number that is random enough for counters (a linear congruential generator).
    fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.drawn >> 32
    }

    /// A random key that expires: `draw` gives random numbers.
    pub(crate) fn random_expiring(&self, mut draw: impl FnMut() -> u64) -> Option<&Entry> {
        /// Items that lead to nothing are not many for long.
        const TRIES: usize = 32;
        if self.with_expiry == 0 {
            return None;
        }
        let expires = |entry: &&Entry| entry.expires_at().is_some();
        (0..TRIES)
            .find_map(|_| self.table.find_by_hash(self.expiry.draw(draw())?).find(expires))
            .or_else(|| self.table.iter().find(expires))
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.table.remove(key)?;
        if entry.expires_at().is_some() {
            self.with_expiry -= 1;
            self.expiry.remove();
        }
        Some(entry)
    }

    /// Sets when a key that is there expires, or that it does not. Returns whether it is there.
    pub(crate) fn set_expiry(&mut self, key: &[u8], at: Option<UnixMs>, clock: Clock) -> bool {
        let hash = self.table.hash(key);
        let Some(entry) = self.peek(key, clock) else { return false };
        let before = entry.expires_at();
        entry.set_expires_at(at);
        self.index(hash, before, at, clock);
        true
    }

    /// Drops everything, and returns it, to be freed elsewhere.
    pub(crate) fn take_all(&mut self) -> Self {
        let expired_keys = self.expired_keys;
        let taken = std::mem::replace(self, Self::new());
        self.expired_keys = expired_keys;
        taken
    }

    /// Removes what has expired: looks at no more than `budget` keys. Returns how many were removed
    /// and whether nothing more is due.
    pub(crate) fn expire(
        &mut self,
        now: UnixMs,
        budget: usize,
        mut removed: impl FnMut(Entry),
    ) -> (usize, bool) {
        let mut due = Vec::new();
        let table = &self.table;
        let time_of = |hash| table.find_by_hash(hash).filter_map(Entry::expires_at).min();
        let done = self.expiry.due(now, budget, time_of, &mut due);
        let mut count = 0;
        for hash in due {
            let keys: Vec<Vec<u8>> = self
                .table
                .find_by_hash(hash)
                .filter(|entry| entry.is_due(now))
                .map(|entry| entry.key().to_vec())
                .collect();
            for key in keys {
                if let Some(entry) = self.table.remove(&key) {
                    self.with_expiry -= 1;
                    count += 1;
                    removed(entry);
                }
            }
        }
        self.expired_keys += count as u64;
        self.sort_anew(now);
        (count, done)
    }

    /// Keeps D1 when an entry's expiry changes.
    fn index(&mut self, hash: u64, before: Option<UnixMs>, at: Option<UnixMs>, clock: Clock) {
        match (before, at) {
            (None, Some(at)) => {
                self.with_expiry += 1;
                self.expiry.insert(hash, at, clock.now_ms);
            }
            // Its item comes up too early, and is put right then.
            (Some(before), Some(at)) if at >= before => {}
            (Some(_), Some(at)) => {
                self.expiry.remove();
                self.expiry.insert(hash, at, clock.now_ms);
            }
            (Some(_), None) => {
                self.with_expiry -= 1;
                self.expiry.remove();
            }
            (None, None) => {}
        }
    }

    /// Builds the index anew if most of it leads to nothing.
    fn sort_anew(&mut self, now: UnixMs) {
        if self.expiry.stale() > 4096 && self.expiry.items() > 2 * self.with_expiry + 4096 {
            self.expiry.clear();
            for entry in self.table.iter() {
                if let Some(at) = entry.expires_at() {
                    self.expiry.insert(self.table.hash(entry.key()), at, now);
                }
            }
        }
    }
}
