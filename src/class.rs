//! Floor 2: the size classes, as tables made at compile time. No `unsafe`.
//!
//! Spacing as in jemalloc: 8 bytes, steps of 16 to 128, then four classes to
//! each doubling up to 32 KiB, so that a class wastes at most a fifth of a
//! region. The class of a block is a pure function of its layout, so that
//! `dealloc` need not look at the pointer.
//!
//! Invariants
//! - C1: a region of class `c` is a multiple of `align` for every layout that
//!   [`of_layout`] maps to `c`, and slabs start on pages; so regions are aligned.
//! - C2: `capacity * region_bytes <= slab_bytes`, the rest (the tail) is at most 1 %.
//! - C3: `region_index(offset)` is exact for every offset inside a slab.

use crate::config::{
    HARDENED, LG_GRANULE, LG_PAGE, MAGAZINE_BYTES, MAGAZINE_MAX, MAGAZINE_MIN, PAGE_BYTES,
    SMALL_MAX_BYTES,
};
use static_assertions::const_assert;

/// Number of size classes.
pub const CLASS_COUNT: usize = 41;

/// A size class, by its place in the table; always below [`CLASS_COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class(u32);

/// What a class looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassInfo {
    pub(crate) region_bytes: u32,
    pub(crate) slab_pages: u16,
    /// Regions in a slab.
    pub(crate) capacity: u16,
    /// Words of a slab's bit set.
    pub(crate) words: u16,
    /// Items that a magazine may grow to.
    pub(crate) magazine_max: u16,
    /// `ceil(2^32 / region_bytes)`.
    reciprocal: u32,
}

/// Classes that [`Class::all`] goes over,
#[cfg(not(loom))]
const USED: u32 = CLASS_COUNT as u32;
/// of which a model needs one.
#[cfg(loom)]
const USED: u32 = 1;

/// Region sizes in bytes, ascending.
pub(crate) const REGION_BYTES: [u32; CLASS_COUNT] = region_sizes();
/// All classes.
pub(crate) const CLASSES: [ClassInfo; CLASS_COUNT] = infos();
static TABLE: [ClassInfo; CLASS_COUNT] = CLASSES;
/// `ceil(2^34 / capacity)`: see [`Class::keeps_quarter`].
static QUARTERS: [u64; CLASS_COUNT] = quarters();
/// The class of each size up to [`TABLE_MAX`], by `(size + 7) / 8`.
static BY_EIGHTH: [u8; TABLE_MAX / 8 + 1] = by_eighth();
const TABLE_MAX: usize = 1024;
/// Of the smallest class in use: hardened, each region has a mark of its own.
const LEAST_BYTES: u32 = if HARDENED { 1 << LG_GRANULE } else { 8 };

const fn quarters() -> [u64; CLASS_COUNT] {
    let mut table = [0; CLASS_COUNT];
    let mut i = 0;
    while i < CLASS_COUNT {
        table[i] = (1u64 << 34).div_ceil(CLASSES[i].capacity as u64);
        i += 1;
    }
    table
}

const fn region_sizes() -> [u32; CLASS_COUNT] {
    let mut sizes = [0; CLASS_COUNT];
    sizes[0] = 8;
    let mut i = 1;
    while i <= 8 {
        sizes[i] = 16 * i as u32;
        i += 1;
    }
    while i < CLASS_COUNT {
        let doubling = 128u32 << ((i - 9) / 4);
        sizes[i] = doubling + doubling / 4 * ((i - 9) % 4 + 1) as u32;
        i += 1;
    }
    sizes
}

/// Pages of a slab: 32 KiB for the smallest regions (their bit set is long
/// enough), 64 KiB in the middle, eight regions above, and from there up to
/// where the tail is at most a quarter per cent, or smallest.
const fn slab_pages(region: usize) -> usize {
    let base = if region <= 32 {
        8
    } else if region <= PAGE_BYTES {
        16
    } else {
        let eight = region * 8 / PAGE_BYTES;
        if eight < 16 { 16 } else { eight }
    };
    let (mut best, mut pages) = (base, base);
    while pages < base * 2 {
        let bytes = pages * PAGE_BYTES;
        let tail = bytes % region;
        if tail * 400 <= bytes {
            return pages;
        }
        // tail / bytes < best tail / best bytes, without fractions.
        if tail * best * PAGE_BYTES < (best * PAGE_BYTES % region) * bytes {
            best = pages;
        }
        pages += 1;
    }
    best
}

const fn clamp(value: usize, low: usize, high: usize) -> usize {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

const fn infos() -> [ClassInfo; CLASS_COUNT] {
    let mut out = [ClassInfo {
        region_bytes: 0,
        slab_pages: 0,
        capacity: 0,
        words: 0,
        magazine_max: 0,
        reciprocal: 0,
    }; CLASS_COUNT];
    let mut i = 0;
    while i < CLASS_COUNT {
        let region = REGION_BYTES[i] as usize;
        let pages = slab_pages(region);
        let capacity = pages * PAGE_BYTES / region;
        assert!((pages * PAGE_BYTES - capacity * region) * 100 <= pages * PAGE_BYTES, "C2");
        assert!(capacity <= 64 * 64 && pages <= 64, "a slab's bits and pages fit their words");
        out[i] = ClassInfo {
            region_bytes: region as u32,
            slab_pages: pages as u16,
            capacity: capacity as u16,
            words: capacity.div_ceil(64) as u16,
            magazine_max: clamp(MAGAZINE_BYTES / region, MAGAZINE_MIN, MAGAZINE_MAX) as u16,
            reciprocal: (1u64 << 32).div_ceil(region as u64) as u32,
        };
        i += 1;
    }
    out
}

const fn by_eighth() -> [u8; TABLE_MAX / 8 + 1] {
    let mut table = [0; TABLE_MAX / 8 + 1];
    let (mut i, mut class) = (0, 0);
    while i < table.len() {
        while (REGION_BYTES[class] as usize) < i * 8 || REGION_BYTES[class] < LEAST_BYTES {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

const_assert!(REGION_BYTES[CLASS_COUNT - 1] as usize == SMALL_MAX_BYTES);
const_assert!(CLASS_COUNT < u8::MAX as usize);

/// The class of a small block, or `None` when it is larger than
/// [`SMALL_MAX_BYTES`] or aligned to more than a page.
#[inline(always)]
pub(crate) fn of_layout(size: usize, align: usize) -> Option<Class> {
    let size = rounded(size, align);
    (size <= SMALL_MAX_BYTES && align <= PAGE_BYTES).then(|| of_size(size))
}

/// [`of_layout`] for the sizes that a table tells, which are most of those that programs
/// ask for: a few instructions, none where size and alignment are constants.
#[inline(always)]
pub(crate) fn of_little(size: usize, align: usize) -> Option<Class> {
    // Regions are multiples of the smallest one, whatever the size.
    if align <= REGION_BYTES[0] as usize {
        return (size <= TABLE_MAX).then(|| by_table(size));
    }
    let size = rounded(size, align);
    (size <= TABLE_MAX && align <= PAGE_BYTES).then(|| by_table(size))
}

/// The size of a layout, rounded up to its alignment. Fits `isize`, as layouts promise.
#[inline(always)]
fn rounded(size: usize, align: usize) -> usize {
    (size + (align - 1)) & !(align - 1)
}

/// The smallest class whose regions hold `size <= SMALL_MAX_BYTES` bytes.
#[inline(always)]
pub(crate) fn of_size(size: usize) -> Class {
    if size <= TABLE_MAX { by_table(size) } else { by_steps(size) }
}

#[inline(always)]
fn by_table(size: usize) -> Class {
    Class(BY_EIGHTH[(size + 7) >> 3].into())
}

/// For sizes from 129 on: four steps to each doubling.
#[inline(always)]
fn by_steps(size: usize) -> Class {
    let last = size - 1;
    let lg = last.ilog2();
    Class(9 + (lg - 7) * 4 + ((last >> (lg - 2)) & 3) as u32)
}

impl Class {
    /// The class at place `index`, if there is one.
    #[inline(always)]
    pub(crate) fn new(index: usize) -> Option<Self> {
        (index < CLASS_COUNT).then_some(Self(index as u32))
    }

    /// All classes, ascending.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..USED).map(Self)
    }

    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// The class in a set of classes.
    #[inline(always)]
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }

    /// Items that a magazine may grow to when each may hold `bytes`.
    pub(crate) fn magazine_max(self, bytes: usize) -> u16 {
        let info = self.info();
        let items = bytes / info.region_bytes as usize;
        info.magazine_max.min(clamp(items, MAGAZINE_MIN, MAGAZINE_MAX) as u16)
    }

    /// Whether a slab of this class with `live` regions live stays in its quarter of
    /// occupancy, and does not become empty, when `n` of them go. `false` may also mean that
    /// it comes to lie on its quarter's very line. By a multiplication, since it is asked for
    /// each region that goes back alone.
    #[inline(always)]
    pub(crate) fn keeps_quarter(self, live: u32, n: u32) -> bool {
        let one = QUARTERS[self.0 as usize];
        // In quarters with 32 bits behind the point, which are how far it is above its line.
        let above = (u64::from(live) * one) as u32;
        u64::from(above) > u64::from(n) * one
    }

    #[inline(always)]
    pub(crate) fn info(self) -> &'static ClassInfo {
        &TABLE[self.0 as usize]
    }
}

impl ClassInfo {
    #[inline]
    pub(crate) fn slab_bytes(&self) -> usize {
        (self.slab_pages as usize) << LG_PAGE
    }

    /// The region that the byte at `offset` of a slab lies in (C3); of any
    /// other byte, a number below 2^32.
    #[inline]
    pub(crate) fn region_index(&self, offset: usize) -> usize {
        ((offset as u64).wrapping_mul(u64::from(self.reciprocal)) >> 32) as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_size_and_alignment_fits_and_is_aligned() {
        // Up to 64 KiB: beyond a page there is no class, whatever the size.
        for lg in 0..=16 {
            let align = 1usize << lg;
            for size in 1..=1 << 20 {
                let Some(class) = of_layout(size, align) else {
                    assert!(size.next_multiple_of(align) > SMALL_MAX_BYTES || align > PAGE_BYTES);
                    assert_eq!(of_little(size, align), None);
                    continue;
                };
                let region = class.info().region_bytes as usize;
                assert!(region >= size, "{size} {align}");
                assert_eq!(region % align, 0, "C1: {size} {align}");
                let little = of_little(size, align);
                assert!(little.is_none_or(|little| little == class));
                assert_eq!(little.is_some(), size.next_multiple_of(align) <= TABLE_MAX);
                // Its size alone says the same as far as it is told.
                assert_eq!(class, of_size(size.next_multiple_of(align)), "{size} {align}");
                // No smaller class would have done.
                if let Some(below) = class.index().checked_sub(1) {
                    let bytes = REGION_BYTES[below];
                    assert!((bytes as usize) < size.next_multiple_of(align) || bytes < LEAST_BYTES);
                }
            }
        }
    }

    #[test]
    fn quarters_are_exact() {
        for class in Class::all() {
            let capacity = u32::from(class.info().capacity);
            let quarter = |live: u32| live * 4 / capacity;
            for (live, n) in (0..=capacity).flat_map(|live| (1..=capacity).map(move |n| (live, n)))
            {
                let stays = n < live && quarter(live) == quarter(live - n);
                let on_line = n <= live && (live - n) * 4 % capacity == 0;
                let told = class.keeps_quarter(live, n);
                assert!(told == stays || !told && on_line, "{live} of {capacity}, less {n}");
            }
        }
    }

    #[test]
    fn region_index_is_exact() {
        for class in Class::all() {
            let info = class.info();
            for offset in 0..info.slab_bytes() {
                let exact = offset / info.region_bytes as usize;
                assert_eq!(info.region_index(offset), exact, "C3");
            }
            // Elsewhere it is exact, too, where its product is the offset: `Slab::spot`.
            let far = (0..1 << 14).map(|i: usize| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for start in far.chain([0, 1 << 32, usize::MAX, 1 << 47]) {
                let offset = start.wrapping_sub(start % info.region_bytes as usize);
                let index = info.region_index(offset);
                assert!(index < 1 << 32);
                let exact = offset / info.region_bytes as usize;
                assert!(index * info.region_bytes as usize != offset || index == exact, "C3");
            }
        }
    }

    #[test]
    fn internal_waste_is_a_fifth_at_most() {
        for pair in REGION_BYTES[8..].windows(2) {
            assert!((pair[1] - pair[0]) * 5 <= pair[1]);
        }
    }
}
