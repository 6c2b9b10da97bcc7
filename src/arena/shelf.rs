//! Freed huge blocks that wait to be used again. No `unsafe`: only numbers.
//!
//! Programs that come and go with blocks of some megabytes would otherwise pay a
//! page fault for every page of each. Neighbours become one; the shortest stretch
//! that is long enough is taken, and what is left of it stays. What nobody has
//! taken or added to for half of the decay time is given back.

/// Stretches at most, bytes of one block, and bytes of all.
const PLACES: usize = 64;
const MAX_BYTES: usize = 32 << 20;
const ALL_BYTES: usize = 96 << 20;

/// A stretch of address space that is mapped and that nobody uses.
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

    fn end(&self) -> usize {
        self.address + self.bytes
    }
}

/// The waiting stretches by address; no two touch.
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
        self.all().iter().map(|it| it.bytes).sum()
    }

    fn all(&self) -> &[Shelved] {
        &self.places[..self.len]
    }

    /// Whether a block of that size may wait here.
    pub(super) fn takes(bytes: usize) -> bool {
        bytes <= MAX_BYTES
    }

    /// Puts a block here. Returns the oldest stretch if all places are taken.
    pub(super) fn put(&mut self, address: usize, bytes: usize, now_ms: u64) -> Option<Shelved> {
        let mut it = Shelved { address, bytes, since_ms: now_ms };
        let at = self.all().partition_point(|other| other.address < address);
        if let Some(behind) = self.all().get(at).copied()
            && behind.address == it.end()
        {
            it.bytes += self.remove(at).bytes;
        }
        if let Some(before) = at.checked_sub(1).and_then(|i| self.all().get(i)).copied()
            && before.end() == it.address
        {
            it = Shelved { address: before.address, bytes: before.bytes + it.bytes, ..it };
            self.remove(at - 1);
        }
        let oldest = if self.len == PLACES { self.remove_oldest() } else { None };
        let at = self.all().partition_point(|other| other.address < it.address);
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = it;
        self.len += 1;
        self.bytes += it.bytes;
        oldest
    }

    /// A part of the oldest stretch, if all together are too much.
    pub(super) fn excess(&mut self) -> Option<Shelved> {
        match self.bytes.saturating_sub(ALL_BYTES) {
            0 => None,
            over => self.some_of_the_oldest(over),
        }
    }

    /// `bytes` bytes out of the shortest stretch that is long enough.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Shelved> {
        let fits = self.all().iter().enumerate().filter(|(_, it)| it.bytes >= bytes);
        let (at, _) = fits.min_by_key(|(_, it)| it.bytes)?;
        let it = &mut self.places[at];
        if it.bytes == bytes {
            return Some(self.remove(at));
        }
        let taken = Shelved { bytes, ..*it };
        it.address += bytes;
        it.bytes -= bytes;
        self.bytes -= bytes;
        Some(taken)
    }

    /// Takes the first `bytes` bytes of the stretch that starts at `address`, if it
    /// is long enough.
    pub(super) fn take_at(&mut self, address: usize, bytes: usize) -> bool {
        let at = self.all().partition_point(|it| it.address < address);
        let Some(it) = self.places[..self.len].get_mut(at) else { return false };
        if it.address != address || it.bytes < bytes {
            return false;
        }
        if it.bytes == bytes {
            self.remove(at);
        } else {
            it.address += bytes;
            it.bytes -= bytes;
            self.bytes -= bytes;
        }
        true
    }

    /// At most `most` bytes of the oldest stretch.
    pub(super) fn some_of_the_oldest(&mut self, most: usize) -> Option<Shelved> {
        let oldest = self.remove_oldest()?;
        if oldest.bytes <= most {
            return Some(oldest);
        }
        // Nothing is next to it, so it takes the place that it had.
        self.put(oldest.address, oldest.bytes - most, oldest.since_ms);
        Some(Shelved::new(oldest.end() - most, most))
    }

    /// Whether the oldest stretch has waited for `ms`.
    pub(super) fn is_overdue(&self, now_ms: u64, ms: u64) -> bool {
        self.all().iter().any(|it| now_ms.saturating_sub(it.since_ms) >= ms)
    }

    fn remove_oldest(&mut self) -> Option<Shelved> {
        let (at, _) = self.all().iter().enumerate().min_by_key(|(_, it)| it.since_ms)?;
        Some(self.remove(at))
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
    fn neighbours_become_one_and_what_is_left_stays() {
        let mut shelf = Shelf::new();
        for (address, bytes) in [(100, 10), (120, 10), (110, 10), (200, 20)] {
            assert_eq!(shelf.put(address, bytes, 0), None);
        }
        assert_eq!(shelf.all().len(), 2);
        assert_eq!(shelf.take(31), None);
        assert_eq!(shelf.take(15).map(|it| (it.address, it.bytes)), Some((200, 15)));
        assert_eq!(shelf.take(20).map(|it| (it.address, it.bytes)), Some((100, 20)));
        assert_eq!(shelf.take(5).map(|it| (it.address, it.bytes)), Some((215, 5)));
        assert_eq!((shelf.bytes(), shelf.all().len()), (10, 1));
    }

    /// What is held, here and by the model, is disjoint and the same.
    struct Model {
        shelf: Shelf,
        held: Vec<(usize, usize)>,
        given_back: usize,
        taken: usize,
        fresh: usize,
        now: u64,
    }

    impl Model {
        fn leave(&mut self, it: Option<Shelved>) -> bool {
            self.given_back += it.map_or(0, |it| it.bytes);
            it.is_some()
        }

        fn step(&mut self, what: u8, size: u8) {
            let bytes = (usize::from(size) + 1) << 17;
            self.now += u64::from(what);
            match what % 4 {
                0 | 1 => {
                    let old = self.shelf.take(bytes);
                    self.taken += usize::from(old.is_some());
                    let address = old.map_or(1 << 40 | self.fresh << 26, |it| it.address);
                    self.fresh += usize::from(old.is_none());
                    self.held.push((address, bytes));
                }
                2 if size.is_multiple_of(3) && !self.held.is_empty() => {
                    let i = usize::from(size) % self.held.len();
                    let (address, bytes) = self.held[i];
                    if self.shelf.take_at(address + bytes, bytes) {
                        self.held[i].1 += bytes;
                    }
                }
                2 if !self.held.is_empty() => {
                    let (address, bytes) =
                        self.held.swap_remove(usize::from(size) % self.held.len());
                    if Shelf::takes(bytes) {
                        let evicted = self.shelf.put(address, bytes, self.now);
                        self.leave(evicted);
                        while let it = self.shelf.excess()
                            && self.leave(it)
                        {}
                    }
                }
                _ => {
                    while self.shelf.is_overdue(self.now, 300) {
                        let some = self.shelf.some_of_the_oldest(bytes);
                        self.leave(some);
                    }
                }
            }
        }

        fn holds(&self) -> bool {
            let mut all: Vec<_> =
                self.shelf.all().iter().map(|it| (it.address, it.bytes)).collect();
            let apart = all.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0);
            all.extend(&self.held);
            all.sort_unstable();
            let disjoint = all.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0);
            let bytes = self.shelf.bytes();
            apart && disjoint && bytes == self.shelf.recount() && bytes <= ALL_BYTES
        }
    }

    quickcheck! {
        fn nothing_is_lost_or_lent_twice(steps: Vec<(u8, u8)>) -> bool {
            let mut model = Model {
                shelf: Shelf::new(), held: Vec::new(), given_back: 0, taken: 0, fresh: 0, now: 0,
            };
            steps.iter().all(|&(what, size)| {
                model.step(what, size);
                model.holds()
            })
        }
    }
}
