//! A bin: the slabs of one size class in one arena.
//!
//! One slab is *owned*: refills claim from it without a lock. When it has no
//! room left the lock is taken, and the fullest listed slab becomes the owned
//! one, or a fresh one if none is listed. Slabs that lose regions are moved to
//! the list of their quarter of occupancy by the thread whose return crossed
//! the line; sparse ones are so refilled last, and drain by themselves.
//!
//! Invariants, under the lock:
//! - B1: a slab with this bin's tag is owned (`owned` points to it), or full and
//!   in no list, or partial and in the list `list_of(live)` (once the thread
//!   that crossed a line has settled it), or evacuating and in that list.
//! - B2: `counts` are the lengths of the lists, and of the full ones.

#[cfg(all(test, loom))]
mod model;

use crate::class::Class;
use crate::error::Corruption;
use crate::lock::Lock;
use crate::slab::{After, Links, Protocol, Row, Shipped, Slab, State, Tag, quarter};
use crate::sync::{AtomicPtr, Ordering, const_unless_loom};
use core::mem;
use core::ptr::{self, NonNull};

/// Where slabs come from and go to: the page heap, or a model's list.
pub(crate) trait Supply<P: Protocol> {
    /// A fresh, owned slab with that tag; `None` when memory is out.
    fn fresh(&self, tag: Tag) -> Option<NonNull<Slab<P>>>;
    /// Takes an empty slab that no list knows any more. Called with the bin's
    /// lock held, so that whoever holds all locks finds no slab on its way.
    fn retire(&self, slab: NonNull<Slab<P>>);
    /// Takes note that so many pages have been punched.
    fn punched(&self, pages: u32);
    /// Takes note that so many punched pages are in use again.
    fn refaulted(&self, pages: u32);
}

/// Lists: the four quarters of occupancy, and the evacuating slabs.
const LISTS: usize = 5;
const EVACUATING: usize = 4;
const PUNCHING: usize = 0;
const PLANNING: usize = 1;
/// Slabs punched while the lock is held, before whoever waits for it has his turn.
const PUNCH_BATCH: usize = 2;

/// How many slabs of a bin are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlabCounts {
    pub(crate) partial: [usize; 4],
    pub(crate) evacuating: usize,
    pub(crate) full: usize,
    pub(crate) owned: usize,
}

pub(crate) struct Lists<P> {
    heads: [*mut Slab<P>; LISTS],
    counts: [usize; LISTS],
    full: usize,
    /// Evacuating slabs that are in use again for want of memory, since the last
    /// [`Bin::spare`].
    reused: usize,
    /// The slabs that punching and planning go on with.
    cursors: [*mut Slab<P>; 2],
}

// SAFETY: the slabs are shared by design, their links used under the lock.
unsafe impl<P> Send for Lists<P> {}

/// How far a look at a bin's partial slabs has come. See [`Bin::look`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    list: usize,
    started: bool,
}

/// What [`Bin::spare`] did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spared {
    /// Evacuating slabs that there were.
    pub(crate) handled: usize,
    /// Slabs that were not emptied, those that were used again before among them.
    pub(crate) kept: usize,
}

/// The slabs of one class in one arena.
pub(crate) struct Bin<P = Shipped> {
    owned: AtomicPtr<Slab<P>>,
    lists: Lock<Lists<P>>,
}

impl<P: Protocol> Bin<P> {
    const_unless_loom! {
        pub(crate) fn new() -> Bin<P> {
            Bin {
                owned: AtomicPtr::new(ptr::null_mut()),
                lists: Lock::new(Lists { heads: [ptr::null_mut(); LISTS], counts: [0; LISTS], full: 0, reused: 0, cursors: [ptr::null_mut(); 2] }),
            }
        }
    }

    /// Claims up to `want` regions for the thread `who` and hands them to `out`; 0
    /// when memory is out. `contended` is called when another thread was in the way.
    #[inline]
    pub(crate) fn refill(
        &self,
        tag: Tag,
        who: u16,
        want: u32,
        supply: &impl Supply<P>,
        out: &mut impl FnMut(Row),
        contended: impl Fn(),
    ) -> u32 {
        loop {
            // Acquire pairs with the Release in `replace`.
            let owned = self.owned.load(Ordering::Acquire);
            // SAFETY: headers are never unmapped (meta, M1); `claim` checks
            // that the slab is still this bin's.
            if let Some(slab) = unsafe { owned.as_ref() } {
                let (n, refaults) = slab.claim(tag, who, want, out);
                if refaults > 0 {
                    supply.refaulted(refaults);
                }
                if n > 0 {
                    return n;
                }
            }
            if !self.replace(owned, tag, supply, &contended) {
                return 0;
            }
        }
    }

    /// Makes another slab the owned one, unless somebody has; `false` when
    /// there is none to be had.
    #[cold]
    fn replace(
        &self,
        seen: *mut Slab<P>,
        tag: Tag,
        supply: &impl Supply<P>,
        contended: &impl Fn(),
    ) -> bool {
        let mut lists = match self.lists.try_lock() {
            Some(lists) => lists,
            None => {
                contended();
                self.lists.lock()
            }
        };
        // Acquire: as in `refill`.
        if self.owned.load(Ordering::Acquire) != seen {
            return true;
        }
        let mut emptied = false;
        // SAFETY: an owned slab is valid, and only we, with the lock, change that.
        if let Some(slab) = unsafe { seen.as_ref() } {
            let was = slab.header();
            if was.state() == State::Owned && was.tag() == tag && was.live() < slab.capacity() {
                return true;
            }
            // All of its regions may come back before this line is done.
            emptied = lists.let_go(slab);
            if emptied {
                supply.retire(NonNull::from(slab));
            }
        }
        let next = lists.take_fullest().or_else(|| supply.fresh(tag));
        let at = next.map_or(ptr::null_mut(), NonNull::as_ptr);
        // Release pairs with the Acquire in `refill`: the slab is whole.
        self.owned.store(at, Ordering::Release);
        // Without another one, what was just retired may make room for it.
        next.is_some() || emptied
    }

    /// Puts a slab where it belongs, after a return that said so.
    #[cold]
    pub(crate) fn settle(&self, slab: NonNull<Slab<P>>, tag: Tag, supply: &impl Supply<P>) {
        let mut lists = self.lists.lock();
        // SAFETY: headers are never unmapped (meta, M1).
        if lists.settle(unsafe { slab.as_ref() }, tag) {
            supply.retire(slab);
        }
    }

    /// Lets go of the owned slab, so that an empty one is given back and a
    /// sparse one can be evacuated.
    pub(crate) fn disown(&self, supply: &impl Supply<P>) {
        let mut lists = self.lists.lock();
        // Acquire: as in `refill`.
        let owned = NonNull::new(self.owned.load(Ordering::Acquire));
        let Some(slab) = owned else { return };
        self.owned.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: the owned slab is valid.
        if lists.let_go(unsafe { slab.as_ref() }) {
            supply.retire(slab);
        }
    }

    /// Looks at up to `most` partial slabs more and marks those as evacuating for
    /// which `marks(live regions)` says so. Returns how many it looked at: fewer
    /// than `most` when it is through. One walk at a time.
    pub(crate) fn look(
        &self,
        walk: &mut Walk,
        most: usize,
        mut marks: impl FnMut(u32) -> bool,
    ) -> usize {
        let (mut lists, mut looked) = (self.lists.lock(), 0);
        while walk.list < EVACUATING {
            if !walk.started {
                lists.cursors[PLANNING] = lists.heads[walk.list];
                walk.started = true;
            }
            // SAFETY: slabs in lists are valid, and a cursor leaves a slab with it.
            while let Some(slab) = unsafe { lists.cursors[PLANNING].as_ref() } {
                if looked == most {
                    return looked;
                }
                looked += 1;
                lists.cursors[PLANNING] = Lists::links(slab).next.cast();
                if marks(slab.header().live()) {
                    lists.remove(slab);
                    slab.change_state(State::Partial, |_| State::Evacuating);
                    lists.insert(slab, EVACUATING);
                }
            }
            *walk = Walk { list: walk.list + 1, started: false };
        }
        looked
    }

    /// Makes up to `most` evacuating slabs partial again.
    pub(crate) fn spare(&self, supply: &impl Supply<P>, most: usize) -> Spared {
        let mut lists = self.lists.lock();
        let (mut handled, mut kept) = (0, mem::take(&mut lists.reused));
        while handled < most
            && let Some((slab, empty)) = lists.spare_one()
        {
            handled += 1;
            if empty {
                supply.retire(slab);
            } else {
                kept += 1;
            }
        }
        Spared { handled, kept }
    }

    /// Makes an evacuating slab partial again, or gives it back if it is empty: there is no
    /// memory for another one. Returns whether there was any.
    #[cold]
    pub(crate) fn reuse(&self, supply: &impl Supply<P>) -> bool {
        let mut lists = self.lists.lock();
        let Some((slab, empty)) = lists.spare_one() else { return false };
        if empty {
            supply.retire(slab);
        } else {
            lists.reused += 1;
        }
        true
    }

    /// Purges the pages of partial slabs on which no region is live.
    /// `purge(slab's start, first page, pages)` does it. Returns the pages. One
    /// thread at a time.
    pub(crate) fn punch(
        &self,
        class: Class,
        supply: &impl Supply<P>,
        mut purge: impl FnMut(*mut u8, usize, usize) -> bool,
    ) -> Result<u64, Corruption> {
        let mut punched = 0;
        self.each_partial(|lists, slab| {
            // SAFETY: slabs in lists are valid.
            let it = unsafe { slab.as_ref() };
            let start = it.start();
            let purge = |first, n| purge(start, first, n);
            let (pages, after) = it.punch(class, purge, |n| supply.punched(n))?;
            punched += u64::from(pages);
            // Its regions may all have come back meanwhile.
            if after == After::Settle && lists.settle(it, it.header().tag()) {
                supply.retire(slab);
            }
            Ok(())
        })?;
        Ok(punched)
    }

    /// Tells `f` of each partial slab's start, and of its pages on which no region
    /// is live now. Not while another thread punches.
    #[cfg(not(loom))]
    pub(crate) fn survey(&self, class: Class, mut f: impl FnMut(*mut u8, u64)) {
        let told = self.each_partial(|_, slab| {
            // SAFETY: slabs in lists are valid.
            let it = unsafe { slab.as_ref() };
            f(it.start(), it.holes(class));
            Ok(())
        });
        debug_assert!(told.is_ok());
    }

    /// Goes over the partial slabs, a few each time that the lock is taken.
    fn each_partial(
        &self,
        mut f: impl FnMut(&mut Lists<P>, NonNull<Slab<P>>) -> Result<(), Corruption>,
    ) -> Result<(), Corruption> {
        for list in 0..EVACUATING {
            let mut lists = self.lists.lock();
            lists.cursors[PUNCHING] = lists.heads[list];
            loop {
                for _ in 0..PUNCH_BATCH {
                    let Some(slab) = NonNull::new(lists.cursors[PUNCHING]) else { break };
                    // SAFETY: slabs in lists are valid.
                    lists.cursors[PUNCHING] = Lists::links(unsafe { slab.as_ref() }).next.cast();
                    f(&mut lists, slab)?;
                }
                if lists.cursors[PUNCHING].is_null() {
                    break;
                }
                lists = lists.give_way();
            }
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> SlabCounts {
        let lists = self.lists.lock();
        lists.counts(!self.owned.load(Ordering::Relaxed).is_null())
    }

    /// The counts, for a caller that holds the lock.
    ///
    /// # Safety
    /// The caller holds the lock by [`Bin::raw_lock`].
    pub(crate) unsafe fn counts_held(&self) -> SlabCounts {
        // SAFETY: the caller's promise.
        let lists = unsafe { self.lists.value_held() };
        lists.counts(!self.owned.load(Ordering::Relaxed).is_null())
    }

    pub(crate) fn raw_lock(&self) {
        self.lists.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Bin::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.lists.raw_unlock() }
    }
}

impl<P: Protocol> Lists<P> {
    fn counts(&self, owned: bool) -> SlabCounts {
        SlabCounts {
            partial: [self.counts[0], self.counts[1], self.counts[2], self.counts[3]],
            evacuating: self.counts[EVACUATING],
            full: self.full,
            owned: usize::from(owned),
        }
    }

    /// Ends a slab's time as the owned one; `true` when it is empty and must be
    /// retired.
    fn let_go(&mut self, slab: &Slab<P>) -> bool {
        let capacity = slab.capacity();
        let was = slab.change_state(State::Owned, |h| match h.live() {
            0 => State::Empty,
            live if live == capacity => State::Full,
            _ => State::Partial,
        });
        let Some(was) = was else { return false };
        match was.live() {
            0 => return true,
            live if live == capacity => self.full += 1,
            live => self.insert(slab, quarter(live, capacity)),
        }
        false
    }

    /// Makes a slab's list fit its count (B1); `true` when it is empty, is in no
    /// list any more, and must be retired.
    fn settle(&mut self, slab: &Slab<P>, tag: Tag) -> bool {
        let now = slab.header();
        // The header may have been recycled since: then it is not our business.
        if now.tag() != tag || matches!(now.state(), State::Empty | State::Owned) {
            return false;
        }
        // It is this bin's, and stays so while the lock is held.
        let capacity = slab.capacity();
        let to = |live: u32| if live == 0 { State::Empty } else { State::Partial };
        match now.state() {
            State::Empty | State::Owned => false,
            State::Full => {
                if now.live() == capacity {
                    return false;
                }
                self.full -= 1;
                // Nobody else changes the state: we hold the lock.
                let was = slab.change_state(State::Full, |h| to(h.live()));
                let live = was.map_or(0, |h| h.live());
                if live > 0 {
                    self.insert(slab, quarter(live, capacity));
                }
                live == 0
            }
            state @ (State::Partial | State::Evacuating) => {
                if now.live() == 0 {
                    self.remove(slab);
                    slab.change_state(state, |_| State::Empty);
                    return true;
                }
                let list = quarter(now.live(), capacity);
                if state == State::Partial && list != self.list_of(slab) {
                    self.remove(slab);
                    self.insert(slab, list);
                }
                false
            }
        }
    }

    fn take_fullest(&mut self) -> Option<NonNull<Slab<P>>> {
        for list in (0..EVACUATING).rev() {
            if let Some(slab) = NonNull::new(self.heads[list]) {
                // SAFETY: slabs in lists are valid.
                let it = unsafe { slab.as_ref() };
                self.remove(it);
                it.change_state(State::Partial, |_| State::Owned);
                return Some(slab);
            }
        }
        None
    }

    /// Makes one evacuating slab partial again, or takes it out of the lists when
    /// it is empty and must be retired; `None` when none is left.
    fn spare_one(&mut self) -> Option<(NonNull<Slab<P>>, bool)> {
        let slab = NonNull::new(self.heads[EVACUATING])?;
        // SAFETY: slabs in lists are valid.
        let it = unsafe { slab.as_ref() };
        self.remove(it);
        let was = it.change_state(State::Evacuating, |h| match h.live() {
            0 => State::Empty,
            _ => State::Partial,
        });
        let live = was.map_or(0, |h| h.live());
        if live > 0 {
            self.insert(it, quarter(live, it.capacity()));
        }
        Some((slab, live == 0))
    }

    fn links(slab: &Slab<P>) -> Links {
        // SAFETY: links are used under the lock that `self` is the proof of.
        slab.links.with_mut(|l| unsafe { *l })
    }

    fn set_links(slab: *mut Slab<P>, change: impl FnOnce(&mut Links)) {
        // SAFETY: as above; the slab is in a list of this bin, or about to be.
        unsafe { (*slab).links.with_mut(|l| change(&mut *l)) }
    }

    fn list_of(&self, slab: &Slab<P>) -> usize {
        // SAFETY: under the lock that `self` is the proof of.
        usize::from(slab.list.with_mut(|list| unsafe { *list }))
    }

    /// Puts a slab into a list: in front if its address is below that of the
    /// first one, else behind it. A cheap leaning towards low addresses.
    fn insert(&mut self, slab: &Slab<P>, list: usize) {
        let at = ptr::from_ref(slab).cast_mut();
        let head = self.heads[list];
        self.counts[list] += 1;
        // SAFETY: slabs in lists are valid.
        let behind =
            unsafe { head.as_ref() }.is_some_and(|h| h.start().addr() < slab.start().addr());
        let (prev, next) = if behind {
            // SAFETY: `behind` says that there is a head.
            (head, Self::links(unsafe { &*head }).next.cast::<Slab<P>>())
        } else {
            (ptr::null_mut(), head)
        };
        Self::set_links(at, |l| *l = Links { prev: prev.cast(), next: next.cast() });
        // SAFETY: under the lock that `self` is the proof of.
        slab.list.with_mut(|l| unsafe { *l = list as u8 });
        if prev.is_null() {
            self.heads[list] = at;
        } else {
            Self::set_links(prev, |l| l.next = at.cast());
        }
        if !next.is_null() {
            Self::set_links(next, |l| l.prev = at.cast());
        }
    }

    fn remove(&mut self, slab: &Slab<P>) {
        let Links { prev, next } = Self::links(slab);
        let list = self.list_of(slab);
        for cursor in &mut self.cursors {
            if ptr::eq(*cursor, slab) {
                *cursor = next.cast();
            }
        }
        self.counts[list] -= 1;
        if prev.is_null() {
            self.heads[list] = next.cast();
        } else {
            Self::set_links(prev.cast(), |l| l.next = next);
        }
        if !next.is_null() {
            Self::set_links(next.cast(), |l| l.prev = prev);
        }
    }
}
