//! What the threads share, in one place, and the way regions take to it and back.

use super::bin::{Bin, Supply};
use super::guarded::GUARDED;
use super::hold::Locks;
use super::huge::Huge;
use super::large::Large;
use super::slabs;
use crate::ceiling::{CEILING, PENDING};
use crate::class::{CLASS_COUNT, Class, ClassInfo};
use crate::config::{HARDENED, LG_PAGE, MAX_ARENAS};
use crate::error::Corruption;
use crate::lock::Lock;
use crate::meta::Meta;
use crate::os;
use crate::pages::PageHeap;
use crate::segment::Segment;
use crate::settings::SETTINGS;
use crate::slab::{Company, Row, Slab, Tag};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, prefetch};
use core::ptr::NonNull;

/// Waits seen before another arena is opened.
const CONTENTION_LIMIT: u32 = 512;

/// The bins of one arena, by class.
pub(crate) struct Arena {
    pub(crate) bins: [Bin; CLASS_COUNT],
}

/// Everything that the threads share.
pub(crate) struct Central {
    pub(crate) meta: Meta,
    pub(crate) pages: PageHeap,
    pub(crate) arenas: [Arena; MAX_ARENAS],
    pub(crate) large: Large,
    pub(crate) huge: Huge,
    /// Arenas in use besides the first.
    further: AtomicUsize,
    contention: AtomicU32,
    pub(crate) holes: Holes,
    /// Held while holes are punched.
    punching: Lock<()>,
}

/// Books of punched pages. Relaxed: they order nothing.
pub(crate) struct Holes {
    /// Pages of slabs without memory behind them now.
    pub(crate) pages: AtomicUsize,
    /// Pages punched so far, and pages of those that came back.
    pub(crate) punched: AtomicU64,
    pub(crate) refaulted: AtomicU64,
}

/// The one and only. All zero until it is used, so it costs nothing in the file.
pub(crate) static CENTRAL: Central = Central::new();

impl Central {
    const fn new() -> Self {
        Self {
            meta: Meta::new(),
            pages: PageHeap::new(),
            arenas: [const { Arena { bins: [const { Bin::new() }; CLASS_COUNT] } }; MAX_ARENAS],
            large: Large::new(),
            huge: Huge::new(),
            further: AtomicUsize::new(0),
            contention: AtomicU32::new(0),
            holes: Holes {
                pages: AtomicUsize::new(0),
                punched: AtomicU64::new(0),
                refaulted: AtomicU64::new(0),
            },
            punching: Lock::new(()),
        }
    }

    /// The arena that the thread with that number refills from.
    #[inline]
    pub(crate) fn arena_of(&self, ordinal: usize) -> usize {
        // Relaxed: any value ever stored is a fine answer.
        ordinal % (self.further.load(Ordering::Relaxed) + 1)
    }

    #[cold]
    fn contended(&self) {
        // Relaxed: counts only.
        let n = self.contention.fetch_add(1, Ordering::Relaxed) + 1;
        if !n.is_multiple_of(CONTENTION_LIMIT) {
            return;
        }
        let further = self.further.load(Ordering::Relaxed);
        let more = further + 1;
        if more < SETTINGS.arenas().min(os::processors()) {
            let _ =
                self.further.compare_exchange(further, more, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Claims up to `want` regions of a class for the thread `who` (0: any); 0 when
    /// memory is out, and no arena has any.
    #[inline]
    pub(crate) fn claim(
        &self,
        arena: usize,
        class: Class,
        who: u16,
        want: u32,
        out: &mut impl FnMut(Row),
    ) -> u32 {
        match self.refill(arena, class, who, want, self, out) {
            0 => self.claim_old(arena, class, who, want, out),
            got => got,
        }
    }

    /// Claims from the slabs of a class in an arena, and from those that `supply` has.
    #[inline]
    fn refill(
        &self,
        arena: usize,
        class: Class,
        who: u16,
        want: u32,
        supply: &impl Supply<crate::slab::Shipped>,
        out: &mut impl FnMut(Row),
    ) -> u32 {
        let tag = Tag::new(class, arena as u8);
        let bin = &self.arenas[arena].bins[class.index()];
        bin.refill(tag, who, want, supply, out, || self.contended())
    }

    /// Claims up to `want` regions of a class from slabs that are there, in any
    /// arena, but preferably in `arena`; a fresh slab is taken when all are full.
    /// 0 when memory is out.
    pub(crate) fn claim_dense(
        &self,
        arena: usize,
        class: Class,
        want: u32,
        out: &mut impl FnMut(Row),
    ) -> u32 {
        match self.claim_old(arena, class, 0, want, out) {
            0 => self.claim(arena, class, 0, want, out),
            got => got,
        }
    }

    /// [`Central::claim_dense`] without a fresh slab.
    #[cold]
    #[inline(never)]
    fn claim_old(
        &self,
        arena: usize,
        class: Class,
        who: u16,
        want: u32,
        out: &mut impl FnMut(Row),
    ) -> u32 {
        let others = (0..MAX_ARENAS).filter(|&other| other != arena);
        let mut all = core::iter::once(arena).chain(others);
        let got = |arena| match self.refill(arena, class, who, want, &NothingFresh(self), out) {
            0 => None,
            got => Some(got),
        };
        all.find_map(got).unwrap_or(0)
    }

    /// Has a slab of a class used again that a pass of defragmentation wants empty. For
    /// when memory is out: what is free in such slabs comes before a refusal. Returns
    /// whether there was one.
    #[cold]
    pub(crate) fn reuse(&self, arena: usize, class: Class) -> bool {
        self.arenas[arena].bins[class.index()].reuse(self)
    }

    pub(crate) fn bin(&self, tag: Tag) -> Option<&Bin> {
        let arena = self.arenas.get(tag.arena())?;
        Some(&arena.bins[tag.class()?.index()])
    }

    /// Bytes of pages and mappings in use, by the books; without those of large blocks that
    /// wait, which nobody holds.
    pub(crate) fn in_use_bytes(&self) -> usize {
        let used = (self.pages.books().used_pages() << LG_PAGE) + self.huge.books().blocks.bytes;
        if !HARDENED {
            return used;
        }
        // Two looks at books that change meanwhile.
        used.saturating_sub(self.large.waiting_bytes()) + GUARDED.books().1
    }

    /// Whether `bytes` more may be in use without a look at the limits.
    #[inline]
    pub(crate) fn permits(&self, bytes: usize) -> bool {
        CEILING.is_open() || CEILING.permits(self.in_use_bytes().saturating_add(bytes))
    }

    /// The slab of the region at `address`, which must start there.
    pub(crate) fn place(&self, class: Class, address: usize) -> Result<NonNull<Slab>, Corruption> {
        let slab = slab_of(class, address)?;
        // SAFETY: headers are never unmapped (meta, M1).
        unsafe { slab.as_ref() }.region_at(class, address)?;
        Ok(slab)
    }

    /// Returns regions of a class to their slabs. Neighbours that lie in the
    /// same word share an atomic operation, those in the same slab share one on
    /// its header. Aborts when one of them cannot be right.
    pub(crate) fn give_back(&self, class: Class, regions: &[*mut u8]) {
        let done = if os::alone() {
            self.try_give_back(class, regions, Company::Alone)
        } else {
            self.try_give_back(class, regions, Company::Others)
        };
        if let Err(what) = done {
            os::abort(what);
        }
    }

    #[inline(always)]
    fn try_give_back(
        &self,
        class: Class,
        mut regions: &[*mut u8],
        company: Company,
    ) -> Result<(), Corruption> {
        /// Slabs looked up, and their headers fetched, ahead of the atomic operations,
        /// whose fences would keep the cache misses from overlapping,
        const AHEAD: usize = 32;
        /// when so few regions in a row were in the same slab.
        const SHORT: usize = 4;
        let info = class.info();
        let mut window: [NonNull<Slab>; AHEAD] = [NonNull::dangling(); AHEAD];
        let mut run = if is_row(info, regions) { SHORT + 1 } else { 0 };
        while !regions.is_empty() {
            let ahead = if run > SHORT { 1 } else { regions.len().min(AHEAD) };
            let (these, slabs) = (&regions[..ahead], &mut window[..ahead]);
            for (region, place) in these.iter().zip(slabs.iter_mut()) {
                *place = slab_of(class, region.addr())?;
                prefetch(place.as_ptr());
            }
            let mut at = 0;
            while at < ahead {
                let slab = slabs[at];
                if at + 1 >= ahead || slabs[at + 1] == slab {
                    run = self.put_all(class, slab, &regions[at..], company)?;
                    at += run;
                    continue;
                }
                // SAFETY: headers are never unmapped (meta, M1).
                let it = unsafe { slab.as_ref() };
                it.put_one(info, these[at], company)?;
                if let Some(tag) = it.lower_in(class, 1, company)? {
                    self.settle(slab, tag);
                }
                (run, at) = (1, at + 1);
            }
            regions = &regions[at..];
        }
        Ok(())
    }

    /// Returns the first of `regions` to its slab, and those behind it as long as they are
    /// in that slab too. Returns how many they are.
    #[inline(never)]
    fn put_all(
        &self,
        class: Class,
        slab: NonNull<Slab>,
        regions: &[*mut u8],
        company: Company,
    ) -> Result<usize, Corruption> {
        // SAFETY: headers are never unmapped (meta, M1).
        let it = unsafe { slab.as_ref() };
        let n = it.put_all(class.info(), regions, company)?;
        if let Some(tag) = it.lower_in(class, n as u32, company)? {
            self.settle(slab, tag);
        }
        Ok(n)
    }

    /// Puts a slab where it belongs after a return.
    #[cold]
    #[inline(never)]
    fn settle(&self, slab: NonNull<Slab>, tag: Tag) {
        if let Some(bin) = self.bin(tag) {
            bin.settle(slab, tag, self);
        }
    }

    /// Gives the pages of partial slabs back on which no region is live, without
    /// anybody's help. Huge pages of which more than half is in use are left whole.
    /// Returns the bytes. Calls the OS; nothing while another thread is at it.
    pub(crate) fn punch_holes(&self) -> usize {
        let Some(_punching) = self.punching.try_lock() else { return 0 };
        let everywhere = os::huge_pages_always();
        let spares_huge_pages = everywhere || self.pages.has_advised();
        if spares_huge_pages {
            self.pages.forget_holes();
            for (class, bin) in self.each_bin() {
                bin.survey(class, |start, holes| self.pages.note_holes(start.addr(), holes));
            }
        }
        let purge = |start: *mut u8, first: usize, pages: usize| {
            let at = start.wrapping_add(first << LG_PAGE);
            if spares_huge_pages && !self.pages.is_sparse(at.addr(), pages, everywhere) {
                return false;
            }
            // SAFETY: the pages belong to a slab, and all regions that touch
            // them are held by the caller.
            NonNull::new(at).is_some_and(|at| unsafe { os::purge(at, pages << LG_PAGE) })
        };
        let mut pages = 0;
        for (class, bin) in self.each_bin() {
            match bin.punch(class, self, purge) {
                Ok(n) => pages += n as usize,
                Err(what) => os::abort(what),
            }
        }
        pages << LG_PAGE
    }

    /// Takes a huge block back.
    ///
    /// # Safety
    /// As for [`Huge::free`].
    pub(crate) unsafe fn free_huge(&self, block: NonNull<u8>, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.huge.free(block, size) };
    }

    /// Sets the decay time: `Some(0)` gives back at once, `None` never.
    pub(crate) fn set_decay(&self, time_ms: Option<u64>) {
        self.pages.set_decay(time_ms);
        self.huge.set_decays(time_ms != Some(0));
        if time_ms == Some(0) {
            self.clear_waiting();
        }
    }

    /// Takes back what waits to be used again as it is: huge blocks on the shelf; hardened,
    /// large ones. Returns whether there was anything.
    pub(crate) fn clear_waiting(&self) -> bool {
        let large = HARDENED && self.large.release_waiting(&self.pages) > 0;
        self.huge.clear_shelf().is_some() || large
    }

    /// Lets the decay clock run. Cheap when nothing is due. May call the OS. Returns
    /// whether to call again soon.
    pub(crate) fn tick(&self, now_ms: u64) -> bool {
        if HARDENED {
            self.large.tick(&self.pages, now_ms);
        }
        let more = self.pages.tick(now_ms);
        self.huge.tick(now_ms, self.pages.decay_ms()) || more
    }

    fn each_bin(&self) -> impl Iterator<Item = (Class, &Bin)> {
        self.arenas.iter().flat_map(|arena| Class::all().zip(&arena.bins))
    }

    fn locks(&self) -> Locks<'_> {
        Locks { large: &self.large, huge: &self.huge, pages: &self.pages, meta: &self.meta }
    }

    /// Takes all locks from the bins' on, in order.
    pub(crate) fn hold(&self) {
        self.locks().hold(self.each_bin().map(|(_, bin)| bin));
    }

    /// Lets go of them.
    ///
    /// # Safety
    /// The caller holds all, by [`hold`](Self::hold).
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.locks().let_go(self.each_bin().map(|(_, bin)| bin)) };
    }

    /// In a forked child: pages that a thread of the parent was purging are nobody's, one
    /// that was punching, between two slabs, does not go on here, nor does one that was
    /// permitted memory.
    ///
    /// # Safety
    /// All is held, and the caller is the only thread.
    pub(crate) unsafe fn recover_in_child(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.pages.recover_in_child() };
        // SAFETY: the caller is the only thread.
        unsafe { self.punching.free_in_child() };
        PENDING.forget();
    }

    /// Lets go of all owned slabs, so that empty ones go back to the page heap.
    pub(crate) fn disown_all(&self) {
        for arena in &self.arenas {
            for bin in &arena.bins {
                bin.disown(self);
            }
        }
    }
}

/// The slab that a region which is being freed as one of `class` lies in. Looks at
/// the page map only.
#[inline(always)]
fn slab_of(class: Class, address: usize) -> Result<NonNull<Slab>, Corruption> {
    Segment::slab_of(class, address).map(NonNull::cast)
}

/// Whether the first two are neighbours.
fn is_row(info: &ClassInfo, regions: &[*mut u8]) -> bool {
    let [first, second, ..] = regions else { return false };
    first.addr().abs_diff(second.addr()) == info.region_bytes as usize
}

impl Supply<crate::slab::Shipped> for Central {
    fn fresh(&self, tag: Tag) -> Option<NonNull<Slab>> {
        let pages = usize::from(tag.class()?.info().slab_pages);
        if !self.permits(pages << LG_PAGE) {
            return None;
        }
        slabs::fresh(&self.pages, &self.meta, tag, || self.clear_waiting())
    }

    fn retire(&self, slab: NonNull<Slab>) {
        // SAFETY: headers are never unmapped (meta, M1).
        let punched = unsafe { slab.as_ref() }.punched_pages();
        self.holes.pages.fetch_sub(punched as usize, Ordering::Relaxed);
        // SAFETY: empty and unlisted, as a bin hands it over.
        unsafe { slabs::retire(&self.pages, &self.meta, slab) };
    }

    fn punched(&self, pages: u32) {
        self.holes.pages.fetch_add(pages as usize, Ordering::Relaxed);
        self.holes.punched.fetch_add(pages.into(), Ordering::Relaxed);
    }

    fn refaulted(&self, pages: u32) {
        self.holes.pages.fetch_sub(pages as usize, Ordering::Relaxed);
        self.holes.refaulted.fetch_add(pages.into(), Ordering::Relaxed);
    }
}

/// Takes slabs back, and has none to give.
struct NothingFresh<'a>(&'a Central);

impl Supply<crate::slab::Shipped> for NothingFresh<'_> {
    fn fresh(&self, _: Tag) -> Option<NonNull<Slab>> {
        None
    }

    fn retire(&self, slab: NonNull<Slab>) {
        self.0.retire(slab);
    }

    fn punched(&self, pages: u32) {
        self.0.punched(pages);
    }

    fn refaulted(&self, pages: u32) {
        self.0.refaulted(pages);
    }
}
