//! Floor 1: a lock that allocates nothing, can be taken before `main`, and can
//! be held across a `fork`.
//!
//! `std`'s mutex would do but for two things: on some systems its first use
//! allocates, and a guard cannot be let go of in a forked child. This one is a
//! word: 0 free, 1 held, 2 held with waiters; it spins briefly, then waits in
//! the kernel. It is never held while user code runs.

use crate::os::{before_waiting, nap, wait, wake_one};
use crate::sync::{AtomicU32, Cell, Ordering, SPINS, const_unless_loom, has_failed, spin};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

#[cfg(all(test, loom))]
mod model;
#[cfg(tallow_helgrind)]
mod told;
/// What a lock says where nobody listens.
#[cfg(not(tallow_helgrind))]
mod told {
    #[inline(always)]
    pub(super) fn taking<T>(_: &T) {}
    #[inline(always)]
    pub(super) fn taken<T>(_: &T) {}
    #[inline(always)]
    pub(super) fn letting_go<T>(_: &T) {}
}

/// What debug builds look at besides.
#[cfg(all(debug_assertions, not(loom)))]
mod watch;
/// Nothing, in others.
#[cfg(not(all(debug_assertions, not(loom))))]
mod watch {
    pub(super) struct Holder;
    impl Holder {
        pub(super) const fn nobody() -> Holder {
            Holder
        }
        #[inline(always)]
        pub(super) fn is_me(&self) {}
        #[inline(always)]
        pub(super) fn is_nobody(&self) {}
        #[inline(always)]
        pub(super) fn check(&self) {}
    }
    pub(super) struct Calm;
    impl Calm {
        #[inline(always)]
        pub(super) fn now() -> Calm {
            Calm
        }
        #[inline(always)]
        pub(super) fn check(&self) {}
    }
}
use watch::{Calm, Holder};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED: u32 = 2;

/// The orderings and the step that the lock stands on. The models run it with weaker
/// ones to show that they would notice.
pub(crate) trait Strength {
    /// Of taking it,
    const TAKE: Ordering = Ordering::Acquire;
    /// and of letting go: what one holder wrote happens before the next.
    const LET_GO: Ordering = Ordering::Release;
    /// How a waiter leaves word that there is one.
    const WAITED: u32 = WAITED;
}

/// The lock as it is shipped.
pub(crate) struct Shipped;
impl Strength for Shipped {}

/// A value that one thread at a time may use.
pub(crate) struct Lock<T, S = Shipped> {
    word: AtomicU32,
    holder: Holder,
    value: Cell<T>,
    strength: PhantomData<S>,
}

// SAFETY: the value is reached through a guard only, one at a time.
unsafe impl<T: Send, S> Sync for Lock<T, S> {}

impl<T> Lock<T> {
    const_unless_loom! {
        pub(crate) fn new(value: T) -> Lock<T> {
            Lock {
                word: AtomicU32::new(FREE),
                holder: Holder::nobody(),
                value: Cell::new(value),
                strength: PhantomData,
            }
        }
    }
}

impl<T, S: Strength> Lock<T, S> {
    #[cfg(loom)]
    pub(crate) fn of_strength(value: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            holder: Holder::nobody(),
            value: Cell::new(value),
            strength: PhantomData,
        }
    }

    /// Waits for the lock. May block; never allocates.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T, S> {
        self.raw_lock();
        Guard { lock: self, calm: Calm::now() }
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T, S>> {
        // Not `then_some`: a guard made in vain would unlock when it is dropped.
        self.try_raw().then(|| {
            told::taken(self);
            self.holder.is_me();
            Guard { lock: self, calm: Calm::now() }
        })
    }

    #[inline]
    fn try_raw(&self) -> bool {
        // Acquire pairs with the Release in `raw_unlock`.
        self.word.compare_exchange(FREE, HELD, S::TAKE, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock without a guard, for the fork handlers.
    #[inline]
    pub(crate) fn raw_lock(&self) {
        told::taking(self);
        if !self.try_raw() {
            self.lock_slow();
        }
        told::taken(self);
        self.holder.is_me();
    }

    #[cold]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            spin();
            // Relaxed: a look before the attempt.
            if self.word.load(Ordering::Relaxed) == FREE && self.try_raw() {
                return;
            }
        }
        before_waiting();
        self.holder.check();
        // Acquire as in `try_raw`.
        while self.word.swap(S::WAITED, S::TAKE) != FREE {
            wait(&self.word, S::WAITED);
        }
    }

    /// Lets go of the lock.
    ///
    /// # Safety
    /// The caller holds it, by [`Lock::raw_lock`] or as the only thread of a
    /// forked child whose parent held it.
    #[inline]
    pub(crate) unsafe fn raw_unlock(&self) {
        told::letting_go(self);
        self.holder.is_nobody();
        // Release pairs with the Acquire of the next holder.
        if self.word.swap(FREE, S::LET_GO) == WAITED {
            wake_one(&self.word);
        }
    }

    /// Frees the lock, whether or not somebody held it who is not here any more.
    ///
    /// # Safety
    /// The caller is the only thread, of a forked child, and does not hold it.
    pub(crate) unsafe fn free_in_child(&self) {
        self.holder.is_nobody();
        // Relaxed: there is nobody to be ordered with.
        self.word.store(FREE, Ordering::Relaxed);
    }

    /// The value, for a caller that holds the lock without a guard.
    ///
    /// # Safety
    /// The caller holds the lock, and no other reference to the value is live.
    #[allow(clippy::mut_from_ref, reason = "the lock is what makes it exclusive")]
    pub(crate) unsafe fn value_held(&self) -> &mut T {
        // SAFETY: the caller's promise.
        self.value.with_mut(|v| unsafe { &mut *v })
    }
}

/// The right to use the value, until it is dropped.
pub(crate) struct Guard<'a, T, S: Strength = Shipped> {
    lock: &'a Lock<T, S>,
    calm: Calm,
}

impl<T, S: Strength> Guard<'_, T, S> {
    /// Lets go of the lock and takes it again, after one who waits for it if somebody
    /// does. Letting go alone gives him nothing: until he is awake, the lock is taken
    /// again.
    pub(crate) fn give_way(self) -> Self {
        let lock = self.lock;
        core::mem::forget(self);
        told::letting_go(lock);
        lock.holder.is_nobody();
        // Release as in `raw_unlock`, which this is but for the nap.
        if lock.word.swap(FREE, S::LET_GO) == WAITED {
            wake_one(&lock.word);
            nap();
        }
        lock.lock()
    }
}

impl<T, S: Strength> Deref for Guard<'_, T, S> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the proof that the lock is held.
        self.lock.value.with_mut(|v| unsafe { &*v })
    }
}

impl<T, S: Strength> DerefMut for Guard<'_, T, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        self.lock.value.with_mut(|v| unsafe { &mut *v })
    }
}

impl<T, S: Strength> Drop for Guard<'_, T, S> {
    #[inline]
    fn drop(&mut self) {
        // A failed model has no threads any more that could wait.
        if !has_failed() {
            self.calm.check();
            // SAFETY: this guard held the lock and is gone now.
            unsafe { self.lock.raw_unlock() }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_failed_attempt_unlocks_nothing() {
        let lock = Lock::new(());
        let _held = lock.lock();
        assert!(lock.try_lock().is_none());
        assert!(lock.try_lock().is_none());
    }

    /// Two locks, now in one order and now in the other: nobody waits here for ever, but
    /// Helgrind must say so. `ci/sanitize.sh` runs this to see that it would.
    #[test]
    #[cfg(tallow_helgrind)]
    fn two_orders() {
        static ONE: Lock<u32> = Lock::new(0);
        static OTHER: Lock<u32> = Lock::new(0);
        let add = |first: &Lock<u32>, then: &Lock<u32>| {
            let mut sum = first.lock();
            *sum += 1;
            *then.lock() += *sum;
        };
        add(&ONE, &OTHER);
        std::thread::spawn(move || add(&OTHER, &ONE)).join().expect("no panic");
    }

    /// One takes turn after turn; how many of them does another one wait for?
    #[test]
    fn whoever_waits_comes_between_two_turns_of_a_holder_who_gives_way() {
        use std::time::{Duration, Instant};
        static LOCK: Lock<()> = Lock::new(());
        static TURNS: AtomicU32 = AtomicU32::new(0);
        let turns = || TURNS.load(Ordering::Relaxed);
        let waiter = std::thread::spawn(move || {
            let wait = |_| {
                std::thread::sleep(Duration::from_micros(700));
                let before = turns();
                let _held = LOCK.lock();
                turns() - before
            };
            (0..21).map(wait).sum::<u32>()
        });
        let mut held = LOCK.lock();
        while !waiter.is_finished() {
            let until = Instant::now() + Duration::from_micros(300);
            while Instant::now() < until {
                spin();
            }
            TURNS.fetch_add(1, Ordering::Relaxed);
            held = held.give_way();
        }
        drop(held);
        // One for each time. Without the nap it is some thousand, in most runs.
        let waited = waiter.join().expect("no panic");
        assert!(waited < 500, "{waited} turns went by");
    }

    /// A panic under a lock ends the process with a line, whether its message needs the lock
    /// or not. In processes of their own.
    #[test]
    #[cfg(all(debug_assertions, not(miri)))]
    fn a_panic_under_a_lock_ends_the_process() {
        const CHILD: &str = "TALLOW_PANIC_CHILD";
        static LOCK: Lock<()> = Lock::new(());
        let scene = std::env::var(CHILD);
        if let Ok(scene) = scene {
            // SAFETY: ends the process, should it wait for itself.
            unsafe { libc::alarm(60) };
            if scene == "its message takes the lock" {
                std::panic::set_hook(Box::new(|_| drop(LOCK.lock())));
            }
            let _held = LOCK.lock();
            panic!("said in the child");
        }
        let this = std::env::current_exe().expect("this program");
        for (scene, line) in [
            ("its message takes the lock", "called from within itself"),
            ("its message can be said", "a panic in the allocator"),
        ] {
            let name = "lock::tests::a_panic_under_a_lock_ends_the_process";
            let mut child = std::process::Command::new(&this);
            let out = child.args(["--exact", name, "--nocapture"]).env(CHILD, scene).output();
            let out = out.expect("a child process");
            let told = String::from_utf8_lossy(&out.stderr);
            assert!(told.contains(line) && told.contains("aborting"), "{scene}: {told}");
            assert!(!out.status.success(), "{scene}");
        }
    }

    #[test]
    fn counts_exactly_under_contention() {
        static TOTAL: Lock<u64> = Lock::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..20_000 {
                        *TOTAL.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*TOTAL.lock(), 80_000);
    }
}
