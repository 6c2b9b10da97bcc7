//! Which keys expire when: a hierarchical timing wheel.
//!
//! ```text
//!   level 0:  64 slots of 16 ms      (1 s)
//!   level 1:  64 slots of 1 s        (65 s)
//!   level 2:  64 slots of 65 s       (70 min)  ... level 5: 34 years
//! ```
//! Redis goes round the keys that expire, twenty at a time, and repeats while many of them have
//! expired, so that up to a tenth of the keys with a TTL may be dead and hold memory. A wheel
//! (Varghese and Lauck, 1987) knows which ones are due, at a cost per key that does not depend on
//! how many there are.
//!
//! # Chosen by measuring
//! `cargo bench -p keyspace --bench expiry -- --keys 500000 --rounds 3` runs three ways on the same
//! keys ([`trial`](super::trial)): three quarters of them live for a second to two minutes, come as
//! fast as they expire, and the loop turns 100 times a second; then four fifths expire at once.
//!
//! | | dead keys, mean and most | ns to expire | ns to set | index bytes a key | burst is over after | longest slice |
//! |---|---|---|---|---|---|---|
//! | this wheel | 0.01 %, 0.02 % | 980 | 490 | 8.3 | 0.5 s | 0.6 ms |
//! | sampling, as Redis | 16 %, 17 % | 1490 | 400 | 14.1 | never: it stops at a tenth | 25 ms |
//! | ordered buckets of 16 ms | 0.01 %, 0.02 % | 660 | 610 | 30.0 | 0.3 s | 0.6 ms |
//!
//! (The least of three rounds with nothing beside them. A busier loop lets sampling work more often
//! and leaves fewer dead.) The wheel looks at a key once more for each level that it comes down,
//! where buckets look once; but buckets of keys that live for days hold one item each, and that
//! memory is the reason against them.
//!
//! # How it is kept
//! An item is the hash of a key and nothing else (8 bytes): the time is in the entry. So a key
//! whose time moves *back* needs no new item, the old one is put where it belongs when its slot
//! comes up; and what was deleted leaves its item there until then. When there are more of those
//! than of others the owner makes the index anew, beside the old one and in slices ([`Db`](super::Db)).
//!
//! A slot is a list of chunks, so that no addition copies more than a chunk, and what has come up is
//! dealt with and given back chunk by chunk. Each chunk knows how many items are before it (W3), so
//! that a random one is found by bisection: eviction draws from slots of millions.
//!
//! The wheel turns from one slot with items to the next: 64 bits for each level say which those are.
//! So a clock that jumps ahead, by a month in which the machine was suspended, costs as many turns
//! as there are full slots, 384 at most, and not one for each of 160 million ticks. A clock that is
//! set back leaves the wheel [ahead](ExpiryIndex::is_ahead) of it; then the owner makes the index
//! anew, too.
//!
//! Invariants
//! - W1: a key that expires has an item in a slot that is not later than its time, as long as the
//!   clock is not set back.
//! - W2: a slot's bit in `full` is set exactly when it has items.
//! - W3: a chunk's `before` is the number of items in the chunks of its slot before it, and no chunk
//!   is empty.

use super::entry::UnixMs;
use super::still::Still;
use crate::server::accounts::Expiry;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use tallow::In;
use tallow::defrag::{Mover, Relocate};

const LG_TICK_MS: u32 = 4;
const LG_SLOTS: u32 = 6;
const SLOTS: usize = 1 << LG_SLOTS;
const LEVELS: usize = 6;
/// The wheel may be so far ahead of a clock that is put right now and then: a second.
const AHEAD_TICKS: u64 = 1000 >> LG_TICK_MS;
/// Items of the smallest and the largest chunk: 32 bytes and 4 KiB.
const CHUNK_ITEMS: (usize, usize) = (4, 512);

/// Items that come up together.
#[derive(Debug)]
struct Slot {
    chunks: Vec<Chunk, In<Expiry>>,
    count: usize,
}

/// Some of them.
#[derive(Debug)]
struct Chunk {
    /// Items of the slot in the chunks before this one (W3).
    before: usize,
    items: Vec<u64, In<Expiry>>,
}

impl Slot {
    const fn new() -> Self {
        Self { chunks: Vec::new_in(In::NEW), count: 0 }
    }

    fn push(&mut self, hash: u64) {
        if self.chunks.last().is_none_or(|last| last.items.len() == last.items.capacity()) {
            // A quarter more: little room is left over, and there are not many chunks.
            let items = (self.count / 4).clamp(CHUNK_ITEMS.0, CHUNK_ITEMS.1);
            let items = Vec::with_capacity_in(items, In::NEW);
            self.chunks.push(Chunk { before: self.count, items });
        }
        if let Some(last) = self.chunks.last_mut() {
            last.items.push(hash);
        }
        self.count += 1;
    }

    /// The item at a place.
    fn at(&self, place: usize) -> Option<u64> {
        let chunk = self.chunks.partition_point(|chunk| chunk.before <= place).checked_sub(1)?;
        let chunk = &self.chunks[chunk];
        chunk.items.get(place - chunk.before).copied()
    }

    /// All items.
    fn iter(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().flat_map(|chunk| chunk.items.iter().copied())
    }

    /// Adds all items of another one.
    fn append(&mut self, mut other: Self) {
        if self.chunks.is_empty() {
            *self = other;
            return;
        }
        other.chunks.iter_mut().for_each(|chunk| chunk.before += self.count);
        self.chunks.append(&mut other.chunks);
        self.count += other.count;
    }

    fn pop(&mut self) -> Option<u64> {
        let last = self.chunks.last_mut()?;
        let hash = last.items.pop();
        if last.items.is_empty() {
            self.chunks.pop();
        }
        self.count -= 1;
        hash
    }
}

impl Relocate for Slot {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.chunks.relocate(mover);
    }
}

impl Relocate for Chunk {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.items.relocate(mover);
    }
}

/// The index of one database.
#[derive(Debug)]
pub(crate) struct ExpiryIndex {
    /// `LEVELS * SLOTS` of them, once there is an item.
    slots: Option<Box<[Still<Slot>], In<Expiry>>>,
    /// Which slots of each level have items (W2).
    full: [u64; LEVELS],
    /// The next tick that is due.
    tick: u64,
    items: usize,
    /// Items taken out of a slot that came up, still to be dealt with.
    pending: Slot,
}

impl ExpiryIndex {
    /// An empty index without memory.
    pub(crate) const fn new() -> Self {
        Self { slots: None, full: [0; LEVELS], tick: 0, items: 0, pending: Slot::new() }
    }

    /// An empty index whose time begins at `now`, to be filled in the place of another.
    pub(super) fn from(now: UnixMs) -> Self {
        Self { tick: tick_of(now), ..Self::new() }
    }

    /// Whether the clock was set back by more than a trifle: what expires by the clock would wait
    /// until it is where it was before.
    pub(super) fn is_ahead(&self, now: UnixMs) -> bool {
        self.items > 0 && self.tick > tick_of(now) + AHEAD_TICKS
    }

    /// Items, those too that lead to nothing.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Some of the items that should have been dealt with by `now`: those in the slots that have come
    /// up, or would have if the wheel were not behind the clock. At regular distances, about `wanted`
    /// of them; and how many there are in all.
    pub(super) fn overdue(&self, now: UnixMs, wanted: usize) -> (usize, impl Iterator<Item = u64>) {
        let until = tick_of(now);
        let is_overdue = move |(level, slot): &(usize, usize)| self.next_up(*level, *slot) <= until;
        let places = (0..LEVELS).flat_map(|level| (0..SLOTS).map(move |slot| (level, slot)));
        let slots = self.slots.as_deref().filter(|_| self.tick <= until).unwrap_or_default();
        let slots = places.zip(slots).filter(move |(place, _)| is_overdue(place));
        let slots = std::iter::once(&self.pending).chain(slots.map(|(_, slot)| &slot.0));
        let count = slots.clone().map(|slot| slot.count).sum::<usize>();
        let (step, mut skip) = (count.div_ceil(wanted.max(1)).max(1), 0);
        let some = slots.flat_map(|slot| &slot.chunks).flat_map(move |chunk| {
            let first = skip;
            // Where the next one lies, counted from the end of this chunk.
            let taken = chunk.items.len().saturating_sub(first).div_ceil(step);
            skip = first + taken * step - chunk.items.len();
            chunk.items.iter().skip(first).step_by(step).copied()
        });
        (count, some)
    }

    /// A random item's hash, from a random number. Costs some hundred additions and a bisection,
    /// however many items there are.
    pub(crate) fn draw(&self, number: u64) -> Option<u64> {
        let mut at = number.checked_rem(self.items as u64)? as usize;
        for slot in self.slots() {
            if at < slot.count {
                return slot.at(at);
            }
            at -= slot.count;
        }
        None
    }

    /// All items, those too that lead to nothing: hardly more than twice the keys that expire, and
    /// some thousands.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.slots().flat_map(Slot::iter)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.iter().flat_map(|slots| slots.iter().map(|slot| &slot.0));
        std::iter::once(&self.pending).chain(slots)
    }

    /// Enters a key that expires at `at`.
    pub(crate) fn insert(&mut self, hash: u64, at: UnixMs, now: UnixMs) {
        if self.items == 0 {
            // Nothing was waited for: time starts here.
            self.tick = tick_of(now);
        }
        self.put(hash, at);
    }

    /// Takes an item out whose slot has come up at `now`. If its key is there and expires later,
    /// the item must be [`put`](Self::put) back.
    pub(crate) fn next(&mut self, now: UnixMs) -> Option<u64> {
        let until = tick_of(now);
        loop {
            if let Some(hash) = self.pending.pop() {
                self.items -= 1;
                return Some(hash);
            }
            if self.items == 0 {
                *self = Self::new();
                return None;
            }
            match self.next_full() {
                Some(tick) if tick <= until => self.turn(tick),
                _ => {
                    self.tick = self.tick.max(until.saturating_add(1));
                    return None;
                }
            }
        }
    }

    /// The tick with which a slot comes up next.
    fn next_up(&self, level: usize, slot: usize) -> u64 {
        let shift = LG_SLOTS * level as u32;
        // A level's slot comes up when all below it begin anew; this one is the first that can.
        let first = self.tick.div_ceil(1 << shift);
        (first + (slot as u64).wrapping_sub(first) % SLOTS as u64) << shift
    }

    /// The tick with which a slot that has items comes up next.
    fn next_full(&self) -> Option<u64> {
        let next = |level: usize| {
            let first = self.tick.div_ceil(1 << (LG_SLOTS * level as u32));
            let from_first = self.full[level].rotate_right((first % SLOTS as u64) as u32);
            let slot = (first + u64::from(from_first.trailing_zeros())) as usize % SLOTS;
            (from_first != 0).then(|| self.next_up(level, slot))
        };
        (0..LEVELS).filter_map(next).min()
    }

    /// Takes any item out, to give the memory back in slices.
    pub(super) fn take_any(&mut self) -> Option<u64> {
        if self.pending.count == 0 {
            let level = self.full.iter().position(|slots| *slots != 0)?;
            let slot = self.full[level].trailing_zeros() as usize;
            self.pending = self.take(level, slot);
        }
        self.items -= 1;
        self.pending.pop()
    }

    /// Moves the memory of the slots from `at` on, for as long as there is time. Returns whether
    /// that was all.
    pub(super) fn relocate(&mut self, at: &mut usize, mover: &mut Mover<'_>) -> bool {
        if *at == 0 {
            self.pending.relocate(mover);
            self.slots.relocate(mover);
        }
        let slots = self.slots.as_deref_mut().unwrap_or_default();
        for slot in slots.iter_mut().skip(*at) {
            slot.0.relocate(mover);
            *at += 1;
            if mover.out_of_time() {
                return false;
            }
        }
        true
    }

    /// Takes a slot's items out.
    fn take(&mut self, level: usize, slot: usize) -> Slot {
        self.full[level] &= !(1 << slot);
        let slots = self.slots.as_deref_mut().unwrap_or_default();
        let slot = slots.get_mut(level * SLOTS + slot);
        slot.map_or(Slot::new(), |slot| std::mem::replace(&mut slot.0, Slot::new()))
    }

    /// Takes the slots that come up with a tick; none of those before it has items.
    fn turn(&mut self, tick: u64) {
        for level in 0..LEVELS {
            let shift = LG_SLOTS * level as u32;
            if tick & ((1 << shift) - 1) != 0 {
                break;
            }
            let taken = self.take(level, (tick >> shift) as usize % SLOTS);
            self.pending.append(taken);
        }
        self.tick = tick + 1;
    }

    /// Puts an item where it belongs.
    pub(super) fn put(&mut self, hash: u64, at: UnixMs) {
        self.items += 1;
        let slots = self.slots.get_or_insert_with(|| {
            let mut slots = Vec::with_capacity_in(LEVELS * SLOTS, In::NEW);
            slots.resize_with(LEVELS * SLOTS, || Still(Slot::new()));
            slots.into_boxed_slice()
        });
        // The tick after the time, so that it is past when the slot comes up.
        let tick = (tick_of(at) + 1).max(self.tick);
        // The highest digit in which it differs from now says the level; beyond the last level it
        // waits there and is looked at again.
        let apart = (tick ^ self.tick) | 1;
        let level = (apart.ilog2() / LG_SLOTS) as usize;
        let (level, slot) = if level < LEVELS {
            (level, (tick >> (LG_SLOTS * level as u32)) as usize % SLOTS)
        } else {
            let slot = (self.tick >> (LG_SLOTS * (LEVELS as u32 - 1))) as usize;
            (LEVELS - 1, (slot + SLOTS - 1) % SLOTS)
        };
        slots[level * SLOTS + slot].0.push(hash);
        self.full[level] |= 1 << slot;
    }
}

fn tick_of(at: UnixMs) -> u64 {
    at.max(0) as u64 >> LG_TICK_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_can_be_drawn() {
        let mut index = ExpiryIndex::new();
        for i in 0..1000 {
            index.insert(i, 1_000_000 + i as UnixMs * 997, 1_000_000);
        }
        let drawn: std::collections::HashSet<_> = (0..1000).map(|i| index.draw(i)).collect();
        assert_eq!(drawn.len(), 1000);
        assert_eq!(ExpiryIndex::new().draw(7), None);
    }

    /// Whether W3 holds, and each item is drawn by one number.
    fn check_draws(index: &ExpiryIndex) {
        for slot in index.slots() {
            let mut before = 0;
            for chunk in &slot.chunks {
                assert!(chunk.before == before && !chunk.items.is_empty());
                before += chunk.items.len();
            }
            assert_eq!((slot.count, slot.at(before)), (before, None));
        }
        let drawn = (0..index.items() as u64).map(|i| index.draw(i));
        assert!(drawn.eq(index.iter().map(Some)));
    }

    #[test]
    fn items_of_a_slot_are_found_by_their_places() {
        let mut slot = Slot::new();
        for (round, count) in [5, 3000, 1, 0, 700].into_iter().enumerate() {
            let mut other = Slot::new();
            (0..count).for_each(|i| other.push(i << 8 | round as u64));
            slot.append(other);
            (0..count / 2).for_each(|_| assert!(slot.pop().is_some()));
            slot.push(round as u64);
            let found = (0..=slot.count).map_while(|place| slot.at(place));
            assert!(found.eq(slot.iter()) && slot.iter().count() == slot.count);
        }
    }

    #[test]
    fn each_is_drawn_as_likely_as_any_other_whatever_came_and_went() {
        const COUNT: u64 = 30_000;
        let start = 1_700_000_000_123;
        let mut index = ExpiryIndex::new();
        // Half of them at one time, the others within two hours.
        let at =
            |i: u64| start + 1000 + if i.is_multiple_of(2) { 5_000_000 } else { i as i64 * 200 };
        (0..COUNT).for_each(|i| index.insert(i, at(i), start));
        check_draws(&index);
        let (mut now, mut gone) = (start, 0);
        while index.items() > 0 {
            now += 50_000;
            for _ in 0..2000 {
                match index.next(now) {
                    Some(i) if at(i) > now => index.put(i, at(i)),
                    Some(_) => gone += 1,
                    None => break,
                }
            }
            if index.items().is_multiple_of(5) {
                gone += u64::from(index.take_any().is_some());
            }
            check_draws(&index);
        }
        assert_eq!(gone, COUNT);
    }

    #[test]
    fn each_is_due_once_and_in_time() {
        let start = 1_700_000_000_123;
        let times: std::vec::Vec<UnixMs> =
            (0..20_000).map(|i: i64| start + 1 + i * i * 7 % 40_000_000).collect();
        let mut index = ExpiryIndex::new();
        for (i, at) in times.iter().enumerate() {
            index.insert(i as u64, *at, start);
        }
        let (mut gone, mut now) = (0, start);
        while gone < times.len() {
            let step = 1 + now % 100_000;
            now += step;
            while let Some(hash) = index.next(now) {
                let at = times[hash as usize];
                if at > now {
                    index.put(hash, at);
                    continue;
                }
                assert!(at + 32 > now - step, "{at} at {now} after {step}");
                gone += 1;
            }
        }
        assert_eq!(index.items(), 0);
    }

    /// Tick by tick the last of these jumps would not end before the sun does.
    #[test]
    fn a_clock_that_jumps_ahead_costs_no_turn_for_each_tick() {
        const DAY_MS: UnixMs = 86_400_000;
        let start = 1_700_000_000_123;
        let mut index = ExpiryIndex::new();
        let times = [start + 1000, start + 20 * DAY_MS, start + 40 * DAY_MS, UnixMs::MAX];
        (0..4).for_each(|i| index.insert(i, times[i as usize], start));
        let mut looks = 0;
        for (now, gone) in [(start, 0), (start + 30 * DAY_MS, 2), (UnixMs::MAX / 1000, 1)] {
            let mut due = 0;
            while let Some(hash) = index.next(now) {
                looks += 1;
                match times[hash as usize] {
                    at if at <= now => due += 1,
                    at => index.put(hash, at),
                }
            }
            assert_eq!(due, gone, "at {now}");
        }
        assert_eq!(index.items(), 1);
        // The one that is left is looked at every 34 years.
        assert!(looks < 10_000_000, "{looks}");
    }

    #[test]
    fn what_is_overdue_is_met_at_regular_distances() {
        let start = 1_700_000_000_000;
        let mut index = ExpiryIndex::new();
        (0..3000).for_each(|i| index.insert(i, start + i as UnixMs, start));
        for (now, least) in [(start - 1000, 0), (start + 1500, 1400), (start + 5000, 3000)] {
            let (count, some) = index.overdue(now, 100);
            let some: std::collections::HashSet<u64> = some.collect();
            assert!(count >= least, "{count} at {now}");
            assert!(count == 0 || (80..=100).contains(&some.len()), "{} of {count}", some.len());
        }
    }
}
