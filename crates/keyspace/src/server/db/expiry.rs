//! Which keys expire when: a hierarchical timing wheel.
//!
//! ```text
//!   level 0:  64 slots of 16 ms      (1 s)
//!   level 1:  64 slots of 1 s        (65 s)
//!   level 2:  64 slots of 65 s       (70 min)  ... level 5: 34 years
//! ```
//! Redis draws keys at random and repeats while many of them have expired, so that up to a tenth
//! of the keys with a TTL may be dead and hold memory. A wheel (Varghese and Lauck, 1987) knows
//! which ones are due, at a cost per key that does not depend on how many there are.
//!
//! An item is the hash of a key and nothing else (8 bytes): the time is in the entry. So a key
//! whose time moves *back* needs no new item, the old one is put where it belongs when its slot
//! comes up; and what was deleted leaves its item there until then. Those are counted
//! ([`stale`](ExpiryIndex::stale)); when there are more of them than of others the owner sorts the
//! index anew.
//!
//! Invariant (W1): a key that expires has an item in a slot that is not later than its time.

use super::entry::UnixMs;
use crate::server::accounts::Expiry;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use tallow::In;

const LG_TICK_MS: u32 = 4;
const LG_SLOTS: u32 = 6;
const SLOTS: usize = 1 << LG_SLOTS;
const LEVELS: usize = 6;

type Slot = Vec<u64, In<Expiry>>;

/// The index of one database.
#[derive(Debug)]
pub(crate) struct ExpiryIndex {
    /// `LEVELS * SLOTS` of them, once there is an item.
    slots: Option<Box<[Slot], In<Expiry>>>,
    /// The next tick that is due.
    tick: u64,
    items: usize,
    /// Items taken out of a slot that came up, still to be dealt with.
    pending: Slot,
    /// How many items lead to nothing, at least.
    stale: usize,
}

impl ExpiryIndex {
    /// An empty index without memory.
    pub(crate) fn new() -> Self {
        let pending = Vec::new_in(In::NEW);
        Self { slots: None, tick: 0, items: 0, pending, stale: 0 }
    }

    /// Items, stale ones too.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// How many of them are known to lead to nothing.
    pub(crate) fn stale(&self) -> usize {
        self.stale
    }

    /// A random item's hash, from a random number. Costs some hundred additions.
    pub(crate) fn draw(&self, number: u64) -> Option<u64> {
        let mut at = number.checked_rem(self.items as u64)? as usize;
        let slots = self.slots.iter().flat_map(|slots| slots.iter());
        for slot in std::iter::once(&self.pending).chain(slots) {
            match slot.get(at) {
                Some(hash) => return Some(*hash),
                None => at -= slot.len(),
            }
        }
        None
    }

    /// Enters a key that expires at `at`.
    pub(crate) fn insert(&mut self, hash: u64, at: UnixMs, now: UnixMs) {
        if self.items == 0 {
            // Nothing was waited for: time starts here.
            self.tick = tick_of(now);
        }
        self.items += 1;
        self.put(hash, at);
    }

    /// Notes that a key which was entered is gone, or expires no more.
    pub(crate) fn remove(&mut self) {
        self.stale += 1;
    }

    /// Deals with what is due: for each item whose slot has come up, at most `budget` of them,
    /// `time_of` says when its key expires now (`None`: there is none), and those that are due are
    /// put into `due`. Returns whether there is nothing more to do at `now`.
    pub(crate) fn due(
        &mut self,
        now: UnixMs,
        mut budget: usize,
        time_of: impl Fn(u64) -> Option<UnixMs>,
        due: &mut std::vec::Vec<u64>,
    ) -> bool {
        let until = tick_of(now);
        loop {
            while let Some(hash) = self.pending.pop() {
                match time_of(hash) {
                    Some(at) if at <= now => {
                        self.items -= 1;
                        due.push(hash);
                    }
                    Some(at) => self.put(hash, at),
                    None => {
                        self.items -= 1;
                        self.stale = self.stale.saturating_sub(1);
                    }
                }
                budget -= 1;
                if budget == 0 {
                    return false;
                }
            }
            if self.items == 0 {
                self.clear();
                return true;
            }
            if self.tick > until {
                return true;
            }
            self.turn();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes the slots that come up with the next tick.
    fn turn(&mut self) {
        let Some(slots) = &mut self.slots else { return };
        for level in 0..LEVELS {
            let shift = LG_SLOTS * level as u32;
            // A level's slot comes up when all below it begin anew.
            if self.tick & ((1 << shift) - 1) != 0 {
                break;
            }
            let slot = (self.tick >> shift) as usize % SLOTS;
            let mut taken =
                std::mem::replace(&mut slots[level * SLOTS + slot], Vec::new_in(In::NEW));
            if self.pending.is_empty() {
                self.pending = taken;
            } else {
                self.pending.append(&mut taken);
            }
        }
        self.tick += 1;
    }

    fn put(&mut self, hash: u64, at: UnixMs) {
        let slots = self.slots.get_or_insert_with(|| {
            let mut slots = Vec::with_capacity_in(LEVELS * SLOTS, In::NEW);
            slots.resize_with(LEVELS * SLOTS, || Vec::new_in(In::NEW));
            slots.into_boxed_slice()
        });
        // The tick after the time, so that it is past when the slot comes up.
        let tick = (tick_of(at) + 1).max(self.tick);
        // The highest digit in which it differs from now says the level; beyond the last level it
        // waits there and is looked at again.
        let apart = (tick ^ self.tick) | 1;
        let level = (apart.ilog2() / LG_SLOTS) as usize;
        if level < LEVELS {
            let slot = (tick >> (LG_SLOTS * level as u32)) as usize % SLOTS;
            slots[level * SLOTS + slot].push(hash);
        } else {
            let slot = (self.tick >> (LG_SLOTS * (LEVELS as u32 - 1))) as usize;
            slots[(LEVELS - 1) * SLOTS + (slot + SLOTS - 1) % SLOTS].push(hash);
        }
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
        let mut due = std::vec::Vec::new();
        while gone < times.len() {
            let step = 1 + now % 100_000;
            now += step;
            while !index.due(now, 100, |hash| Some(times[hash as usize]), &mut due) {}
            for hash in due.drain(..) {
                let at = times[hash as usize];
                assert!(at <= now && at + 32 > now - step, "{at} at {now} after {step}");
                gone += 1;
            }
        }
        assert_eq!(index.items(), 0);
    }
}
