//! Hardened: a byte for each region, in its segment's header: whether the program holds it.
//!
//! The bit set says which regions are in the slab; those in the threads' caches are
//! not, so it cannot tell at the call that a block is freed twice. The mark can: it
//! is set when the region is handed to the program, and taken when it comes back.
//! It lies with the segment and not with the slab, so that it is found without a look
//! at the slab's header: with marks behind the bit set a pair of 64 bytes took 19 ns.
//! - K1: a mark is [`HELD`] or above while the program, or a mover for it, holds the
//!   region that starts there; all others are below.
//! - K2: a region with the mark [`JUNK`] or [`ZERO`] was filled so when it was freed,
//!   and has not been given back to the system since.

#[cfg(all(test, loom))]
mod model;

use super::{Company, Protocol, Slab};
use crate::class::Class;
use crate::config::HARDENED;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::sync::zeroed::AtomicU8;

/// Free, its contents unknown: never handed out, or its page was purged.
pub(crate) const FREE: u8 = 0;
/// Free, filled with junk.
pub(crate) const JUNK: u8 = 1;
/// Free, filled with zeros.
pub(crate) const ZERO: u8 = 2;
/// From here on the program holds it; this one without a size.
pub(crate) const HELD: u8 = 0x7f;

/// Of a region that the program holds as a block of `size` bytes. Sizes that differ by
/// less than 127 have different marks, as have those that differ by 128; of the others
/// one in 127 has the same.
#[inline(always)]
pub(crate) fn held(size: usize) -> u8 {
    0x80 | (size + (size >> 7)) as u8
}

/// Puts a mark in the place of another, which it returns.
#[inline(always)]
pub(crate) fn swap(mark: &AtomicU8, new: u8, company: Company) -> u8 {
    match company {
        // Relaxed: nobody else is there.
        Company::Alone => {
            let old = mark.load(Ordering::Relaxed);
            mark.store(new, Ordering::Relaxed);
            old
        }
        // Relaxed: who has it is decided here; contents are ordered by the way from one
        // owner to the next.
        Company::Others => mark.swap(new, Ordering::Relaxed),
    }
}

/// The mark of a region that is to be handed out; an error if the program holds it.
#[inline(always)]
pub(crate) fn of_free(mark: &AtomicU8) -> Result<u8, ()> {
    // Relaxed: as in `swap`.
    let was = mark.load(Ordering::Relaxed);
    if was < HELD { Ok(was) } else { Err(()) }
}

impl<P: Protocol> Slab<P> {
    /// The mark of a region.
    fn mark(&self, class: Class, index: usize) -> Option<&'static AtomicU8> {
        let offset = index * class.info().region_bytes as usize;
        Segment::mark_of(self.start().addr() + offset)
    }

    /// Makes all regions free, with unknown contents.
    pub(crate) fn reset_marks(&self, class: Class) {
        let first = Segment::page_of(self.start().addr());
        let pages = usize::from(class.info().slab_pages);
        if HARDENED && let Some(segment) = Segment::find(self.start().addr()) {
            // Relaxed: the slab's header, which is published next, orders it.
            segment.marks_of(class, first, pages).for_each(|it| it.store(FREE, Ordering::Relaxed));
        }
    }

    /// Notes that the contents of free regions, the caller's, are unknown (K2).
    pub(super) fn forget_contents(&self, class: Class, word: usize, mut bits: u64) {
        while HARDENED && bits != 0 {
            let index = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(mark) = self.mark(class, index) {
                // Relaxed: the bits that come back after this order it.
                mark.store(FREE, Ordering::Relaxed);
            }
        }
    }

    /// Regions that the program holds, counted one by one.
    pub(crate) fn count_held(&self, class: Class) -> usize {
        // Relaxed: exact when nobody else is at work, which audits see to.
        let held = |mark: &AtomicU8| mark.load(Ordering::Relaxed) >= HELD;
        let marks = (0..self.capacity() as usize).filter_map(|index| self.mark(class, index));
        if HARDENED { marks.filter(|mark| held(mark)).count() } else { 0 }
    }
}
