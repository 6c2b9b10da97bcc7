//! Floor 8: limits on the memory of the process, soft and hard.
//!
//! A *soft* limit makes room when it is passed: Tallow purges what is free and then
//! calls back, so that the program may drop caches. A *hard* limit is where
//! allocation fails, cleanly: `try_reserve` returns its error, `malloc` its null.
//! (What cannot fail, like `Vec::push`, ends the process, as it does when the
//! system has no more.) Both may be changed at any time.
//!
//! ```
//! use tallow::limit::{self, Limits, Measure};
//!
//! #[global_allocator]
//! static ALLOC: tallow::Tallow = tallow::Tallow::new();
//!
//! limit::on_pressure(Some(|pressure| {
//!     // Drop caches here. It runs on the thread that wanted memory.
//!     assert!(pressure.bytes > pressure.limit_bytes);
//! }));
//! let now = tallow::stats().allocated_bytes;
//! limit::set(Measure::Allocated, Limits { soft_bytes: Some(now + (8 << 20)), hard_bytes: Some(now + (16 << 20)) });
//! let mut big: Vec<u8> = Vec::new();
//! assert!(big.try_reserve_exact(32 << 20).is_err());
//! assert!(big.try_reserve_exact(4 << 20).is_ok());
//! limit::set(Measure::Allocated, Limits::NONE);
//! assert!(big.try_reserve_exact(32 << 20).is_ok());
//! ```
//!
//! # Where limits are checked
//! Where slabs, large and huge blocks are taken, not with every operation: without
//! limits that costs one load for some hundred allocations, with them some loads
//! more. Of blocks that several threads ask for at the same moment, each is counted
//! before the next one is looked at. Regions that are free in slabs which the process
//! has already may be handed out beyond the limit; memory in use grows by whole slabs,
//! so a limit is kept to within what slabs have free. Near a limit every new slab
//! (16 KiB and more) has the books summed, some microseconds.
//!
//! [`Account`](crate::Account)s have limits of their own.

mod permit;

use crate::arena::CENTRAL;
use crate::arena::guarded::GUARDED;
use crate::ceiling::CEILING;
use crate::class::Class;
use crate::config::{HARDENED, LG_PAGE};
use crate::heap;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::thread::{sum_books, with_cache};
use core::ptr;
pub(crate) use permit::Permit;

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Measure {
    /// Bytes that the program holds:
    /// [`Snapshot::allocated_bytes`](crate::Snapshot::allocated_bytes).
    Allocated,
    /// Bytes backed by memory:
    /// [`Snapshot::resident_bytes`](crate::Snapshot::resident_bytes). Before it is
    /// passed, free memory is given back.
    Resident,
}

/// Limits on one measure, in bytes; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Limits {
    /// Beyond this, room is made.
    pub soft_bytes: Option<u64>,
    /// Beyond this, allocation fails.
    pub hard_bytes: Option<u64>,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { soft_bytes: None, hard_bytes: None };
}

/// What a callback is told. See [`on_pressure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// The account whose limit it is; `None` for those of the process.
    pub account: Option<&'static str>,
    /// What is measured; for an account, its live bytes.
    pub measure: Measure,
    /// The limit passed, in bytes.
    pub limit_bytes: u64,
    /// What it would be, or is, with what is asked for.
    pub bytes: u64,
    /// Whether allocation fails unless room is made now.
    pub is_hard: bool,
}

/// How often limits have had an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LimitStats {
    /// Soft limits passed: memory was purged, and the callback called.
    pub soft_hits: u64,
    /// Allocations refused.
    pub refusals: u64,
}

const NONE: usize = usize::MAX;

/// Two limits as they are kept. Relaxed throughout: numbers of their own.
struct Kept {
    soft: AtomicUsize,
    hard: AtomicUsize,
    /// The soft limit counts as passed again above this.
    armed: AtomicUsize,
}

impl Kept {
    const fn new() -> Self {
        Self {
            soft: AtomicUsize::new(NONE),
            hard: AtomicUsize::new(NONE),
            armed: AtomicUsize::new(NONE),
        }
    }
}

static ALLOCATED: Kept = Kept::new();
static RESIDENT: Kept = Kept::new();
/// A `fn(&Pressure)`, or null. Not behind a lock, which a fork could leave locked.
static CALLBACK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static SOFT_HITS: AtomicU64 = AtomicU64::new(0);
static REFUSALS: AtomicU64 = AtomicU64::new(0);

fn kept(measure: Measure) -> &'static Kept {
    match measure {
        Measure::Allocated => &ALLOCATED,
        Measure::Resident => &RESIDENT,
    }
}

fn bytes_of(limit: usize) -> Option<u64> {
    (limit != NONE).then_some(limit as u64)
}

fn number(limit: Option<u64>) -> usize {
    limit.map_or(NONE, |bytes| usize::try_from(bytes).unwrap_or(NONE))
}

/// Sets the limits on `measure`, in place of those before. A limit that is passed
/// already takes effect with the next slab or block that is taken.
pub fn set(measure: Measure, limits: Limits) {
    let kept = kept(measure);
    let soft = number(limits.soft_bytes);
    kept.soft.store(soft, Ordering::Relaxed);
    kept.armed.store(soft, Ordering::Relaxed);
    kept.hard.store(number(limits.hard_bytes), Ordering::Relaxed);
    CEILING.change(|| {
        [&ALLOCATED, &RESIDENT].iter().any(|kept| {
            kept.soft.load(Ordering::Relaxed) != NONE || kept.hard.load(Ordering::Relaxed) != NONE
        })
    });
}

/// The limits on `measure` now.
pub fn get(measure: Measure) -> Limits {
    let kept = kept(measure);
    Limits {
        soft_bytes: bytes_of(kept.soft.load(Ordering::Relaxed)),
        hard_bytes: bytes_of(kept.hard.load(Ordering::Relaxed)),
    }
}

/// Has `callback` called when a limit, also one of an account, is passed: after
/// Tallow has purged, on the thread that wants memory, before it gets any. It may
/// allocate and free, but not take a lock that its thread may hold while it
/// allocates. It is not called again from within itself. If it panics, the process
/// is aborted.
pub fn on_pressure(callback: Option<fn(&Pressure)>) {
    let at = callback.map_or(ptr::null_mut(), |callback| callback as *mut ());
    // Release pairs with the Acquire in `call_back`: what it needs is there.
    CALLBACK.store(at, Ordering::Release);
}

/// How often limits have had an effect so far.
pub fn stats() -> LimitStats {
    LimitStats {
        soft_hits: SOFT_HITS.load(Ordering::Relaxed),
        refusals: REFUSALS.load(Ordering::Relaxed),
    }
}

/// What [`look`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There are no limits.
    Unlimited,
    /// Another try may be made.
    Permitted,
    /// A hard limit is in the way.
    Refused,
}

/// Called when `bytes` bytes more are not permitted, or were not. Makes room if it must.
/// Who has to refuse them [notes](note) it.
#[cold]
pub(crate) fn look(bytes: usize) -> Verdict {
    let seen = CEILING.seen();
    if seen.is_open() {
        return Verdict::Unlimited;
    }
    if CENTRAL.permits(bytes) {
        // Another thread has looked, or the system had no more: who knows.
        return Verdict::Permitted;
    }
    if ![Measure::Allocated, Measure::Resident].iter().all(|&m| makes_room(m, bytes)) {
        // What was given back by the way is not for others to take without a look.
        CEILING.raise(seen, CENTRAL.in_use_bytes());
        return Verdict::Refused;
    }
    // Half of what is left before the nearest limit may be taken before the next look,
    // and in any case what is asked for now, as far as the hard ones let it.
    let (mut in_use, mut more) = (CENTRAL.in_use_bytes(), 0);
    for _ in 0..4 {
        let (mut nearest, mut most) = (NONE, NONE);
        for measure in [Measure::Allocated, Measure::Resident] {
            let (kept, now) = (kept(measure), measured(measure));
            let left = |limit: &AtomicUsize| match limit.load(Ordering::Relaxed) {
                NONE => NONE,
                limit => limit.saturating_sub(now),
            };
            most = most.min(left(&kept.hard));
            nearest = nearest.min(left(&kept.armed)).min(most);
        }
        more = if nearest == NONE { NONE } else { (nearest / 2).max(bytes.min(most)) };
        // What others take or give back meanwhile would be counted on one side only.
        let before = core::mem::replace(&mut in_use, CENTRAL.in_use_bytes());
        if in_use == before {
            break;
        }
        in_use = in_use.min(before);
    }
    // If limits have been set anew meanwhile, the next try looks again.
    CEILING.raise(seen, in_use.saturating_add(more));
    Verdict::Permitted
}

/// Whether `bytes` more fit below the hard limit, after room was made if it had to be.
fn makes_room(measure: Measure, bytes: usize) -> bool {
    let kept = kept(measure);
    let (hard, armed) = (kept.hard.load(Ordering::Relaxed), kept.armed.load(Ordering::Relaxed));
    if hard == NONE && armed == NONE {
        return true;
    }
    let soft = kept.soft.load(Ordering::Relaxed);
    // Limits that are set meanwhile, by the callback or by others, stand.
    let arm = |bytes| {
        let relaxed = Ordering::Relaxed;
        let _ = kept.armed.compare_exchange(armed, bytes, relaxed, relaxed);
    };
    let mut sum = measured(measure).saturating_add(bytes);
    if sum <= hard && sum <= armed {
        if sum < soft {
            arm(soft);
        }
        return true;
    }
    heap::purge();
    sum = measured(measure).saturating_add(bytes);
    for (limit, is_hard) in [(armed, false), (hard, true)] {
        if sum > limit {
            if !is_hard {
                SOFT_HITS.fetch_add(1, Ordering::Relaxed);
            }
            let pressure = Pressure {
                account: None,
                measure,
                limit_bytes: if is_hard { hard } else { soft } as u64,
                bytes: sum as u64,
                is_hard,
            };
            call_back(&pressure);
            sum = measured(measure).saturating_add(bytes);
        }
    }
    // While it stays above, it is passed anew with every 32nd part more.
    arm(if sum > soft { sum.saturating_add(soft / 32) } else { soft });
    sum <= kept.hard.load(Ordering::Relaxed)
}

/// Calls the callback, if there is one and this thread is not in it already.
pub(crate) fn call_back(pressure: &Pressure) {
    /// An allocator must not unwind.
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let callback = CALLBACK.load(Ordering::Acquire);
    if !callback.is_null() {
        // SAFETY: `on_pressure` stores nothing else.
        let callback: fn(&Pressure) = unsafe { core::mem::transmute(callback) };
        with_cache(|cache| {
            cache.relieve(|| {
                let abort = Abort;
                callback(pressure);
                core::mem::forget(abort);
            })
        });
    }
}

/// Enters that an account has passed its soft limit, or refused.
pub(crate) fn note(is_hard: bool) {
    let counter = if is_hard { &REFUSALS } else { &SOFT_HITS };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is measured, by the books.
fn measured(measure: Measure) -> usize {
    match measure {
        Measure::Allocated => {
            let books = sum_books();
            let small: i64 = Class::all()
                .map(|class| {
                    let live = books.claimed[class.index()] - books.cached[class.index()];
                    live * i64::from(class.info().region_bytes)
                })
                .sum();
            let guarded = if HARDENED { GUARDED.books().0.bytes } else { 0 };
            let blocks =
                CENTRAL.pages.books().blocks.bytes + CENTRAL.huge.books().blocks.bytes + guarded;
            usize::try_from(small).unwrap_or(0) + blocks
        }
        Measure::Resident => {
            let (pages, meta) = (CENTRAL.pages.books(), CENTRAL.meta.bytes());
            let punched = CENTRAL.holes.pages.load(Ordering::Relaxed);
            let backed = pages.used_pages() + pages.dirty_pages + pages.purging_pages;
            let own = (pages.metadata_pages() << LG_PAGE) + meta.used + pages.table_bytes;
            let guarded = if HARDENED { GUARDED.books().1 } else { 0 };
            let huge = CENTRAL.huge.books();
            let blocks = huge.blocks.bytes + huge.dirty_bytes() + guarded;
            (backed.saturating_sub(punched) << LG_PAGE) + own + blocks
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Tallow;
    use core::alloc::{GlobalAlloc, Layout};

    /// A thread that looks while the limits are lifted may set the number last.
    #[test]
    fn a_late_look_leaves_no_limit_behind() {
        let _alone = crate::faults::alone();
        set(Measure::Allocated, Limits { soft_bytes: None, hard_bytes: Some(1 << 40) });
        // What such a thread has seen, and tries to leave behind.
        let seen = CEILING.seen();
        set(Measure::Allocated, Limits::NONE);
        assert!(!CEILING.raise(seen, 1));
        for size in [100_000, 2 << 20, 40, 5000] {
            let layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the size is not 0.
            let block = unsafe { Tallow.alloc(layout) };
            assert!(!block.is_null(), "{size} bytes refused without a limit");
            // SAFETY: allocated just now, with this layout.
            unsafe { Tallow.dealloc(block, layout) };
        }
        assert!(CEILING.is_open());
    }
}
