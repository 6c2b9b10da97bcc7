//! The mappings of huge blocks: where they lie, and how they change their size.
//!
//! A fresh block that is backed by huge pages begins where one may begin. Up to the end of
//! the last one its address space stays mapped: this *rest* belongs to the block, nobody
//! touches it and no huge page is asked for there, so it takes no memory (unless the
//! program has all mappings locked, `mlockall`). It is there for what comes next to it:
//! such mappings lie one behind the other, and join on the shelf. A block may grow into its
//! rest. One that comes from the shelf, or has been resized in place, has none.

use crate::bits::checked_round_up;
use crate::config::{HARDENED, HUGE_PAGE_BYTES};
use crate::os::{self, Extended};
use crate::settings::{HugePages, SETTINGS};
use crate::sync::Ordering;
use crate::sync::unwatched::AtomicBool;
use core::ptr::NonNull;

/// Blocks from this size on are backed by huge pages where that is wanted for
/// what is dense: at most a half of such a block is backed in vain.
const DENSE_BYTES: usize = 2 * HUGE_PAGE_BYTES;

/// Whether the system has refused a move to a place that was chosen, which cost address
/// space. Relaxed: one that is read late costs that once more.
static MOVE_REFUSED: AtomicBool = AtomicBool::new(false);

/// What a huge block has.
#[derive(Clone, Copy)]
pub(super) struct Mapping {
    pub(super) at: NonNull<u8>,
    /// Bytes of the block: whole OS pages.
    pub(super) bytes: usize,
    /// With the rest.
    pub(super) mapped: usize,
}

/// Whether huge pages are asked for, for a block of that size.
fn is_dense(bytes: usize) -> bool {
    match SETTINGS.huge_pages() {
        HugePages::System | HugePages::Never => false,
        HugePages::Blocks | HugePages::Dense => bytes >= DENSE_BYTES,
        HugePages::Always => bytes >= HUGE_PAGE_BYTES,
    }
}

impl Mapping {
    /// A mapping that is all the block's, which begins at `at`.
    pub(super) fn whole(at: NonNull<u8>, bytes: usize) -> Self {
        Self { at, bytes, mapped: bytes }
    }

    pub(super) fn address(&self) -> usize {
        self.at.addr().get()
    }

    pub(super) fn rest_bytes(&self) -> usize {
        self.mapped - self.bytes
    }

    /// A fresh one; `None` when memory is out.
    pub(super) fn fresh(bytes: usize, align: usize) -> Option<Self> {
        let it = Self::reserve(bytes, align)?;
        if SETTINGS.huge_pages() == HugePages::Never {
            // SAFETY: a whole mapping of ours.
            unsafe { os::advise_huge_pages(it.at, bytes, false) };
        }
        it.advise();
        if SETTINGS.prefault() {
            // SAFETY: as above.
            unsafe { os::populate(it.at, bytes) };
        }
        Some(it)
    }

    /// Address space, where huge pages may begin if the block is to have them.
    fn reserve(bytes: usize, align: usize) -> Option<Self> {
        let anywhere = || Some(Self::whole(os::reserve_guarded(bytes, align)?, bytes));
        let aligned = is_dense(bytes).then(|| Self::aligned(bytes, align)).flatten();
        aligned.or_else(anywhere)
    }

    /// One that begins where a huge page may. Hardened, without a rest: a guard follows.
    fn aligned(bytes: usize, align: usize) -> Option<Self> {
        let mapped = if HARDENED { bytes } else { checked_round_up(bytes, HUGE_PAGE_BYTES)? };
        let at = os::reserve_guarded(mapped, align.max(HUGE_PAGE_BYTES))?;
        Some(Self { at, bytes, mapped })
    }

    /// Asks for huge pages if the block is to have them. Where it has been asked before,
    /// that changes nothing.
    pub(super) fn advise(&self) {
        if is_dense(self.bytes) {
            // SAFETY: the block's part of mappings of ours.
            unsafe { os::advise_huge_pages(self.at, self.bytes, true) };
        }
    }

    /// Gives the block `to` bytes where it is, of which those behind the mapping have been
    /// taken from the shelf.
    pub(super) fn grow_here(&mut self, to: usize) {
        self.bytes = to;
        self.mapped = self.mapped.max(to);
        self.advise();
    }

    /// Gives the rest back.
    fn cut(&mut self) {
        if self.rest_bytes() > 0 {
            // SAFETY: the rest is the block's. Where the system refuses, address space is
            // lost and no memory, for nobody has touched it.
            unsafe { os::release(self.at.add(self.bytes), self.rest_bytes()) };
            self.mapped = self.bytes;
        }
    }

    /// Gives the block `to` bytes, and moves its pages if it must. `None` leaves its bytes
    /// as they were.
    ///
    /// # Safety
    /// The block is the caller's.
    pub(super) unsafe fn resize(&mut self, to: usize) -> Option<NonNull<u8>> {
        if !HARDENED && !os::REMAPS {
            return None;
        }
        self.cut();
        // SAFETY: the caller's promise, here and below.
        let it = unsafe {
            if HARDENED {
                self.move_guarded(to)
            } else if to > self.bytes && is_dense(to) {
                self.grow(to)
            } else {
                self.remap(to)
            }
        }?;
        *self = it;
        self.advise();
        Some(it.at)
    }

    /// Where the system pleases. The stretch may be parts of two mappings that were
    /// neighbours on the shelf: the system refuses then.
    ///
    /// # Safety
    /// The block is the caller's, and without a rest.
    unsafe fn remap(&self, to: usize) -> Option<Self> {
        // SAFETY: the caller's promise.
        let at = unsafe { os::remap(self.at, self.bytes, to) }?;
        Some(Self::whole(at, to))
    }

    /// In place, or else where huge pages may begin: moved to another place, each of them
    /// would be taken to pieces.
    ///
    /// # Safety
    /// As for [`Self::remap`].
    unsafe fn grow(&self, to: usize) -> Option<Self> {
        // SAFETY: the caller's promise, here and below.
        unsafe {
            match os::extend(self.at, self.bytes, to)? {
                Extended::InPlace => Some(Self::whole(self.at, to)),
                Extended::NoRoom if MOVE_REFUSED.load(Ordering::Relaxed) => self.remap(to),
                Extended::NoRoom => self.move_aligned(to).or_else(|| self.remap(to)),
            }
        }
    }

    /// # Safety
    /// As for [`Self::remap`], and the block is longer afterwards.
    unsafe fn move_aligned(&self, to: usize) -> Option<Self> {
        let mut place = Self::aligned(to, 1)?;
        // SAFETY: the caller's promise; the place is fresh.
        if unsafe { os::remap_onto(self.at, self.bytes, place.at, to) }.is_none() {
            // The place may be gone, and another's by now: it is lost, but for the rest.
            // The system has looked at the block a moment ago, so what it has against the
            // move is that there are too many mappings, or the like. Let it be the last.
            MOVE_REFUSED.store(true, Ordering::Relaxed);
            place.cut();
            return None;
        }
        Some(place)
    }

    /// With guards: a smaller block stays where it is, a larger one moves, and its old
    /// guards go.
    ///
    /// # Safety
    /// The block is the caller's.
    unsafe fn move_guarded(&self, to: usize) -> Option<Self> {
        let (at, bytes, page) = (self.at, self.bytes, os::page_bytes());
        if to < bytes {
            // SAFETY: the first page that is given up becomes the guard; the rest, and the
            // old guard behind it, go.
            unsafe {
                os::protect(at.add(to), page, os::Access::None);
                if !os::release(at.add(to + page), bytes - to) {
                    // Its address space is lost, but not the memory.
                    os::purge(at.add(to + page), bytes - to);
                }
            }
            return Some(Self::whole(at, to));
        }
        let place = Self::reserve(to, page)?.at;
        // SAFETY: the caller's promise; the place is fresh.
        if unsafe { os::remap_onto(at, bytes, place, to) }.is_none() {
            // The place between the guards may be gone, and another's by now: it is lost.
            // SAFETY: the guards are there, and nobody's.
            unsafe {
                os::release(place.sub(page), page);
                os::release(place.add(to), page);
            }
            return None;
        }
        // SAFETY: the old block's guards, between which nothing is left.
        unsafe {
            os::release(at.sub(page), page);
            os::release(at.add(bytes), page);
        }
        Some(Self::whole(place, to))
    }
}
