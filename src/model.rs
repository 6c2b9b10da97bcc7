//! What the loom models have in common: bounds, counting, and the line that each
//! prints for `ci/loom.sh`. `docs/loom.md` lists the models and their twins.

pub(crate) mod central;
pub(crate) mod os;
pub(crate) mod space;
pub(crate) mod words;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Preemptions of one execution that are explored, unless a model says otherwise:
/// more than are needed for any bug that has been found by a model,
pub(crate) const PREEMPTIONS: usize = 4;
/// and where there would be too many executions.
pub(crate) const FEWER: usize = 3;

// Of the thread that runs a model; loom's threads are coroutines on it.
thread_local! {
    static SWAPPED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` in every order, and with every value that a load may return, up to
/// `preemptions` preemptions; twice, with the sides of [`side_by_side`] swapped.
fn explore(preemptions: usize, f: impl Fn() + Sync + Send + 'static) -> (usize, Option<String>) {
    // Not loom's: it counts executions, and must outlive each of them.
    let count = Arc::new(AtomicUsize::new(0));
    let f = Arc::new(f);
    let mut failure = None;
    for swapped in [false, true] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 10_000;
        SWAPPED.with(|it| it.set(swapped));
        let (count, f) = (count.clone(), f.clone());
        let counted = move || {
            count.fetch_add(1, Ordering::Relaxed);
            os::begin();
            words::begin();
            f();
        };
        failure = failure.or(catch_unwind(AssertUnwindSafe(|| builder.check(counted))).err());
        if failure.is_some() {
            break;
        }
    }
    (count.load(Ordering::Relaxed), failure.map(|why| text(&*why)))
}

/// Runs both on threads of their own.
///
/// Loom 0.7 finds out which steps to try in another order from the last access to each
/// atomic, and a thread's own load hides the load of another before its store. So which
/// of two threads runs first, before any is stopped, matters: both are tried.
pub(crate) fn side_by_side<A: 'static, B: 'static>(
    a: impl FnOnce() -> A + 'static,
    b: impl FnOnce() -> B + 'static,
) -> (A, B) {
    if SWAPPED.with(Cell::get) {
        let other = loom::thread::spawn(a);
        let b = b();
        (other.join().unwrap(), b)
    } else {
        let other = loom::thread::spawn(b);
        let a = a();
        (a, other.join().unwrap())
    }
}

fn text(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn report(name: &str, preemptions: usize, count: usize, result: &str) {
    println!("\nloom-model\t{name}\t{preemptions}\t{count}\t{result}");
}

/// Checks a model of the shipped code.
pub(crate) fn model(name: &str, f: impl Fn() + Sync + Send + 'static) {
    model_with(name, PREEMPTIONS, f);
}

/// As [`model`], with another bound.
pub(crate) fn model_with(name: &str, preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let (count, failure) = explore(preemptions, f);
    assert!(failure.is_none(), "{name}: after {count} executions: {}", failure.unwrap_or_default());
    report(name, preemptions, count, "holds");
}

/// Checks that a weakened twin of a model fails, and that it does so for the reason
/// that is `expected`.
pub(crate) fn twin(name: &str, expected: &str, f: impl Fn() + Sync + Send + 'static) {
    let (count, failure) = explore(PREEMPTIONS, f);
    let Some(failure) = failure else {
        panic!("{name}: no failure in {count} executions, but \"{expected}\" is expected");
    };
    assert!(failure.contains(expected), "{name}: expected \"{expected}\", but: {failure}");
    report(name, PREEMPTIONS, count, &format!("fails as expected: {expected}"));
}
