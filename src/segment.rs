//! Floor 3: segments, and the way from an address to what owns it.
//!
//! ```text
//!  4 MiB-aligned                                                   +4 MiB
//!  | header: page map | slab | slab | large ... | free ...            |
//!  |<-- 2 pages ----->|<------------- 1022 pages -------------------->|
//! ```
//!
//! Hardened, 64 pages of [`marks`] follow the header, and a guard page; another one is at
//! the end.
//!
//! The *segment map*, one bit for every 4 MiB of the address space, says which
//! addresses are Tallow's; masking an address gives its segment; the page map
//! in the header gives each page's [`Entry`]. No tree, no search; and a foreign
//! pointer is found out without touching memory that may not be there.
//!
//! Invariants
//! - S1: a set bit in the map means: the segment is mapped and its header is
//!   initialised. It is set after that and cleared before the segment goes.
//! - S2: every page of a slab has the slab's entry; the first page of a large
//!   block has its length; all other entries are empty.
//! - S3: the page sets are read and written under the page heap's lock only;
//!   they lie in metadata, so that the header is two pages and not three.

mod marks;
#[cfg(loom)]
mod model;

use self::marks::MARK_PAGES;
use crate::bits::PageSet;
use crate::class::Class;
use crate::config::{
    HARDENED, HUGE_PAGE_BYTES, LG_ADDRESS, LG_PAGE, PAGE_BYTES, SEGMENT_BYTES, SEGMENT_PAGES,
};
use crate::error::Corruption;
use crate::os;
use crate::sync::Ordering;
use crate::sync::zeroed::{AtomicU64, AtomicUsize};
use core::ptr::{self, NonNull};
use static_assertions::const_assert;

const_assert!(LG_ADDRESS <= Entry::LG_CLASS);
const LG_SEGMENT: u32 = SEGMENT_BYTES.trailing_zeros();
const MAP_WORDS: usize = 1 << (LG_ADDRESS - LG_SEGMENT - 6);

/// One bit for every segment-sized piece of the address space; 8 MiB of
/// address space, of which only the touched pages are ever backed.
static MAP: [AtomicU64; MAP_WORDS] = [const { AtomicU64::new(0) }; MAP_WORDS];

/// The header at the start of a segment.
#[repr(C)]
pub(crate) struct Segment {
    /// Place in the page heap's table.
    pub(crate) slot: u64,
    /// Owned by the page heap (S3).
    pages: *mut SegmentPages,
    /// Of the pages behind the header.
    entries: [AtomicUsize; SEGMENT_PAGES - HEADER_ENTRIES],
}

/// Entries that the header's own pages would have: their room is used for the
/// other fields.
const HEADER_ENTRIES: usize = 2;
const_assert!(size_of::<Segment>() == HEADER_ENTRIES * PAGE_BYTES);

/// The page sets of a segment.
#[derive(Debug)]
pub(crate) struct SegmentPages {
    /// Pages that nobody uses.
    pub(crate) free: PageSet,
    /// Pages of `free` that may be backed by memory.
    pub(crate) dirty: PageSet,
    /// Pages that are being purged: not free, not used.
    pub(crate) purging: PageSet,
    /// Pages of slabs without a live region in each huge page, by the last survey.
    pub(crate) holes: [u16; HUGE_PAGES],
    /// Whether huge pages have been asked for.
    pub(crate) advised: bool,
    /// Hardened: pages of marks that have been written.
    pub(crate) marked: u64,
}

/// Huge pages in a segment, and pages in each of them.
pub(crate) const HUGE_PAGES: usize = SEGMENT_BYTES / HUGE_PAGE_BYTES;
pub(crate) const PAGES_PER_HUGE: usize = SEGMENT_PAGES / HUGE_PAGES;

/// What a page of a segment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Free, or the inside of a large block, or the segment's header.
    None,
    /// A slab: the address of its header, and its class, so that a free that is
    /// told no size need not look at the header.
    Slab { header: NonNull<u8>, class: Class },
    /// The first page of a large block of so many pages.
    Large { pages: usize },
    /// Hardened: the first page of what was one, and waits to be lent again.
    Freed { pages: usize },
}

impl Entry {
    const LARGE: usize = 1;
    /// Of a large one that was freed. As a class it is none.
    const FREED: usize = 1 << (usize::BITS - 1);
    /// Above the addresses ([`LG_ADDRESS`]): the class and 1.
    const LG_CLASS: u32 = usize::BITS - u8::BITS;

    fn encode(self) -> usize {
        match self {
            Self::None => 0,
            Self::Slab { header, class } => {
                header.as_ptr().expose_provenance() | (class.index() + 1) << Self::LG_CLASS
            }
            Self::Large { pages } => pages << 1 | Self::LARGE,
            Self::Freed { pages } => Self::FREED | pages << 1 | Self::LARGE,
        }
    }

    /// The class of a slab's entry.
    #[inline(always)]
    fn class(word: usize) -> Option<Class> {
        Class::new((word >> Self::LG_CLASS).wrapping_sub(1))
    }

    #[inline]
    fn decode(word: usize) -> Self {
        if HARDENED && word & Self::FREED != 0 {
            return Self::Freed { pages: (word & !Self::FREED) >> 1 };
        }
        if word & Self::LARGE != 0 {
            return Self::Large { pages: word >> 1 };
        }
        let header = ptr::with_exposed_provenance_mut(word & ((1 << Self::LG_CLASS) - 1));
        match (NonNull::new(header), Self::class(word)) {
            (Some(header), Some(class)) => Self::Slab { header, class },
            _ => Self::None,
        }
    }
}

/// Pages that are not for lending: the header, rounded up to OS pages; hardened, with the
/// marks and a guard page behind it, and another one at the segment's end.
pub(crate) fn header_pages() -> usize {
    first_page() + guard_pages()
}

/// The first page that is for lending.
pub(crate) fn first_page() -> usize {
    let header = size_of::<Segment>() + MARK_PAGES * PAGE_BYTES;
    (header.next_multiple_of(os::page_bytes()) >> LG_PAGE) + guard_pages()
}

/// Pages of a guard: one of the system's; none if the crate is not hardened.
pub(crate) fn guard_pages() -> usize {
    if HARDENED { os::page_bytes() >> LG_PAGE } else { 0 }
}

#[inline]
fn map_bit(address: usize) -> Option<(&'static AtomicU64, u64)> {
    let index = address >> LG_SEGMENT;
    Some((MAP.get(index / 64)?, 1 << (index % 64)))
}

impl Segment {
    /// Writes the header of a new segment and puts it on the map.
    ///
    /// # Safety
    /// - `base` is the start of an unused, zero, mapped segment.
    /// - `pages` has room for the page sets, for as long as the segment lives.
    pub(crate) unsafe fn install(
        base: NonNull<u8>,
        slot: usize,
        pages: NonNull<SegmentPages>,
    ) -> NonNull<Self> {
        let segment = base.cast::<Self>();
        let mut free = PageSet::EMPTY;
        free.insert(first_page(), SEGMENT_PAGES - header_pages());
        let (dirty, purging) = (PageSet::EMPTY, PageSet::EMPTY);
        let holes = [0; HUGE_PAGES];
        let sets = SegmentPages { free, dirty, purging, holes, advised: false, marked: 0 };
        // SAFETY: the caller's promise.
        unsafe { pages.write(sets) };
        // The entries are zero, which is `Entry::None`.
        // SAFETY: the memory is ours, large enough and aligned.
        unsafe { (&raw mut (*segment.as_ptr()).slot).write(slot as u64) };
        // SAFETY: as above.
        unsafe { (&raw mut (*segment.as_ptr()).pages).write(pages.as_ptr()) };
        if let Some((word, bit)) = map_bit(base.addr().get()) {
            // Release pairs with the Acquire in `find` (S1).
            word.fetch_or(bit, Ordering::Release);
        }
        segment
    }

    /// Makes the guard pages inaccessible, if the crate is hardened. May call the OS.
    pub(crate) fn guard(&self) {
        let bytes = guard_pages() << LG_PAGE;
        for page in [first_page() - guard_pages(), SEGMENT_PAGES - guard_pages()] {
            if HARDENED {
                // SAFETY: pages of the segment that are never lent.
                unsafe { os::protect(self.page_at(page), bytes, os::Access::None) };
            }
        }
    }

    /// Takes the segment off the map, before it is given back (S1).
    pub(crate) fn uninstall(&self) {
        if let Some((word, bit)) = map_bit(self.base().addr().get()) {
            // Relaxed: nobody holds memory of this segment any more.
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Whether an address lies in a segment of Tallow's.
    #[inline(always)]
    pub(crate) fn has(address: usize) -> bool {
        // Acquire pairs with the Release in `install`.
        map_bit(address).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// The segment that an address lies in, if it is one of Tallow's.
    #[inline]
    pub(crate) fn find(address: usize) -> Option<&'static Self> {
        if !Self::has(address) {
            return None;
        }
        let base = address & !(SEGMENT_BYTES - 1);
        // SAFETY: S1; the mapping's provenance was exposed when it was made.
        Some(unsafe { &*ptr::with_exposed_provenance::<Self>(base) })
    }

    /// Whose the page with this address is.
    #[inline]
    pub(crate) fn entry_of(address: usize) -> Entry {
        match Self::find(address) {
            None => Entry::None,
            Some(segment) => segment.entry((address & (SEGMENT_BYTES - 1)) >> LG_PAGE),
        }
    }

    /// The class of the slab that the page with this address belongs to.
    #[inline(always)]
    pub(crate) fn class_of(address: usize) -> Option<Class> {
        let segment: *const Self = Self::find(address)?;
        let page = (address & (SEGMENT_BYTES - 1)) >> LG_PAGE;
        // SAFETY: a word of the header. In the first two a class would stand above
        // the bits that a slot or an address has, so they name none.
        let word = unsafe { &*segment.cast::<AtomicUsize>().add(page) };
        // Acquire: as in `entry`.
        Entry::class(word.load(Ordering::Acquire))
    }

    /// The header of the slab of `class` that the page with this address belongs to; an
    /// error that says what is wrong with freeing a block there as one of that class.
    #[inline(always)]
    pub(crate) fn slab_of(class: Class, address: usize) -> Result<NonNull<u8>, Corruption> {
        if !Self::has(address) {
            return Err(Self::not_of_class(class, address));
        }
        let base = address & !(SEGMENT_BYTES - 1);
        let page = (address & (SEGMENT_BYTES - 1)) >> LG_PAGE;
        let word = ptr::with_exposed_provenance::<AtomicUsize>(base).wrapping_add(page);
        // SAFETY: as in `class_of`.
        let word = unsafe { &*word }.load(Ordering::Acquire);
        // Without its class the entry is an address; with any other there are bits above.
        let header = word ^ (class.index() + 1) << Entry::LG_CLASS;
        if header >> Entry::LG_CLASS != 0 {
            return Err(Self::not_of_class(class, address));
        }
        let header = ptr::with_exposed_provenance_mut(header);
        // SAFETY: an entry with a class is that of a slab, which has a header.
        Ok(unsafe { NonNull::new_unchecked(header) })
    }

    /// What is wrong with freeing a block at `address` as one of `class`.
    #[cold]
    #[inline(never)]
    fn not_of_class(class: Class, address: usize) -> Corruption {
        let freed_bytes = class.info().region_bytes as usize;
        match Self::entry_of(address) {
            Entry::Slab { class: owned, .. } => Corruption::Layout {
                address,
                freed_bytes,
                owned_bytes: owned.info().region_bytes as usize,
            },
            Entry::Large { pages } => {
                Corruption::Layout { address, freed_bytes, owned_bytes: pages << LG_PAGE }
            }
            Entry::None | Entry::Freed { .. } => Corruption::Foreign { address, size: freed_bytes },
        }
    }

    #[inline]
    pub(crate) fn entry(&self, page: usize) -> Entry {
        // Acquire pairs with the Release in `set_entry`: the slab's header is
        // seen whole.
        match page.checked_sub(HEADER_ENTRIES).and_then(|at| self.entries.get(at)) {
            Some(cell) => Entry::decode(cell.load(Ordering::Acquire)),
            None => Entry::None,
        }
    }

    /// Calls `f` with the page sets, under the page heap's lock (S3).
    #[inline]
    pub(crate) fn with_sets<R>(&self, f: impl FnOnce(*mut SegmentPages) -> R) -> R {
        f(self.pages)
    }

    /// Where the page sets lie.
    pub(crate) fn sets(&self) -> *mut SegmentPages {
        self.pages
    }

    /// Sets the entries of `pages` pages from `first`.
    pub(crate) fn set_entry(&self, first: usize, pages: usize, entry: Entry) {
        let word = entry.encode();
        let first = first - HEADER_ENTRIES;
        for cell in &self.entries[first..first + pages] {
            // Release pairs with the Acquire in `entry`.
            cell.store(word, Ordering::Release);
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        let address = ptr::from_ref(self).addr();
        // Not null, since `self` is a reference. Exposed in `os::reserve`.
        NonNull::new(ptr::with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling())
    }

    /// The address of a page of this segment.
    pub(crate) fn page_at(&self, page: usize) -> NonNull<u8> {
        debug_assert!(page < SEGMENT_PAGES);
        // SAFETY: the page lies in the segment.
        unsafe { self.base().add(page * PAGE_BYTES) }
    }

    /// The number of the page that an address of this segment lies in.
    #[inline]
    pub(crate) fn page_of(address: usize) -> usize {
        (address & (SEGMENT_BYTES - 1)) >> LG_PAGE
    }
}

// SAFETY: entries are atomic, `slot` never changes while the segment is on the
// map, and the page sets are used under the page heap's lock (S3).
unsafe impl Sync for Segment {}
