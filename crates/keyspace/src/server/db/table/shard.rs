//! A shard of a table: entries one after the other, and an index that finds them.
//!
//! ```text
//!   entries:  | entry | entry | entry | ... | room for an eighth more |
//!   index:    | tag 6, place 10 |  0  | tag 6, place 10 | ...     two bytes a slot, 3/8 to 3/4 full
//! ```
//! A hash table whose buckets are the entries themselves doubles, and is half empty after that: 17
//! to 40 bytes for an entry of 16. Here only the index has a power of two of slots, at two bytes
//! each, and the entries are packed: about 21 bytes for an entry of 16. The lengths are chosen to be
//! size classes of the allocator.
//!
//! Since both are plain vectors, defragmentation moves them as blocks, without hashing a key. And
//! since an entry that is removed is replaced by the last one, a walk from the last entry to the
//! first meets all of them, whatever is removed and added meanwhile.

use super::super::still::Still;
use allocator_api2::vec::Vec;
use tallow::defrag::{Mover, Relocate};
use tallow::{In, Purpose};

/// A slot of the index that was never used.
const EMPTY: u16 = 0;
/// A slot whose entry is gone: a search goes on behind it.
const GONE: u16 = 1 << LG_PLACES;
const LG_PLACES: u32 = 10;
/// The bits of a slot that are the entry's place plus one; none of them in slots without an entry.
const PLACE: u16 = (1 << LG_PLACES) - 1;
/// The most entries. Shards are split long before: with hashes that nobody can foresee, more than
/// twice the mean are as good as impossible.
const MAX_ENTRIES: usize = PLACE as usize;
const MIN_SLOTS: usize = 8;

/// Some entries and their index.
#[derive(Debug)]
pub(super) struct Shard<T, P: Purpose> {
    entries: Vec<Still<T>, In<P>>,
    index: Vec<u16, In<P>>,
    /// Slots that are [`GONE`].
    gone: u32,
    /// Changes with every split and merge.
    shape: u32,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    slot: usize,
    /// Its place among the entries.
    pub(super) place: usize,
}

/// The check in a slot: bits that name neither the shard nor the slot.
fn tag_of(hash: u64) -> u16 {
    (hash >> 58) as u16
}

fn slot_of(tag: u16, place: usize) -> u16 {
    tag << LG_PLACES | (place as u16 + 1)
}

/// Slots for `count` entries, and some more to come.
fn slots_for(count: usize) -> usize {
    ((count + count / 8 + 1) * 4 / 3 + 1).next_power_of_two().max(MIN_SLOTS)
}

/// Room for at least `count` entries: a size of the allocator's, four to each doubling.
fn room_for(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 8).max(2))
}

impl<T, P: Purpose> Shard<T, P> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new_in(In::NEW), index: Vec::new_in(In::NEW), gone: 0, shape: 0 }
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
        [self.entries.capacity() * size_of::<T>(), self.index.capacity() * size_of::<u16>()]
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
        let mask = self.index.len().checked_sub(1)?;
        let tag = tag_of(hash);
        let mut slot = hash as usize & mask;
        loop {
            let it = self.index[slot];
            if it == EMPTY {
                return None;
            }
            if it >> LG_PLACES == tag && it & PLACE != 0 {
                let place = usize::from(it & PLACE) - 1;
                if is_it(&self.entries[place].0) {
                    return Some(Found { slot, place });
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Adds an entry that is not there. `hash_of` is asked when the index is made anew.
    pub(super) fn add(&mut self, hash: u64, it: T, hash_of: impl Fn(&T) -> u64) {
        let count = self.entries.len();
        assert!(count < MAX_ENTRIES, "hashes of keys are not spread");
        if count == self.entries.capacity() {
            self.entries.reserve_exact(room_for(count + 1 + count / 16) - count);
        }
        self.entries.push(Still(it));
        if (count + 1 + self.gone as usize) * 4 > self.index.len() * 3 {
            self.sort_anew(slots_for(count + 1), hash_of);
        } else {
            put(&mut self.index, hash, count);
        }
    }

    /// Takes an entry out; the last one takes its place.
    pub(super) fn remove(&mut self, found: Found, hash_of: impl Fn(&T) -> u64) -> T {
        let mask = self.index.len() - 1;
        // Nobody has searched beyond, if nothing is there.
        let is_last = self.index[(found.slot + 1) & mask] == EMPTY;
        self.index[found.slot] = if is_last { EMPTY } else { GONE };
        self.gone += u32::from(!is_last);
        let it = self.entries.swap_remove(found.place).0;
        let last = self.entries.len();
        if found.place < last {
            let hash = hash_of(&self.entries[found.place].0);
            let old = slot_of(tag_of(hash), last);
            let mut slot = hash as usize & mask;
            // It is there: the entry was found from there until now.
            while self.index[slot] != old {
                slot = (slot + 1) & mask;
            }
            self.index[slot] = slot_of(tag_of(hash), found.place);
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
        self.sort_anew(slots_for(count), hash_of);
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

    /// Makes the index anew, with so many slots.
    fn sort_anew(&mut self, slots: usize, hash_of: impl Fn(&T) -> u64) {
        if slots != self.index.len() {
            self.index = Vec::new_in(In::NEW);
            self.index.reserve_exact(slots);
        }
        self.index.clear();
        self.index.resize(slots, EMPTY);
        self.gone = 0;
        for (place, it) in self.entries.iter().enumerate() {
            put(&mut self.index, hash_of(&it.0), place);
        }
    }

    /// Moves the memory of both vectors, not what belongs to the entries.
    pub(super) fn relocate_shell(&mut self, mover: &mut Mover<'_>) {
        self.entries.relocate(mover);
        self.index.relocate(mover);
    }
}

/// Enters a place into the first free slot for its hash.
fn put(index: &mut [u16], hash: u64, place: usize) {
    let mask = index.len() - 1;
    let mut slot = hash as usize & mask;
    while index[slot] != EMPTY {
        slot = (slot + 1) & mask;
    }
    index[slot] = slot_of(tag_of(hash), place);
}
