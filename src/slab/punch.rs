//! Punching: purging the pages of a slab in use on which no region is live.
//!
//! The puncher claims all regions that touch such a page, as any other owner
//! would (count, then bits), purges the page, notes it in `punched`, and returns
//! them. Whoever takes a region of that page later strikes the note out.
//! - L4: a bit of `punched` is set only while all regions on the page are held
//!   by the puncher, and before they are returned.

use super::{After, Company, Header, Protocol, Slab, State, Tag};
use crate::bits::mask;
use crate::class::Class;
use crate::config::PAGE_BYTES;
use crate::error::Corruption;
use crate::sync::Ordering;

/// Words of the longest bit set.
const MAX_WORDS: usize = 64;

/// Pages that the kernel backs together.
#[cfg(not(loom))]
fn unit_pages() -> usize {
    crate::os::page_bytes() / PAGE_BYTES
}
#[cfg(loom)]
fn unit_pages() -> usize {
    1
}

/// The pages that are backed when `region` bytes at `offset` are written.
fn pages_of(offset: usize, region: usize) -> u64 {
    let unit_bytes = unit_pages() * PAGE_BYTES;
    let first = offset / unit_bytes * unit_pages();
    let end = (offset + region).div_ceil(unit_bytes) * unit_pages();
    mask(first, end - first)
}

/// What a puncher holds.
pub(crate) struct Held {
    class: Class,
    /// Regions, by word.
    regions: [u64; MAX_WORDS],
    /// By how much it has raised the count.
    counted: u32,
    /// Pages of which it holds all regions.
    pages: u64,
}

impl Held {
    /// Has `purge(first, pages)` purge each run of the pages; returns those for which
    /// it could.
    pub(crate) fn purge(&self, mut purge: impl FnMut(usize, usize) -> bool) -> u64 {
        let (mut done, mut rest) = (0, self.pages);
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let pages = (!(rest >> first)).trailing_zeros() as usize;
            let run = mask(first, pages);
            rest &= !run;
            done |= if purge(first, pages) { run } else { 0 };
        }
        done
    }
}

impl<P: Protocol> Slab<P> {
    /// Strikes out the pages that the regions `bits` of word `w` touch; returns
    /// how many were noted as punched.
    #[cold]
    pub(super) fn strike_out(&self, tag: Tag, w: usize, mut bits: u64) -> u32 {
        let Some(class) = tag.class() else { return 0 };
        let region = class.info().region_bytes as usize;
        let mut pages = 0;
        while bits != 0 {
            let at = (w * 64 + bits.trailing_zeros() as usize) * region;
            bits &= bits - 1;
            pages |= pages_of(at, region);
        }
        // Relaxed: who strikes a page out owns a region on it.
        (self.punched.fetch_and(!pages, Ordering::Relaxed) & pages).count_ones()
    }

    /// Pages without memory behind them.
    pub(crate) fn punched_pages(&self) -> u32 {
        self.punched.load(Ordering::Relaxed).count_ones()
    }

    /// The pages on which no region is live, punched or not: a look, which may be
    /// out of date at once.
    #[cfg(not(loom))]
    pub(crate) fn holes(&self, class: Class) -> u64 {
        let region = class.info().region_bytes as usize;
        let used_pages = (region * usize::from(self.capacity.get())).div_ceil(PAGE_BYTES);
        let taken = (0..usize::from(self.capacity.get())).filter(|index| {
            // Relaxed: a look.
            self.words()[index / 64].load(Ordering::Relaxed) >> (index % 64) & 1 == 0
        });
        let used = taken.fold(0, |pages, index| pages | pages_of(index * region, region));
        mask(0, used_pages) & !used
    }

    /// Purges the pages on which no region is live, in whole OS pages:
    /// `purge(first, pages)` does it and says whether it could, `book(pages)`
    /// enters the pages purged. The caller holds the bin's lock, and the slab is
    /// partial. Returns the pages, and what to do then.
    pub(crate) fn punch(
        &self,
        class: Class,
        purge: impl FnMut(usize, usize) -> bool,
        book: impl FnOnce(u32),
    ) -> Result<(u32, After), Corruption> {
        let held = self.hold_free_pages(class);
        let done = held.purge(purge);
        self.note_punched(done);
        book(done.count_ones());
        Ok((done.count_ones(), self.hand_back(&held)?))
    }

    /// Claims all regions of each page on which none is live.
    pub(crate) fn hold_free_pages(&self, class: Class) -> Held {
        let unit_pages = unit_pages();
        let region = class.info().region_bytes as usize;
        let used_pages = (region * usize::from(self.capacity.get())).div_ceil(PAGE_BYTES);
        let mut held = Held { class, regions: [0; MAX_WORDS], counted: 0, pages: 0 };
        for page in (0..used_pages).step_by(unit_pages) {
            let unit = mask(page, unit_pages);
            // Relaxed: only punchers set bits, and the lock lets one at a time.
            if self.punched.load(Ordering::Relaxed) & unit == 0 {
                let first = page * PAGE_BYTES / region;
                let end = ((page + unit_pages) * PAGE_BYTES).div_ceil(region);
                let end = end.min(usize::from(self.capacity.get()));
                let (n, whole) = self.take_range(first, end, &mut held.regions);
                held.counted += n;
                held.pages |= if whole { unit } else { 0 };
            }
        }
        held
    }

    /// Notes pages as punched: before their regions are handed back, so that whoever
    /// takes one sees it (L4).
    pub(crate) fn note_punched(&self, pages: u64) {
        // Relaxed: the bits, which come back behind it, carry it along.
        self.punched.fetch_or(pages, Ordering::Relaxed);
    }

    /// Returns what was held.
    pub(crate) fn hand_back(&self, held: &Held) -> Result<After, Corruption> {
        for (w, &bits) in held.regions.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            // Some of their pages may have been purged since.
            #[cfg(not(loom))]
            self.forget_contents(held.class, w, bits);
            self.put(w, bits, Company::Others)?;
        }
        if held.counted > 0 {
            self.lower(held.counted, Company::Others)
        } else {
            Ok(After::Nothing)
        }
    }

    /// Claims the regions `first..end`, if all of them are free or in `mine`
    /// already, and adds them there. Returns by how much the count was raised,
    /// and whether all of them were had.
    fn take_range(&self, first: usize, end: usize, mine: &mut [u64; MAX_WORDS]) -> (u32, bool) {
        let words = self.words();
        let parts = || {
            (first / 64..end.div_ceil(64)).map(|w| {
                let from = first.max(w * 64);
                (w, mask(from % 64, end.min(w * 64 + 64) - from))
            })
        };
        let mut n = 0;
        for (w, bits) in parts() {
            let need = bits & !mine[w];
            // Relaxed: a look before the attempt.
            if words[w].load(Ordering::Relaxed) & need != need {
                return (0, false);
            }
            n += need.count_ones();
        }
        if n > 0 && !self.raise(n) {
            return (0, false);
        }
        let mut whole = true;
        for (w, bits) in parts() {
            let need = bits & !mine[w];
            let got = words[w].fetch_and(!need, P::TAKE_BITS) & need;
            mine[w] |= got;
            // A claim that was counted while the slab was owned may be faster.
            whole &= got == need;
        }
        (n, whole)
    }

    /// Counts `n` more regions of a partial slab, if there is room for them.
    fn raise(&self, n: u32) -> bool {
        let mut seen = self.header();
        loop {
            if seen.state() != State::Partial || seen.live() + n > self.capacity() {
                return false;
            }
            // Acquire: as in `claim`.
            match self.header.compare_exchange_weak(
                seen.0,
                seen.0 + u64::from(n),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => seen = Header(now),
            }
        }
    }

    /// Whether the region's pages are noted as punched.
    #[cfg(loom)]
    pub(crate) fn is_punched(&self, class: Class, index: usize) -> bool {
        let region = class.info().region_bytes as usize;
        self.punched.load(Ordering::Relaxed) & pages_of(index * region, region) != 0
    }

    /// Whether no region is taken on any page that is noted as punched.
    pub(crate) fn punched_is_free(&self, class: Class) -> bool {
        let region = class.info().region_bytes as usize;
        let punched = self.punched.load(Ordering::Relaxed);
        (0..usize::from(self.capacity.get())).all(|index| {
            // Relaxed: for audits, when nobody else is at work.
            let free = self.words()[index / 64].load(Ordering::Relaxed) >> (index % 64) & 1 == 1;
            free || punched & pages_of(index * region, region) == 0
        })
    }
}
