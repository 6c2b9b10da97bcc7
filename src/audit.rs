//! Floor 9: double entry: everything recounted from the bit sets, and compared
//! with the books.

use crate::arena::CENTRAL;
use crate::arena::guarded::GUARDED;
use crate::class::{CLASS_COUNT, Class};
use crate::config::{HARDENED, LG_PAGE, SEGMENT_PAGES};
use crate::os;
use crate::pages::PageBooks;
use crate::segment::{Entry, Segment, SegmentPages, first_page, guard_pages, header_pages};
use crate::slab::{Slab, State, quarter};
use crate::sync::Ordering;
use crate::thread::{Books, each_record, generation, hold_everything, let_everything_go};
use core::fmt;

/// What an audit counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Slabs, all classes.
    pub slabs: u64,
    /// Regions taken out of slabs, cached ones among them.
    pub regions_claimed: u64,
    /// Regions in thread caches.
    pub regions_cached: u64,
    /// Bytes of large blocks.
    pub large_bytes: u64,
    /// Bytes of huge blocks.
    pub huge_bytes: u64,
    /// Bytes of small blocks between guard pages: only with the feature `hardened`.
    pub guarded_bytes: u64,
    /// Bytes of free pages, dirty and purged.
    pub free_bytes: u64,
    /// Bytes of pages in slabs.
    pub slab_bytes: u64,
}

/// A place where books and bit sets disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditError {
    /// What disagrees.
    pub what: &'static str,
    /// Bytes of the regions of the class concerned; 0 where it is none.
    pub region_bytes: u64,
    /// What the books say.
    pub booked: i64,
    /// What was counted.
    pub counted: i64,
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, region_bytes, booked, counted } = self;
        write!(f, "the books do not balance: {what}: booked {booked}, counted {counted}")?;
        if *region_bytes > 0 {
            write!(f, " (class of {region_bytes} bytes)")?;
        }
        Ok(())
    }
}

impl core::error::Error for AuditError {}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the books balance: {} regions in {} slabs ({} cached), {} bytes large, {} bytes huge",
            self.regions_claimed,
            self.slabs,
            self.regions_cached,
            self.large_bytes,
            self.huge_bytes
        )
    }
}

/// Recounts everything from the bit sets and compares it with the books.
///
/// Holds every lock of the allocator meanwhile: other threads go on as long as
/// their magazines last. Allocates nothing. Costs about 0.1 ms for each 10 MB.
///
/// # Errors
/// The first place where books and bit sets disagree: a bug in Tallow, or
/// memory that the program has corrupted.
pub fn audit() -> Result<Audit, AuditError> {
    hold_everything();
    // SAFETY: everything is held.
    let result = unsafe { recount() };
    // SAFETY: as above.
    unsafe { let_everything_go() };
    result
}

/// What is counted on the way through the segments.
struct Counted {
    audit: Audit,
    claimed: [i64; CLASS_COUNT],
    /// Hardened: regions that the program holds, by their marks.
    held: [i64; CLASS_COUNT],
    slabs: [usize; CLASS_COUNT],
    full: [usize; CLASS_COUNT],
    evacuating: [usize; CLASS_COUNT],
    owned: [usize; CLASS_COUNT],
    partial: [[usize; 4]; CLASS_COUNT],
    pages: PageBooks,
    large_count: usize,
    /// Hardened: bytes of freed large blocks that wait.
    waiting_bytes: usize,
    punched: usize,
    error: Option<AuditError>,
}

impl Counted {
    fn check(&mut self, what: &'static str, class: Option<Class>, booked: i64, counted: i64) {
        if booked != counted && self.error.is_none() {
            let region_bytes = class.map_or(0, |c| u64::from(c.info().region_bytes));
            self.error = Some(AuditError { what, region_bytes, booked, counted });
        }
    }

    fn slab(&mut self, slab: &Slab, class: Class) {
        let (i, header) = (class.index(), slab.header());
        let taken = slab.capacity() - slab.count_free();
        self.check("live regions of a slab", Some(class), header.live().into(), taken.into());
        let capacity = i64::from(class.info().capacity);
        self.check("regions of a slab", Some(class), slab.capacity().into(), capacity);
        self.punched += slab.punched_pages() as usize;
        if header.state() != State::Empty {
            let free = slab.punched_is_free(class);
            self.check("punched pages without live regions", Some(class), 1, free.into());
        }
        self.claimed[i] += i64::from(taken);
        self.held[i] += slab.count_held(class) as i64;
        self.slabs[i] += 1;
        self.audit.slabs += 1;
        self.audit.slab_bytes += class.info().slab_bytes() as u64;
        match header.state() {
            State::Full => {
                self.full[i] += 1;
                self.check("a full slab", Some(class), capacity, taken.into());
            }
            State::Evacuating => self.evacuating[i] += 1,
            State::Owned => self.owned[i] += 1,
            State::Partial => self.partial[i][quarter(taken, slab.capacity())] += 1,
            State::Empty => self.check("a slab without regions in use", Some(class), 1, 0),
        }
    }

    fn segment(&mut self, segment: &'static Segment, sets: &SegmentPages) {
        let (mut page, mut used) = (first_page(), 0);
        while page < SEGMENT_PAGES {
            let pages = match segment.entry(page) {
                Entry::None => {
                    page += 1;
                    continue;
                }
                Entry::Freed { pages } => {
                    self.waiting_bytes += pages << LG_PAGE;
                    used += 2 * guard_pages();
                    pages
                }
                Entry::Large { pages } => {
                    self.large_count += 1;
                    self.audit.large_bytes += (pages as u64) << LG_PAGE;
                    used += 2 * guard_pages();
                    pages
                }
                entry @ Entry::Slab { header, .. } => {
                    // SAFETY: the page map names valid headers (A1).
                    let slab = unsafe { header.cast::<Slab>().as_ref() };
                    let Some(class) = slab.header().tag().class() else {
                        self.check("the class of a slab", None, 0, 1);
                        return;
                    };
                    self.slab(slab, class);
                    let named = entry == Entry::Slab { header, class };
                    self.check("the class in the page map", Some(class), 1, named.into());
                    let pages = usize::from(class.info().slab_pages);
                    for other in page..page + pages {
                        let same = segment.entry(other) == entry;
                        self.check("the page map of a slab", Some(class), 1, same.into());
                    }
                    pages.next_multiple_of(os::page_bytes() >> LG_PAGE)
                }
            };
            let free = sets.free.count_in(page, pages) + sets.purging.count_in(page, pages);
            self.check("pages both used and free", None, 0, free as i64);
            used += pages;
            page += pages;
        }
        let both = sets.free.intersection(&sets.dirty);
        self.check(
            "dirty pages that are not free",
            None,
            sets.dirty.count() as i64,
            both.count() as i64,
        );
        let (free, purging) = (sets.free.count(), sets.purging.count());
        let sum = header_pages() + used + free + purging;
        self.check("pages of a segment", None, SEGMENT_PAGES as i64, sum as i64);
        self.pages.segments += 1;
        self.pages.header_pages += header_pages();
        self.pages.untouched_pages += sets.untouched_pages();
        self.pages.free_pages += free;
        self.pages.dirty_pages += sets.dirty.count();
        self.pages.purging_pages += purging;
    }

    fn bins(&mut self) {
        for class in Class::all() {
            let (mut slabs, mut full, mut evacuating, mut owned) = (0, 0, 0, 0);
            let mut partial = [0; 4];
            for arena in &CENTRAL.arenas {
                // SAFETY: everything is held.
                let counts = unsafe { arena.bins[class.index()].counts_held() };
                full += counts.full;
                evacuating += counts.evacuating;
                owned += counts.owned;
                slabs += counts.partial.iter().sum::<usize>();
                partial.iter_mut().zip(counts.partial).for_each(|(sum, n)| *sum += n);
            }
            slabs += full + evacuating + owned;
            let i = class.index();
            let rows = [
                ("slabs of a class", slabs, self.slabs[i]),
                ("full slabs of a class", full, self.full[i]),
                ("evacuating slabs of a class", evacuating, self.evacuating[i]),
                ("owned slabs of a class", owned, self.owned[i]),
            ];
            let now = self.partial[i];
            let quarters: [_; 4] =
                core::array::from_fn(|q| ("slabs by occupancy", partial[q], now[q]));
            for (what, booked, counted) in rows.into_iter().chain(quarters) {
                self.check(what, Some(class), booked as i64, counted as i64);
            }
        }
    }

    /// Hardened: the marks against the books. Other threads set and clear marks while these
    /// are counted, and those of a parent's threads stay as they were: so only in a process
    /// that has one thread and was not forked.
    fn marks(&mut self, books: &Books) {
        if os::threads() != Some(1) || generation() != 0 {
            return;
        }
        for class in Class::all() {
            let booked = books.claimed[class.index()] - books.cached[class.index()];
            let marked = self.held[class.index()];
            self.check("regions marked as held", Some(class), booked, marked);
        }
    }

    /// `still` when no thread was in its hot path while the books were read.
    fn records(&mut self, books: &Books, still: bool) {
        for class in Class::all() {
            let (booked, cached) = (books.claimed[class.index()], books.cached[class.index()]);
            self.check(
                "claimed regions of a class",
                Some(class),
                booked,
                self.claimed[class.index()],
            );
            if still && cached > booked {
                self.check("cached regions of a class", Some(class), booked, cached);
            }
            self.audit.regions_cached += cached as u64;
            self.audit.regions_claimed += booked as u64;
        }
        let small: i64 = Class::all()
            .map(|c| {
                (books.claimed[c.index()] - books.cached[c.index()])
                    * i64::from(c.info().region_bytes)
            })
            .sum();
        let allocated = small
            + self.audit.large_bytes as i64
            + self.audit.huge_bytes as i64
            + self.audit.guarded_bytes as i64;
        if still && books.requested_bytes > allocated {
            self.check(
                "requested bytes, which allocated must cover",
                None,
                books.requested_bytes,
                allocated,
            );
        }
    }
}

/// # Safety
/// The caller holds everything.
unsafe fn recount() -> Result<Audit, AuditError> {
    let mut counted = Counted {
        audit: Audit::default(),
        claimed: [0; CLASS_COUNT],
        held: [0; CLASS_COUNT],
        slabs: [0; CLASS_COUNT],
        full: [0; CLASS_COUNT],
        evacuating: [0; CLASS_COUNT],
        owned: [0; CLASS_COUNT],
        partial: [[0; 4]; CLASS_COUNT],
        pages: PageBooks::default(),
        large_count: 0,
        waiting_bytes: 0,
        punched: 0,
        error: None,
    };
    let read = || {
        let mut books = Books::ZERO;
        each_record(|record| {
            // SAFETY: the record's lock is held.
            books.add(&unsafe { record.lock.value_held() }.books(record));
        });
        books
    };
    let before = if HARDENED { read() } else { Books::ZERO };
    // SAFETY: the caller's promise.
    unsafe { CENTRAL.pages.each_segment_held(|segment, sets| counted.segment(segment, sets)) };
    // SAFETY: as above.
    let booked = unsafe { CENTRAL.pages.books_held() };
    counted.pages.spare_segments = booked.spare_segments;
    counted.pages.table_bytes = booked.table_bytes;
    let rows = [
        ("segments", booked.segments, counted.pages.segments),
        ("header pages", booked.header_pages, counted.pages.header_pages),
        ("untouched pages", booked.untouched_pages, counted.pages.untouched_pages),
        ("free pages", booked.free_pages, counted.pages.free_pages),
        ("dirty pages", booked.dirty_pages, counted.pages.dirty_pages),
        ("purging pages", booked.purging_pages, counted.pages.purging_pages),
    ];
    for (what, booked, counted_now) in rows {
        counted.check(what, None, booked as i64, counted_now as i64);
    }
    let punched = CENTRAL.holes.pages.load(Ordering::Relaxed);
    counted.check("punched pages", None, punched as i64, counted.punched as i64);
    counted.audit.free_bytes = (booked.free_pages as u64) << LG_PAGE;
    let large = booked.blocks;
    counted.check("large blocks", None, large.count as i64, counted.large_count as i64);
    let large_bytes = counted.audit.large_bytes as i64;
    counted.check("bytes of large blocks", None, large.bytes as i64, large_bytes);
    // SAFETY: as above.
    let waiting = unsafe { CENTRAL.large.waiting_bytes_held() };
    let now = counted.waiting_bytes as i64;
    counted.check("bytes of large blocks that wait", None, waiting as i64, now);
    // SAFETY: as above.
    let (huge, now) = unsafe { CENTRAL.huge.recount_held() };
    let (blocks, counted_blocks) = (huge.blocks, now.blocks);
    counted.check("huge blocks", None, blocks.count as i64, counted_blocks.count as i64);
    counted.check("bytes of huge blocks", None, blocks.bytes as i64, counted_blocks.bytes as i64);
    let (booked, rests) = (huge.rest_bytes as i64, now.rest_bytes as i64);
    counted.check("bytes behind huge blocks", None, booked, rests);
    counted.check("bytes on the shelf", None, huge.shelf_bytes as i64, now.shelf_bytes as i64);
    let (booked, hollow) = (huge.hollow_bytes as i64, now.hollow_bytes as i64);
    counted.check("untouched bytes on the shelf", None, booked, hollow);
    counted.audit.huge_bytes = blocks.bytes as u64;
    if HARDENED {
        // SAFETY: as above.
        let (guarded, guarded_counted) = unsafe { GUARDED.recount_held() };
        let (booked, now) = (guarded.count as i64, guarded_counted.count as i64);
        counted.check("guarded blocks", None, booked, now);
        let (booked, now) = (guarded.bytes as i64, guarded_counted.bytes as i64);
        counted.check("bytes of guarded blocks", None, booked, now);
        counted.audit.guarded_bytes = guarded.bytes as u64;
    }
    counted.bins();
    let books = read();
    if HARDENED && before == books {
        counted.marks(&books);
    }
    counted.records(&books, books == read());
    counted.error.map_or(Ok(counted.audit), Err)
}
