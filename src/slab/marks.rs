//! Hardened: a byte for each region, behind the bit set: whether the program holds it.
//!
//! The bit set says which regions are in the slab; those in the threads' caches are
//! not, so it cannot tell at the call that a block is freed twice. The mark can: it
//! is set when the region is handed to the program, and taken when it comes back.
//! - K1: a mark is [`HELD`] or above while the program, or a mover for it, holds the
//!   region.
//! - K2: a region with the mark [`JUNK`] or [`ZERO`] was filled so when it was freed,
//!   and has not been given back to the system since.

use super::{Protocol, Slab};
use crate::class::Class;
use crate::config::HARDENED;
use crate::sync::Ordering;
use crate::sync::unwatched::AtomicU8;
use core::ptr;

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

/// Bytes behind the bits of a slab.
pub(crate) fn bytes(class: Class) -> usize {
    if HARDENED { class.info().capacity.into() } else { 0 }
}

impl<P: Protocol> Slab<P> {
    /// Where the marks lie.
    #[inline(always)]
    fn first_mark(&self) -> usize {
        let words = (self.capacity() as usize).div_ceil(64) * size_of::<u64>();
        ptr::from_ref(self).addr() + size_of::<Self>() + words
    }

    /// The marks; none if the crate is not hardened.
    #[inline(always)]
    pub(crate) fn marks(&self) -> &[AtomicU8] {
        let at = ptr::with_exposed_provenance(self.first_mark());
        let count = if HARDENED { self.capacity() as usize } else { 0 };
        // SAFETY: `install` wrote that many behind the bits; metadata is exposed where
        // it is reserved.
        unsafe { core::slice::from_raw_parts(at, count) }
    }

    /// Makes all regions free, with unknown contents.
    pub(super) fn reset_marks(&self) {
        if HARDENED {
            let at = ptr::with_exposed_provenance_mut::<u8>(self.first_mark());
            // SAFETY: the node has the room (`node_bytes`), and nobody else knows it.
            unsafe { at.write_bytes(FREE, self.capacity() as usize) };
        }
    }

    /// Notes that the contents of free regions, the caller's, are unknown (K2).
    pub(super) fn forget_contents(&self, word: usize, mut bits: u64) {
        while HARDENED && bits != 0 {
            let index = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            // Relaxed: the bits that come back after this order it.
            self.marks()[index].store(FREE, Ordering::Relaxed);
        }
    }

    /// Regions that the program holds, counted one by one.
    pub(crate) fn count_held(&self) -> usize {
        // Relaxed: exact when nobody else is at work, which audits see to.
        self.marks().iter().filter(|mark| mark.load(Ordering::Relaxed) >= HELD).count()
    }
}
