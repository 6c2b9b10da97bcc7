//! Floor 9: [`stats()`]: where every byte is.
//!
//! The figures come from the books that the floors keep while they work, not
//! from a count beside them: slabs by state from the bins' lists, regions taken
//! from the thread records, cached ones from the magazines themselves, pages
//! from the page heap. [`crate::audit()`] recounts them from the bit sets.
//!
//! ```text
//! allocated = claimed regions - cached regions + large + huge (+ guarded, if hardened)
//! active    = pages of slabs + large + huge
//! resident  = active + dirty (purging too) + metadata
//! mapped    = resident + retained
//! requested <= allocated <= active <= resident <= mapped
//! ```

use crate::account::{AccountStats, accounts};
use crate::arena::CENTRAL;
use crate::arena::bin::SlabCounts;
use crate::arena::guarded::GUARDED;
use crate::class::{CLASS_COUNT, Class};
use crate::config::{HARDENED, LG_PAGE, MAX_ACCOUNTS};
use crate::defrag::{self, DefragStats};
use crate::limit::{self, LimitStats};
use crate::os::{self, OsCalls};
use crate::pages::BlockBooks;
use crate::segment::Entry;
use crate::slab::Slab;
use crate::sync::Ordering;
use crate::thread::{Books, hold_everything, let_everything_go, sum_books};
use core::fmt;

/// Figures of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of one region.
    pub region_bytes: u64,
    /// Bytes of one slab.
    pub slab_bytes: u64,
    /// Slabs in all states.
    pub slabs: u64,
    /// Slabs without a free region.
    pub slabs_full: u64,
    /// Slabs that refills come from now.
    pub slabs_current: u64,
    /// Slabs that are being emptied by defragmentation.
    pub slabs_evacuating: u64,
    /// All other slabs, by quarter of occupancy: up to 25 %, 50 %, 75 %, above.
    pub slabs_partial: [u64; 4],
    /// Regions that the program holds.
    pub regions_live: u64,
    /// Regions waiting in thread caches.
    pub regions_cached: u64,
    /// Free regions in slabs.
    pub regions_free: u64,
    /// `regions_live * region_bytes`.
    pub allocated_bytes: u64,
    /// Regions moved by defragmentation so far.
    pub regions_moved: u64,
    /// Slabs emptied by defragmentation so far.
    pub slabs_emptied: u64,
}

impl ClassStats {
    /// The share of all regions that the program holds, 0 to 1; 1 without slabs.
    pub fn utilisation(&self) -> f64 {
        let all = self.regions_live + self.regions_cached + self.regions_free;
        if all == 0 { 1.0 } else { self.regions_live as f64 / all as f64 }
    }

    /// Bytes of slabs that defragmentation could empty: so many slabs as there
    /// are whole slabs' worth of free regions.
    pub fn evacuable_bytes(&self) -> u64 {
        let all = self.regions_live + self.regions_cached + self.regions_free;
        match all.checked_div(self.slabs) {
            // `capacity` regions to a slab.
            Some(capacity) if capacity > 0 => self.regions_free / capacity * self.slab_bytes,
            _ => 0,
        }
    }
}

/// Where every byte is, at one moment. See [`stats()`].
///
/// Exact when no other thread allocates meanwhile; otherwise each figure was
/// true at some moment during the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Bytes that the program asked for and has not given back.
    pub requested_bytes: u64,
    /// Bytes of the regions, extents and mappings that the program holds.
    pub allocated_bytes: u64,
    /// Bytes of pages in slabs, large and huge blocks, less the punched ones.
    pub active_bytes: u64,
    /// Bytes backed by memory at most, by Tallow's own count: active, dirty, metadata.
    /// What was never written counts, since only the system knows.
    pub resident_bytes: u64,
    /// Bytes of address space taken from the OS.
    pub mapped_bytes: u64,
    /// Bytes of address space without memory behind it.
    pub retained_bytes: u64,
    /// Bytes of free pages, and of huge blocks that wait to be used again, that may
    /// still be backed by memory.
    pub dirty_bytes: u64,
    /// Bytes that Tallow uses for itself.
    pub metadata_bytes: u64,
    /// Bytes of regions waiting in thread caches.
    pub cached_bytes: u64,
    /// Bytes of pages that were taken out of slabs in use, since no region on
    /// them was live.
    pub punched_bytes: u64,
    /// Pages punched so far.
    pub pages_punched: u64,
    /// Punched pages that came back into use.
    pub pages_refaulted: u64,
    /// Large blocks.
    pub large_count: u64,
    /// Bytes of large blocks.
    pub large_bytes: u64,
    /// Huge blocks: mappings of their own.
    pub huge_count: u64,
    /// Bytes of huge blocks.
    pub huge_bytes: u64,
    /// Small blocks that lie between guard pages: only with the feature `hardened`.
    pub guarded_count: u64,
    /// Bytes of these, of the regions that they would have been.
    pub guarded_bytes: u64,
    /// Calls of the operating system.
    pub os_calls: OsCalls,
    /// What defragmentation has done so far.
    pub defrag: DefragStats,
    /// How often limits have had an effect.
    pub limits: LimitStats,
    /// Figures by account, newest first.
    pub accounts: AccountList,
    /// Figures by size class, smallest first.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_list"))]
    pub classes: [ClassStats; CLASS_COUNT],
}

/// The books of accounts, as many as [`config::MAX_ACCOUNTS`](crate::config::MAX_ACCOUNTS);
/// [`accounts()`](crate::accounts()) has those beyond.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AccountList {
    len: usize,
    list: [AccountStats; MAX_ACCOUNTS],
}

impl AccountList {
    fn now() -> Self {
        let mut new = Self { len: 0, list: [AccountStats::default(); MAX_ACCOUNTS] };
        for (to, account) in new.list.iter_mut().zip(accounts()) {
            *to = account;
            new.len += 1;
        }
        new
    }
}

impl core::ops::Deref for AccountList {
    type Target = [AccountStats];

    fn deref(&self) -> &[AccountStats] {
        &self.list[..self.len]
    }
}

impl fmt::Debug for AccountList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for AccountList {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

#[cfg(feature = "serde")]
fn as_list<S: serde::Serializer>(classes: &[ClassStats], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(classes)
}

/// Where every byte is now. Allocates nothing; takes one lock at a time, so it
/// stops nobody; some microseconds, whatever the size of the heap.
///
/// ```
/// let before = tallow::stats();
/// println!("{before}");
/// assert!(before.requested_bytes <= before.allocated_bytes);
/// assert!(before.allocated_bytes <= before.active_bytes);
/// assert!(before.active_bytes <= before.resident_bytes);
/// assert!(before.resident_bytes <= before.mapped_bytes);
/// ```
pub fn stats() -> Snapshot {
    let books = sum_books();
    let counts = |class: Class| {
        let mut sum = SlabCounts::default();
        for arena in &CENTRAL.arenas {
            sum.add(&arena.bins[class.index()].counts());
        }
        sum
    };
    let classes = core::array::from_fn(|i| match Class::new(i) {
        Some(class) => class_stats(class, &counts(class), &books),
        None => ClassStats::default(),
    });
    let mappings = CENTRAL.huge.books();
    let huge = mappings.blocks;
    let (guarded, guarded_pages) =
        if HARDENED { GUARDED.books() } else { (BlockBooks::default(), 0) };
    // Pages and the large blocks that lie in them, of one moment: allocated <= active.
    let (pages, meta) = (CENTRAL.pages.books(), CENTRAL.meta.bytes());
    let large = pages.blocks;
    let small: u64 = classes.iter().map(|c: &ClassStats| c.allocated_bytes).sum();
    let cached = classes.iter().map(|c| c.regions_cached * c.region_bytes).sum();
    let page_bytes = |n: usize| (n as u64) << LG_PAGE;
    let metadata = page_bytes(pages.metadata_pages())
        + (meta.used + pages.table_bytes) as u64
        + if HARDENED { GUARDED.table_bytes() as u64 } else { 0 };
    let dirty = page_bytes(pages.dirty_pages + pages.purging_pages) + mappings.dirty_bytes() as u64;
    let punched = page_bytes(CENTRAL.holes.pages.load(Ordering::Relaxed));
    let blocks = (huge.bytes + guarded_pages) as u64;
    let active = (page_bytes(pages.used_pages()) + blocks).saturating_sub(punched);
    let resident = active + dirty + metadata;
    let mapped = (pages.mapped_bytes() + meta.mapped + mappings.mapped_bytes() + pages.table_bytes)
        as u64
        + if HARDENED { GUARDED.mapped_bytes() as u64 } else { 0 };
    Snapshot {
        requested_bytes: books.requested_bytes.max(0) as u64,
        allocated_bytes: small + (large.bytes + huge.bytes + guarded.bytes) as u64,
        active_bytes: active,
        resident_bytes: resident,
        mapped_bytes: mapped,
        retained_bytes: mapped.saturating_sub(resident),
        dirty_bytes: dirty,
        metadata_bytes: metadata,
        cached_bytes: cached,
        punched_bytes: punched,
        pages_punched: CENTRAL.holes.punched.load(Ordering::Relaxed),
        pages_refaulted: CENTRAL.holes.refaulted.load(Ordering::Relaxed),
        large_count: large.count as u64,
        large_bytes: large.bytes as u64,
        huge_count: huge.count as u64,
        huge_bytes: huge.bytes as u64,
        guarded_count: guarded.count as u64,
        guarded_bytes: guarded.bytes as u64,
        os_calls: os::calls(),
        defrag: defrag::BOOKS.stats(),
        limits: limit::stats(),
        accounts: AccountList::now(),
        classes,
    }
}

impl Snapshot {
    /// Bytes of slabs that a pass of defragmentation over all of the program's
    /// data would empty, about. See [`ClassStats::evacuable_bytes`].
    pub fn evacuable_bytes(&self) -> u64 {
        self.classes.iter().map(ClassStats::evacuable_bytes).sum()
    }
}

impl SlabCounts {
    fn add(&mut self, other: &Self) {
        for (sum, n) in self.partial.iter_mut().zip(other.partial) {
            *sum += n;
        }
        self.evacuating += other.evacuating;
        self.full += other.full;
        self.owned += other.owned;
    }
}

fn class_stats(class: Class, slabs: &SlabCounts, books: &Books) -> ClassStats {
    let info = class.info();
    let count =
        (slabs.partial.iter().sum::<usize>() + slabs.evacuating + slabs.full + slabs.owned) as u64;
    let all = count * u64::from(info.capacity);
    // Sums over threads: between two looks one may be ahead of the other.
    let claimed = books.claimed[class.index()].clamp(0, all as i64) as u64;
    let cached = (books.cached[class.index()].max(0) as u64).min(claimed);
    let region_bytes = u64::from(info.region_bytes);
    let (regions_moved, slabs_emptied) = defrag::BOOKS.of_class(class);
    ClassStats {
        region_bytes,
        slab_bytes: info.slab_bytes() as u64,
        slabs: count,
        slabs_full: slabs.full as u64,
        slabs_current: slabs.owned as u64,
        slabs_evacuating: slabs.evacuating as u64,
        slabs_partial: slabs.partial.map(|n| n as u64),
        regions_live: claimed - cached,
        regions_cached: cached,
        regions_free: all - claimed,
        allocated_bytes: (claimed - cached) * region_bytes,
        regions_moved,
        slabs_emptied,
    }
}

/// One slab, for a picture of the heap. See [`slabs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SlabView {
    /// Place of its size class in [`Snapshot::classes`].
    pub class: u8,
    /// Bytes of one region.
    pub region_bytes: u32,
    /// Address of its first byte.
    pub start_address: usize,
    /// Regions in all.
    pub capacity: u32,
    /// Regions that are taken: held by the program or by a thread cache.
    pub live: u32,
}

/// Writes what each slab looks like into `out`, lowest address first in each
/// segment, as many as there is room for; returns how many slabs there are.
///
/// Stops all slow paths of the allocator meanwhile (about 10 ns for each slab);
/// allocates nothing, so make room before: `out` must not be grown in between.
pub fn slabs(out: &mut [SlabView]) -> usize {
    let mut count = 0;
    hold_everything();
    let visit = |slab: &Slab, class: Class| {
        if let Some(view) = out.get_mut(count) {
            *view = SlabView {
                class: class.index() as u8,
                region_bytes: class.info().region_bytes,
                start_address: slab.start().addr(),
                capacity: slab.capacity(),
                live: slab.header().live(),
            };
        }
        count += 1;
    };
    // SAFETY: everything is held.
    unsafe { each_slab_held(visit) };
    // SAFETY: as above.
    unsafe { let_everything_go() };
    count
}

/// Calls `f` with every slab.
///
/// # Safety
/// The caller holds everything.
pub(crate) unsafe fn each_slab_held(mut f: impl FnMut(&'static Slab, Class)) {
    // SAFETY: the page heap's lock is held.
    unsafe {
        CENTRAL.pages.each_segment_held(|segment, _| {
            let mut page = 0;
            while page < crate::config::SEGMENT_PAGES {
                page += match segment.entry(page) {
                    Entry::None => 1,
                    Entry::Large { pages } | Entry::Freed { pages } => pages,
                    Entry::Slab { header, .. } => {
                        let slab = header.cast::<Slab>().as_ref();
                        match slab.header().tag().class() {
                            Some(class) => {
                                f(slab, class);
                                usize::from(class.info().slab_pages)
                            }
                            None => 1,
                        }
                    }
                };
            }
        });
    }
}

/// Bytes as a person reads them.
pub(crate) struct Human(pub(crate) u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{:>7} B  ", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:>7.1} {}", UNITS[unit])
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("requested", self.requested_bytes, "what the program asked for"),
            ("allocated", self.allocated_bytes, "the regions and extents it holds"),
            ("active", self.active_bytes, "pages of slabs, large and huge blocks"),
            ("resident", self.resident_bytes, "active + dirty + metadata"),
            ("mapped", self.mapped_bytes, "address space"),
            ("retained", self.retained_bytes, "address space without memory behind it"),
            ("dirty", self.dirty_bytes, "free pages still backed; decay gives them back"),
            ("punched", self.punched_bytes, "holes in slabs: pages without a live region"),
            ("cached", self.cached_bytes, "regions waiting in thread caches"),
            ("metadata", self.metadata_bytes, "Tallow's own"),
            ("large", self.large_bytes, "runs of pages of their own"),
            ("huge", self.huge_bytes, "mappings of their own"),
        ];
        for (name, bytes, meaning) in lines {
            writeln!(f, "{name:<10}{}  {meaning}", Human(bytes))?;
        }
        let os = &self.os_calls;
        writeln!(
            f,
            "OS calls: {} reserve, {} release, {} purge, {} remap, {} advise, {} failed",
            os.reserve, os.release, os.purge, os.remap, os.advise, os.failed
        )?;
        let d = &self.defrag;
        if d.passes > 0 {
            writeln!(
                f,
                "defragmentation: {} passes, {} moved, {} released, longest step {:.1} ms; a pass would release {}",
                d.passes,
                Human(d.moved_bytes),
                Human(d.released_bytes),
                d.longest_step_ns as f64 / 1e6,
                Human(self.evacuable_bytes())
            )?;
        }
        if !self.accounts.is_empty() {
            writeln!(f, "\naccount                     live        blocks         peak")?;
        }
        for a in self.accounts.iter() {
            let (live, peak) = (Human(a.live_bytes), Human(a.peak_bytes));
            writeln!(f, "{:<20} {live} {:>13} {peak}", a.name, a.live_count)?;
        }
        writeln!(
            f,
            "\n region     slab   slabs   full  part.  evac.        live    cached      free   allocated  used"
        )?;
        for c in self.classes.iter().filter(|c| c.slabs > 0) {
            writeln!(
                f,
                "{:>7} {:>7}K {:>7} {:>6} {:>6} {:>6} {:>11} {:>9} {:>9} {} {:>4.0}%",
                c.region_bytes,
                c.slab_bytes >> 10,
                c.slabs,
                c.slabs_full,
                c.slabs_partial.iter().sum::<u64>() + c.slabs_current,
                c.slabs_evacuating,
                c.regions_live,
                c.regions_cached,
                c.regions_free,
                Human(c.allocated_bytes),
                c.utilisation() * 100.0
            )?;
        }
        Ok(())
    }
}
