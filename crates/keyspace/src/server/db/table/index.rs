//! The index of a shard: from the hash of a key to the place of its entry.
//!
//! ```text
//!   narrow:  | tag 6, place 10 |  0  | tag 6, place 10 | ...        a slot is two bytes
//!   wide:    | tag 4, place 28 |  0  | tag 4, place 28 | ...        a slot is four
//! ```
//! Slots are 3/8 to 3/4 full, and those that a hash leads to are searched one after the other. They
//! are two bytes each as long as that is enough for places, up to 1023 entries. That is always so
//! while keys come and go without regard to their hashes. In a shard that is more crowded they are
//! four bytes each, and searches take as many steps as before: a hash's slot and tag are bits that
//! a scan shows to nobody.
//!
//! Both are vectors of two-byte units, a wide slot being two of them, so that all that looks after
//! memory sees one shape. Which it is the length says: the shortest wide index is longer than the
//! longest narrow one.

use allocator_api2::vec::Vec;
use tallow::defrag::{Mover, Relocate};
use tallow::{In, Purpose};

/// A slot that was never used.
const EMPTY: u32 = 0;
const MIN_SLOTS: usize = 8;
/// The most slots of a narrow index. A wide one has at least as many.
const MAX_NARROW_SLOTS: usize = slots_for(Narrow::MAX_ENTRIES);

/// How slots are written.
trait Width {
    /// Units of a slot.
    const UNITS: usize;
    /// Bits for the entry's place plus one.
    const LG_PLACES: u32;

    /// The other bits: the tag, a part of the hash that is compared before keys are.
    const TAG_BITS: u32 = 16 * Self::UNITS as u32 - Self::LG_PLACES;
    /// A slot whose entry is gone: a search goes on behind it.
    const GONE: u32 = 1 << Self::LG_PLACES;
    /// The bits of the place plus one; none of them in slots without an entry.
    const PLACE: u32 = Self::GONE - 1;
    /// The most entries that have places.
    const MAX_ENTRIES: usize = Self::PLACE as usize;

    fn read(units: &[u16], slot: usize) -> u32;
    fn write(units: &mut [u16], slot: usize, it: u32);

    /// Bits that name neither the shard nor the slot.
    fn tag_of(hash: u64) -> u32 {
        (hash >> (64 - Self::TAG_BITS)) as u32
    }

    /// What stands in the slot of an entry.
    fn entry(hash: u64, place: usize) -> u32 {
        Self::tag_of(hash) << Self::LG_PLACES | (place as u32 + 1)
    }
}

/// Two bytes a slot.
enum Narrow {}

impl Width for Narrow {
    const UNITS: usize = 1;
    const LG_PLACES: u32 = 10;

    #[inline]
    fn read(units: &[u16], slot: usize) -> u32 {
        u32::from(units[slot])
    }

    fn write(units: &mut [u16], slot: usize, it: u32) {
        units[slot] = it as u16;
    }
}

/// Four bytes a slot, the lower two first.
enum Wide {}

impl Width for Wide {
    const UNITS: usize = 2;
    /// Whoever wants as many entries in one shard as have no place any more must have tried 2^48
    /// keys.
    const LG_PLACES: u32 = 28;

    fn read(units: &[u16], slot: usize) -> u32 {
        u32::from(units[2 * slot]) | u32::from(units[2 * slot + 1]) << 16
    }

    fn write(units: &mut [u16], slot: usize, it: u32) {
        units[2 * slot] = it as u16;
        units[2 * slot + 1] = (it >> 16) as u16;
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    slot: usize,
    /// Its place among the entries.
    pub(super) place: usize,
}

/// An index without memory has no slots and finds nothing.
#[derive(Debug)]
pub(super) struct Index<P: Purpose> {
    units: Vec<u16, In<P>>,
    /// Slots whose entries are gone.
    gone: u32,
}

/// Slots for `count` entries, and some more to come.
const fn slots_for(count: usize) -> usize {
    let slots = ((count + count / 8 + 1) * 4 / 3 + 1).next_power_of_two();
    if slots > MIN_SLOTS { slots } else { MIN_SLOTS }
}

/// The length of an index for `count` entries.
const fn units_for(count: usize) -> usize {
    match count {
        0 => 0,
        _ if count <= Narrow::MAX_ENTRIES => slots_for(count),
        _ => slots_for(count) * Wide::UNITS,
    }
}

// The length says which it is.
const _: () = assert!(units_for(Narrow::MAX_ENTRIES) == MAX_NARROW_SLOTS);
const _: () = assert!(units_for(Narrow::MAX_ENTRIES + 1) > MAX_NARROW_SLOTS);

impl<P: Purpose> Index<P> {
    pub(super) const fn new() -> Self {
        Self { units: Vec::new_in(In::NEW), gone: 0 }
    }

    /// Bytes of its block.
    pub(super) fn own_bytes(&self) -> usize {
        self.units.capacity() * size_of::<u16>()
    }

    /// Whether slots are four bytes.
    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.units.len() > MAX_NARROW_SLOTS
    }

    /// The entry with this hash for whose place `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<Found> {
        if self.is_wide() {
            return self.find_wide(hash, is_it);
        }
        search::<Narrow>(&self.units, hash, is_it)
    }

    #[cold]
    #[inline(never)]
    fn find_wide(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<Found> {
        search::<Wide>(&self.units, hash, is_it)
    }

    /// Enters the entry at `place`, which is how many there were before. Returns whether there was
    /// room; if not, the index is to be [made anew](Self::make_anew).
    #[must_use]
    pub(super) fn add(&mut self, hash: u64, place: usize) -> bool {
        let (slots, most) = match self.is_wide() {
            true => (self.units.len() / Wide::UNITS, Wide::MAX_ENTRIES),
            false => (self.units.len(), Narrow::MAX_ENTRIES),
        };
        let has_room = place < most && (place + 1 + self.gone as usize) * 4 <= slots * 3;
        if has_room {
            self.put(hash, place);
        }
        has_room
    }

    /// Takes the slot of an entry back.
    pub(super) fn remove(&mut self, found: Found) {
        let is_last = match self.is_wide() {
            true => free::<Wide>(&mut self.units, found.slot),
            false => free::<Narrow>(&mut self.units, found.slot),
        };
        self.gone += u32::from(!is_last);
    }

    /// Notes that the entry with this hash, which is there, has moved to another place.
    pub(super) fn rename(&mut self, hash: u64, from: usize, to: usize) {
        match self.is_wide() {
            true => replace::<Wide>(&mut self.units, hash, from, to),
            false => replace::<Narrow>(&mut self.units, hash, from, to),
        }
    }

    /// Makes it anew for the entries with these hashes, and some more to come.
    pub(super) fn make_anew(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        assert!(hashes.len() <= Wide::MAX_ENTRIES, "hashes of keys are not spread");
        let units = units_for(hashes.len());
        if units != self.units.len() {
            self.units = Vec::new_in(In::NEW);
            self.units.reserve_exact(units);
        }
        self.units.clear();
        self.units.resize(units, 0);
        self.gone = 0;
        for (place, hash) in hashes.enumerate() {
            self.put(hash, place);
        }
    }

    /// Enters a place into the first free slot for its hash.
    fn put(&mut self, hash: u64, place: usize) {
        match self.is_wide() {
            true => enter::<Wide>(&mut self.units, hash, place),
            false => enter::<Narrow>(&mut self.units, hash, place),
        }
    }

    /// Moves its memory.
    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.units.relocate(mover);
    }

    /// Panics unless it leads to as many entries, and has slots that were never used, which end a
    /// search.
    #[cfg(test)]
    pub(super) fn check(&self, count: usize) {
        fn counts<W: Width>(units: &[u16]) -> (usize, usize, usize) {
            let slots = || (0..units.len() / W::UNITS).map(|slot| W::read(units, slot));
            let entries = slots().filter(|it| it & W::PLACE != 0).count();
            (slots().count(), entries, slots().filter(|it| *it == W::GONE).count())
        }
        let (slots, entries, gone) = match self.is_wide() {
            true => counts::<Wide>(&self.units),
            false => counts::<Narrow>(&self.units),
        };
        assert_eq!((entries, gone), (count, self.gone as usize));
        assert!((entries + gone) * 4 <= slots * 3, "{entries} and {gone} gone of {slots}");
    }
}

#[inline]
fn search<W: Width>(units: &[u16], hash: u64, is_it: impl Fn(usize) -> bool) -> Option<Found> {
    let mask = (units.len() / W::UNITS).checked_sub(1)?;
    let tag = W::tag_of(hash);
    let mut slot = hash as usize & mask;
    loop {
        let it = W::read(units, slot);
        if it == EMPTY {
            return None;
        }
        if it >> W::LG_PLACES == tag && it & W::PLACE != 0 {
            let place = (it & W::PLACE) as usize - 1;
            if is_it(place) {
                return Some(Found { slot, place });
            }
        }
        slot = (slot + 1) & mask;
    }
}

fn enter<W: Width>(units: &mut [u16], hash: u64, place: usize) {
    let mask = units.len() / W::UNITS - 1;
    let mut slot = hash as usize & mask;
    while W::read(units, slot) != EMPTY {
        slot = (slot + 1) & mask;
    }
    W::write(units, slot, W::entry(hash, place));
}

/// Returns whether the slot can be used again at once.
fn free<W: Width>(units: &mut [u16], slot: usize) -> bool {
    let mask = units.len() / W::UNITS - 1;
    // Nobody has searched beyond, if nothing is there.
    let is_last = W::read(units, (slot + 1) & mask) == EMPTY;
    W::write(units, slot, if is_last { EMPTY } else { W::GONE });
    is_last
}

fn replace<W: Width>(units: &mut [u16], hash: u64, from: usize, to: usize) {
    let mask = units.len() / W::UNITS - 1;
    let old = W::entry(hash, from);
    let mut slot = hash as usize & mask;
    // It is there: the entry was found from there until now.
    while W::read(units, slot) != old {
        slot = (slot + 1) & mask;
    }
    W::write(units, slot, W::entry(hash, to));
}
