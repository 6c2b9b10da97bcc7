//! Thread records: the part of a thread's cache that others may see, and that
//! stays when the thread ends.

use super::cache::Cache;
use super::slots::{self, Slot};
use super::tally::Tallies;
use crate::arena::CENTRAL;
use crate::class::{CLASS_COUNT, Class};
use crate::config::MAGAZINE_FEW;
use crate::lock::Lock;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, const_unless_loom, nulls, statics};
use core::ptr::{self, NonNull};

/// What a thread, or the threads that used a record one after the other, have
/// taken and returned. Only sums over all records mean anything: what one
/// thread allocates another may free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// Regions taken out of slabs less regions put back.
    pub(crate) claimed: [i64; CLASS_COUNT],
    /// Bytes asked for less bytes given back, of the layouts.
    pub(crate) requested_bytes: i64,
    /// Regions waiting in magazines.
    pub(crate) cached: [i64; CLASS_COUNT],
}

impl Books {
    pub(crate) const ZERO: Self =
        Self { claimed: [0; CLASS_COUNT], requested_bytes: 0, cached: [0; CLASS_COUNT] };
}

/// What the record's lock guards.
pub(crate) struct Shared {
    /// The cache of the thread that uses this record; null when none does.
    pub(crate) cache: *const Cache,
    pub(crate) claimed: [i64; CLASS_COUNT],
    /// Of the record's earlier threads, and of operations without a cache.
    pub(crate) requested_bytes: i64,
    /// Capacity of each magazine, which grows with use.
    pub(crate) capacity: [u16; CLASS_COUNT],
    /// Classes whose items do not lie with the few.
    pub(crate) grown: u64,
    /// Classes that took the slow path since the last look at idle ones.
    pub(crate) touched: u64,
    /// Classes of which regions were sent back since the last refill.
    pub(crate) one_way: u64,
    /// Slow-path entries.
    pub(crate) entries: u32,
    pub(crate) recalled: bool,
    /// While recalled: the items of each class, from the first on, that have
    /// been taken out already (T3).
    pub(crate) taken: [u16; CLASS_COUNT],
    /// In a forked child: items that a thread of the parent left here, behind
    /// those `taken`.
    pub(crate) stranded: [u16; CLASS_COUNT],
    pub(crate) has_stranded: bool,
}

// SAFETY: the cache outlives its place here (its thread's end takes it out),
// and is made of atomics.
unsafe impl Send for Shared {}

/// What the few items of one class take.
const FEW_BYTES: usize = slots::bytes(MAGAZINE_FEW);

/// A thread's record.
#[repr(C)]
pub(crate) struct Record {
    /// Next record ever made (T4).
    next: AtomicPtr<Record>,
    pub(crate) lock: Lock<Shared>,
    pub(crate) ordinal: usize,
    /// Next free record, under the registry's lock.
    next_free: AtomicPtr<Record>,
    /// What its threads did in accounts; null until the first one used any.
    tallies: AtomicPtr<Tallies>,
    /// Large and huge blocks that came and went. Relaxed: a count, written by the thread that
    /// uses the record.
    blocks: AtomicU32,
    /// Room for more items than [`FEW`], of the classes that have ever had more.
    /// Relaxed: changed and read under the lock.
    many: [AtomicPtr<Slot>; CLASS_COUNT],
}

// SAFETY: what is not atomic is behind the lock or never changes.
unsafe impl Sync for Record {}

pub(super) struct Registry {
    free: *mut Record,
}

// SAFETY: records are shared by design.
unsafe impl Send for Registry {}

statics! {
    pub(super) static REGISTRY: Lock<Registry> = Lock::new(Registry { free: ptr::null_mut() });
    pub(super) static NEWEST: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
    pub(super) static COUNT: AtomicUsize = AtomicUsize::new(0);
    /// The record of operations that have no cache: on threads that have ended, or
    /// that could not get a record.
    pub(super) static ORPHAN: Record = Record::new(0);
}

/// The record for operations without a cache.
pub(crate) fn orphan() -> &'static Record {
    &ORPHAN
}

impl Record {
    const_unless_loom! {
        fn new(ordinal: usize) -> Record {
            Record {
                next: AtomicPtr::new(ptr::null_mut()),
                lock: Lock::new(Shared {
                    cache: ptr::null(),
                    claimed: [0; CLASS_COUNT],
                    requested_bytes: 0,
                    capacity: [0; CLASS_COUNT],
                    grown: 0,
                    touched: 0,
                    one_way: 0,
                    entries: 0,
                    recalled: false,
                    taken: [0; CLASS_COUNT],
                    stranded: [0; CLASS_COUNT],
                    has_stranded: false,
                }),
                ordinal,
                next_free: AtomicPtr::new(ptr::null_mut()),
                tallies: AtomicPtr::new(ptr::null_mut()),
                blocks: AtomicU32::new(0),
                many: nulls(),
            }
        }
    }

    /// Counts a block that came or went, for the thread that uses the record; returns the sum.
    #[inline]
    pub(super) fn count_block(&self) -> u32 {
        let sum = self.blocks.load(Ordering::Relaxed).wrapping_add(1);
        self.blocks.store(sum, Ordering::Relaxed);
        sum
    }

    pub(super) fn tallies(&self) -> *mut Tallies {
        // Acquire pairs with the Release in `set_tallies`.
        self.tallies.load(Ordering::Acquire)
    }

    /// Only for the thread that uses the record.
    pub(super) fn set_tallies(&self, tallies: *mut Tallies) {
        // Release: they are zero, which others must see.
        self.tallies.store(tallies, Ordering::Release);
    }

    const NODE_BYTES: usize = size_of::<Self>() + CLASS_COUNT * FEW_BYTES;

    /// A record for the calling thread: a free one, or a new one. `None` when
    /// memory is out.
    pub(crate) fn obtain() -> Option<NonNull<Self>> {
        let mut registry = REGISTRY.lock();
        if let Some(record) = NonNull::new(registry.free) {
            // SAFETY: T4.
            let it = unsafe { record.as_ref() };
            // Relaxed: under the registry's lock.
            registry.free = it.next_free.load(Ordering::Relaxed);
            return Some(record);
        }
        let record = CENTRAL.meta.take(Self::NODE_BYTES)?.cast::<Self>();
        // Relaxed: under the registry's lock.
        let fresh = Self::new(COUNT.fetch_add(1, Ordering::Relaxed));
        fresh.next.store(NEWEST.load(Ordering::Relaxed), Ordering::Relaxed);
        // SAFETY: the node is ours and has the room; the items behind it are
        // written before they are read.
        unsafe { record.write(fresh) };
        // SAFETY: the places lie behind the record, in its node.
        let few = unsafe { record.add(1).cast::<u8>() };
        for class in Class::all() {
            // SAFETY: as above, `FEW_BYTES` for each.
            unsafe { slots::lay_out(few.add(class.index() * FEW_BYTES).cast(), MAGAZINE_FEW) };
        }
        // Release pairs with the Acquire in `each_record`.
        NEWEST.store(record.as_ptr(), Ordering::Release);
        Some(record)
    }

    /// Puts the record of a thread that has ended on the free list.
    pub(crate) fn put_away(&'static self) {
        let mut registry = REGISTRY.lock();
        // Relaxed: under the registry's lock.
        self.next_free.store(registry.free, Ordering::Relaxed);
        registry.free = ptr::from_ref(self).cast_mut();
    }

    /// The first item of a class, by what [`Shared::grown`] says. The orphan has none,
    /// and is never asked.
    #[inline]
    pub(crate) fn items(&self, class: Class, grown: u64) -> *mut Slot {
        debug_assert!(!ptr::eq(self, orphan()));
        let i = class.index();
        if grown >> i & 1 == 1 {
            return self.many[i].load(Ordering::Relaxed);
        }
        // Behind the record, in its node: from the address, since `self` leads to the
        // record alone. Metadata is exposed where it is reserved.
        let few = ptr::from_ref(self).addr() + size_of::<Self>();
        let node = ptr::with_exposed_provenance_mut::<Slot>(few + i * FEW_BYTES);
        slots::first(node)
    }

    /// Sees to it that there is room for all items that a magazine of `class` may
    /// ever have; `false` when memory is out. Under the record's lock.
    pub(crate) fn make_room(&self, class: Class) -> bool {
        let place = &self.many[class.index()];
        if place.load(Ordering::Relaxed).is_null() {
            let max = usize::from(class.info().magazine_max);
            let Some(node) = CENTRAL.meta.take(slots::bytes(max)) else { return false };
            // SAFETY: the node has the room.
            unsafe { slots::lay_out(node.cast(), max) };
            place.store(slots::first(node.as_ptr().cast()), Ordering::Relaxed);
        }
        true
    }
}

impl Shared {
    /// What is entered here, and what the cache and the magazines hold now.
    pub(crate) fn books(&self, record: &Record) -> Books {
        let mut books =
            Books { claimed: self.claimed, requested_bytes: self.requested_bytes, ..Books::ZERO };
        // SAFETY: a cache stays valid while it is in a record, whose lock is held.
        if let Some(cache) = unsafe { self.cache.as_ref() } {
            books.requested_bytes += cache.requested_bytes();
            for class in Class::all() {
                let cached = cache.cached(class, record.items(class, self.grown)) as i64;
                books.cached[class.index()] = cached - i64::from(self.taken[class.index()]);
            }
        }
        for (sum, &n) in books.cached.iter_mut().zip(&self.stranded) {
            *sum += i64::from(n);
        }
        books
    }
}

/// A number that changes whenever a thread takes a slow path.
pub(crate) fn activity() -> u64 {
    let mut sum = 0;
    each_record(|record| {
        let shared = record.lock.lock();
        sum += u64::from(shared.entries) + u64::from(record.blocks.load(Ordering::Relaxed));
    });
    sum
}

/// Calls `f` with every record, the orphan included.
pub(crate) fn each_record(mut f: impl FnMut(&'static Record)) {
    f(&ORPHAN);
    // Acquire pairs with the Release in `obtain`.
    let mut at = NEWEST.load(Ordering::Acquire);
    // SAFETY: T4.
    while let Some(record) = unsafe { at.as_ref() } {
        f(record);
        // Relaxed: written before the record was published, never since.
        at = record.next.load(Ordering::Relaxed);
    }
}

/// The sum of all records' books, each taken under its lock.
pub(crate) fn sum_books() -> Books {
    let mut sum = Books::ZERO;
    each_record(|record| {
        let shared = record.lock.lock();
        sum.add(&shared.books(record));
    });
    sum
}

impl Books {
    pub(crate) fn add(&mut self, other: &Self) {
        for class in 0..CLASS_COUNT {
            self.claimed[class] += other.claimed[class];
            self.cached[class] += other.cached[class];
        }
        self.requested_bytes += other.requested_bytes;
    }
}

/// For the fork handlers: the registry's lock.
pub(super) fn hold_registry() {
    REGISTRY.raw_lock();
}

/// # Safety
/// The caller holds the lock by [`hold_registry`].
pub(super) unsafe fn let_registry_go() {
    // SAFETY: the caller's promise.
    unsafe { REGISTRY.raw_unlock() }
}

/// In a forked child: puts the records of the parent's other threads away.
///
/// # Safety
/// The registry's lock is held, and the caller is the only thread.
pub(super) unsafe fn put_away_held(record: &'static Record) {
    // SAFETY: the caller's promise.
    let registry = unsafe { REGISTRY.value_held() };
    record.next_free.store(registry.free, Ordering::Relaxed);
    registry.free = ptr::from_ref(record).cast_mut();
}

/// In a forked child: empties the list of free records, to be made anew.
///
/// # Safety
/// As for [`put_away_held`].
pub(super) unsafe fn forget_free_held() {
    // SAFETY: the caller's promise.
    unsafe { REGISTRY.value_held() }.free = ptr::null_mut();
}
