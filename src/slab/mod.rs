//! Floor 5: the slab: a bit set of free regions and one header word.
//!
//! ```text
//!  header word (64 bits)                      bit set, 1 = free
//!  | generation 24 | arena 8 | class 8 | state 8 | live 16 |   | w0 | w1 | ... |
//! ```
//!
//! The generation goes up when a header is used for another slab, so that a
//! stale value of the word does not come back.
//!
//! *Live* counts the regions that are taken out of the slab: held by the
//! program or waiting in a magazine. Claiming and returning take no lock.
//!
//! Claim: first the header (`live += n`, by compare-and-swap, only while the
//! slab is *owned* and has room), then the bits. Return: first the bits, then
//! the header (`live -= n`). So `live` is never below the number of bits that
//! are missing:
//! - L1: whoever raised `live` by `n` finds `n` bits, since that many were back
//!   before `live` fell.
//! - L2: the thread that lowers `live` to 0 knows that all bits are back, and it
//!   is the only one that sees 0: it retires the slab, exactly once.
//! - L3: the thread whose return finds `full` with `live = capacity` is the only
//!   one that does: it lists the slab again, exactly once.
//!
//! States, and who may change them (always with the bin's lock; the count
//! changes without):
//! ```text
//!  empty --install--> owned --no room--> full --first return--> partial
//!    ^                  ^                                        |   |
//!    |                  +--------- refill needs a slab ----------+   |
//!    +------- live = 0 ------ evacuating <--- defragmentation -------+
//! ```
//!
//! Pages of a partial slab on which no region is live can be purged: `punch`.
//!
//! A set bit that is returned again is a double free: found out exactly, since
//! the old word comes back from the atomic operation.
//!
//! In a process that has never had a second thread, a return is a load and a
//! store each for bits and header: an atomic operation there costs several times
//! that, and keeps cache misses from overlapping. What is stored so happens before
//! the second thread is started.

pub(crate) mod marks;
#[cfg(loom)]
mod model;
mod punch;
mod row;

use crate::bits::{mask, take_bits};
use crate::class::{Class, ClassInfo};
use crate::config::{CACHE_LINE_BYTES, HARDENED};
use crate::error::Corruption;
use crate::sync::{AtomicU32, AtomicU64, Cell, Ordering, spin};
use core::cell::Cell as Kept;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

pub(crate) use row::Row;

/// The orderings and steps that the protocol stands on. The models run the code with
/// weaker ones to show that they would notice.
pub(crate) trait Protocol {
    /// Of putting bits back: what the last owner wrote happens before.
    const RETURN_BITS: Ordering = Ordering::Release;
    /// Of taking bits: and the next owner sees it.
    const TAKE_BITS: Ordering = Ordering::Acquire;
    /// Of lowering the count: the one who sees 0 sees all returns (L2).
    const RETURN_COUNT: Ordering = Ordering::AcqRel;

    /// Puts `next` in the place of `seen`, unless the header is another by now.
    #[inline(always)]
    fn exchange(header: &AtomicU64, seen: Header, next: Header) -> Result<u64, u64> {
        // AcqRel: as for the count, of which this is the other half.
        header.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire)
    }

    /// Regions of a slab with that tag. From the tag and not from the slab: who
    /// holds no region of a slab may find its header recycled at any moment.
    fn capacity(tag: Tag) -> u32 {
        tag.class().map_or(0, |class| class.info().capacity.into())
    }
}

/// The protocol as it is shipped.
#[derive(Debug)]
pub(crate) struct Shipped;
impl Protocol for Shipped {}

/// Of [`Slab::hint`].
const LG_WHO: u32 = 16;

/// What a slab is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No slab: the header waits to be used again.
    Empty = 0,
    /// The bin refills from it; it is in no list.
    Owned = 1,
    /// Has free regions, is listed by occupancy.
    Partial = 2,
    /// Had no free region when the bin let go of it; in no list.
    Full = 3,
    /// Is being emptied: regions return, none is claimed.
    Evacuating = 4,
}

/// A value of the header word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header(u64);

/// Class and arena of a slab, as they stand in the header: proof that a slab
/// still is what a stale pointer took it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    pub(crate) fn new(class: Class, arena: u8) -> Self {
        Self(class.index() as u16 | u16::from(arena) << 8)
    }

    pub(crate) fn class(self) -> Option<Class> {
        Class::new(usize::from(self.0 & 0xff))
    }

    pub(crate) fn arena(self) -> usize {
        usize::from(self.0 >> 8)
    }
}

impl Header {
    /// The header of a new slab, in the place where `old` stood.
    fn install(old: Self, tag: Tag) -> Self {
        let generation = (old.0 >> 40).wrapping_add(1) << 40;
        Self((State::Owned as u64) << 16 | u64::from(tag.0) << 24 | generation)
    }

    pub(crate) fn live(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    pub(crate) fn state(self) -> State {
        match (self.0 >> 16) as u8 {
            1 => State::Owned,
            2 => State::Partial,
            3 => State::Full,
            4 => State::Evacuating,
            _ => State::Empty,
        }
    }

    /// Whether `n` regions fewer change nothing for a slab of `class`: it is owned, or
    /// listed and neither empty nor in another quarter then. The usual cases, in a few
    /// instructions; a few of them are left out.
    #[inline(always)]
    fn stays(self, class: Class, n: u32) -> bool {
        let (what, live) = ((self.0 >> 16) as u16, self.live());
        let is = |state: State| what == state as u16 | (class.index() as u16) << 8;
        is(State::Partial) && class.keeps_quarter(live, n) || is(State::Owned) && live >= n
    }

    pub(crate) fn tag(self) -> Tag {
        Tag((self.0 >> 24) as u16)
    }

    #[cfg(loom)]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    fn with_state(self, state: State) -> Self {
        Self(self.0 & !(0xff << 16) | (state as u64) << 16)
    }
}

/// What a return asks its thread to do next, with the bin's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum After {
    /// Nothing.
    Nothing,
    /// The slab's place in the lists no longer fits, or it is empty: settle it.
    Settle,
}

/// Neighbours in a list of the bin, under the bin's lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) prev: *mut Slab,
    pub(crate) next: *mut Slab,
}

/// A slab's header; its bits lie behind it. The pages are elsewhere, so that
/// they can be given back.
#[repr(C)]
pub(crate) struct Slab<P = Shipped> {
    /// The first word, as metadata nodes require (`meta`, M2).
    header: AtomicU64,
    /// Kept in a cell, as `capacity`: a stale reader's reference to the header must
    /// promise nothing about what it does not read.
    start: Kept<*mut u8>,
    pub(crate) links: Cell<Links>,
    /// Where a search for free bits starts, a guess, and above [`LG_WHO`] who has
    /// searched last.
    hint: AtomicU32,
    capacity: Kept<u16>,
    /// Which list of the bin it is in, under the bin's lock.
    pub(crate) list: Cell<u8>,
    #[cfg(loom)]
    words: &'static [AtomicU64],
    /// Pages without memory behind them (L4).
    punched: AtomicU64,
    protocol: PhantomData<P>,
}

// 48 bytes, and two words of bits: the slabs of all regions from 512 bytes on
// take one cache line.
#[cfg(not(loom))]
static_assertions::const_assert!(size_of::<Slab>() == 48);

// SAFETY: the header and words are atomic, the links are used under the bin's
// lock, the rest does not change between `install` and the return of the node.
unsafe impl<P> Sync for Slab<P> {}
// SAFETY: as above.
unsafe impl<P> Send for Slab<P> {}

/// The quarter of occupancy that a partial slab is listed in, 0 to 3.
#[inline]
pub(crate) fn quarter(live: u32, capacity: u32) -> usize {
    [1, 2, 3].iter().filter(|&&k| live * 4 >= capacity * k).count()
}

/// Whether a slab with `live` regions leaves its quarter when `n <= live` go.
#[inline]
fn leaves_quarter(live: u32, n: u32, capacity: u32) -> bool {
    // One comparison a line instead of two: this is asked for every region that goes
    // back alone. `live - n < line <= live`, with all of it times four.
    [1, 2, 3].iter().any(|&k| (live * 4).wrapping_sub(capacity * k) < n * 4)
}

/// Who else there may be while regions return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// No other thread, all through the call: two steps do for one.
    Alone,
    Others,
}

/// Puts bits back; returns those that were there already.
#[inline(always)]
fn put_bits<P: Protocol>(word: &AtomicU64, bits: u64, company: Company) -> u64 {
    let seen = match company {
        // Relaxed: nobody else is there. And so for the count.
        Company::Alone => {
            let seen = word.load(Ordering::Relaxed);
            word.store(seen | bits, Ordering::Relaxed);
            seen
        }
        Company::Others => word.fetch_or(bits, P::RETURN_BITS),
    };
    seen & bits
}

impl<P: Protocol> Slab<P> {
    /// Bytes of metadata that the slab of a class needs: header and bit set.
    pub(crate) fn node_bytes(class: Class) -> usize {
        let bits = usize::from(class.info().words) * size_of::<AtomicU64>();
        size_of::<Self>() + bits
    }

    /// Makes a slab of the pages at `start`: owned, all regions free.
    ///
    /// # Safety
    /// - `node` has room for the header and, behind it, for the bits of `capacity`
    ///   regions; only stale readers of its first word know it.
    /// - `start` is the start of the slab's pages, which the caller owns.
    pub(crate) unsafe fn install(
        node: NonNull<u8>,
        tag: Tag,
        start: *mut u8,
        capacity: u32,
    ) -> NonNull<Self> {
        let slab = node.cast::<Self>().as_ptr();
        // SAFETY: the caller's promise.
        unsafe { Self::lay_out(slab, capacity) };
        let none = Links { prev: ptr::null_mut(), next: ptr::null_mut() };
        // SAFETY: all of these write fields of the node, never the first word.
        unsafe {
            (&raw mut (*slab).start).write(Kept::new(start));
            (&raw mut (*slab).capacity).write(Kept::new(capacity as u16));
            (&raw mut (*slab).hint).write(AtomicU32::new(0));
            (&raw mut (*slab).links).write(Cell::new(none));
            (&raw mut (*slab).list).write(Cell::new(0));
            (&raw mut (*slab).punched).write(AtomicU64::new(0));
        }
        if let Some(class) = tag.class() {
            // SAFETY: the fields that it reads were written above.
            unsafe { &*slab }.reset_marks(class);
        }
        // SAFETY: the first word is a valid atomic, also in a recycled node.
        let header = unsafe { &(*slab).header };
        // Release pairs with the Acquire of `claim` and `header`: whoever sees
        // the slab owned sees its fields.
        let old = Header(header.load(Ordering::Relaxed));
        header.store(Header::install(old, tag).0, Ordering::Release);
        // SAFETY: not null.
        unsafe { NonNull::new_unchecked(slab) }
    }

    /// Writes the bits of a new slab, all of them free.
    ///
    /// # Safety
    /// As for [`Slab::install`].
    #[cfg(not(loom))]
    unsafe fn lay_out(slab: *mut Self, capacity: u32) {
        // SAFETY: the words lie behind the header, in the node.
        let words = unsafe { slab.add(1) }.cast::<AtomicU64>();
        for w in 0..capacity.div_ceil(64) as usize {
            let bits = (capacity as usize - w * 64).min(64);
            // SAFETY: within the bits; written whole, field by field.
            unsafe { words.add(w).write(AtomicU64::new(mask(0, bits))) };
        }
    }

    /// The header as it is now.
    #[inline]
    pub(crate) fn header(&self) -> Header {
        // Acquire pairs with the Release in `install`.
        Header(self.header.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        u32::from(self.capacity.get())
    }

    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.get()
    }

    /// The bit set.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let behind = ptr::from_ref(self).addr() + size_of::<Self>();
        let at = ptr::with_exposed_provenance(behind);
        // SAFETY: `install` wrote that many words behind the header; metadata is
        // exposed where it is reserved.
        unsafe { core::slice::from_raw_parts(at, usize::from(self.capacity.get()).div_ceil(64)) }
    }

    #[cfg(loom)]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.words
    }

    /// Free bits, counted one by one.
    pub(crate) fn count_free(&self) -> u32 {
        // Relaxed: exact when nobody else is at work, which audits see to.
        self.words().iter().map(|w| w.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Changes the state if it is `from`, whatever the count; returns the header
    /// before. The caller holds the bin's lock.
    pub(crate) fn change_state(&self, from: State, to: impl Fn(Header) -> State) -> Option<Header> {
        let mut seen = self.header();
        loop {
            if seen.state() != from {
                return None;
            }
            let next = seen.with_state(to(seen));
            match P::exchange(&self.header, seen, next) {
                Ok(_) => return Some(seen),
                Err(now) => seen = Header(now),
            }
        }
    }

    /// Claims up to `want` regions for the thread `who` (0: any) and hands them to `out`.
    /// Returns how many, and how many punched pages that brings back; 0 when the slab has
    /// no room, or is not `tag`'s owned slab any more.
    #[inline]
    pub(crate) fn claim(
        &self,
        tag: Tag,
        who: u16,
        want: u32,
        out: &mut impl FnMut(Row),
    ) -> (u32, u32) {
        let mut seen = self.header();
        let n = loop {
            if seen.state() != State::Owned || seen.tag() != tag {
                return (0, 0);
            }
            let n = want.min(P::capacity(tag).saturating_sub(seen.live()));
            if n == 0 {
                return (0, 0);
            }
            // Acquire pairs with the Release in `returned`: the bits that came
            // back before the count fell are there (L1).
            match self.header.compare_exchange_weak(
                seen.0,
                seen.0 + u64::from(n),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => break n,
                Err(now) => seen = Header(now),
            }
        };
        // Fields may be read now: the slab stays what it is at least until the
        // regions that were just counted are back.
        (n, self.take(tag, who, n, out))
    }

    /// Finds the `n` bits that the count promises (L1). Returns how many punched
    /// pages that brings back.
    #[inline]
    fn take(&self, tag: Tag, who: u16, n: u32, out: &mut impl FnMut(Row)) -> u32 {
        let (words, start) = (self.words(), self.start());
        let region = tag.class().map_or(0, |c| c.info().region_bytes as usize);
        // Relaxed: a guess; the search goes round.
        let hint = self.hint.load(Ordering::Relaxed);
        let last = hint >> LG_WHO;
        // Neighbours may share a cache line, the regions of two words never do: so
        // threads that take turns begin in words of their own.
        let turns = last != 0 && last != u32::from(who) && !region.is_multiple_of(CACHE_LINE_BYTES);
        // Otherwise from the first on: what is live stays close together, and pages
        // behind it stay untouched.
        let mut w = if turns { (hint & ((1 << LG_WHO) - 1)) as usize + 1 } else { 0 };
        if w >= words.len() {
            w = 0;
        }
        // Hardened, `who` is a random number: where to begin, in which word and in the
        // word.
        let turn = if HARDENED { u32::from(who) } else { 0 };
        if HARDENED {
            w = usize::from(who >> 6) % words.len();
        }
        let (mut left, mut looked, mut refaults) = (n, 0, 0);
        loop {
            let mut got = take_bits(&words[w], left, turn, P::TAKE_BITS);
            left -= got.count_ones();
            // Relaxed: the note was made before the bits came back (L4).
            if got != 0 && self.punched.load(Ordering::Relaxed) != 0 {
                refaults += self.strike_out(tag, w, got);
            }
            while got != 0 {
                let first = got.trailing_zeros();
                // All ones from there on, which a slab that fills up has many of.
                let n = (!(got >> first)).trailing_zeros();
                got &= !mask(first as usize, n as usize);
                let first = start.wrapping_add((w * 64 + first as usize) * region);
                out(Row { first, region_bytes: region, n: n as usize });
            }
            if left == 0 {
                break;
            }
            looked += 1;
            if looked % words.len() == 0 {
                // Another claimer has counted, but not taken its bits yet.
                spin();
            }
            w = if w + 1 == words.len() { 0 } else { w + 1 };
        }
        self.hint.store(w as u32 | u32::from(who) << LG_WHO, Ordering::Relaxed);
        refaults
    }

    /// The region that starts at `address`, which lies in this slab.
    #[inline]
    pub(crate) fn region_at(&self, class: Class, address: usize) -> Result<usize, Corruption> {
        let info = class.info();
        let offset = address.wrapping_sub(self.start().addr());
        let index = info.region_index(offset);
        if index * info.region_bytes as usize != offset || index >= usize::from(self.capacity.get())
        {
            return Err(Corruption::Interior { address, region_bytes: info.region_bytes as usize });
        }
        Ok(index)
    }

    /// Puts the regions `bits` of word `w` back, first half of a return: the
    /// count must be lowered by the number returned here. An error when one of
    /// them was back already.
    #[inline(always)]
    pub(crate) fn put(&self, w: usize, bits: u64, company: Company) -> Result<u32, Corruption> {
        match put_bits::<P>(&self.words()[w], bits, company) {
            0 => Ok(bits.count_ones()),
            twice => Err(self.double_free(w, twice)),
        }
    }

    /// Puts the first of `regions` back, and those behind it as long as they are in
    /// this slab; neighbours in one atomic operation. The count must be lowered by
    /// the number returned.
    #[inline(always)]
    pub(crate) fn put_all(
        &self,
        info: &ClassInfo,
        regions: &[*mut u8],
        company: Company,
    ) -> Result<usize, Corruption> {
        let Some(first) = regions.first() else { return Ok(0) };
        let start = self.start().addr();
        let (mut w, bit) = self.spot(info, first.addr(), start)?;
        let (mut n, mut bits) = self.in_a_row(info, w, bit, regions);
        while let Some(region) = regions.get(n) {
            if region.addr().wrapping_sub(start) >= info.slab_bytes() {
                break;
            }
            let (next, bit) = self.spot(info, region.addr(), start)?;
            let (more, row) = self.in_a_row(info, next, bit, &regions[n..]);
            if next != w {
                self.put_at(w, bits, company)?;
                (w, bits) = (next, 0);
            }
            if bits & row != 0 {
                return Err(self.double_free(w, bits & row));
            }
            bits |= row;
            n += more;
        }
        self.put_at(w, bits, company)?;
        Ok(n)
    }

    /// How many `regions` from the first on, which is at `bit` of word `w`, are one another's
    /// neighbours within the word, upwards or downwards; and their bits. Programs that free
    /// in the order of their allocations have many, whose places need not be found one by
    /// one.
    #[inline(always)]
    fn in_a_row(&self, info: &ClassInfo, w: usize, bit: u64, regions: &[*mut u8]) -> (usize, u64) {
        let [first, second, ..] = regions else { return (1, bit) };
        let (step, at) = (info.region_bytes as usize, bit.trailing_zeros() as usize);
        let is_up = match second.addr().wrapping_sub(first.addr()) {
            distance if distance == step => true,
            distance if distance == step.wrapping_neg() => false,
            _ => return (1, bit),
        };
        let (step, room) = if is_up {
            // `spot` found the first below the capacity.
            let behind = usize::from(self.capacity.get()).saturating_sub(w * 64 + at + 1);
            (step, (63 - at).min(behind))
        } else {
            (step.wrapping_neg(), at)
        };
        let behind = &regions[1..=room.min(regions.len() - 1)];
        let n = 1 + row::follow(first.addr(), step, behind);
        let lowest = if is_up { at } else { at + 1 - n };
        (n, mask(lowest, n))
    }

    /// Puts a region back whose neighbours in the list lie in other slabs. The count must
    /// be lowered by one.
    #[inline(always)]
    pub(crate) fn put_one(
        &self,
        info: &ClassInfo,
        region: *mut u8,
        company: Company,
    ) -> Result<(), Corruption> {
        let (w, bit) = self.spot(info, region.addr(), self.start().addr())?;
        self.put_at(w, bit, company)
    }

    /// The word and the bit of the region at `address`, of a slab that starts at `start`.
    #[inline(always)]
    fn spot(
        &self,
        info: &ClassInfo,
        address: usize,
        start: usize,
    ) -> Result<(usize, u64), Corruption> {
        let region_bytes = info.region_bytes as usize;
        let offset = address.wrapping_sub(start);
        // Of an address that is not in the slab this is a number that either is not its
        // offset's quotient or is not below the capacity. The slab's own capacity: its
        // header may have been recycled, where a region is freed twice; then
        // `lower_in` finds another class.
        let index = info.region_index(offset);
        if index * region_bytes == offset && index < usize::from(self.capacity.get()) {
            Ok((index / 64, 1u64 << (index % 64)))
        } else if offset < info.slab_bytes() {
            Err(Corruption::Interior { address, region_bytes })
        } else {
            // Looked up while the slab had a region that has come back since: and
            // now it comes back again.
            Err(Corruption::DoubleFree { address, region_bytes })
        }
    }

    /// Puts bits of a word from [`Self::spot`] back.
    #[inline(always)]
    fn put_at(&self, w: usize, bits: u64, company: Company) -> Result<(), Corruption> {
        // SAFETY: the word of an index below the capacity, by `spot`.
        match put_bits::<P>(unsafe { self.words().get_unchecked(w) }, bits, company) {
            0 => Ok(()),
            twice => Err(self.double_free(w, twice)),
        }
    }

    /// Lowers the count by the `n` regions that were put back: the second half.
    #[inline(always)]
    pub(crate) fn lower(&self, n: u32, company: Company) -> Result<After, Corruption> {
        Self::after(self.count_down(n, company), n, ptr::from_ref(self).addr())
    }

    /// [`Self::lower`] for regions of `class`. When the slab is to be settled, its tag.
    #[inline(always)]
    pub(crate) fn lower_in(
        &self,
        class: Class,
        n: u32,
        company: Company,
    ) -> Result<Option<Tag>, Corruption> {
        let before = self.count_down(n, company);
        if before.stays(class, n) {
            return Ok(None);
        }
        let address = ptr::from_ref(self).addr();
        if before.tag().class() != Some(class) {
            // Recycled since it was looked up: one of the regions was freed before.
            return Err(Corruption::Header { address, word: before.0 });
        }
        let after = Self::after(before, n, address)?;
        Ok((after == After::Settle).then(|| before.tag()))
    }

    /// Returns the header as it was.
    #[inline(always)]
    fn count_down(&self, n: u32, company: Company) -> Header {
        Header(match company {
            Company::Alone => {
                let seen = self.header.load(Ordering::Relaxed);
                self.header.store(seen.wrapping_sub(u64::from(n)), Ordering::Relaxed);
                seen
            }
            Company::Others => self.header.fetch_sub(u64::from(n), P::RETURN_COUNT),
        })
    }

    /// What a return of `n` regions does next that found the header at `address` like that.
    #[inline(never)]
    fn after(before: Header, n: u32, address: usize) -> Result<After, Corruption> {
        let live = before.live();
        if live < n {
            return Err(Corruption::Header { address, word: before.0 });
        }
        // The slab may be gone by now: only the word that was seen may be asked.
        let settle = match before.state() {
            State::Owned => false,
            State::Partial => live == n || leaves_quarter(live, n, P::capacity(before.tag())),
            State::Full => live == P::capacity(before.tag()),
            State::Evacuating => live == n,
            State::Empty => return Err(Corruption::Header { address, word: before.0 }),
        };
        Ok(if settle { After::Settle } else { After::Nothing })
    }

    /// The report for a double free of the first of `bits` in word `w`.
    #[cold]
    pub(crate) fn double_free(&self, w: usize, bits: u64) -> Corruption {
        let class = self.header().tag().class();
        let region_bytes = class.map_or(0, |c| c.info().region_bytes as usize);
        let index = w * 64 + bits.trailing_zeros() as usize;
        Corruption::DoubleFree { address: self.start().addr() + index * region_bytes, region_bytes }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::class::CLASS_COUNT;
    use quickcheck::quickcheck;
    use std::collections::BTreeSet;

    /// Puts rows of regions back into a slab of `class` all of whose regions are lent, and
    /// compares with a set. The regions of a row lie `rise` apart.
    fn rows_come_back(class: Class, rows: &[(u16, u8, i8)]) -> bool {
        const START: usize = 1 << 20;
        let (info, capacity) = (class.info(), u32::from(class.info().capacity));
        let mut node = vec![0u64; Slab::<Shipped>::node_bytes(class).div_ceil(8)];
        let at = NonNull::new(node.as_mut_ptr()).expect("a vector").cast::<u8>();
        at.as_ptr().expose_provenance();
        let tag = Tag::new(class, 0);
        // SAFETY: room enough; the start is an address that nobody goes to.
        let slab = unsafe {
            Slab::<Shipped>::install(at, tag, ptr::without_provenance_mut(START), capacity)
        };
        // SAFETY: made just now.
        let slab = unsafe { slab.as_ref() };
        let mut lent = BTreeSet::new();
        slab.claim(tag, 0, capacity, &mut |row| {
            row.regions().for_each(|at| assert!(lent.insert(at.addr())));
        });
        assert_eq!(lent.len(), capacity as usize);
        let step = info.region_bytes as isize;
        let mut list: Vec<*mut u8> = Vec::new();
        for &(first, len, rise) in rows {
            let first = START + usize::from(first) % (capacity as usize + 1) * step as usize;
            let to = |n: u8| isize::from(n) * isize::from(rise % 3) * step;
            let row = (0..len % 80).map(|n| first.wrapping_add_signed(to(n)));
            list.extend(row.map(ptr::without_provenance_mut::<u8>));
        }
        let mut rest = &list[..];
        while let Some(first) = rest.first() {
            let told = slab.put_all(info, rest, Company::Alone);
            let Ok(n) = told else {
                // The first that is not lent, or is named twice before a word is written.
                return rest.iter().any(|region| !lent.remove(&region.addr()));
            };
            if !rest[..n].iter().all(|region| lent.remove(&region.addr())) {
                return false;
            }
            assert!(n > 0, "{first:?}");
            rest = &rest[n..];
            let outside = |region: &*mut u8| region.addr().wrapping_sub(START) >= info.slab_bytes();
            if rest.first().is_some_and(outside) {
                break;
            }
        }
        slab.count_free() == capacity - lent.len() as u32
    }

    quickcheck! {
        fn rows_of_regions_come_back(class: u8, rows: Vec<(u16, u8, i8)>) -> bool {
            let class = Class::new(usize::from(class) % CLASS_COUNT).expect("a class");
            rows_come_back(class, &rows)
        }
    }

    /// A header that was recycled for a class with smaller regions: what is freed a second time
    /// as one of the old class is found out, wherever it lies.
    #[test]
    fn another_class_is_noticed() {
        const START: usize = 1 << 20;
        let of = |bytes: usize| crate::class::of_size(bytes);
        let (old, new) = (of(32 << 10), of(512));
        let mut node = vec![0u64; Slab::<Shipped>::node_bytes(new).div_ceil(8)];
        let at = NonNull::new(node.as_mut_ptr()).expect("a vector").cast::<u8>();
        at.as_ptr().expose_provenance();
        let (tag, capacity) = (Tag::new(new, 0), u32::from(new.info().capacity));
        for k in 0..capacity as usize {
            // SAFETY: room enough; the start is an address that nobody goes to.
            let slab = unsafe {
                Slab::<Shipped>::install(at, tag, ptr::without_provenance_mut(START), capacity)
            };
            // SAFETY: made just now.
            let slab = unsafe { slab.as_ref() };
            slab.claim(tag, 0, capacity, &mut |_| {});
            let region = ptr::without_provenance_mut(START + k * (32 << 10));
            let told = slab
                .put_one(old.info(), region, Company::Alone)
                .and_then(|()| slab.lower_in(old, 1, Company::Alone));
            assert!(matches!(told, Err(Corruption::Header { .. })), "{k}: {told:?}");
        }
    }

    /// Up to the last region and down to the first, over the ends of words.
    #[test]
    fn whole_slabs_come_back() {
        for class in Class::all() {
            let n = class.info().capacity;
            for at in (0..n).step_by(79) {
                let len = 79.min(n - at) as u8;
                assert!(rows_come_back(class, &[(at, len, 1)]), "{at}");
                assert!(rows_come_back(class, &[(at + u16::from(len) - 1, len, -1)]), "{at}");
            }
            assert!(rows_come_back(class, &[(n, 1, 1)]), "one behind the last");
            assert!(rows_come_back(class, &[(n.saturating_sub(3), 7, 1)]), "beyond the last");
            assert!(rows_come_back(class, &[(2, 7, -1)]), "before the first");
        }
    }

    /// What is decided in a few instructions is what is decided with all of them.
    #[test]
    fn what_stays_needs_nothing() {
        let mut stayed = 0;
        for class in Class::all() {
            let capacity = u32::from(class.info().capacity);
            let others = Class::all().filter(|other| other.index() + 1 == class.index());
            for (of, live) in [class]
                .into_iter()
                .chain(others)
                .flat_map(|of| (0..=capacity).map(move |n| (of, n)))
            {
                for state in 0..=5 {
                    let tag = u64::from(Tag::new(of, 3).0);
                    let before = Header(u64::from(live) | state << 16 | tag << 24 | 7 << 40);
                    for n in [1, 2, 3, 50, 64, capacity] {
                        let after = Slab::<Shipped>::after(before, n, 0);
                        if before.stays(class, n) {
                            stayed += 1;
                            assert_eq!((of, after), (class, Ok(After::Nothing)));
                        } else if of == class && live > n && live < capacity {
                            // Nothing usual is left to the slow way, but for a slab that
                            // comes to lie on a line.
                            let listed = before.state() == State::Partial;
                            let on_line = (live - n) * 4 % capacity == 0;
                            let settles = after == Ok(After::Settle);
                            assert!(!listed || on_line || settles, "{:#x}", before.0);
                        }
                    }
                }
            }
        }
        assert!(stayed > 10_000);
    }
}
