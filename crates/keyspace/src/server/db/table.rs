//! A hash table that grows a little with each insertion: shards, split one at a time.
//!
//! ```text
//!   hash: | 7 bits: tag in the shard | 32 bits: place | 25 bits: bucket in the shard |
//!                                       |
//!   the low bits of the place name the shard; how many of them, the number of shards says:
//!
//!   shards:  0    1    2    3  |  4    5            6 shards: 2 bits for shards 2 and 3,
//!            ^ split already  ^ |                    3 bits for 0, 1 and the new 4, 5
//! ```
//! A table that doubles in one go makes its users wait and takes three times its memory meanwhile;
//! Redis keeps two tables and moves buckets over with each access. Here (linear hashing, Litwin
//! 1980) one shard of some hundred entries is split in two when the mean is passed, and two are
//! merged when there are few: no operation takes longer than that.
//!
//! A scan goes through the entries in the order of their *reversed* places. Splitting a shard cuts
//! its range of reversed places in two and merging joins them, so the order stays, and an entry that
//! is there from the beginning of a scan to its end is met exactly once.

use allocator_api2::vec::Vec;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use std::hash::{BuildHasher, RandomState};
use tallow::{In, Purpose};

/// What a table holds: things that know their key.
pub(crate) trait Keyed {
    /// The key.
    fn key(&self) -> &[u8];
}

/// The mean size of shards above which one is split. A shard of 512 buckets takes 448.
const SPLIT_ABOVE: usize = 320;
/// The mean below which two are merged.
const MERGE_BELOW: usize = 80;
/// Where the place begins in a hash.
const PLACE_SHIFT: u32 = 25;

type Shard<T, P> = HashTable<T, In<P>>;

/// A table in the account `P`.
#[derive(Debug)]
pub(crate) struct Table<T, P: Purpose> {
    shards: Vec<Shard<T, P>, In<P>>,
    len: usize,
    hasher: RandomState,
}

/// Where the next step of a walk begins: a shard and a bucket in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// The shard.
    pub(crate) shard: usize,
    /// The bucket.
    pub(crate) bucket: usize,
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
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self { shards: Vec::new_in(In::NEW), len: 0, hasher }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The hash of a key.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Bytes of the table itself.
    pub(crate) fn table_bytes(&self) -> usize {
        self.own_blocks().sum()
    }

    /// Bytes of each block that the table itself consists of.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = usize> {
        let list = self.shards.capacity() * size_of::<Shard<T, P>>();
        std::iter::once(list).chain(self.shards.iter().map(HashTable::allocation_size))
    }

    /// Blocks that the table itself consists of.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    #[inline]
    fn shard(&self, hash: u64) -> Option<usize> {
        (!self.shards.is_empty()).then(|| shard_of(place_of(hash), self.shards.len()))
    }

    /// The entry of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let hash = self.hash(key);
        self.shards[self.shard(hash)?].find(hash, |it| it.key() == key)
    }

    /// The entry of a key, to be changed (not its key).
    #[inline]
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        let hash = self.hash(key);
        let shard = self.shard(hash)?;
        self.shards[shard].find_mut(hash, |it| it.key() == key)
    }

    /// The entry of a key, unless `is_gone` says that it must be removed first: then that one.
    #[inline]
    pub(crate) fn get_or_remove(
        &mut self,
        key: &[u8],
        is_gone: impl Fn(&T) -> bool,
    ) -> Option<Result<&mut T, T>> {
        let hash = self.hash(key);
        let shard = self.shard(hash)?;
        let slot = self.shards[shard].find_entry(hash, |it| it.key() == key).ok()?;
        if is_gone(slot.get()) {
            self.len -= 1;
            return Some(Err(slot.remove().0));
        }
        Some(Ok(slot.into_mut()))
    }

    /// The entries whose keys have this hash: one, unless two collide.
    pub(crate) fn find_by_hash(&self, hash: u64) -> impl Iterator<Item = &T> {
        let shard = self.shard(hash).map(|shard| &self.shards[shard]);
        shard
            .into_iter()
            .flat_map(move |it| it.iter_hash(hash))
            .filter(move |it| self.hash(it.key()) == hash)
    }

    /// Puts an entry in, in place of the one with its key, which is returned.
    #[inline]
    pub(crate) fn insert(&mut self, it: T) -> Option<T> {
        let hash = self.hash(it.key());
        if self.len >= self.shards.len() * SPLIT_ABOVE {
            self.split();
        }
        let shard = shard_of(place_of(hash), self.shards.len());
        let hasher = &self.hasher;
        let slot = self.shards[shard].entry(
            hash,
            |other| other.key() == it.key(),
            |other| hasher.hash_one(other.key()),
        );
        match slot {
            Slot::Occupied(mut slot) => Some(std::mem::replace(slot.get_mut(), it)),
            Slot::Vacant(slot) => {
                slot.insert(it);
                self.len += 1;
                None
            }
        }
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<T> {
        let hash = self.hash(key);
        let shard = self.shard(hash)?;
        let slot = self.shards[shard].find_entry(hash, |it| it.key() == key).ok()?;
        let (it, _) = slot.remove();
        self.len -= 1;
        self.shrink(shard);
        Some(it)
    }

    /// Splits the next shard in two.
    #[cold]
    fn split(&mut self) {
        let count = self.shards.len();
        let mut new = HashTable::new_in(In::NEW);
        if count > 0 {
            // The shard that the new one's places belonged to.
            let old = shard_of(count as u32, count);
            let hasher = &self.hasher;
            let moved = self.shards[old]
                .extract_if(|it| shard_of(place_of(hasher.hash_one(it.key())), count + 1) == count);
            for it in moved {
                let hash = hasher.hash_one(it.key());
                new.insert_unique(hash, it, |other| hasher.hash_one(other.key()));
            }
            // It may have grown for what is now elsewhere.
            self.shards[old].shrink_to_fit(|it| hasher.hash_one(it.key()));
        }
        self.shards.push(new);
    }

    /// After a removal: merges two shards, or makes this one smaller, if there is little in them.
    fn shrink(&mut self, shard: usize) {
        let hasher = &self.hasher;
        if self.shards.len() > 1 && self.len < self.shards.len() * MERGE_BELOW {
            if let Some(mut last) = self.shards.pop() {
                let into = shard_of(self.shards.len() as u32, self.shards.len());
                for it in last.drain() {
                    let hash = hasher.hash_one(it.key());
                    self.shards[into].insert_unique(hash, it, |it| hasher.hash_one(it.key()));
                }
            }
        } else if self.len == 0 {
            self.shards = Vec::new_in(In::NEW);
        } else if let shard = &mut self.shards[shard]
            && shard.capacity() > 64
            && shard.len() * 8 < shard.capacity()
        {
            shard.shrink_to(shard.len() * 2, |it| hasher.hash_one(it.key()));
        }
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(HashTable::iter)
    }

    /// A random entry: `draw` gives random numbers. Uniform but for how full the shards are.
    pub(crate) fn random(&self, mut draw: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        loop {
            let shard = &self.shards[(draw() % self.shards.len() as u64) as usize];
            if shard.is_empty() {
                continue;
            }
            // At least an eighth of the buckets are full, but for small shards.
            for _ in 0..64 {
                let bucket = (draw() % shard.num_buckets() as u64) as usize;
                if let Some(it) = shard.get_bucket(bucket) {
                    return Some(it);
                }
            }
            return shard.iter().next();
        }
    }

    /// Goes on with a scan: calls `meet` with at least `count` entries, if there are as many left,
    /// and returns the next cursor. 0 begins, and says that the end was reached.
    pub(crate) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut meet: impl FnMut(&'a T),
    ) -> u64 {
        let mut from = cursor;
        let mut met = 0;
        while met < count && from <= u64::from(u32::MAX) && !self.shards.is_empty() {
            let shard = shard_of((from as u32).reverse_bits(), self.shards.len());
            let mut found: std::vec::Vec<(u32, &T)> = self.shards[shard]
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

    /// Goes on with a walk over all entries in memory order: calls `visit` until it returns
    /// `false`. Returns whether the walk came to its end. Entries that move meanwhile (a shard is
    /// split) may be missed.
    pub(crate) fn walk(&mut self, at: &mut Walk, mut visit: impl FnMut(&mut T) -> bool) -> bool {
        while let Some(shard) = self.shards.get_mut(at.shard) {
            while at.bucket < shard.num_buckets() {
                let it = shard.get_bucket_mut(at.bucket);
                at.bucket += 1;
                if it.is_some_and(|it| !visit(it)) {
                    return false;
                }
            }
            *at = Walk { shard: at.shard + 1, bucket: 0 };
        }
        *at = Walk::default();
        true
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
        let mut table = Table::<String, Test>::new(RandomState::new());
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
            let mut table = Table::<String, Test>::new(RandomState::new());
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
}
