//! A hash table that grows a little with each insertion: shards, split one at a time.
//!
//! ```text
//!   hash: | 7 bits: tag in the shard | 32 bits: place | 25 bits: slot in the shard |
//!                                       |
//!   the low bits of the place name the shard; how many of them, the number of shards says:
//!
//!   shards:  0    1    2    3  |  4    5            6 shards: 2 bits for shards 2 and 3,
//!            ^ split already  ^ |                    3 bits for 0, 1 and the new 4, 5
//! ```
//! A table that doubles in one go makes its users wait and takes three times its memory meanwhile;
//! Redis keeps two tables and moves buckets over with each access. Here (linear hashing, Litwin
//! 1980) one [`Shard`] of some hundred entries is split in two when the mean is passed, and two are
//! merged when there are few: no operation takes longer than that.
//!
//! | module | what it is |
//! |---|---|
//! | [`shard`] | entries, and an index that finds them |
//! | [`index`] | the index, of slots as wide as the number of entries asks for |
//!
//! A scan goes through the entries in the order of their *reversed* places. Splitting a shard cuts
//! its range of reversed places in two and merging joins them, so the order stays, and an entry that
//! is there from the beginning of a scan to its end is met exactly once.
//!
//! # Crowded shards
//! Hashes are spread, but what is left of the keys need not be: a scan shows everybody its order.
//! Keys that are deleted in this order leave the last ranges, and it is these that merging joins.
//! And whoever adds only keys that a scan has met early has them all in one shard. Therefore
//! - two shards are merged only if one that is about to be split may have as many entries as both,
//!   or if there were too many shards otherwise (T2); else the next removal looks again. After a
//!   million keys are deleted in the order of a scan, that leaves some thousand in the last shard, with
//!   `n` keys the root of `8 n`.
//! - a shard takes any number of entries. To get `n` into one somebody must have looked through
//!   `n` times the number of shards, `n * n / 192` keys.
//!
//! A lookup in a crowded shard takes no more steps than elsewhere. What does take longer are a
//! scan's steps there, its split and its merge: they look at each of its entries. And where most
//! shards are empty, [`Table::random`] draws often, and a step of a scan may end before it has met
//! as much as it should.
//!
//! # Invariants
//! 1. T1: an entry is in the shard that its place names, and the index of the shard leads to it.
//! 2. T2: there is one shard, or at most one for eight entries.

#[cfg(test)]
mod crowded;
mod index;
mod shard;

use super::secret::Secret;
use super::still::Still;
use allocator_api2::vec::Vec;
use index::Found;
use shard::Shard;
use tallow::defrag::{Mover, Relocate};
use tallow::{In, Purpose};

/// What a table holds: things that know their key.
pub(crate) trait Keyed {
    /// The key.
    fn key(&self) -> &[u8];
}

/// The mean size of shards above which one is split. While the shards are gone through, those not
/// yet split hold up to twice as many.
const SPLIT_ABOVE: usize = 192;
/// The mean below which two are merged,
const MERGE_BELOW: usize = 64;
/// if they have no more entries than this together,
const MERGED_ENTRIES: usize = 2 * SPLIT_ABOVE;
/// or if the mean is below this (T2).
const MERGE_ANYWAY_BELOW: usize = 8;
/// So many empty shards end a step of a scan or of moving: passing them takes some microseconds.
const EMPTY_A_STEP: usize = 1024;
/// Where the place begins in a hash.
const PLACE_SHIFT: u32 = 25;

/// A table in the account `P`.
#[derive(Debug)]
pub(crate) struct Table<T, P: Purpose> {
    shards: Vec<Still<Shard<T, P>>, In<P>>,
    len: usize,
    hasher: Secret,
}

/// Where the next step of a walk begins. Shards are met in the order of their ranges of reversed
/// places, as in a scan, so that splitting and merging them takes nothing out of the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Where the range of the shard begins that is being visited.
    from: u64,
    /// The shard and its shape, once the visit has begun: if they change, it begins anew.
    begun: Option<(usize, u32)>,
    /// Entries from this place on have been visited.
    left: usize,
}

fn place_of(hash: u64) -> u32 {
    (hash >> PLACE_SHIFT) as u32
}

/// The shard of `count` that a place belongs to.
#[inline]
fn shard_of(place: u32, count: usize) -> usize {
    let place = place as usize;
    let wide = count.next_power_of_two() - 1;
    let shard = place & wide;
    if shard < count { shard } else { shard & (wide >> 1) }
}

impl<T: Keyed, P: Purpose> Table<T, P> {
    /// An empty table without memory. `hasher` decides the order; a secret one keeps others from
    /// choosing keys that collide.
    pub(crate) fn new(hasher: Secret) -> Self {
        Self { shards: Vec::new_in(In::NEW), len: 0, hasher }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The hash of a key.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// What makes hashes of keys.
    pub(super) fn hasher(&self) -> Secret {
        self.hasher
    }

    /// Bytes of the table itself.
    pub(crate) fn table_bytes(&self) -> usize {
        self.own_blocks().sum()
    }

    /// Bytes of each block that the table itself consists of.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = usize> {
        let list = self.shards.capacity() * size_of::<Shard<T, P>>();
        std::iter::once(list).chain(self.shards.iter().flat_map(|it| it.0.own_blocks()))
    }

    /// Shards, of two blocks each.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    #[inline]
    fn shard(&self, hash: u64) -> Option<usize> {
        (!self.shards.is_empty()).then(|| shard_of(place_of(hash), self.shards.len()))
    }

    /// The shard that an entry with this hash for which `is_it` holds is in, and where.
    #[inline]
    fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<(usize, Found)> {
        let shard = self.shard(hash)?;
        Some((shard, self.shards[shard].0.find(hash, is_it)?))
    }

    /// The entry of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let (shard, found) = self.find(self.hash(key), |it| it.key() == key)?;
        self.shards[shard].0.get(found.place)
    }

    /// The entry of a key with this hash, to be changed (not its key).
    #[inline]
    pub(crate) fn get_hashed_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        let (shard, found) = self.find(hash, |it| it.key() == key)?;
        self.shards[shard].0.get_mut(found.place)
    }

    /// The entry of a key with this hash, to be changed (not its key), unless `is_gone` says that it
    /// must be removed first: then that one.
    #[inline]
    pub(crate) fn get_or_remove(
        &mut self,
        hash: u64,
        key: &[u8],
        is_gone: impl Fn(&T) -> bool,
    ) -> Option<Result<&mut T, T>> {
        let (shard, found) = self.find(hash, |it| it.key() == key)?;
        if self.shards[shard].0.get(found.place).is_some_and(is_gone) {
            return Some(Err(self.remove_found(shard, found)));
        }
        self.shards[shard].0.get_mut(found.place).map(Ok)
    }

    /// The entries whose keys have this hash: one, unless two collide.
    pub(crate) fn get_by_hash(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let (shard, found) = self.find(hash, |it| is_it(it) && self.hash(it.key()) == hash)?;
        self.shards[shard].0.get(found.place)
    }

    /// The first entry whose key has this hash, to be changed (not its key).
    pub(crate) fn get_by_hash_mut(&mut self, hash: u64) -> Option<&mut T> {
        let (shard, found) = self.find(hash, |it| self.hash(it.key()) == hash)?;
        self.shards[shard].0.get_mut(found.place)
    }

    /// Takes an entry out whose key has this hash, and for which `is_it` holds.
    pub(crate) fn remove_by_hash(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let (shard, found) = self.find(hash, |it| is_it(it) && self.hash(it.key()) == hash)?;
        Some(self.remove_found(shard, found))
    }

    /// Puts an entry in, in place of the one with its key, which is returned.
    #[inline]
    pub(crate) fn insert(&mut self, it: T) -> Option<T> {
        self.insert_hashed(self.hash(it.key()), it)
    }

    /// The same if the hash of the key is known.
    #[inline]
    pub(crate) fn insert_hashed(&mut self, hash: u64, it: T) -> Option<T> {
        if self.len >= self.shards.len() * SPLIT_ABOVE {
            self.split();
        }
        let index = shard_of(place_of(hash), self.shards.len());
        let shard = &mut self.shards[index].0;
        if let Some(found) = shard.find(hash, |other| other.key() == it.key())
            && let Some(old) = shard.get_mut(found.place)
        {
            return Some(std::mem::replace(old, it));
        }
        let hasher = self.hasher;
        shard.add(hash, it, |it| hasher.hash(it.key()));
        self.len += 1;
        None
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let (shard, found) = self.find(self.hash(key), |it| it.key() == key)?;
        Some(self.remove_found(shard, found))
    }

    fn remove_found(&mut self, shard: usize, found: Found) -> T {
        let hasher = self.hasher;
        let it = self.shards[shard].0.remove(found, |it| hasher.hash(it.key()));
        self.len -= 1;
        self.shrink(shard);
        it
    }

    /// Splits the next shard in two.
    #[cold]
    fn split(&mut self) {
        let count = self.shards.len();
        let new = if count == 0 {
            Shard::new()
        } else {
            // The shard that the new one's places belonged to.
            let old = shard_of(count as u32, count);
            let hasher = self.hasher;
            let goes = |hash| shard_of(place_of(hash), count + 1) == count;
            self.shards[old].0.split(|it| hasher.hash(it.key()), goes)
        };
        if count == self.shards.capacity() {
            self.shards.reserve_exact((count / 8).max(1));
        }
        self.shards.push(Still(new));
    }

    /// After a removal from a shard: makes it smaller if there is little in it, and merges two if
    /// there is little in all.
    fn shrink(&mut self, shard: usize) {
        if self.len == 0 {
            self.shards = Vec::new_in(In::NEW);
            return;
        }
        let hasher = self.hasher;
        self.shards[shard].0.shrink(|it| hasher.hash(it.key()));
        let count = self.shards.len();
        if count > 1 && self.len < count * MERGE_BELOW && self.may_merge() {
            self.merge();
        }
    }

    /// Whether the last shard fits into the one that its places would belong to, or must.
    fn may_merge(&self) -> bool {
        let last = self.shards.len() - 1;
        let sum = self.shards[last].0.len() + self.shards[shard_of(last as u32, last)].0.len();
        sum <= MERGED_ENTRIES || self.len < self.shards.len() * MERGE_ANYWAY_BELOW
    }

    /// Merges the last shard into the one that its places will belong to.
    #[cold]
    fn merge(&mut self) {
        let hasher = self.hasher;
        if let Some(Still(last)) = self.shards.pop() {
            let into = shard_of(self.shards.len() as u32, self.shards.len());
            last.merge_into(&mut self.shards[into].0, |it| hasher.hash(it.key()));
        }
        if self.shards.len() * 2 < self.shards.capacity() {
            self.shards.shrink_to(self.shards.len() * 5 / 4);
        }
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|it| it.0.iter())
    }

    /// A random entry: `draw` gives random numbers. Each is drawn as likely as any other: a place in
    /// a shard beyond its last entry is a miss.
    pub(crate) fn random(&self, mut draw: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        // Hardly any shard has more than twice the mean; the entries of one that has are drawn less
        // often.
        let places = 2 * self.len.div_ceil(self.shards.len()) as u64;
        loop {
            let shard = &self.shards[(draw() % self.shards.len() as u64) as usize].0;
            let place = draw() % places.max(shard.len() as u64);
            if let Some(it) = shard.get(place as usize) {
                return Some(it);
            }
        }
    }

    /// Goes on with a scan: calls `meet` with at least `count` entries, if there are as many left
    /// and no thousand empty shards between them, and returns the next cursor. 0 begins, and
    /// says that the end was reached.
    pub(crate) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut meet: impl FnMut(&'a T),
    ) -> u64 {
        let mut from = cursor;
        let (mut met, mut empty) = (0, 0);
        while met < count
            && empty < EMPTY_A_STEP
            && from <= u64::from(u32::MAX)
            && !self.shards.is_empty()
        {
            let shard = shard_of((from as u32).reverse_bits(), self.shards.len());
            empty += usize::from(self.shards[shard].0.len() == 0);
            let mut found: std::vec::Vec<(u32, &T)> = self.shards[shard]
                .0
                .iter()
                .map(|it| (place_of(self.hash(it.key())).reverse_bits(), it))
                .filter(|(order, _)| u64::from(*order) >= from)
                .collect();
            found.sort_unstable_by_key(|(order, _)| *order);
            let mut end = self.range_end(shard);
            for (i, (order, it)) in found.iter().enumerate() {
                // Those of one place are met together: the cursor cannot tell them apart.
                if met >= count && (i == 0 || found[i - 1].0 != *order) {
                    end = u64::from(*order);
                    break;
                }
                meet(it);
                met += 1;
            }
            from = end;
        }
        if from > u64::from(u32::MAX) || self.shards.is_empty() { 0 } else { from }
    }

    /// The end of a shard's range of reversed places.
    fn range_end(&self, shard: usize) -> u64 {
        let count = self.shards.len();
        let wide = count.next_power_of_two();
        // Whether the shard goes by all bits, or by one less: it was not split yet.
        let narrow = wide > 1 && shard < wide / 2 && shard + wide / 2 >= count;
        let bits = if narrow { (wide / 2).trailing_zeros() } else { wide.trailing_zeros() };
        u64::from((shard as u32).reverse_bits()) + (1 << (32 - bits))
    }

    /// Goes on with a walk over all entries: calls `enter` with each shard before its entries are
    /// visited, and `visit` with these until it returns `false`. Returns whether the walk came to
    /// its end. What is there from the beginning of the walk to its end is visited, whatever is
    /// added and removed meanwhile; some of it twice.
    pub(crate) fn walk(&mut self, at: &mut Walk, mut visit: impl FnMut(&mut T) -> bool) -> bool {
        self.walk_shards(at, usize::MAX, |_| {}, &mut visit)
    }

    /// The same, and moves the memory of the table itself. Ends also after a thousand empty shards.
    pub(crate) fn relocate(
        &mut self,
        at: &mut Walk,
        mover: &mut Mover<'_>,
        mut visit: impl FnMut(&mut T, &mut Mover<'_>) -> bool,
    ) -> bool {
        if *at == Walk::default() {
            self.shards.relocate(mover);
        }
        let mover = std::cell::RefCell::new(mover);
        let enter = |shard: &mut Shard<T, P>| shard.relocate_shell(&mut mover.borrow_mut());
        self.walk_shards(at, EMPTY_A_STEP, enter, &mut |it| visit(it, &mut mover.borrow_mut()))
    }

    fn walk_shards(
        &mut self,
        at: &mut Walk,
        most_empty: usize,
        enter: impl Fn(&mut Shard<T, P>),
        visit: &mut impl FnMut(&mut T) -> bool,
    ) -> bool {
        let mut empty = 0;
        while at.from <= u64::from(u32::MAX) && !self.shards.is_empty() {
            if empty == most_empty {
                return false;
            }
            let index = shard_of((at.from as u32).reverse_bits(), self.shards.len());
            let until = self.range_end(index);
            let shard = &mut self.shards[index].0;
            empty += usize::from(shard.len() == 0);
            let begun = Some((index, shard.shape()));
            if at.begun != begun {
                (at.begun, at.left) = (begun, shard.len());
                enter(shard);
            }
            // Removed entries are replaced by the last one, which has been visited before.
            at.left = at.left.min(shard.len());
            while at.left > 0 {
                at.left -= 1;
                if shard.get_mut(at.left).is_some_and(|it| !visit(it)) {
                    return false;
                }
            }
            *at = Walk { from: until, begun: None, left: 0 };
        }
        *at = Walk::default();
        true
    }
}

#[cfg(test)]
impl<T: Keyed, P: Purpose> Table<T, P> {
    /// Panics unless T1 and T2 hold and everything is counted.
    fn check(&self) {
        let count = self.shards.len();
        assert!(count <= 1 || count * MERGE_ANYWAY_BELOW <= self.len, "{count} for {}", self.len);
        for (index, Still(shard)) in self.shards.iter().enumerate() {
            shard.check(|it| self.hash(it.key()));
            let is_here = |it: &T| shard_of(place_of(self.hash(it.key())), count) == index;
            assert!(shard.iter().all(is_here), "in {index} of {count}");
        }
        assert_eq!(self.iter().count(), self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    tallow::account!(Test = "table test");

    impl Keyed for std::string::String {
        fn key(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    #[test]
    fn as_a_set_would() {
        let mut table = Table::<String, Test>::new(Secret::new());
        for i in 0..20_000 {
            assert!(table.insert(i.to_string()).is_none());
        }
        assert!(table.insert("77".to_owned()).is_some());
        assert_eq!((table.len(), table.iter().count()), (20_000, 20_000));
        assert!((0..20_000).all(|i| table.get(i.to_string().as_bytes()).is_some()));
        for i in 0..20_000 {
            assert_eq!(table.remove(i.to_string().as_bytes()), Some(i.to_string()));
        }
        assert_eq!((table.len(), table.table_bytes()), (0, 0));
    }

    #[test]
    fn a_scan_meets_all_once_whatever_the_table_does_meanwhile() {
        for grows in [true, false] {
            let mut table = Table::<String, Test>::new(Secret::new());
            for i in 0..10_000 {
                table.insert(format!("stay{i}"));
                table.insert(format!("go{i}"));
            }
            let (mut met, mut cursor, mut step) = (HashSet::new(), 0, 0);
            loop {
                cursor = table.scan(cursor, 10, |it| {
                    assert!(!it.starts_with("stay") || met.insert(it.clone()), "{it} twice");
                });
                for i in step * 10..step * 10 + 10 {
                    if grows {
                        table.insert(format!("new{i}"));
                    } else {
                        table.remove(format!("go{i}").as_bytes());
                    }
                }
                step += 1;
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(met.len(), 10_000);
        }
    }

    #[test]
    fn a_walk_meets_all_whatever_the_table_does_meanwhile() {
        for grows in [true, false] {
            let mut table = Table::<String, Test>::new(Secret::new());
            for i in 0..10_000 {
                table.insert(format!("stay{i}"));
                table.insert(format!("go{i}"));
            }
            let (mut met, mut at, mut step) = (HashSet::new(), Walk::default(), 0);
            loop {
                let mut count = 0;
                let done = table.walk(&mut at, |it| {
                    met.insert(it.clone());
                    count += 1;
                    count < 50
                });
                for i in step * 50..step * 50 + 50 {
                    if grows {
                        table.insert(format!("new{i}"));
                    } else {
                        table.remove(format!("go{}", i * 7919 % 10_000).as_bytes());
                    }
                }
                step += 1;
                if done {
                    break;
                }
            }
            assert_eq!(met.iter().filter(|it| it.starts_with("stay")).count(), 10_000);
        }
    }

    #[test]
    fn little_memory_at_every_size() {
        let mut table = Table::<String, Test>::new(Secret::new());
        let (mut sum, mut count) = (0.0, 0);
        for i in 0..100_000 {
            table.insert(i.to_string());
            if i % 1000 == 999 && i > 10_000 {
                // Entries of these are 24 bytes.
                let bytes = table.table_bytes() as f64 / table.len() as f64 - 24.0;
                assert!(bytes < 12.0, "{bytes} at {i}");
                (sum, count) = (sum + bytes, count + 1);
            }
        }
        assert!(sum / f64::from(count) < 8.0, "{}", sum / f64::from(count));
        for i in 0..90_000 {
            table.remove(i.to_string().as_bytes());
        }
        assert!(table.table_bytes() < 10_000 * 56, "{}", table.table_bytes());
    }
}
