//! Hardened: where the marks of regions lie (slab, K1), so that a few instructions on a
//! block's address alone find its own.
//!
//! Each 16 bytes of a segment have one, of which those are used where a region starts.
//! They lie in four *lanes* behind the segment's header, each of one mark for each 64
//! bytes: the first lane has those of the first quarters of 64 bytes, and so on. So slabs
//! whose regions are multiples of 64 bytes touch one lane, 1/64 of what the regions take,
//! those with odd multiples of 32 bytes two, and of 16 bytes all four.

use super::{Segment, SegmentPages, guard_pages};
use crate::class::Class;
use crate::config::{HARDENED, LG_GRANULE, PAGE_BYTES, SEGMENT_BYTES, SEGMENT_PAGES};
use crate::os;
use crate::sync::zeroed::AtomicU8;
use core::ptr;
use static_assertions::const_assert;

const LANES: usize = if HARDENED { 1 << (LG_LANE - LG_GRANULE) } else { 0 };
/// log2 of the bytes that have one mark in a lane.
const LG_LANE: u32 = 6;
/// Marks of a page in a lane: a cache line of them.
const IN_LANE: usize = PAGE_BYTES >> LG_LANE;
const LANE_BYTES: usize = SEGMENT_PAGES * IN_LANE;
const LG_LANE_BYTES: u32 = LANE_BYTES.trailing_zeros();
const_assert!(LANE_BYTES.is_power_of_two());
const LANE_PAGES: usize = LANE_BYTES / PAGE_BYTES;
/// Pages of marks in a segment.
pub(super) const MARK_PAGES: usize = LANES * LANE_PAGES;
const_assert!(MARK_PAGES <= u64::BITS as usize);

/// Lanes that a class uses.
fn lanes(class: Class) -> impl Iterator<Item = usize> {
    let lg_step =
        class.info().region_bytes.trailing_zeros().clamp(LG_GRANULE, LG_LANE) - LG_GRANULE;
    (0..LANES).step_by(1 << lg_step)
}

/// How far behind the header the mark of an address lies.
#[inline(always)]
fn place(address: usize) -> usize {
    let lane = (address & ((1 << LG_LANE) - (1 << LG_GRANULE))) << (LG_LANE_BYTES - LG_GRANULE);
    lane + ((address & (SEGMENT_BYTES - 1)) >> LG_LANE)
}

impl Segment {
    /// The mark of the region that starts at an address; `None` for one that is not
    /// Tallow's, or where no region can start. Where none of the slab's does, the mark
    /// says that the program holds none.
    #[inline(always)]
    pub(crate) fn mark_of(address: usize) -> Option<&'static AtomicU8> {
        let is_whole = address & ((1 << LG_GRANULE) - 1) == 0;
        // SAFETY: in a segment.
        (Self::has(address) && is_whole).then(|| unsafe { Self::mark_of_region(address) })
    }

    /// The mark of the region that starts at an address.
    ///
    /// # Safety
    /// It lies in a segment.
    #[inline(always)]
    pub(crate) unsafe fn mark_of_region(address: usize) -> &'static AtomicU8 {
        let mark = (address & !(SEGMENT_BYTES - 1)) + size_of::<Self>() + place(address);
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
        lanes(class).flat_map(move |lane| {
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
        for lane in lanes(class) {
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

#[cfg(all(test, not(loom), feature = "hardened"))]
mod tests {
    use super::*;

    /// Each place where a region can start has a mark that no other one has, also one of
    /// another class; and it is among those that are made free with its slab.
    #[test]
    fn each_place_has_a_mark_of_its_own() {
        let granule = 1 << LG_GRANULE;
        let mut of = vec![None; LANES * LANE_BYTES];
        for address in (0..SEGMENT_BYTES).step_by(granule) {
            let before = of[place(address)].replace(address);
            assert_eq!(before, None, "{address:#x} and another one");
        }
        for class in Class::all().filter(|class| class.info().region_bytes as usize >= granule) {
            let lanes: Vec<usize> = lanes(class).collect();
            for region in (0..64 * PAGE_BYTES).step_by(class.info().region_bytes as usize) {
                let (lane, page) = (place(region) / LANE_BYTES, region / PAGE_BYTES);
                assert!(lanes.contains(&lane), "{region:#x} of {class:?}");
                assert_eq!(place(region) % LANE_BYTES / IN_LANE, page);
            }
        }
    }
}
