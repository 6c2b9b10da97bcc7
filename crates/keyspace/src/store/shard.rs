//! One shard: a hash table of a few hundred entries.

use crate::clock::{Expiry, Moment};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use tallow::defrag::{Mover, Relocate};

/// One key with its value: 40 bytes in the table and two allocations outside it.
#[derive(Debug)]
pub struct Entry {
    /// The key's bytes.
    pub key: Box<[u8]>,
    /// The value's bytes.
    pub value: Box<[u8]>,
    /// When it expires.
    pub expiry: Expiry,
    /// Half of the key's hash: finds the bucket again when a table is rebuilt, without touching
    /// the key (a cache miss each), and fills what would be padding.
    pub tag: u32,
}

const _: () = assert!(size_of::<Entry>() == 40);

impl Relocate for Entry {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.key.relocate(mover);
        self.value.relocate(mover);
    }
}

/// The table's hash of a tag: hashbrown takes the bucket from the low bits and a check from the top.
const fn spread(tag: u32) -> u64 {
    (tag as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A hash table of entries that never grows because of its own tombstones.
#[derive(Debug)]
pub struct Shard {
    table: HashTable<Entry>,
}

impl Shard {
    /// An empty shard; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { table: HashTable::new() }
    }

    /// Entries held, expired or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Buckets of the table, full or not: what a cursor runs over.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.table.num_buckets()
    }

    /// Bytes of the table itself.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.table.allocation_size()
    }

    /// The entry in bucket `index`, if that is full.
    #[must_use]
    pub fn bucket(&self, index: usize) -> Option<&Entry> {
        self.table.get_bucket(index)
    }

    /// The same, to change.
    pub fn bucket_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.table.get_bucket_mut(index)
    }

    /// Takes the entry out of bucket `index`, if that is full.
    pub fn remove_bucket(&mut self, index: usize) -> Option<Entry> {
        self.table.get_bucket_entry(index).ok().map(|slot| slot.remove().0)
    }

    /// The entry of `key`.
    pub fn find_mut(&mut self, tag: u32, key: &[u8]) -> Option<&mut Entry> {
        self.table.find_mut(spread(tag), |entry| entry.tag == tag && *entry.key == *key)
    }

    /// Takes out the entry of `key`.
    pub fn remove(&mut self, tag: u32, key: &[u8]) -> Option<Entry> {
        let same = |entry: &Entry| entry.tag == tag && *entry.key == *key;
        self.table.find_entry(spread(tag), same).ok().map(|slot| slot.remove().0)
    }

    /// Puts in an entry whose key is not there yet.
    pub fn insert_new(&mut self, entry: Entry) {
        if self.table.len() == self.table.capacity() {
            self.make_room();
        }
        let same = |other: &Entry| other.tag == entry.tag && other.key == entry.key;
        match self.table.entry(spread(entry.tag), same, |other| spread(other.tag)) {
            Slot::Vacant(slot) => drop(slot.insert(entry)),
            Slot::Occupied(_) => unreachable!("the caller looked for the key first"),
        }
    }

    /// Removes every entry that is due, telling `gone` of each.
    pub fn remove_due(&mut self, now: Moment, mut gone: impl FnMut(&Entry)) {
        self.table.retain(|entry| {
            let due = entry.expiry.is_due(now);
            if due {
                gone(entry);
            }
            !due
        });
    }

    /// Visits every entry.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }

    /// Rebuilds the table at a size that fits if it is more than three quarters empty. Returns
    /// whether it was.
    pub fn shrink_if_sparse(&mut self) -> bool {
        let sparse = self.table.num_buckets() > 4 * self.table.len().max(2);
        if sparse {
            self.rebuild(self.table.len() + self.table.len() / 8);
        }
        sparse
    }

    /// Called when the next insertion would find no free bucket. Left alone, hashbrown doubles a
    /// table that is full of the tombstones of deleted entries; under steady churn every table would
    /// end at twice the size it needs. Rebuilding at the same size clears them.
    #[cold]
    fn make_room(&mut self) {
        let full = self.table.num_buckets() / 8 * 7;
        let crowded = self.table.len() >= full - full / 16;
        self.rebuild(if crowded { self.table.len() + full / 2 + 1 } else { full });
    }

    fn rebuild(&mut self, capacity: usize) {
        let mut fresh = HashTable::with_capacity(capacity);
        for entry in std::mem::take(&mut self.table) {
            fresh.insert_unique(spread(entry.tag), entry, |other| spread(other.tag));
        }
        self.table = fresh;
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes;

    fn entry(number: u32) -> Entry {
        let key = format!("key{number}").into_bytes().into_boxed_slice();
        let tag = bytes::hash(&key) as u32;
        Entry { key, value: Box::from([1, 2]), expiry: Expiry::NEVER, tag }
    }

    #[test]
    fn steady_churn_does_not_grow_the_table() {
        let mut shard = Shard::new();
        for number in 0..360 {
            shard.insert_new(entry(number));
        }
        let (buckets, bytes) = (shard.buckets(), shard.table_bytes());
        assert_eq!(buckets, 512);
        for number in 360..20_000 {
            let old = entry(number - 360);
            assert!(shard.remove(old.tag, &old.key).is_some());
            shard.insert_new(entry(number));
        }
        assert_eq!((shard.len(), shard.buckets(), shard.table_bytes()), (360, buckets, bytes));
    }

    #[test]
    fn a_sparse_table_shrinks_and_keeps_its_entries() {
        let mut shard = Shard::new();
        for number in 0..400 {
            shard.insert_new(entry(number));
        }
        for number in 80..400 {
            let gone = entry(number);
            shard.remove(gone.tag, &gone.key);
        }
        assert!(shard.shrink_if_sparse());
        assert_eq!(shard.buckets(), 128);
        assert!(!shard.shrink_if_sparse());
        for number in 0..80 {
            let kept = entry(number);
            assert!(shard.find_mut(kept.tag, &kept.key).is_some());
        }
    }

    #[test]
    fn it_grows_when_it_is_really_full() {
        let mut shard = Shard::new();
        for number in 0..3000 {
            shard.insert_new(entry(number));
        }
        assert_eq!(shard.len(), 3000);
        assert_eq!(shard.buckets(), 4096);
    }
}
