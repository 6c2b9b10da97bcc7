//! Hardened: each thread's random numbers: the order of regions, and which block is
//! sampled. Takes no room in a thread's cache otherwise.

use crate::config::HARDENED;
use crate::os;
use crate::sync::Ordering;
use crate::sync::unwatched::{AtomicU32, AtomicU64};

/// So many words of a kind.
const ROOM: usize = if HARDENED { 1 } else { 0 };

/// A thread's. Atomic because the cache is; only its own thread uses it.
pub(super) struct Chance {
    state: [AtomicU64; ROOM],
    /// Allocations until the next one is sampled; 0 before the first draw.
    left: [AtomicU32; ROOM],
}

impl Chance {
    #[cfg_attr(feature = "initial-exec", allow(dead_code, reason = "the linker makes it"))]
    pub(super) const fn unused() -> Self {
        Self {
            state: [const { AtomicU64::new(0) }; ROOM],
            left: [const { AtomicU32::new(0) }; ROOM],
        }
    }

    /// The next number. A generator of George Marsaglia's (xorshift, 64 bits), with a
    /// product on its way out; its seed is the system's.
    pub(super) fn next(&self) -> u64 {
        let Some(state) = self.state.first() else { return 0 };
        let mut x = state.load(Ordering::Relaxed);
        if x == 0 {
            x = os::seed();
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.store(x, Ordering::Relaxed);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// A number below `n`, which is less than 2^32.
    pub(super) fn below(&self, n: usize) -> usize {
        (((self.next() & u64::from(u32::MAX)) * n as u64) >> 32) as usize
    }

    /// Counts an allocation; whether it is time to [`draw`](Self::draw).
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        let Some(left) = self.left.first() else { return false };
        // Not an atomic subtraction: only this thread writes it.
        match left.load(Ordering::Relaxed) {
            0 | 1 => true,
            n => {
                left.store(n - 1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Draws how many allocations go by until the next one is sampled, `one_in` on
    /// average, none if that is 0. Returns whether this one is to be.
    #[cold]
    pub(super) fn draw(&self, one_in: u32) -> bool {
        let Some(left) = self.left.first() else { return false };
        let now = left.load(Ordering::Relaxed) == 1;
        let next = match one_in {
            0 => u32::MAX,
            1 => 1,
            n => 1 + self.below(n.saturating_mul(2).saturating_sub(1) as usize) as u32,
        };
        left.store(next, Ordering::Relaxed);
        one_in == 1 || now && one_in != 0
    }

    /// In a forked child: other numbers than the parent's.
    pub(super) fn reseed(&self) {
        if let Some(state) = self.state.first() {
            state.store(0, Ordering::Relaxed);
        }
    }

    /// Has the next allocation draw anew: after a change of the settings.
    pub(super) fn forget(&self) {
        if let Some(left) = self.left.first() {
            left.store(0, Ordering::Relaxed);
        }
    }
}
