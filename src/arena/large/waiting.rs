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

    #[cfg(all(test, not(loom)))]
    #[cfg_attr(not(feature = "hardened"), allow(dead_code, reason = "only its tests ask"))]
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

    /// The same, if it may be lent again already: when half of what can wait does.
    pub(super) fn first_of_many(&self) -> Option<Waiter> {
        let are_many = self.count * 2 >= LARGE_WAITING || self.bytes * 2 >= LARGE_WAITING_BYTES;
        if are_many { self.first() } else { None }
    }

    pub(super) fn pop(&mut self) {
        if let Some(it) = self.first() {
            self.first = (self.first + 1) % LARGE_WAITING;
            self.count -= 1;
            self.bytes -= it.pages << LG_PAGE;
        }
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
