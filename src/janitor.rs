//! Floor 9: one optional thread that does the chores of a process that is idle.
//!
//! Decay runs where threads take slow paths. A process that has stopped
//! allocating takes none, so its dirty pages stay, and so do its thread caches.
//! The janitor looks after both:
//!
//! ```
//! use std::time::Duration;
//!
//! #[global_allocator]
//! static ALLOC: tallow::Tallow = tallow::Tallow::new();
//!
//! tallow::set_decay(Some(Duration::from_secs(5)));
//! tallow::janitor::start().expect("one more thread");
//! assert!(tallow::janitor::is_running());
//! // ... the service runs ...
//! tallow::janitor::stop();
//! ```
//!
//! An event loop can do without it and call [`crate::idle`] before it waits.

use crate::arena::CENTRAL;
use crate::pages::decay::EPOCHS;
use crate::settings::whole_ms;
use crate::sync::{AtomicBool, Ordering};
use crate::thread::{Cache, activity, generation, with_cache};
use crate::{heap, os};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

/// The janitor of a process: a forked child has none, whatever this says.
struct Janitor {
    generation: u64,
    thread: JoinHandle<()>,
}

static JANITOR: Mutex<Option<Janitor>> = Mutex::new(None);
/// Whether the janitor is to end. No lock: a fork while the janitor held one
/// would leave it locked in the child.
static STOP: AtomicBool = AtomicBool::new(false);

fn janitor() -> MutexGuard<'static, Option<Janitor>> {
    // The value is whole whatever panicked.
    JANITOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the janitor, if it does not run already. In a forked child it must be
/// started anew; call it where no other thread forks at the same moment. Signals are
/// delivered to the program's own threads only: the janitor has them blocked, so that
/// `sigwait` works also in a program that blocks them later than this.
///
/// # Errors
/// The system gave no thread.
pub fn start() -> io::Result<()> {
    let mut janitor = janitor();
    if janitor.as_ref().is_some_and(|j| j.generation == generation()) {
        return Ok(());
    }
    // Relaxed: the thread that reads it is started, or woken, afterwards.
    STOP.store(false, Ordering::Relaxed);
    forget_parents(janitor.take());
    let start = || Builder::new().name("tallow janitor".into()).spawn(work);
    let thread = os::without_signals(start)?;
    *janitor = Some(Janitor { generation: generation(), thread });
    Ok(())
}

/// Ends the janitor and waits for it; nothing when none runs.
pub fn stop() {
    // The lock is kept until the janitor has ended, so that nobody starts another
    // one meanwhile. The janitor itself never takes it.
    let mut place = janitor();
    match place.take() {
        Some(janitor) if janitor.generation == generation() => {
            STOP.store(true, Ordering::Relaxed);
            janitor.thread.thread().unpark();
            // A janitor that panicked has ended too.
            let _ = janitor.thread.join();
        }
        inherited => forget_parents(inherited),
    }
}

/// Lets go of a handle that a forked child has inherited. Dropping it would
/// detach a thread by a number that may be another one's here.
fn forget_parents(inherited: Option<Janitor>) {
    if let Some(janitor) = inherited {
        core::mem::forget(janitor.thread);
    }
}

/// Whether the janitor runs in this process.
pub fn is_running() -> bool {
    janitor().as_ref().is_some_and(|j| j.generation == generation())
}

/// How long the janitor sleeps: one epoch of the decay clock.
fn nap(decay_ms: Option<u64>) -> Duration {
    let ms = decay_ms.filter(|&ms| ms > 0).map_or(1000, |ms| ms / EPOCHS as u64);
    Duration::from_millis(ms.clamp(10, 1000))
}

fn work() {
    let (mut seen, mut worth) = (activity(), Worth::default());
    let (mut quiet_naps, mut naps, mut done) = (0u32, 0usize, false);
    while !STOP.load(Ordering::Relaxed) {
        let decay_ms = CENTRAL.pages.decay_ms();
        park_timeout(nap(decay_ms));
        while CENTRAL.tick(os::now_ms()) {}
        naps += 1;
        if naps >= EPOCHS && decay_ms.is_some() {
            naps = 0;
            if worth.again() {
                CENTRAL.punch_holes();
            }
        }
        let now = activity();
        if now != seen {
            (seen, quiet_naps, done) = (now, 0, false);
            continue;
        }
        quiet_naps = quiet_naps.saturating_add(1);
        // Nobody has taken a slow path for a quarter of the decay time: the
        // caches are of no use, and may pin slabs. Once, until somebody does.
        if decay_ms.is_some() && !done && quiet_naps >= EPOCHS as u32 / 4 {
            with_cache(Cache::recall_all);
            CENTRAL.disown_all();
            CENTRAL.punch_holes();
            seen = activity();
            done = true;
        }
    }
}

/// Whether punching holes while others work has been of use.
#[derive(Default)]
struct Worth {
    punched: u64,
    refaulted: u64,
}

impl Worth {
    /// Whether most of the pages punched since the last call stayed away. Where
    /// they come back, every second time is left out.
    fn again(&mut self) -> bool {
        // Relaxed: counts only.
        let punched = CENTRAL.holes.punched.load(Ordering::Relaxed);
        let refaulted = CENTRAL.holes.refaulted.load(Ordering::Relaxed);
        let (went, came) = (punched - self.punched, refaulted - self.refaulted);
        *self = Self { punched, refaulted };
        went == 0 || came <= went / 2
    }
}

/// Does the chores of a thread that is about to wait: hands its cache back and
/// lets the decay clock run. For event loops; costs about a microsecond when
/// there is nothing to do, and the thread's next allocations some refills.
pub fn idle() {
    heap::idle();
}

/// Sets the time in which freed pages go back to the system: `Some(ZERO)` at
/// once, `None` never (until [`crate::purge`]). Ten seconds when nothing is set.
/// May call the OS.
pub fn set_decay(time: Option<Duration>) {
    CENTRAL.set_decay(time.map(whole_ms));
}
