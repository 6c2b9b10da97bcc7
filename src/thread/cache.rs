//! The thread cache: the hot path, and the slow paths behind it.

#[cfg(all(test, loom))]
mod model;

use super::chance::Chance;
use super::fork;
use super::local::with_cache;
use super::record::{Record, Shared, each_record, orphan};
use super::slots::{self, Slot};
use super::tally::Tallies;
use crate::arena::CENTRAL;
use crate::class::{CLASS_COUNT, Class};
use crate::config::{
    BLOCK_TICK_EVERY, EARLY_FREES, HARDENED, MAGAZINE_EARNED_BYTES, MAGAZINE_FEW, MAGAZINE_MAX,
    MAGAZINE_START, MAGAZINE_START_BYTES, ONE_WAY_PART, PAGE_BYTES, SHUFFLE_BYTES, SHUFFLE_WINDOW,
    TICK_EVERY,
};
use crate::error::Corruption;
use crate::lock::{Guard, Lock};
use crate::os;
use crate::settings::{Moment, SETTINGS, Settings};
use crate::sync::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU32, Ordering, const_unless_loom, light_fence, nulls,
    statics,
};
use core::ffi::c_void;
use core::ptr::{self, NonNull};

/// The magazines: for each class, regions that are ready to be handed out. One array
/// for each kind of bound, so that a class is an index and needs no multiplication.
/// The bounds are atomic because others read them; their own thread uses plain loads
/// and stores of them (Relaxed throughout: T1 says who orders what).
struct Magazines {
    /// Behind the newest item.
    cur: [AtomicPtr<Slot>; CLASS_COUNT],
    /// The first item; [`RECALLED`] when recalled.
    base: [AtomicPtr<Slot>; CLASS_COUNT],
    /// Behind the last place; null when recalled.
    end: [AtomicPtr<Slot>; CLASS_COUNT],
}

/// The bounds of one class's magazine.
#[derive(Clone, Copy)]
struct Magazine<'a> {
    cur: &'a AtomicPtr<Slot>,
    base: &'a AtomicPtr<Slot>,
    end: &'a AtomicPtr<Slot>,
}

impl Magazines {
    const_unless_loom! {
        fn unused() -> Magazines {
            Magazines { cur: nulls(), base: nulls(), end: nulls() }
        }
    }

    #[inline(always)]
    fn of(&self, class: Class) -> Magazine<'_> {
        let at = class.index();
        debug_assert!(at < CLASS_COUNT);
        // SAFETY: there is no other class (its only constructors check or compute it).
        let cur = unsafe { self.cur.get_unchecked(at) };
        // SAFETY: as above.
        let base = unsafe { self.base.get_unchecked(at) };
        // SAFETY: as above.
        let end = unsafe { self.end.get_unchecked(at) };
        Magazine { cur, base, end }
    }
}

impl Magazine<'_> {
    fn set_bounds(self, base: *mut Slot, end: *mut Slot) {
        self.base.store(base, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }
}

/// The first item of a magazine that was recalled: the highest address.
const RECALLED: *mut Slot = ptr::without_provenance_mut(usize::MAX);

/// What a thread's cache is up to.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stage {
    /// Never used.
    Fresh = 0,
    Live = 1,
    /// The thread ends, or could not get a record: nothing is cached.
    Dead = 2,
}

/// The thread cache.
pub(crate) struct Cache {
    magazines: Magazines,
    /// Bytes asked for and bytes given back: two sums, so that an allocation and
    /// a free that follow each other do not wait for one another's store.
    asked_bytes: AtomicI64,
    returned_bytes: AtomicI64,
    record: AtomicPtr<Record>,
    /// The record's tallies; null until the thread has used an account.
    tallies: AtomicPtr<Tallies>,
    stage: AtomicU32,
    /// Frees before anything else.
    early_frees: AtomicU32,
    /// Whether the thread is in a callback that is to make room.
    relieving: AtomicBool,
    chance: Chance,
}

impl Cache {
    const_unless_loom! {
        /// A cache that was never used: all zero.
        #[cfg_attr(feature = "initial-exec", allow(dead_code, reason = "the linker makes it"))]
        pub(super) fn unused() -> Cache {
            Cache {
                magazines: Magazines::unused(),
                asked_bytes: AtomicI64::new(0),
                returned_bytes: AtomicI64::new(0),
                record: AtomicPtr::new(ptr::null_mut()),
                tallies: AtomicPtr::new(ptr::null_mut()),
                stage: AtomicU32::new(Stage::Fresh as u32),
                early_frees: AtomicU32::new(0),
                relieving: AtomicBool::new(false),
                chance: Chance::unused(),
            }
        }
    }

    /// Hardened: counts an allocation; whether to ask [`Cache::draw_sample`].
    #[inline(always)]
    pub(crate) fn sample_is_due(&self) -> bool {
        self.chance.is_due()
    }

    /// Whether the allocation is one to sample, of which there is `one_in` so many.
    pub(crate) fn draw_sample(&self, one_in: u32) -> bool {
        let drawn = self.chance.draw(one_in);
        if drawn {
            // Sampled blocks have a lock, and maybe no thread has a record yet.
            fork::watch();
        }
        drawn
    }

    /// In a forked child: draws other numbers than the parent.
    pub(super) fn reseed(&self) {
        self.chance.reseed();
    }

    /// Has the next allocation draw anew.
    pub(crate) fn forget_sample(&self) {
        self.chance.forget();
    }

    #[inline(always)]
    pub(super) fn tallies(&self) -> *mut Tallies {
        self.tallies.load(Ordering::Relaxed)
    }

    pub(super) fn set_tallies(&self, tallies: *mut Tallies) {
        self.tallies.store(tallies, Ordering::Relaxed);
    }

    /// Runs `f` with the thread's record, if it can have one.
    pub(super) fn with_record(&self, f: impl FnOnce(&'static Record)) {
        if let Some(record) = self.record() {
            f(record);
        }
    }

    /// Runs `f`, unless this thread is in such a call already. Returns whether it ran.
    pub(crate) fn relieve(&self, f: impl FnOnce()) -> bool {
        if self.relieving.swap(true, Ordering::Relaxed) {
            return false;
        }
        f();
        self.relieving.store(false, Ordering::Relaxed);
        true
    }

    /// A cached region of `class` for a block of `size` bytes. The size is entered if
    /// `COUNTED`.
    #[inline(always)]
    pub(crate) fn allocate<const COUNTED: bool>(
        &self,
        class: Class,
        size: usize,
    ) -> Option<*mut u8> {
        let region = self.pop(class, size)?;
        if COUNTED {
            self.ask(size);
        }
        Some(region)
    }

    /// A cached region of `class` for a block of `bytes`. One that is handed out soon is
    /// fetched, as far as such a block would reach: it may be in another processor's cache,
    /// and where the order is mixed the processor does not foresee it.
    #[inline(always)]
    pub(crate) fn pop(&self, class: Class, bytes: usize) -> Option<*mut u8> {
        // Operations stay apart, so that a barrier falls between two (T3).
        light_fence();
        let magazine = self.magazines.of(class);
        let (cur, base) =
            (magazine.cur.load(Ordering::Relaxed), magazine.base.load(Ordering::Relaxed));
        if cur <= base {
            return None;
        }
        // SAFETY: `cur > base`, so there is an item below it (T1).
        let top = unsafe { cur.sub(1) };
        // SAFETY: the place was written when the item was pushed.
        let region = unsafe { (*top).load(Ordering::Relaxed) };
        magazine.cur.store(top, Ordering::Relaxed);
        // SAFETY: the bounds are those of a node's places, and what is below was written
        // when they were set (`enter`).
        unsafe { slots::fetch(top, base, bytes) };
        // SAFETY: only regions are pushed. The caller's test for null folds away.
        unsafe { core::hint::assert_unchecked(!region.is_null()) };
        Some(region)
    }

    /// Takes a region back that held a block of `size` bytes.
    #[inline(always)]
    pub(crate) fn free<const COUNTED: bool>(&self, class: Class, region: *mut u8, size: usize) {
        if !self.push::<COUNTED>(class, region, size) {
            self.free_slow(class, whole(region), if COUNTED { size } else { 0 });
        }
    }

    /// [`Self::free`] if there is a place in the magazine, which is returned.
    #[inline(always)]
    pub(crate) fn push<const COUNTED: bool>(
        &self,
        class: Class,
        region: *mut u8,
        size: usize,
    ) -> bool {
        light_fence();
        let region = whole(region);
        let magazine = self.magazines.of(class);
        let cur = magazine.cur.load(Ordering::Relaxed);
        if cur >= magazine.end.load(Ordering::Relaxed) {
            return false;
        }
        if COUNTED {
            // Before the region counts as cached: requested <= allocated (T5).
            self.give(size);
        }
        // SAFETY: `cur < end`, so there is a place (T1).
        unsafe { (*cur).store(region, Ordering::Relaxed) };
        // First the item, then the count: a fork may fall in between.
        light_fence();
        // SAFETY: at most `end`.
        magazine.cur.store(unsafe { cur.add(1) }, Ordering::Relaxed);
        true
    }

    /// Takes the newest cached region of `class` out of the cache if it is
    /// `unwanted`; the caller sends it back to its slab.
    pub(crate) fn take_newest(
        &self,
        class: Class,
        unwanted: impl FnOnce(*mut u8) -> bool,
    ) -> Option<*mut u8> {
        // As in `allocate`, which this is but for the books.
        light_fence();
        let magazine = self.magazines.of(class);
        let cur = magazine.cur.load(Ordering::Relaxed);
        if cur <= magazine.base.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: `cur > base`, so there is an item below it (T1).
        let top = unsafe { cur.sub(1) };
        // SAFETY: the place was written when the item was pushed.
        let region = unsafe { (*top).load(Ordering::Relaxed) };
        if !unwanted(region) {
            return None;
        }
        magazine.cur.store(top, Ordering::Relaxed);
        Some(region)
    }

    /// Enters bytes asked for.
    #[inline(always)]
    fn ask(&self, bytes: usize) {
        // Not an atomic addition: only this thread writes it.
        let sum = self.asked_bytes.load(Ordering::Relaxed).wrapping_add(bytes as i64);
        self.asked_bytes.store(sum, Ordering::Relaxed);
    }

    /// Enters bytes given back.
    #[inline(always)]
    fn give(&self, bytes: usize) {
        // As above.
        let sum = self.returned_bytes.load(Ordering::Relaxed).wrapping_add(bytes as i64);
        self.returned_bytes.store(sum, Ordering::Relaxed);
    }

    pub(super) fn requested_bytes(&self) -> i64 {
        // The returns first: what they belong to was asked for before.
        let returned = self.returned_bytes.load(Ordering::Relaxed);
        self.asked_bytes.load(Ordering::Relaxed).wrapping_sub(returned)
    }

    /// Bytes that this thread has asked for so far.
    pub(crate) fn asked_bytes(&self) -> i64 {
        self.asked_bytes.load(Ordering::Relaxed)
    }

    /// Enters a block's change of size, where it is.
    #[inline]
    pub(crate) fn request(&self, from: usize, to: usize) {
        if self.record.load(Ordering::Relaxed).is_null() {
            orphan().lock.lock().requested_bytes += to as i64 - from as i64;
        } else if to >= from {
            self.ask(to - from);
        } else {
            self.give(from - to);
        }
    }

    /// Items in a magazine, whose first place is `items`.
    pub(super) fn cached(&self, class: Class, items: *mut Slot) -> usize {
        let cur = self.magazines.of(class).cur.load(Ordering::Relaxed);
        if cur.is_null() { 0 } else { (cur.addr() - items.addr()) / size_of::<Slot>() }
    }

    /// A region of `class`, from its slabs, of which `size` bytes are entered; null when
    /// memory is out.
    pub(crate) fn allocate_slow(&self, class: Class, size: usize, settings: &Settings) -> *mut u8 {
        heed(settings);
        let mut region = ptr::null_mut();
        let Some(record) = self.record() else {
            let mut shared = orphan().lock.lock();
            if CENTRAL.claim(0, class, 0, 1, &mut |row| region = row.first) > 0 {
                shared.claimed[class.index()] += 1;
                shared.requested_bytes += size as i64;
                fill(region, class, Moment::Allocated);
            }
            return region;
        };
        let mut shared = record.lock.lock();
        let limit = self.enter(&mut shared, record, class);
        // On the way here the system may have allocated and freed.
        if let Some(region) = self.pop(class, size) {
            self.ask(size);
            return region;
        }
        shared.one_way &= !class.bit();
        // One for the caller, the rest up to half of the magazine.
        let want = (limit / 2).max(1);
        let items = record.items(class, shared.grown);
        let arena = CENTRAL.arena_of(record.ordinal);
        let mut n = 0;
        // Not 0, which is nobody.
        let who = if HARDENED {
            self.chance.next() as u16
        } else {
            (record.ordinal % usize::from(u16::MAX)) as u16 + 1
        };
        let got = CENTRAL.claim(arena, class, who, want as u32, &mut |row| {
            // Addresses go up as they come. The first is handed out; the others
            // are laid down from the top, so that they go up as they are popped.
            let mut rest = Some(row);
            if n == 0 {
                (region, rest) = row.split_first();
                n = 1;
            }
            if let Some(row) = rest {
                n += row.n;
                // SAFETY: `n <= want <= limit` places, which nobody else looks at.
                unsafe { slots::lay_down(items.add(want - n), row) };
            }
        });
        if got == 0 {
            return ptr::null_mut();
        }
        shared.claimed[class.index()] += i64::from(got);
        if n < want {
            // SAFETY: the `n - 1` items just written, and places below them.
            unsafe { slots::shift(items.add(want - n), items, n - 1) };
        }
        if HARDENED && is_mixed(class) {
            // SAFETY: the `n - 1` items are written, and not the thread's yet.
            unsafe { self.shuffle(&mut region, items, n - 1) };
        }
        // SAFETY: within the class's places.
        self.magazines.of(class).cur.store(unsafe { items.add(n - 1) }, Ordering::Relaxed);
        self.ask(size);
        self.leave(shared);
        region
    }

    /// [`Central::reuse`](crate::arena::Central::reuse), where the thread refills from.
    #[cfg(not(loom))]
    #[cold]
    pub(crate) fn reuse(&self, class: Class) -> bool {
        let arena = self.record().map_or(0, |record| CENTRAL.arena_of(record.ordinal));
        CENTRAL.reuse(arena, class)
    }

    /// Puts a region and `n` items in random order, [`SHUFFLE_WINDOW`] at a time.
    ///
    /// # Safety
    /// So many items are at `items`, and nobody else looks at them.
    unsafe fn shuffle(&self, region: &mut *mut u8, items: *mut Slot, n: usize) {
        // SAFETY: the caller's promise; `i < n`.
        let slot = |i: usize| unsafe { &*items.add(i) };
        let load = |i: usize| slot(i).load(Ordering::Relaxed);
        for i in 0..n {
            let window = (n - i).min(SHUFFLE_WINDOW - i % SHUFFLE_WINDOW);
            let (other, item) = (i + self.chance.below(window), load(i));
            slot(i).store(load(other), Ordering::Relaxed);
            slot(other).store(item, Ordering::Relaxed);
        }
        if n > 0 {
            // It is handed out first, and lay before the last one.
            let i = n - 1 - self.chance.below(n.min(SHUFFLE_WINDOW));
            let item = load(i);
            slot(i).store(core::mem::replace(region, item), Ordering::Relaxed);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_slow(&self, class: Class, region: *mut u8, size: usize) {
        if os::is_ending() {
            return;
        }
        let Some(record) = self.record_to_free() else {
            let mut shared = orphan().lock.lock();
            fill(region, class, Moment::Freed);
            CENTRAL.give_back(class, &[region]);
            shared.claimed[class.index()] -= 1;
            shared.requested_bytes -= size as i64;
            return;
        };
        let mut shared = record.lock.lock();
        self.give(size);
        let limit = self.enter(&mut shared, record, class);
        let items = record.items(class, shared.grown);
        let full = self.cached(class, items);
        let magazine = self.magazines.of(class);
        let one_way = shared.one_way & class.bit() != 0;
        let bound = if one_way { (limit / ONE_WAY_PART).max(1) } else { limit };
        let mut keep = full;
        if full >= bound {
            // The older half goes: the newer one is still in the CPU's cache. All of it, if
            // the newer one was not wanted the last time.
            keep = if one_way { 0 } else { full / 2 };
            let go = full - keep;
            shared.one_way |= class.bit();
            give_back(&mut shared, class, items, go);
            // SAFETY: all within the class's places.
            unsafe { slots::shift(items.add(go), items, keep) };
        }
        // SAFETY: `keep < bound`.
        unsafe { (*items.add(keep)).store(region, Ordering::Relaxed) };
        // SAFETY: as above.
        magazine.cur.store(unsafe { items.add(keep + 1) }, Ordering::Relaxed);
        // SAFETY: `bound <= limit` places belong to the class.
        magazine.set_bounds(items, unsafe { items.add(bound) });
        self.leave(shared);
    }

    /// What every slow path does first: heeds a recall, lets the magazine grow
    /// with use, and makes its bounds right. Returns its capacity.
    fn enter(&self, shared: &mut Shared, record: &Record, class: Class) -> usize {
        if shared.recalled {
            self.drain(shared, record);
        }
        shared.touched |= class.bit();
        shared.entries = shared.entries.wrapping_add(1);
        let earned = MAGAZINE_START_BYTES + shared.entries as usize * MAGAZINE_EARNED_BYTES;
        let max = class.magazine_max(earned.min(SETTINGS.magazine_bytes()));
        let capacity = &mut shared.capacity[class.index()];
        *capacity = match *capacity {
            0 => max.min(MAGAZINE_START as u16),
            now => now.max(max.min(now * 2)),
        };
        let mut limit = usize::from(*capacity);
        let (bit, few) = (class.bit(), record.items(class, shared.grown));
        let magazine = self.magazines.of(class);
        let n = self.cached(class, few);
        let mut items = few;
        if limit > MAGAZINE_FEW && shared.grown & bit == 0 {
            if record.make_room(class) {
                shared.grown |= bit;
                items = record.items(class, shared.grown);
                // SAFETY: the class's places here and there.
                unsafe { slots::shift(few, items, n) };
            } else {
                limit = MAGAZINE_FEW;
            }
        }
        // SAFETY: the first of the class's places.
        unsafe { slots::stop(items) };
        // SAFETY: within the class's places.
        magazine.cur.store(unsafe { items.add(n) }, Ordering::Relaxed);
        // SAFETY: `limit` places belong to the class.
        magazine.set_bounds(items, unsafe { items.add(limit) });
        limit
    }

    /// What every slow path does last: now and then, the chores.
    fn leave(&self, mut shared: Guard<'_, Shared>) {
        if !shared.entries.is_multiple_of(TICK_EVERY) {
            return;
        }
        self.shrink_idle(&mut shared);
        drop(shared);
        CENTRAL.tick(os::now_ms());
    }

    /// Empties the magazines that nobody has refilled or flushed lately.
    fn shrink_idle(&self, shared: &mut Shared) {
        let touched = core::mem::take(&mut shared.touched);
        // SAFETY: T4; the thread has a record.
        let Some(record) = (unsafe { self.record.load(Ordering::Relaxed).as_ref() }) else {
            return;
        };
        for class in Class::all().filter(|c| touched & c.bit() == 0) {
            self.empty(shared, record, class);
            shared.capacity[class.index()] /= 4;
        }
    }

    fn empty(&self, shared: &mut Shared, record: &Record, class: Class) {
        let items = record.items(class, shared.grown);
        let taken = usize::from(core::mem::take(&mut shared.taken[class.index()]));
        let n = self.cached(class, items);
        // SAFETY: `taken` of the `n` items are gone, the rest lie behind them.
        give_back(shared, class, unsafe { items.add(taken) }, rest(n, taken));
        let magazine = self.magazines.of(class);
        magazine.cur.store(ptr::null_mut(), Ordering::Relaxed);
        magazine.set_bounds(ptr::null_mut(), ptr::null_mut());
        shared.grown &= !class.bit();
    }

    /// Hands everything back that this thread's magazines hold. Only its own
    /// thread may call this.
    fn drain(&self, shared: &mut Shared, record: &Record) {
        for class in Class::all() {
            self.empty(shared, record, class);
            shared.capacity[class.index()] /= 2;
        }
        shared.recalled = false;
    }

    /// The thread's record; `None` when it must do without.
    #[inline]
    fn record(&self) -> Option<&'static Record> {
        // SAFETY: T4.
        let record = unsafe { self.record.load(Ordering::Relaxed).as_ref() };
        if record.is_none() && self.stage.load(Ordering::Relaxed) == Stage::Fresh as u32 {
            return self.register();
        }
        record
    }

    /// [`Cache::record`], unless the thread has never allocated and freed little: what
    /// it frees then was another's, and goes home. A cache would hand it out here, to
    /// be written beside its neighbours over there; and a thread that frees no more
    /// than what it was started with needs none.
    fn record_to_free(&self) -> Option<&'static Record> {
        // SAFETY: T4.
        let record = unsafe { self.record.load(Ordering::Relaxed).as_ref() };
        if record.is_none() && self.stage.load(Ordering::Relaxed) == Stage::Fresh as u32 {
            let n = self.early_frees.load(Ordering::Relaxed);
            if n < EARLY_FREES {
                self.early_frees.store(n + 1, Ordering::Relaxed);
                return None;
            }
        }
        self.record()
    }

    #[cold]
    fn register(&self) -> Option<&'static Record> {
        fork::watch();
        if SETTINGS.fill().is_some() {
            // Every block is filled on its way, so none is kept.
            return None;
        }
        // The system may have allocated meanwhile, by us.
        // SAFETY: T4.
        if let Some(record) = unsafe { self.record.load(Ordering::Relaxed).as_ref() } {
            return Some(record);
        }
        let Some(record) = Record::obtain() else {
            // Memory is out: perhaps not for ever, so the stage stays.
            return None;
        };
        // SAFETY: T4.
        let it: &'static Record = unsafe { record.as_ref() };
        {
            let mut shared = it.lock.lock();
            hand_back_stranded(&mut shared, it);
            shared.cache = ptr::from_ref(self);
            shared.one_way = 0;
            shared.taken = [0; CLASS_COUNT];
            shared.recalled = false;
        }
        self.record.store(record.as_ptr(), Ordering::Relaxed);
        self.stage.store(Stage::Live as u32, Ordering::Relaxed);
        // Last, with all in place: it may allocate.
        if !os::arm_exit_hook(thread_ends, record.cast()) {
            self.retire(it);
            return None;
        }
        Some(it)
    }

    /// Ends caching on this thread and puts its record away.
    fn retire(&self, record: &'static Record) {
        {
            let mut shared = record.lock.lock();
            self.drain(&mut shared, record);
            shared.requested_bytes += self.requested_bytes();
            self.asked_bytes.store(0, Ordering::Relaxed);
            self.returned_bytes.store(0, Ordering::Relaxed);
            shared.cache = ptr::null();
            self.record.store(ptr::null_mut(), Ordering::Relaxed);
            self.tallies.store(ptr::null_mut(), Ordering::Relaxed);
            self.stage.store(Stage::Dead as u32, Ordering::Relaxed);
        }
        record.put_away();
    }

    /// Ends caching on the calling thread.
    pub(crate) fn give_up(&self) {
        // SAFETY: T4.
        if let Some(record) = unsafe { self.record.load(Ordering::Relaxed).as_ref() } {
            self.retire(record);
        }
    }

    /// Runs `f` under the lock of the calling thread's record (T2).
    pub(crate) fn with_shared<R>(&self, f: impl FnOnce(&mut Shared, &'static Record) -> R) -> R {
        let record = self.record().unwrap_or(orphan());
        f(&mut record.lock.lock(), record)
    }

    /// Enters a change of size of a block that is not small, from 0 or to 0 when
    /// it is new or gone, and sometimes does the chores.
    pub(crate) fn request_block(&self, from: usize, to: usize) {
        if let Some(record) = self.record() {
            let due = record.count_block().is_multiple_of(BLOCK_TICK_EVERY);
            if due || self.seems_recalled() {
                self.do_chores(record, due);
            }
        }
        self.request(from, to);
    }

    /// Whether the magazines' bounds are those of a recalled cache, for their own thread. A
    /// recall of this moment may go unseen until the next look.
    fn seems_recalled(&self) -> bool {
        let [base, ..] = &self.magazines.base;
        base.load(Ordering::Relaxed) == RECALLED
    }

    /// What is done now and then with blocks that are not small.
    #[cold]
    fn do_chores(&self, record: &Record, tick: bool) {
        let mut shared = record.lock.lock();
        if shared.recalled {
            self.drain(&mut shared, record);
        }
        drop(shared);
        if tick {
            CENTRAL.tick(os::now_ms());
        }
    }

    /// Empties this thread's magazines.
    pub(crate) fn empty_own(&self) {
        if let Some(record) = self.record() {
            self.drain(&mut record.lock.lock(), record);
        }
    }

    /// Empties this thread's magazines, and those of all other threads but for
    /// one region of a class, which each hands back with its next operation.
    /// Stops nobody (T3). Where the system has no barrier for all processors,
    /// other threads hand back everything with their next operation.
    pub(crate) fn recall_all(&self) {
        let own = self.record();
        let _recall = RECALL.lock();
        let mut others = false;
        each_record(|record| {
            let mut shared = record.lock.lock();
            if own.is_some_and(|own| ptr::eq(own, record)) {
                self.drain(&mut shared, record);
                return;
            }
            hand_back_stranded(&mut shared, record);
            // SAFETY: a cache is valid while it is in a record, whose lock is held.
            let Some(cache) = (unsafe { shared.cache.as_ref() }) else { return };
            others = true;
            if !shared.recalled {
                for class in Class::all() {
                    let magazine = cache.magazines.of(class);
                    magazine.set_bounds(RECALLED, ptr::null_mut());
                }
                shared.recalled = true;
            }
        });
        if others && os::barrier_everywhere() {
            each_record(|record| take_recalled(&mut record.lock.lock(), record));
        }
    }
}

/// Whether the order of regions is mixed in refills: of those of which
/// [`SHUFFLE_WINDOW`] lie within [`SHUFFLE_BYTES`], and of those of whole pages. In
/// between, programs that walk through their blocks in order wait for each.
fn is_mixed(class: Class) -> bool {
    let bytes = class.info().region_bytes as usize;
    bytes * SHUFFLE_WINDOW <= SHUFFLE_BYTES || bytes >= PAGE_BYTES
}

/// A pointer to all of the region whose last owner's pointer is `block`: his may reach
/// the value alone that he had there. No instruction. Segments are exposed where they
/// are reserved.
#[inline(always)]
fn whole(block: *mut u8) -> *mut u8 {
    ptr::with_exposed_provenance_mut(block.addr())
}

statics! {
    /// Held while caches are recalled: so a record that is found recalled was so
    /// before the holder's barrier.
    pub(super) static RECALL: Lock<()> = Lock::new(());
}

/// Takes what a recalled thread has cached, but for each class's top item.
fn take_recalled(shared: &mut Shared, record: &Record) {
    // SAFETY: a cache is valid while it is in a record, whose lock is held.
    let Some(cache) = (unsafe { shared.cache.as_ref() }) else { return };
    if !shared.recalled {
        return;
    }
    for class in Class::all() {
        let items = record.items(class, shared.grown);
        let below_top = cache.cached(class, items).saturating_sub(1);
        let taken = usize::from(shared.taken[class.index()]);
        if below_top > taken {
            // SAFETY: these items are not touched by an operation on its way.
            give_back(shared, class, unsafe { items.add(taken) }, below_top - taken);
            shared.taken[class.index()] = below_top as u16;
        }
    }
}

/// What is left of `n` items of which `taken` are gone. More cannot be gone than
/// there were (T3); to go on from there would hand out memory twice.
pub(super) fn rest(n: usize, taken: usize) -> usize {
    match n.checked_sub(taken) {
        Some(rest) => rest,
        None => os::abort(Corruption::Cache { held: n, taken }),
    }
}

/// Returns `n` items of a class to their slabs.
fn give_back(shared: &mut Shared, class: Class, items: *mut Slot, n: usize) {
    if n > 0 {
        // SAFETY: `n` items, written by the record's thread.
        unsafe { slots::read(items, n, |regions| CENTRAL.give_back(class, regions)) };
        shared.claimed[class.index()] -= n as i64;
    }
}

/// In a forked child, hands back what the record's former thread held.
fn hand_back_stranded(shared: &mut Shared, record: &Record) {
    if !core::mem::take(&mut shared.has_stranded) {
        return;
    }
    for class in Class::all() {
        let n = usize::from(core::mem::take(&mut shared.stranded[class.index()]));
        let taken = usize::from(core::mem::take(&mut shared.taken[class.index()]));
        let items = record.items(class, shared.grown);
        // SAFETY: that many items were counted when the fork was made.
        give_back(shared, class, unsafe { items.add(taken) }, n);
    }
    shared.grown = 0;
}

unsafe extern "C" fn thread_ends(record: *mut c_void) {
    let Some(record) = NonNull::new(record.cast::<Record>()) else { return };
    // SAFETY: T4.
    let record: &'static Record = unsafe { record.as_ref() };
    with_cache(|cache| {
        if cache.record.load(Ordering::Relaxed) == ptr::from_ref(record).cast_mut() {
            cache.retire(record);
        }
    });
}

/// Puts the settings of the allocator that is called first into effect.
#[inline]
pub(crate) fn heed(settings: &Settings) {
    if let Some(decay) = SETTINGS.take_up(settings) {
        CENTRAL.set_decay(decay);
    }
}

/// Fills a region, if that is wanted; one that is freed is proven to be one first.
fn fill(region: *mut u8, class: Class, moment: Moment) {
    if let Some(fill) = SETTINGS.fill() {
        if let (Moment::Freed, Err(what)) = (moment, CENTRAL.place(class, region.addr())) {
            os::abort(what);
        }
        // SAFETY: a whole region, which nobody uses at this moment.
        unsafe { region.write_bytes(fill.byte(moment), class.info().region_bytes as usize) };
    }
}

const _: () = assert!(MAGAZINE_MAX < 1 << 16);
