//! Hardened: the queue of freed large blocks that are not lent again yet: numbers only.

use crate::config::{HARDENED, LARGE_WAITING, LARGE_WAITING_BYTES, LG_PAGE};

/// A freed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) address: usize,
    pub(super) pages: usize,
    pub(super) since_ms: u64,
}

const ROOM: usize = if HARDENED { LARGE_WAITING } else { 0 };

/// A ring of them, in the order in which they were freed.
pub(super) struct Waiting {
    ring: [Waiter; ROOM],
    first: usize,
    count: usize,
    bytes: usize,
}

impl Waiting {
    pub(super) const NONE: Self = Self {
        ring: [Waiter { address: 0, pages: 0, since_ms: 0 }; ROOM],
        first: 0,
        count: 0,
        bytes: 0,
    };

    /// Whether a block of so many bytes may wait, too.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.count < LARGE_WAITING && self.bytes + bytes <= LARGE_WAITING_BYTES
    }

    #[cfg(all(test, not(loom), feature = "hardened"))]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The one that has waited longest.
    pub(super) fn first(&self) -> Option<Waiter> {
        if self.count == 0 { None } else { self.ring.get(self.first).copied() }
    }

    /// The place in the queue of the first one that `fits`, of those that may be lent again
    /// already: with it and behind it half of what can wait does.
    pub(super) fn find(&self, fits: impl Fn(&Waiter) -> bool) -> Option<(usize, Waiter)> {
        let mut bytes = self.bytes;
        for place in 0..self.count {
            let count = self.count - place;
            if count * 2 < LARGE_WAITING && bytes * 2 < LARGE_WAITING_BYTES {
                return None;
            }
            let it = self.ring.get((self.first + place) % LARGE_WAITING).copied()?;
            if fits(&it) {
                return Some((place, it));
            }
            bytes -= it.pages << LG_PAGE;
        }
        None
    }

    /// Takes the one at a place of the queue out; 0 is the one that has waited longest.
    pub(super) fn remove(&mut self, place: usize) {
        let at = |place: usize| (self.first + place) % LARGE_WAITING;
        let Some(it) = self.ring.get(at(place)).copied() else { return };
        for place in (0..place).rev() {
            self.ring[at(place + 1)] = self.ring[at(place)];
        }
        self.first = at(1);
        self.count -= 1;
        self.bytes -= it.pages << LG_PAGE;
    }

    /// Adds one, for which there is room.
    pub(super) fn push(&mut self, it: Waiter) {
        let last = (self.first + self.count) % LARGE_WAITING;
        if let Some(place) = self.ring.get_mut(last) {
            *place = it;
            self.count += 1;
            self.bytes += it.pages << LG_PAGE;
        }
    }
}
