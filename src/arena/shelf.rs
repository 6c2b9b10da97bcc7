//! Freed huge blocks that wait to be used again. No `unsafe`: only numbers.
//!
//! Programs that come and go with blocks of some megabytes would otherwise pay a
//! page fault for every page of each. A block is used again as it is, for a size
//! that fills four fifths of it at least: to resize it would cost what is to be
//! saved. What nobody has taken for half of the decay time is given back.

/// Blocks at most, bytes of one, and bytes of all.
const PLACES: usize = 32;
const MAX_BYTES: usize = 32 << 20;
const ALL_BYTES: usize = 64 << 20;

/// A mapping that nobody uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shelved {
    pub(super) address: usize,
    pub(super) bytes: usize,
    since_ms: u64,
}

impl Shelved {
    pub(super) fn new(address: usize, bytes: usize) -> Self {
        Self { address, bytes, since_ms: 0 }
    }
}

/// The waiting blocks, oldest first.
pub(super) struct Shelf {
    places: [Shelved; PLACES],
    len: usize,
    bytes: usize,
}

impl Shelf {
    pub(super) const fn new() -> Self {
        let none = Shelved { address: 0, bytes: 0, since_ms: 0 };
        Self { places: [none; PLACES], len: 0, bytes: 0 }
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same, counted.
    pub(super) fn recount(&self) -> usize {
        self.places[..self.len].iter().map(|it| it.bytes).sum()
    }

    /// Whether a block of that size may wait here.
    pub(super) fn takes(bytes: usize) -> bool {
        bytes <= MAX_BYTES
    }

    /// Puts a block here. Returns the oldest one if all places are taken.
    pub(super) fn put(&mut self, address: usize, bytes: usize, now_ms: u64) -> Option<Shelved> {
        let oldest = (self.len == PLACES).then(|| self.remove(0));
        self.places[self.len] = Shelved { address, bytes, since_ms: now_ms };
        self.len += 1;
        self.bytes += bytes;
        oldest
    }

    /// The oldest block, if all of them together are too much.
    pub(super) fn excess(&mut self) -> Option<Shelved> {
        (self.bytes > ALL_BYTES).then(|| self.remove(0))
    }

    /// The shortest block that holds `bytes`, if they fill it well enough; of equals
    /// the newest.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Shelved> {
        let fits = |it: &Shelved| (bytes..=bytes / 4 * 5).contains(&it.bytes);
        let all = self.places[..self.len].iter().enumerate().rev();
        let (at, _) = all.filter(|(_, it)| fits(it)).min_by_key(|(_, it)| it.bytes)?;
        Some(self.remove(at))
    }

    /// The oldest block, if it has waited for `ms`.
    pub(super) fn overdue(&mut self, now_ms: u64, ms: u64) -> Option<Shelved> {
        let oldest = self.places[..self.len].first()?;
        (now_ms.saturating_sub(oldest.since_ms) >= ms).then(|| self.remove(0))
    }

    fn remove(&mut self, at: usize) -> Shelved {
        let it = self.places[at];
        self.places.copy_within(at + 1..self.len, at);
        self.len -= 1;
        self.bytes -= it.bytes;
        it
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    #[test]
    fn the_shortest_is_taken_and_the_newest_of_equals() {
        let mut shelf = Shelf::new();
        for (address, bytes) in [(1, 4 << 20), (2, 2 << 20), (3, 4 << 20), (4, 9 << 20)] {
            assert_eq!(shelf.put(address, bytes, 0), None);
        }
        assert_eq!(shelf.take(4 << 20).map(|it| it.address), Some(3));
        assert_eq!(shelf.take(3 << 20), None);
        assert_eq!(shelf.take(5 << 20), None);
        assert_eq!(shelf.take(8 << 20).map(|it| it.address), Some(4));
        assert_eq!(shelf.take(4000 << 10).map(|it| it.address), Some(1));
        assert_eq!(shelf.bytes(), 2 << 20);
    }

    quickcheck! {
        fn never_full_and_never_wrong(steps: Vec<(u8, u8)>) -> bool {
            let (mut shelf, mut now) = (Shelf::new(), 0);
            steps.iter().enumerate().all(|(i, &(what, size))| {
                let bytes = (usize::from(size) + 1) << 17;
                now += u64::from(what);
                match what % 3 {
                    0 => {
                        let evicted = shelf.put(i, bytes, now);
                        assert!(evicted.is_none_or(|it| it.address < i));
                        while shelf.excess().is_some() {}
                    }
                    1 => while shelf.overdue(now, 500).is_some() {},
                    _ => {
                        let got = shelf.take(bytes);
                        assert!(got.is_none_or(|it| it.bytes >= bytes && it.bytes * 4 <= bytes * 5));
                    }
                }
                shelf.bytes() == shelf.recount() && shelf.bytes() <= ALL_BYTES
            })
        }
    }
}
