//! Limits of an account, and what happens when one is passed.

use super::{Account, NONE, is_far, load_i64};
use crate::ceiling::Entry;
use crate::heap;
use crate::limit::{self, Limits, Measure, Pressure};
use crate::os;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::thread::{GRAIN_BYTES, with_cache};

impl Account {
    /// Sets limits on its live bytes, in place of those before. Beyond the soft one,
    /// free memory is purged and the [callback](limit::on_pressure) called; beyond
    /// the hard one allocation fails.
    ///
    /// With one thread the limits are exact; with several, each may be past them by
    /// up to 64 KiB, since it tells the account no more often: larger requests that are
    /// made at once do not add to that. A change reaches a thread with its next 32 KiB.
    pub fn set_limits(&self, limits: Limits) {
        watch();
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        // Relaxed throughout: numbers of their own.
        self.soft_bytes.store(number(limits.soft_bytes), Ordering::Relaxed);
        self.armed_bytes.store(number(limits.soft_bytes), Ordering::Relaxed);
        self.hard_bytes.store(number(limits.hard_bytes), Ordering::Relaxed);
        let place = self.place.load(Ordering::Relaxed);
        if place != NONE {
            // The calling thread heeds it at once.
            with_cache(|cache| {
                // SAFETY: as in `ask`.
                unsafe { cache.tally(place) }.map(|tally| tally.set_grain(0, GRAIN_BYTES))
            });
        }
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        let limit = |kept: &AtomicU64| {
            let bytes = kept.load(Ordering::Relaxed);
            (bytes != u64::MAX).then_some(bytes)
        };
        Limits { soft_bytes: limit(&self.soft_bytes), hard_bytes: limit(&self.hard_bytes) }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn ask_slow(&'static self, bytes: usize, n: u64, forced: bool) -> bool {
        // What one thread may keep to itself anyway is not counted with what others ask for.
        let is_far = (bytes as u64) < GRAIN_BYTES && self.is_far(bytes as u64);
        if forced || is_far || self.nearest() == u64::MAX {
            self.enter(bytes, n, 0, 0);
            return true;
        }
        // Listed, so that a forked child finds what is pending.
        self.with_tally(|_| ());
        /// Others may take the room that was made.
        const LOOKS: u32 = 64;
        for _ in 0..LOOKS {
            match self.pending.enter(bytes, |sum| self.is_within(sum as u64)) {
                Entry::Entered => {
                    self.enter(bytes, n, 0, 0);
                    self.pending.leave(bytes);
                    return true;
                }
                Entry::Over(sum) if self.makes_room(sum as u64) => {
                    // Told of, and not refused.
                    if load(&self.hard_bytes) == u64::MAX {
                        self.enter(bytes, n, 0, 0);
                        return true;
                    }
                }
                Entry::Over(_) | Entry::Absurd => break,
            }
        }
        self.refusals.fetch_add(1, Ordering::Relaxed);
        limit::note(true);
        false
    }

    /// The limit that is passed first, [`u64::MAX`] if there is none.
    fn nearest(&self) -> u64 {
        load(&self.hard_bytes).min(load(&self.armed_bytes))
    }

    /// Whether no limit is near, by what threads have told.
    fn is_far(&self, bytes: u64) -> bool {
        let told = load_i64(&self.told_bytes).max(0) as u64;
        is_far(told.saturating_add(bytes), self.nearest())
    }

    /// Whether `bytes` more pass no limit.
    fn is_within(&self, bytes: u64) -> bool {
        self.is_far(bytes) || self.live_bytes().saturating_add(bytes) <= self.nearest()
    }

    /// Whether `bytes` more fit below the hard limit, after room was made if it had to
    /// be.
    fn makes_room(&'static self, bytes: u64) -> bool {
        let (hard, armed) = (load(&self.hard_bytes), load(&self.armed_bytes));
        let soft = load(&self.soft_bytes);
        // Limits that are set meanwhile, by the callback or by others, stand.
        let arm = |bytes| {
            let relaxed = Ordering::Relaxed;
            let _ = self.armed_bytes.compare_exchange(armed, bytes, relaxed, relaxed);
        };
        let mut sum = self.live_bytes().saturating_add(bytes);
        if sum <= hard && sum <= armed {
            if sum < soft {
                arm(soft);
            }
            return true;
        }
        heap::purge();
        for (limit, is_hard) in [(armed, false), (hard, true)] {
            if sum > limit {
                if !is_hard {
                    self.soft_hits.fetch_add(1, Ordering::Relaxed);
                    limit::note(false);
                }
                limit::call_back(&Pressure {
                    account: Some(self.name),
                    measure: Measure::Allocated,
                    limit_bytes: if is_hard { hard } else { soft },
                    bytes: sum,
                    is_hard,
                });
                sum = self.live_bytes().saturating_add(bytes);
            }
        }
        // While it stays above, it is passed anew with every 32nd part more.
        arm(if sum > soft { sum.saturating_add(soft / 32) } else { soft });
        sum <= load(&self.hard_bytes)
    }
}

fn load(limit: &AtomicU64) -> u64 {
    limit.load(Ordering::Relaxed)
}

/// Has a forked child told that it is one; once it has been arranged, it is.
fn watch() {
    static DONE: AtomicBool = AtomicBool::new(false);
    unsafe extern "C" fn nothing() {}
    // Relaxed: a flag of its own.
    if !DONE.swap(true, Ordering::Relaxed) && !os::at_fork(nothing, nothing, forget_in_child) {
        // Memory is out: whoever sets limits next tries again.
        DONE.store(false, Ordering::Relaxed);
    }
}

/// Requests on their way into a tally were other threads' of the parent.
unsafe extern "C" fn forget_in_child() {
    for account in Account::all() {
        account.pending.forget();
    }
}
