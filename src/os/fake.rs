//! The fake of the unit tests: refuses the n-th call that the calling thread
//! makes, and every one after it, or that one alone.

use super::Door;
use crate::config::HARDENED;
use std::cell::Cell;
use std::sync::Mutex;

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static HUGE_PAGES: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy)]
struct Plan {
    calls_left: u64,
    once: bool,
    /// Reservations alone count, and are refused.
    reservations: bool,
}

/// How often each kind of call was refused, by any thread.
static REFUSED: Mutex<[u64; KINDS]> = Mutex::new([0; KINDS]);
const KINDS: usize = Door::ReadFile as usize + 1 + HARDENED as usize;

/// How often a call was refused, by kind: of each kind there is.
pub(crate) fn refused() -> [u64; KINDS] {
    *REFUSED.lock().expect("nothing panics in between")
}

/// What the door asks before each call.
pub(super) fn permitted(door: Door) -> bool {
    let yes = follow_plan(door);
    if !yes {
        REFUSED.lock().expect("nothing panics in between")[door as usize] += 1;
    }
    yes
}

fn follow_plan(door: Door) -> bool {
    PLAN.with(|plan| match plan.get() {
        None => true,
        Some(Plan { reservations: true, .. }) if door != Door::Reserve => true,
        Some(Plan { calls_left: 0, once, .. }) => {
            if once {
                plan.set(None);
            }
            false
        }
        Some(plan_now) => {
            plan.set(Some(Plan { calls_left: plan_now.calls_left - 1, ..plan_now }));
            true
        }
    })
}

/// Runs `f` with every call after the first `n` refused.
pub(crate) fn failing_after<R>(n: u64, f: impl FnOnce() -> R) -> R {
    with(Plan { calls_left: n, once: false, reservations: false }, f)
}

/// Runs `f` with every reservation of address space refused, and nothing else.
#[cfg(feature = "hardened")]
pub(crate) fn refusing_reservations<R>(f: impl FnOnce() -> R) -> R {
    with(Plan { calls_left: 0, once: false, reservations: true }, f)
}

/// Runs `f` with only call number `n` (from 0) refused.
pub(crate) fn failing_at<R>(n: u64, f: impl FnOnce() -> R) -> R {
    with(Plan { calls_left: n, once: true, reservations: false }, f)
}

/// Whether the one call that this thread's plan refuses has come.
pub(crate) fn used_up() -> bool {
    PLAN.get().is_none()
}

/// Runs `f` with nothing refused, in the middle of a plan.
pub(crate) fn spared<R>(f: impl FnOnce() -> R) -> R {
    let plan = PLAN.with(Cell::take);
    let result = f();
    PLAN.with(|p| p.set(plan));
    result
}

/// Has every call of this thread after the first `n` refused, until it has ended.
pub(crate) fn failing_to_the_end(n: u64) {
    PLAN.with(|plan| plan.set(Some(Plan { calls_left: n, once: false, reservations: false })));
}

/// Runs `f` on a thread to which the kernel looks as if it backed everything with
/// huge pages.
pub(crate) fn with_huge_pages<R>(f: impl FnOnce() -> R) -> R {
    HUGE_PAGES.with(|it| it.set(true));
    let result = f();
    HUGE_PAGES.with(|it| it.set(false));
    result
}

pub(super) fn huge_pages() -> bool {
    HUGE_PAGES.with(Cell::get)
}

fn with<R>(plan: Plan, f: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            PLAN.with(|p| p.set(None));
        }
    }
    PLAN.with(|p| p.set(Some(plan)));
    let _reset = Reset;
    f()
}
