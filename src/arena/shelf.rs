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
    /// Bytes that nobody has touched, at least.
    pub(super) hollow_bytes: usize,
    since_ms: u64,
}

impl Shelved {
    pub(super) fn new(address: usize, bytes: usize, hollow_bytes: usize) -> Self {
        Self { address, bytes, hollow_bytes, since_ms: 0 }
    }

    /// Takes the first `bytes` bytes away, which may be the hollow ones.
    fn shorten_front(&mut self, bytes: usize) {
        self.address += bytes;
        self.bytes -= bytes;
        self.hollow_bytes = self.hollow_bytes.saturating_sub(bytes);
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
    hollow_bytes: usize,
}

impl Shelf {
    pub(super) const fn new() -> Self {
        let none = Shelved { address: 0, bytes: 0, hollow_bytes: 0, since_ms: 0 };
        Self { places: [none; PLACES], len: 0, bytes: 0, hollow_bytes: 0 }
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those of them that nobody has touched, at least.
    pub(super) fn hollow_bytes(&self) -> usize {
        self.hollow_bytes
    }

    /// Both, counted.
    pub(super) fn recount(&self) -> (usize, usize) {
        let sum = |f: fn(&Shelved) -> usize| self.all().iter().map(f).sum();
        (sum(|it| it.bytes), sum(|it| it.hollow_bytes))
    }

    fn all(&self) -> &[Shelved] {
        &self.places[..self.len]
    }

    /// Whether a block of that size may wait here.
    pub(super) fn takes(bytes: usize) -> bool {
        bytes <= MAX_BYTES
    }

    /// Puts a stretch here. Returns the oldest one if all places are taken.
    pub(super) fn put(&mut self, freed: Shelved, now_ms: u64) -> Option<Shelved> {
        let mut it = Shelved { since_ms: now_ms, ..freed };
        let at = self.all().partition_point(|other| other.address < it.address);
        if let Some(behind) = self.all().get(at).copied()
            && behind.address == it.end()
        {
            self.remove(at);
            it.bytes += behind.bytes;
            it.hollow_bytes += behind.hollow_bytes;
        }
        if let Some(before) = at.checked_sub(1).and_then(|i| self.all().get(i)).copied()
            && before.end() == it.address
        {
            self.remove(at - 1);
            it.address = before.address;
            it.bytes += before.bytes;
            it.hollow_bytes += before.hollow_bytes;
        }
        let oldest = if self.len == PLACES { self.remove_oldest() } else { None };
        let at = self.all().partition_point(|other| other.address < it.address);
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = it;
        self.len += 1;
        self.bytes += it.bytes;
        self.hollow_bytes += it.hollow_bytes;
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
        Some(self.take_front(at, bytes))
    }

    /// Takes the first `bytes` bytes of the stretch that starts at `address`, if it
    /// is long enough.
    pub(super) fn take_at(&mut self, address: usize, bytes: usize) -> bool {
        let at = self.all().partition_point(|it| it.address < address);
        let fits = self.all().get(at).is_some_and(|it| it.address == address && it.bytes >= bytes);
        if fits {
            self.take_front(at, bytes);
        }
        fits
    }

    /// The first `bytes` bytes of a stretch that has them.
    fn take_front(&mut self, at: usize, bytes: usize) -> Shelved {
        let whole = self.places[at];
        if whole.bytes == bytes {
            return self.remove(at);
        }
        let mut left = whole;
        left.shorten_front(bytes);
        self.places[at] = left;
        self.bytes -= bytes;
        self.hollow_bytes -= whole.hollow_bytes - left.hollow_bytes;
        Shelved { bytes, hollow_bytes: whole.hollow_bytes - left.hollow_bytes, ..whole }
    }

    /// At most `most` bytes of the oldest stretch.
    pub(super) fn some_of_the_oldest(&mut self, most: usize) -> Option<Shelved> {
        let oldest = self.remove_oldest()?;
        if oldest.bytes <= most {
            return Some(oldest);
        }
        let (left, hollow) = (oldest.bytes - most, oldest.hollow_bytes.saturating_sub(most));
        // Nothing is next to it, so it takes the place that it had.
        self.put(Shelved { bytes: left, hollow_bytes: hollow, ..oldest }, oldest.since_ms);
        Some(Shelved::new(oldest.end() - most, most, oldest.hollow_bytes - hollow))
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
        self.hollow_bytes -= it.hollow_bytes;
        it
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::HashSet;

    #[test]
    fn neighbours_become_one_and_what_is_left_stays() {
        let mut shelf = Shelf::new();
        for (address, bytes) in [(100, 10), (120, 10), (110, 10), (200, 20)] {
            assert_eq!(shelf.put(Shelved::new(address, bytes, 0), 0), None);
        }
        assert_eq!(shelf.all().len(), 2);
        assert_eq!(shelf.take(31), None);
        assert_eq!(shelf.take(15).map(|it| (it.address, it.bytes)), Some((200, 15)));
        assert_eq!(shelf.take(20).map(|it| (it.address, it.bytes)), Some((100, 20)));
        assert_eq!(shelf.take(5).map(|it| (it.address, it.bytes)), Some((215, 5)));
        assert_eq!((shelf.bytes(), shelf.all().len()), (10, 1));
    }

    #[test]
    fn what_nobody_has_touched_is_told_as_long_as_it_is_sure() {
        let mut shelf = Shelf::new();
        shelf.put(Shelved::new(100, 10, 3), 0);
        shelf.put(Shelved::new(110, 10, 4), 0);
        assert_eq!(shelf.hollow_bytes(), 7);
        assert_eq!(shelf.take(5).map(|it| it.hollow_bytes), Some(5), "it may have been these");
        assert_eq!(shelf.hollow_bytes(), 2);
        assert!(shelf.take_at(105, 15));
        assert_eq!((shelf.hollow_bytes(), shelf.bytes()), (0, 0));
    }

    /// Sizes are multiples of this.
    const UNIT: usize = 1 << 17;

    /// What is held, here and by the model, is disjoint and the same.
    struct Model {
        shelf: Shelf,
        /// Addresses and bytes, and of these the untouched ones at the end.
        held: Vec<(usize, usize, usize)>,
        /// Units of which somebody had the use.
        touched: HashSet<usize>,
        /// Where the next fresh one begins: right behind the last one.
        fresh: usize,
        now: u64,
    }

    impl Model {
        fn touch(&mut self, address: usize, bytes: usize) {
            self.touched.extend((address..address + bytes).step_by(UNIT));
        }

        /// Puts the block back of which `size` says which one it is.
        fn free(&mut self, size: usize) {
            let i = size % self.held.len();
            let (address, bytes, rest) = self.held.swap_remove(i);
            if Shelf::takes(bytes) {
                self.shelf.put(Shelved::new(address, bytes, rest), self.now);
                while self.shelf.excess().is_some() {}
            }
        }

        fn step(&mut self, what: u8, size: u8) {
            let size = usize::from(size);
            let bytes = (size + 1) * UNIT;
            self.now += u64::from(what);
            match what % 4 {
                0 | 1 => {
                    let old = self.shelf.take(bytes);
                    let rest = if old.is_none() { size % 8 * UNIT } else { 0 };
                    let address = old.map_or(self.fresh, |it| it.address);
                    self.fresh += if old.is_none() { bytes + rest } else { 0 };
                    self.touch(address, bytes);
                    self.held.push((address, bytes + rest, rest));
                }
                2 if size.is_multiple_of(3) && !self.held.is_empty() => {
                    let i = size % self.held.len();
                    let (address, mapped, rest) = self.held[i];
                    if self.shelf.take_at(address + mapped, bytes) {
                        self.touch(address + mapped - rest, rest + bytes);
                        self.held[i] = (address, mapped + bytes, 0);
                    }
                }
                2 if !self.held.is_empty() => self.free(size),
                _ => {
                    while self.shelf.is_overdue(self.now, 300) {
                        self.shelf.some_of_the_oldest(bytes);
                    }
                }
            }
        }

        fn untouched(&self) -> usize {
            let units = self.shelf.all().iter().flat_map(|it| (it.address..it.end()).step_by(UNIT));
            units.filter(|unit| !self.touched.contains(unit)).count() * UNIT
        }

        fn holds(&self) -> bool {
            let mut all: Vec<_> =
                self.shelf.all().iter().map(|it| (it.address, it.bytes)).collect();
            let apart = all.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0);
            all.extend(self.held.iter().map(|&(address, mapped, _)| (address, mapped)));
            all.sort_unstable();
            let disjoint = all.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0);
            let (bytes, hollow) = (self.shelf.bytes(), self.shelf.hollow_bytes());
            let counted = (bytes, hollow) == self.shelf.recount();
            apart && disjoint && counted && bytes <= ALL_BYTES && hollow <= self.untouched()
        }
    }

    quickcheck! {
        fn nothing_is_lost_or_lent_twice(steps: Vec<(u8, u8)>) -> bool {
            let mut model = Model {
                shelf: Shelf::new(),
                held: Vec::new(),
                touched: HashSet::new(),
                fresh: 1 << 40,
                now: 0,
            };
            steps.iter().all(|&(what, size)| {
                model.step(what, size);
                model.holds()
            })
        }
    }
}
