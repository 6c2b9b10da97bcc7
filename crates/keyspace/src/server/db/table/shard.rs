//! A shard of a table: entries one after the other, and an index that finds them.
//!
//! ```text
//!   entries:  | entry | entry | entry | ... | room for an eighth more |
//!   index:    | tag, place |  0  | tag, place | ...       two bytes a slot, 3/8 to 3/4 full
//! ```
//! A hash table whose buckets are the entries themselves doubles, and is half empty after that: 17
//! to 40 bytes for an entry of 16. Here only the [index](super::index) has a power of two of slots,
//! at two bytes each, and the entries are packed: about 21 bytes for an entry of 16. The lengths are
//! chosen to be size classes of the allocator. A shard takes any number of entries; from 1024 on a
//! slot takes four bytes.
//!
//! Since both are plain vectors, defragmentation moves them as blocks, without hashing a key. And
//! since an entry that is removed is replaced by the last one, a walk from the last entry to the
//! first meets all of them, whatever is removed and added meanwhile.

use super::super::still::Still;
use super::index::{Found, Index};
use allocator_api2::vec::Vec;
use tallow::defrag::{Mover, Relocate};
use tallow::{In, Purpose};

/// Some entries and their index.
#[derive(Debug)]
pub(super) struct Shard<T, P: Purpose> {
    entries: Vec<Still<T>, In<P>>,
    index: Index<P>,
    /// Changes with every split and merge.
    shape: u32,
}

/// Room for at least `count` entries: a size of the allocator's, four to each doubling.
fn room_for(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 8).max(2))
}

impl<T, P: Purpose> Shard<T, P> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new_in(In::NEW), index: Index::new(), shape: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number that changes when a split or a merge puts other entries here.
    pub(super) fn shape(&self) -> u32 {
        self.shape
    }

    /// Bytes of both vectors.
    pub(super) fn own_blocks(&self) -> [usize; 2] {
        [self.entries.capacity() * size_of::<T>(), self.index.own_bytes()]
    }

    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.entries.get(place).map(|it| &it.0)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.entries.get_mut(place).map(|it| &mut it.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|it| &it.0)
    }

    /// The entry with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<Found> {
        self.index.find(hash, |place| is_it(&self.entries[place].0))
    }

    /// Adds an entry that is not there. `hash_of` is asked when the index is made anew.
    pub(super) fn add(&mut self, hash: u64, it: T, hash_of: impl Fn(&T) -> u64) {
        let count = self.entries.len();
        if count == self.entries.capacity() {
            self.entries.reserve_exact(room_for(count + 1 + count / 16) - count);
        }
        self.entries.push(Still(it));
        if !self.index.add(hash, count) {
            self.index.make_anew(self.entries.iter().map(|it| hash_of(&it.0)));
        }
    }

    /// Takes an entry out; the last one takes its place.
    pub(super) fn remove(&mut self, found: Found, hash_of: impl Fn(&T) -> u64) -> T {
        self.index.remove(found);
        let it = self.entries.swap_remove(found.place).0;
        let last = self.entries.len();
        if found.place < last {
            self.index.rename(hash_of(&self.entries[found.place].0), last, found.place);
        }
        it
    }

    /// Gives back what is not needed, if that is most of it.
    pub(super) fn shrink(&mut self, hash_of: impl Fn(&T) -> u64) {
        let count = self.entries.len();
        if count == 0 {
            *self = Self { shape: self.shape, ..Self::new() };
        } else if self.entries.capacity() > 16 && count * 2 < self.entries.capacity() {
            self.fit(hash_of);
        }
    }

    /// Room for what is there and some more.
    fn fit(&mut self, hash_of: impl Fn(&T) -> u64) {
        let count = self.entries.len();
        self.entries.shrink_to(room_for(count + count / 16));
        self.index.make_anew(self.entries.iter().map(|it| hash_of(&it.0)));
    }

    /// Moves the entries for which `goes` holds, given their hash, into a new shard.
    pub(super) fn split(
        &mut self,
        hash_of: impl Fn(&T) -> u64,
        goes: impl Fn(u64) -> bool,
    ) -> Self {
        self.shape += 1;
        let mut new = Self { shape: self.shape, ..Self::new() };
        let mut hashes: std::vec::Vec<u64> = self.iter().map(&hash_of).collect();
        let going = hashes.iter().filter(|hash| goes(**hash)).count();
        new.entries.reserve_exact(room_for(going + going / 16));
        for place in (0..self.entries.len()).rev() {
            if goes(hashes[place]) {
                new.entries.push(self.entries.swap_remove(place));
                hashes.swap_remove(place);
            }
        }
        new.fit(&hash_of);
        self.fit(&hash_of);
        new
    }

    /// Moves all entries into `other`.
    pub(super) fn merge_into(self, other: &mut Self, hash_of: impl Fn(&T) -> u64) {
        other.shape = other.shape.max(self.shape) + 1;
        for it in self.entries {
            other.add(hash_of(&it.0), it.0, &hash_of);
        }
    }

    /// Moves the memory of both vectors, not what belongs to the entries.
    pub(super) fn relocate_shell(&mut self, mover: &mut Mover<'_>) {
        self.entries.relocate(mover);
        self.index.relocate(mover);
    }

    /// Whether its index is one for crowded shards.
    #[cfg(test)]
    pub(super) fn is_wide(&self) -> bool {
        self.index.is_wide()
    }

    /// Panics unless the index leads to each of the entries, and to nothing else.
    #[cfg(test)]
    pub(super) fn check(&self, hash_of: impl Fn(&T) -> u64) {
        self.index.check(self.len());
        for (place, it) in self.iter().enumerate() {
            assert!(self.index.find(hash_of(it), |found| found == place).is_some(), "{place}");
        }
    }
}
