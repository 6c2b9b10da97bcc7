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
//! | [`walk`], [`defrag`] | visiting everything in slices, and when: active defragmentation |
//! | [`secret`] | hashes that nobody can foresee |
//! | [`trial`] | ways to know what has expired, to be compared |
//! | [`still`] | vectors that are walked by others than their mover |
//!
//! # Invariants
//! 1. D1: `with_expiry` is the number of entries that have an expiry, and each of them has an item
//!    in the index (W1).
//! 2. D2: no hash or list in a table is empty: who takes the last element out removes the key.
//! 3. D3: what has expired is not seen: every lookup removes it first.

pub(crate) mod defrag;
pub(crate) mod entry;
pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod hash;
pub(crate) mod lazyfree;
pub(crate) mod lfu;
pub(crate) mod list;
mod secret;
mod still;
pub(crate) mod table;
pub mod trial;
pub(crate) mod value;
pub(crate) mod walk;

pub(crate) use entry::{Entry, UnixMs};
pub(crate) use value::{Value, ValueRef};

use super::accounts::Tables;
use expiry::ExpiryIndex;
use lfu::Lfu;
use secret::Secret;
use table::{Keyed, Table, Walk};
use tallow::defrag::Mover;

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
    /// unless entries have counters,
    pub(crate) lfu: Option<Lfu>,
    /// or the client does not want its lookups to be noted (CLIENT NO-TOUCH).
    pub(crate) no_touch: bool,
}

/// How often commands that read have found a key (`keyspace_hits`), of whatever kind, and how often
/// there was none (`keyspace_misses`). What looks in order to write is not counted, as in Redis.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

/// Keys looked at for expiry between two looks at the clock.
const EXPIRE_KEYS_PER_LOOK: usize = 32;
/// Items put into a new index between two looks at the clock.
const REBUILD_ITEMS: usize = 128;
/// Fewer superfluous items than these are left alone.
const SUPERFLUOUS_ITEMS: usize = 4096;

/// A database.
#[derive(Debug)]
pub(crate) struct Db {
    table: Table<Entry, Tables>,
    expiry: ExpiryIndex,
    with_expiry: usize,
    /// The index that is being made to replace the present one.
    rebuild: Option<Rebuild>,
    /// An index that was replaced, given back in slices.
    replaced: Option<ExpiryIndex>,
    /// Large values that were found expired, to be freed where the configuration says.
    pub(crate) rubbish: Vec<Entry>,
    /// Keys removed because their time had come.
    pub(crate) expired_keys: u64,
    /// Keys that reading commands found, and those that they did not.
    pub(crate) lookups: Lookups,
    /// The last of the numbers that counters of use are raised by.
    drawn: u64,
}

/// An index in the making: what comes in goes into both, and a walk enters all that was there.
#[derive(Debug)]
struct Rebuild {
    index: ExpiryIndex,
    at: Walk,
}

impl Db {
    /// An empty database without memory.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(Secret::new()),
            expiry: ExpiryIndex::new(),
            with_expiry: 0,
            rebuild: None,
            replaced: None,
            rubbish: Vec::new(),
            expired_keys: 0,
            lookups: Lookups::default(),
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

    /// Moves the memory of the expiry index from `at` on, and of the one that is being made. Returns
    /// whether that was all.
    fn relocate_expiry(&mut self, at: &mut [usize; 2], mover: &mut Mover<'_>) -> bool {
        let [present, coming] = at;
        self.expiry.relocate(present, mover)
            && self.rebuild.as_mut().is_none_or(|it| it.index.relocate(coming, mover))
    }

    /// The entry of a key for a command that reads: noted as used, and counted.
    #[inline]
    pub(crate) fn read(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        self.use_key::<true>(key, clock)
    }

    /// The same for one that tells about the key: that is no use of it.
    pub(crate) fn inspect(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        self.find::<true>(self.table.hash(key), key, clock)
    }

    /// The entry of a key for a command that writes: noted as used.
    #[inline]
    pub(crate) fn lookup(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        self.use_key::<false>(key, clock)
    }

    #[inline]
    fn use_key<const COUNTS: bool>(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        let hash = self.table.hash(key);
        let Some(lfu) = clock.lfu else {
            let entry = self.find::<COUNTS>(hash, key, clock)?;
            if !clock.no_touch {
                entry.set_access(clock.access);
            }
            return Some(entry);
        };
        if clock.no_touch {
            return self.find::<COUNTS>(hash, key, clock);
        }
        let draw = self.draw();
        let entry = self.find::<COUNTS>(hash, key, clock)?;
        entry.set_access(lfu.used(entry.access(), draw));
        Some(entry)
    }

    /// The entry of a key, and nobody takes note of it.
    #[inline]
    pub(crate) fn peek(&mut self, key: &[u8], clock: Clock) -> Option<&mut Entry> {
        self.find::<false>(self.table.hash(key), key, clock)
    }

    #[inline]
    fn find<const COUNTS: bool>(
        &mut self,
        hash: u64,
        key: &[u8],
        clock: Clock,
    ) -> Option<&mut Entry> {
        match self.table.get_or_remove(hash, key, |entry| entry.is_due(clock.now_ms)) {
            Some(Ok(entry)) => {
                self.lookups.hits += u64::from(COUNTS);
                return Some(entry);
            }
            Some(Err(entry)) => {
                self.with_expiry -= 1;
                self.expired_keys += 1;
                if lazyfree::is_large(&entry) {
                    self.rubbish.push(entry);
                }
            }
            None => {}
        }
        self.lookups.misses += u64::from(COUNTS);
        None
    }

    /// Puts an entry in, in place of the one with its key, which is returned.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry, clock: Clock) -> Option<Entry> {
        self.insert_hashed(self.table.hash(entry.key()), entry, clock)
    }

    fn insert_hashed(&mut self, hash: u64, mut entry: Entry, clock: Clock) -> Option<Entry> {
        entry.set_access(clock.lfu.map_or(clock.access, Lfu::fresh));
        let old = self.put(hash, entry, clock);
        if let (Some(lfu), Some(old)) = (clock.lfu, &old) {
            let (draw, bits) = (self.draw(), old.access());
            // The value is new; the key is as much in use as before.
            if let Some(entry) = self.table.get_by_hash_mut(hash) {
                entry.set_access(lfu.used(bits, draw));
            }
        }
        old
    }

    /// Puts in what was taken out under another key, and is as much in use as it was there; in place
    /// of what has its key, which is returned.
    pub(crate) fn insert_renamed(&mut self, entry: Entry, clock: Clock) -> Option<Entry> {
        self.put(self.table.hash(entry.key()), entry, clock)
    }

    /// Puts an entry in as it is.
    fn put(&mut self, hash: u64, entry: Entry, clock: Clock) -> Option<Entry> {
        let at = entry.expires_at();
        let old = self.table.insert_hashed(hash, entry);
        let before = old.as_ref().and_then(Entry::expires_at);
        if before.is_some() || at.is_some() {
            self.index(hash, before, at, clock);
        }
        old
    }

    /// Puts a string in, in place of the value with its key, which is returned unless the string
    /// could be written over it.
    #[inline]
    pub(crate) fn insert_string(
        &mut self,
        key: &[u8],
        value: &[u8],
        at: Option<UnixMs>,
        clock: Clock,
    ) -> Option<Entry> {
        let (hash, draw) = (self.table.hash(key), clock.lfu.map_or(0, |_| self.draw()));
        if let Some(entry) = self.table.get_hashed_mut(hash, key)
            && entry.overwrite(value)
        {
            entry.set_access(clock.lfu.map_or(clock.access, |lfu| lfu.used(entry.access(), draw)));
            let before = entry.expires_at();
            if before.is_some() || at.is_some() {
                entry.set_expires_at(at);
                self.index(hash, before, at, clock);
            }
            return None;
        }
        self.insert_hashed(hash, Entry::string(key, value, at), clock)
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
        let expires = |entry: &Entry| entry.expires_at().is_some();
        (0..TRIES)
            .find_map(|_| self.table.get_by_hash(self.expiry.draw(draw())?, expires))
            .or_else(|| self.expiry.iter().find_map(|hash| self.table.get_by_hash(hash, expires)))
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.table.remove(key)?;
        self.with_expiry -= usize::from(entry.expires_at().is_some());
        Some(entry)
    }

    /// Sets when a key that is there expires, or that it does not. Returns whether it is there.
    pub(crate) fn set_expiry(&mut self, key: &[u8], at: Option<UnixMs>, clock: Clock) -> bool {
        let hash = self.table.hash(key);
        let Some(entry) = self.find::<false>(hash, key, clock) else { return false };
        let before = entry.expires_at();
        entry.set_expires_at(at);
        self.index(hash, before, at, clock);
        true
    }

    /// Drops everything, and returns it, to be freed elsewhere.
    pub(crate) fn take_all(&mut self) -> Self {
        let (expired_keys, lookups) = (self.expired_keys, self.lookups);
        let taken = std::mem::replace(self, Self::new());
        (self.expired_keys, self.lookups) = (expired_keys, lookups);
        taken
    }

    /// Whether there may be something to do for [`expire`](Self::expire).
    pub(crate) fn has_expiry_work(&self) -> bool {
        self.expiry.items() > 0 || self.replaced.is_some()
    }

    /// Removes what has expired, until `goes_on`, which is asked after every few keys, says no.
    /// Returns whether nothing more is to be done now.
    pub(crate) fn expire(
        &mut self,
        now: UnixMs,
        mut goes_on: impl FnMut() -> bool,
        mut removed: impl FnMut(Entry),
    ) -> bool {
        let mut looked_at = 0;
        while let Some(hash) = self.expiry.next(now) {
            while let Some(entry) = self.table.remove_by_hash(hash, |entry| entry.is_due(now)) {
                self.with_expiry -= 1;
                self.expired_keys += 1;
                removed(entry);
            }
            // What is still there expires later: its time was moved, or it waited with others.
            if let Some(entry) = self.table.get_by_hash(hash, |it| it.expires_at().is_some())
                && let Some(at) = entry.expires_at()
            {
                self.expiry.put(hash, at);
            }
            looked_at += 1;
            if looked_at % EXPIRE_KEYS_PER_LOOK == 0 && !goes_on() {
                return false;
            }
        }
        self.rebuild_slice(now, &mut goes_on)
    }

    /// About how many keys have expired and are still there: of the items in the index that are
    /// overdue some are followed, since others lead to nothing, or to keys that got more time.
    pub(crate) fn dead(&self, now: UnixMs) -> usize {
        /// So many are followed.
        const SAMPLES: usize = 64;
        let (count, some) = self.expiry.overdue(now, SAMPLES);
        let (mut dead, mut looked_at) = (0, 0);
        for hash in some {
            looked_at += 1;
            dead += usize::from(self.table.get_by_hash(hash, |it| it.is_due(now)).is_some());
        }
        count * dead / looked_at.max(1)
    }

    /// Keeps D1 when an entry's expiry changes.
    fn index(&mut self, hash: u64, before: Option<UnixMs>, at: Option<UnixMs>, clock: Clock) {
        self.with_expiry += usize::from(at.is_some());
        self.with_expiry -= usize::from(before.is_some());
        match (before, at) {
            // Its item comes up too early, and is put right then.
            (Some(before), Some(at)) if at >= before => {}
            (_, Some(at)) => {
                self.expiry.insert(hash, at, clock.now_ms);
                if let Some(rebuild) = &mut self.rebuild {
                    rebuild.index.put(hash, at);
                }
            }
            (_, None) => {}
        }
    }

    /// Goes on making the index anew, if most of it leads to nothing, or the clock was set back.
    /// Returns whether nothing more is to be done for that now.
    fn rebuild_slice(&mut self, now: UnixMs, goes_on: &mut impl FnMut() -> bool) -> bool {
        while let Some(replaced) = &mut self.replaced {
            if (0..8 * REBUILD_ITEMS).all(|_| replaced.take_any().is_some()) {
                if !goes_on() {
                    return false;
                }
            } else {
                self.replaced = None;
            }
        }
        if self.rebuild.is_none() {
            let is_bloated = self.expiry.items() > 2 * self.with_expiry + SUPERFLUOUS_ITEMS;
            if !is_bloated && !self.expiry.is_ahead(now) {
                return true;
            }
            let index = ExpiryIndex::from(now);
            self.rebuild = Some(Rebuild { index, at: Walk::default() });
        }
        let hasher = self.table.hasher();
        while let Some(rebuild) = &mut self.rebuild {
            let mut count = 0;
            let done = self.table.walk(&mut rebuild.at, |entry| {
                if let Some(at) = entry.expires_at() {
                    rebuild.index.put(hasher.hash(entry.key()), at);
                }
                count += 1;
                count < REBUILD_ITEMS
            });
            if done && let Some(rebuild) = self.rebuild.take() {
                self.replaced = Some(std::mem::replace(&mut self.expiry, rebuild.index));
            }
            if !goes_on() {
                return false;
            }
        }
        self.replaced.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys come and expire at the same rate, with a turn of the loop every 10 ms that looks at
    /// some hundred keys (some ten microseconds of work): dead keys are a hundredth at most, where Redis tolerates a tenth.
    #[test]
    fn hardly_any_key_outlives_its_time() {
        const TURN_MS: UnixMs = 10;
        const LOOKS: usize = 8;
        let mut db = Db::new();
        let (mut now, mut number, mut most_dead) = (1_700_000_000_000, 0u64, 0);
        for turn in 0..3000 {
            now += TURN_MS;
            let clock = Clock { now_ms: now, ..Clock::default() };
            for _ in 0..10 {
                number += 1;
                // From half a second to ten seconds.
                let ttl = 500 + (number * 7919 % 9500) as UnixMs;
                let key = number.to_string();
                db.insert(Entry::string(key.as_bytes(), b"value", Some(now + ttl)), clock);
                // Some get more time, some lose it: both leave items that lead elsewhere.
                match number % 10 {
                    0 => drop(db.set_expiry(key.as_bytes(), Some(now + 2 * ttl), clock)),
                    1 => drop(db.set_expiry(key.as_bytes(), None, clock)),
                    2 => drop(db.remove(key.as_bytes())),
                    _ => {}
                }
            }
            let mut looks = 0;
            let goes_on = || {
                looks += 1;
                looks < LOOKS
            };
            db.expire(now, goes_on, drop);
            if turn > 1500 {
                let dead = db.table().iter().filter(|entry| entry.is_due(now)).count();
                assert!(db.dead(now) <= dead * 2 + 100, "{} of {dead}", db.dead(now));
                most_dead = most_dead.max(dead * 10_000 / db.with_expiry());
            }
        }
        assert!(db.with_expiry() > 3000, "{}", db.with_expiry());
        assert!(db.expired_keys > 15_000, "{}", db.expired_keys);
        assert!(
            most_dead <= 100,
            "{} % of the keys that expire are dead",
            most_dead as f64 / 100.0
        );
    }

    /// A database with keys that expire after `ttls_ms`, at `now`.
    fn expiring(ttls_ms: impl Iterator<Item = UnixMs>, now: UnixMs) -> Db {
        let mut db = Db::new();
        for (i, ttl) in ttls_ms.enumerate() {
            let clock = Clock { now_ms: now, ..Clock::default() };
            db.insert(Entry::string(i.to_string().as_bytes(), b"value", Some(now + ttl)), clock);
        }
        db
    }

    #[test]
    fn keys_expire_by_a_clock_that_was_set_back() {
        let (now, hour) = (1_700_000_000_000, 3_600_000);
        let mut db = expiring((0..5000).map(|i| 2000 + i), now);
        assert!(db.expire(now, || true, drop));
        let back = now - hour;
        let clock = Clock { now_ms: back, ..Clock::default() };
        for i in 0..5000 {
            let entry = Entry::string(format!("new{i}").as_bytes(), b"", Some(back + 1000));
            db.insert(entry, clock);
        }
        // The index is made anew in slices: each ends when it is told to.
        let slices = (0..10_000).take_while(|_| !db.expire(back, || false, drop)).count();
        assert!((10..10_000).contains(&slices), "{slices}");
        assert!(db.expire(back + 2000, || true, drop));
        assert_eq!((db.len(), db.with_expiry()), (5000, 5000), "the new ones have expired");
        assert!(db.expire(now + 2500, || true, drop));
        // To a tick of the wheel.
        assert!(db.len().abs_diff(4500) <= 16, "the others expire in their time: {}", db.len());
    }

    #[test]
    fn dead_keys_are_counted_also_where_the_wheel_has_not_turned() {
        let now = 1_700_000_000_000;
        // An hour in which the wheel stood still; then of half of the keys is known that they died.
        let mut db = expiring((0..20_000).map(|i| i * 360), now);
        let later = now + 3_600_000;
        for (now, dead) in [(now, 0), (later, 10_000), (later + 3_600_000, 20_000)] {
            let counted = db.dead(now + 20);
            assert!(counted.abs_diff(dead) <= 1500, "{counted} of {dead}");
        }
        // What leads to nothing is no dead key.
        (0..20_000).for_each(|i| drop(db.remove(i.to_string().as_bytes())));
        assert_eq!(db.dead(later), 0);
        // In the midst of its work.
        let mut db = expiring((0..20_000).map(|i| i % 7), now);
        assert!(!db.expire(now + 100, || false, drop));
        assert!(db.dead(now + 100).abs_diff(db.len()) <= 500, "{}", db.dead(now + 100));
    }
}
