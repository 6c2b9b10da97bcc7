//! What the driver knows about every key: whether it is held, when its time is over on the virtual
//! clock, and how long its value is. Eight bytes a key; names and contents follow from the number.
//!
//! From this it works out each request *before* it is sent, so the same seed sends the same
//! requests in the same order to any server, however fast that is, and knows at the end what the
//! server must hold.

use crate::bytes;
use crate::clock::{Expiry, Moment};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is known about one key.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Ticks of the virtual clock at which its time is over; 0 if it is not held.
    due_ticks: u32,
    /// Length of its value.
    value_bytes: u32,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Books {
    now_ticks: u32,
    entries: Vec<Entry>,
    held: u64,
    /// When keys run out; those written again since have other times in `entries`.
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Books {
    /// What time it is on the virtual clock.
    pub(super) fn now(&self) -> Moment {
        Moment::START.after_ticks(self.now_ticks)
    }

    /// Lets virtual time pass.
    pub(super) fn pass(&mut self, ticks: u32) {
        self.now_ticks = self.now_ticks.saturating_add(ticks);
    }

    /// Keys held.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Whether key `id` is held.
    pub(super) fn holds(&self, id: u64) -> bool {
        self.entry(id).due_ticks != 0
    }

    /// The length of its value.
    pub(super) fn value_bytes(&self, id: u64) -> usize {
        self.entry(id).value_bytes as usize
    }

    /// Notes a write with a new time to live.
    pub(super) fn write(&mut self, id: u64, value_bytes: usize, expiry: Expiry) {
        let place = id as usize;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, Entry::default());
        }
        self.held += u64::from(!self.holds(id));
        let left = expiry.remaining_ticks(self.now()).unwrap_or(u32::MAX);
        let due_ticks = self.now_ticks.saturating_add(left).max(1);
        self.entries[place] = Entry { due_ticks, value_bytes: value_bytes as u32 };
        self.queue.push(Reverse((due_ticks, id as u32)));
    }

    /// Notes a new length of a value whose time stays what it was.
    pub(super) fn resize(&mut self, id: u64, value_bytes: usize) {
        self.entries[id as usize].value_bytes = value_bytes as u32;
    }

    /// Notes that it is gone.
    pub(super) fn remove(&mut self, id: u64) {
        if self.holds(id) {
            self.entries[id as usize] = Entry::default();
            self.held -= 1;
        }
    }

    /// The next key whose time is over, which is then not held any more.
    pub(super) fn take_due(&mut self) -> Option<u64> {
        loop {
            let &Reverse((due_ticks, id)) = self.queue.peek()?;
            if due_ticks > self.now_ticks {
                return None;
            }
            self.queue.pop();
            if self.entry(u64::from(id)).due_ticks == due_ticks {
                self.remove(u64::from(id));
                return Some(u64::from(id));
            }
        }
    }

    /// All keys held, in the order in which their time is over, each with the ticks it has left.
    /// Those that are over at the same tick stand in no order.
    pub(super) fn by_time_left(&self) -> Vec<(u64, u32)> {
        let held = self.entries.iter().enumerate().filter(|(_, entry)| entry.due_ticks != 0);
        let mut keys: Vec<(u64, u32)> = held
            .map(|(id, entry)| (id as u64, entry.due_ticks.saturating_sub(self.now_ticks)))
            .collect();
        keys.sort_unstable_by_key(|&(id, left)| (left, bytes::mix(id)));
        keys
    }

    fn entry(&self, id: u64) -> Entry {
        self.entries.get(id as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(books: &Books, ticks: u32) -> Expiry {
        Expiry::at(books.now().after_ticks(ticks))
    }

    #[test]
    fn keys_run_out_in_their_order_and_by_their_last_write() {
        let mut books = Books::default();
        for (id, ticks) in [(0, 30), (1, 10), (2, 20)] {
            let expiry = at(&books, ticks);
            books.write(id, 5, expiry);
        }
        let later = at(&books, 50);
        books.write(1, 7, later);
        assert_eq!(books.by_time_left(), [(2, 20), (0, 30), (1, 50)]);
        books.pass(30);
        assert_eq!([(); 3].map(|()| books.take_due()), [Some(2), Some(0), None]);
        assert_eq!((books.held(), books.value_bytes(1), books.holds(2)), (1, 7, false));
        books.remove(1);
        books.pass(30);
        assert_eq!((books.take_due(), books.held()), (None, 0));
    }
}
