//! Leave to take memory, until it is in the books.

use super::{Verdict, look};
use crate::arena::CENTRAL;
use crate::ceiling::{CEILING, Entry, PENDING};

/// Leave to take so many bytes, until they are in the books: others that ask meanwhile
/// find them taken.
pub(crate) struct Permit(usize);

impl Permit {
    /// Leave to take `bytes` bytes; `None` if a hard limit is in the way. Makes room if it
    /// must.
    #[inline]
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        if bytes == 0 || CEILING.is_open() { Some(Self(0)) } else { Self::within_limits(bytes) }
    }

    #[cold]
    fn within_limits(bytes: usize) -> Option<Self> {
        /// Others may take what was found to be left, or lower the ceiling again.
        const LOOKS: u32 = 64;
        for _ in 0..LOOKS {
            match PENDING.enter(bytes, |sum| CENTRAL.permits(sum)) {
                Entry::Entered => return Some(Self(bytes)),
                Entry::Absurd => return None,
                Entry::Over(sum) => match look(sum) {
                    Verdict::Unlimited => return Some(Self(0)),
                    Verdict::Permitted => {}
                    Verdict::Refused => return None,
                },
            }
        }
        None
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.0 > 0 {
            PENDING.leave(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Measure, measured, set};
    use super::*;
    use crate::Tallow;
    use core::alloc::{GlobalAlloc, Layout};
    use std::sync::Barrier;
    use std::thread;

    /// What is permitted and not in the books yet is taken, for those who ask meanwhile.
    #[test]
    fn what_is_permitted_is_taken() {
        const GIB: usize = 1 << 30;
        let _alone = crate::faults::alone();
        assert!(Permit::of(usize::MAX).is_some(), "refused without a limit");
        let most = measured(Measure::Allocated) + 5 * GIB / 2;
        set(Measure::Allocated, Limits { soft_bytes: None, hard_bytes: Some(most as u64) });
        let permits = [Permit::of(GIB), Permit::of(GIB)];
        assert!(permits.iter().all(Option::is_some) && Permit::of(GIB).is_none());
        assert!(Permit::of(GIB / 4).is_some());
        drop(permits);
        assert!(Permit::of(2 * GIB).is_some() && Permit::of(3 * GIB).is_none());
        assert_eq!(PENDING.bytes(), 0);
        set(Measure::Allocated, Limits::NONE);
    }

    /// What a thread of the parent was permitted when it forked is nobody's in the child.
    #[test]
    fn a_child_has_no_permits() {
        let _alone = crate::faults::alone();
        let layout = Layout::from_size_align(100, 8).expect("a layout");
        // SAFETY: the size is not 0; freed with this layout. So handlers of forks are there.
        unsafe { Tallow.dealloc(Tallow.alloc(layout), layout) };
        let most = measured(Measure::Allocated) + (1 << 30);
        set(Measure::Allocated, Limits { soft_bytes: None, hard_bytes: Some(most as u64) });
        let (permitted, done) = (Barrier::new(2), Barrier::new(2));
        let child = thread::scope(|scope| {
            scope.spawn(|| {
                let permit = Permit::of(1 << 29);
                permitted.wait();
                done.wait();
                assert!(permit.is_some());
            });
            permitted.wait();
            // SAFETY: the child looks at a number, and ends by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(PENDING.bytes() != 0)) };
            }
            done.wait();
            child
        });
        set(Measure::Allocated, Limits::NONE);
        assert_eq!(PENDING.bytes(), 0);
        let mut status = 0;
        // SAFETY: our child, and a valid place.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(child > 0 && status == 0, "permits of threads that are not there");
    }
}
