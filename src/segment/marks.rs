//! Hardened: where the marks of regions lie (slab, K1), so that arithmetic on a block's
//! address and class finds its own.
//!
//! A region starts at a multiple of its class's *granule*, the largest power of two that
//! divides its size. A page has room for 256 marks, one for every 16 bytes, of which a
//! class uses as many as it has granules in a page, the first ones. They lie in four
//! *lanes* of 64 marks a page; a lane of all pages lies together, behind the segment's
//! header. So slabs with granules of 64 bytes or more touch one lane, 1/64 of what their
//! regions take, and those with granules of 16 bytes all four.

use super::{Segment, SegmentPages, guard_pages};
use crate::class::Class;
use crate::config::{HARDENED, LG_GRANULE, LG_PAGE, PAGE_BYTES, SEGMENT_BYTES, SEGMENT_PAGES};
use crate::os;
use crate::sync::zeroed::AtomicU8;
use core::ptr;
use static_assertions::const_assert;

const LANES: usize = if HARDENED { (PAGE_BYTES >> LG_GRANULE) / IN_LANE } else { 0 };
/// Marks of a page in a lane: a cache line of them.
const IN_LANE: usize = 64;
const LANE_BYTES: usize = SEGMENT_PAGES * IN_LANE;
const LANE_PAGES: usize = LANE_BYTES / PAGE_BYTES;
/// Pages of marks in a segment.
pub(super) const MARK_PAGES: usize = LANES * LANE_PAGES;
const_assert!(MARK_PAGES <= u64::BITS as usize);

#[inline(always)]
fn lg_granule(class: Class) -> u32 {
    class.info().region_bytes.trailing_zeros().min(LG_PAGE)
}

/// Lanes that a class uses.
fn lanes(class: Class) -> usize {
    (PAGE_BYTES >> lg_granule(class)).div_ceil(IN_LANE)
}

impl Segment {
    /// The mark of the region of `class` that starts at an address; `None` for one that is
    /// not Tallow's, or where no such region can start.
    #[inline(always)]
    pub(crate) fn mark_of(class: Class, address: usize) -> Option<&'static AtomicU8> {
        Self::find(address)?;
        let is_whole = address & ((1 << lg_granule(class)) - 1) == 0;
        // SAFETY: in a segment.
        is_whole.then(|| unsafe { Self::mark_of_region(class, address) })
    }

    /// The mark of the region of `class` that starts at an address.
    ///
    /// # Safety
    /// It lies in a segment.
    #[inline(always)]
    pub(crate) unsafe fn mark_of_region(class: Class, address: usize) -> &'static AtomicU8 {
        let granule = (address & (PAGE_BYTES - 1)) >> lg_granule(class);
        let page = Self::page_of(address);
        let at = granule / IN_LANE * LANE_BYTES + page * IN_LANE + granule % IN_LANE;
        let mark = (address & !(SEGMENT_BYTES - 1)) + size_of::<Self>() + at;
        // SAFETY: behind the segment's header, where only marks are, which are written
        // and read as atomics. The mapping's provenance was exposed when it was made.
        unsafe { &*ptr::with_exposed_provenance(mark) }
    }

    /// The marks of `pages` pages from `first` on that `class` uses.
    pub(crate) fn marks_of(
        &'static self,
        class: Class,
        first: usize,
        pages: usize,
    ) -> impl Iterator<Item = &'static AtomicU8> {
        let marks = self.base().addr().get() + size_of::<Self>();
        (0..lanes(class)).filter(|_| HARDENED).flat_map(move |lane| {
            let at = marks + lane * LANE_BYTES + first * IN_LANE;
            // SAFETY: as above.
            let marks: &[AtomicU8] = unsafe {
                core::slice::from_raw_parts(ptr::with_exposed_provenance(at), pages * IN_LANE)
            };
            marks
        })
    }
}

impl SegmentPages {
    /// Pages of the header to which nothing was ever written: marks of regions that no
    /// slab has had, and guards.
    pub(crate) fn untouched_pages(&self) -> usize {
        2 * guard_pages() + MARK_PAGES - self.marked.count_ones() as usize
    }

    /// Enters that the marks of a slab of `pages` pages from `first` on are written.
    /// Returns how many pages fewer are untouched.
    pub(crate) fn touch_marks(&mut self, class: Class, first: usize, pages: usize) -> usize {
        let before = self.untouched_pages();
        let in_page = PAGE_BYTES / IN_LANE;
        for lane in (0..lanes(class)).filter(|_| HARDENED) {
            for page in first / in_page..=(first + pages - 1) / in_page {
                self.marked |= 1 << (lane * LANE_PAGES + page);
            }
        }
        if HARDENED && os::page_bytes() > PAGE_BYTES {
            // The system backs many of them at once.
            self.marked = u64::MAX;
        }
        before - self.untouched_pages()
    }
}
