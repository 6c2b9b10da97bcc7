//! Every public operation with every call that it makes refused, one at a time and
//! all from there on; and every kind of call there is.

use super::{Block, Sparse, TALLOW, alone, balanced, obtain, on_tallow};
use crate::os::fake::{failing_after, failing_at, failing_to_the_end, refused, spared};
use crate::settings::HugePages;
use crate::{Account, Tallow, limit, raw};
use allocator_api2::alloc::Allocator;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::time::Duration;
use std::sync::mpsc;
use std::thread;

/// Runs something with calls from the n-th on refused, in one way or another.
type Plan = fn(u64, &mut dyn FnMut());
/// Whether everything was had that was wanted.
type Operation = (&'static str, fn() -> bool);

const OPERATIONS: [Operation; 17] = [
    ("alloc, small", || all(400, |i| obtain(20_000 + i, 8, i, false))),
    ("alloc, large", || all(12, |i| obtain((1 << 20) - i, 8, i, false))),
    ("alloc, huge", || all(3, |i| obtain((5 << 20) + i, 8, i, false))),
    ("alloc, aligned", || all(12, |i| obtain(100 + i, 4096 << i, i, false))),
    ("alloc_zeroed", || all(12, |i| obtain(500 << i, 8, i, true))),
    ("realloc", every_route),
    ("blocks without layouts", without_layouts),
    ("Allocator", allocator),
    ("accounts", account),
    ("limits", limits),
    ("purge, idle, decay", giving_back),
    ("huge pages", huge_pages),
    ("threads", threads),
    ("defragmentation", defragmentation),
    ("the janitor", janitor),
    ("snapshots", snapshots),
    ("fork", fork),
];

/// Makes blocks until one is refused, checks them and frees them.
fn all(n: usize, make: impl Fn(usize) -> Option<Block>) -> bool {
    let blocks: Vec<Block> = (0..n).map_while(make).collect();
    balanced();
    let had = blocks.len() == n;
    blocks.into_iter().for_each(Block::free);
    had
}

fn every_route() -> bool {
    let Some(mut block) = obtain(50, 8, 1, false) else { return false };
    let sizes =
        [5000, 60_000, 300_000, 1 << 20, 5 << 20, 12 << 20, 6 << 20, 700_000, 40_000, 3000, 8];
    let refused = sizes.into_iter().filter(|&size| !block.resize(size)).count();
    block.free();
    refused == 0
}

fn without_layouts() -> bool {
    let mut had = true;
    for size in [0, 100, 30_000, 200_000, 1 << 20, 7 << 20] {
        let zeroed = raw::allocate_zeroed(size);
        let block = raw::allocate(size, 64);
        had &= !zeroed.is_null() && !block.is_null();
        if !block.is_null() {
            assert!(raw::usable_bytes(block).is_some_and(|bytes| bytes >= size));
            // SAFETY: from this module; the old address is forgotten unless null comes.
            let moved = unsafe { raw::reallocate(block, size * 2 + 5000) };
            had &= !moved.is_null();
            // SAFETY: as above, and used no more.
            unsafe { raw::free(if moved.is_null() { block } else { moved }) };
        }
        // SAFETY: from this module, and used no more; null is nothing.
        unsafe { raw::free(zeroed) };
    }
    had
}

/// Grows and shrinks by the trait, with a change of the alignment.
fn resized_by(allocator: impl Allocator) -> bool {
    let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
    let mut had = true;
    for (from, to) in [(10, 50_000), (2000, 1 << 20), (2 << 20, 9 << 20), (0, 6 << 20)] {
        let (small, long) = (layout(from, 8), layout(to, 64));
        let Ok(block) = allocator.allocate(small) else { return false };
        let block: NonNull<u8> = block.cast();
        // SAFETY: the block has this layout; it stays if this fails.
        match unsafe { allocator.grow_zeroed(block, small, long) } {
            // SAFETY: the block has the longer layout.
            Ok(grown) => match unsafe { allocator.shrink(grown.cast(), long, small) } {
                // SAFETY: the block has the shorter layout, and is used no more.
                Ok(block) => unsafe { allocator.deallocate(block.cast(), small) },
                Err(_) => {
                    had = false;
                    // SAFETY: it has kept the longer layout.
                    unsafe { allocator.deallocate(grown.cast(), long) }
                }
            },
            Err(_) => {
                had = false;
                // SAFETY: it is as it was.
                unsafe { allocator.deallocate(block, small) }
            }
        }
    }
    had
}

fn allocator() -> bool {
    resized_by(Tallow)
}

static ACCOUNT: Account = Account::new("faults");

fn account() -> bool {
    let had = resized_by(&ACCOUNT);
    ACCOUNT.charge(1000);
    assert_eq!(ACCOUNT.live_bytes(), 1000);
    ACCOUNT.set_limits(limit::Limits { hard_bytes: Some(2000), soft_bytes: Some(1500) });
    assert!((&ACCOUNT).allocate(Layout::new::<[u8; 4000]>()).is_err());
    ACCOUNT.set_limits(limit::Limits::NONE);
    ACCOUNT.credit(1000);
    assert_eq!(ACCOUNT.live_bytes(), 0);
    had
}

fn limits() -> bool {
    for measure in [limit::Measure::Allocated, limit::Measure::Resident] {
        let now = crate::stats();
        let bytes = now.resident_bytes.max(now.allocated_bytes) + (3 << 20);
        limit::on_pressure(Some(|_| ()));
        limit::set(measure, limit::Limits { soft_bytes: Some(bytes - 1), hard_bytes: Some(bytes) });
        assert!(!all(9, |i| obtain((1 << 20) - i, 8, i, false)), "the limit is a limit");
        limit::set(measure, limit::Limits::NONE);
        limit::on_pressure(None);
    }
    all(9, |i| obtain((1 << 20) - i, 8, i, false))
}

fn giving_back() -> bool {
    let blocks = || all(40, |i| obtain(100 + i * 9000, 8, i, i % 4 == 0));
    let mut had = blocks();
    crate::idle();
    balanced();
    crate::set_decay(Some(Duration::ZERO));
    had &= blocks();
    balanced();
    crate::set_decay(Some(Duration::from_secs(10)));
    // Holes between survivors.
    let kept: Vec<Block> = (0..600).map_while(|i| obtain(1000, 8, i, false)).collect();
    let (stay, go): (Vec<_>, Vec<_>) = kept.into_iter().enumerate().partition(|(i, _)| i % 40 == 0);
    go.into_iter().for_each(|(_, block)| block.free());
    // Another thread's cache is recalled, which takes a barrier.
    let (done, wait) = mpsc::channel::<()>();
    let (ready, started) = mpsc::channel();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let some: Vec<Block> = (0..50).filter_map(|i| obtain(64, 8, i, false)).collect();
            some.into_iter().for_each(Block::free);
            ready.send(()).expect("somebody waits");
            let _ = wait.recv();
        });
        started.recv().expect("a thread");
        crate::purge();
        crate::purge_all();
        drop(done);
        // With what it hands back at its end, for which a scope does not wait.
        other.join().expect("no panic");
    });
    balanced();
    stay.into_iter().for_each(|(_, block)| block.free());
    had
}

fn huge_pages() -> bool {
    let mut had = true;
    for mode in [HugePages::Always, HugePages::Dense, HugePages::Never] {
        raw::configure(&Tallow::builder().huge_pages(mode).prefault(true));
        had &= all(7, |i| obtain((1 << 20) - i, 8, i, false));
        had &= all(2, |i| obtain((9 << 20) + i, 8, i, true));
        crate::purge();
    }
    raw::configure(&Tallow::builder());
    crate::os::fake::with_huge_pages(crate::purge);
    had
}

/// The calls of a thread that is new, and of one that ends: its plan is that of the
/// thread that made it, since all of the work is on it.
fn threads() -> bool {
    let small = || obtain(100, 8, 1, false).map(Block::free).is_some();
    small() && all(30, |i| obtain(30_000 + i, 8, i, true))
}

fn defragmentation() -> bool {
    // What the program's data are made of is not refused: it could not go on.
    let mut data = spared(Sparse::new);
    let mut defrag = crate::defrag::Defrag::<usize>::new(crate::defrag::Settings::default());
    data.pass(&mut defrag).1
}

fn janitor() -> bool {
    let started = on_tallow(|| crate::janitor::start().is_ok());
    let had = all(5, |i| obtain((1 << 20) - i, 8, i, false));
    on_tallow(crate::janitor::stop);
    started && had
}

fn snapshots() -> bool {
    let mut views = [crate::SlabView::default(); 8];
    let process = crate::process();
    crate::slabs(&mut views);
    let stats = crate::stats();
    assert!(stats.requested_bytes <= stats.allocated_bytes);
    process.rss_bytes > 0
}

fn fork() -> bool {
    let Some(block) = obtain(3000, 8, 9, false) else { return false };
    // SAFETY: the child works with Tallow only, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        block.check();
        crate::purge();
        let fine = crate::audit().is_ok();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: our child, and a valid place.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(child > 0 && status == 0, "the child's heap was not whole");
    block.free();
    true
}

/// Runs `operation` on a thread that is new to Tallow, for each n until it makes no
/// n-th call. Returns how often it was refused something it needs, and the runs.
fn at_every_call((name, operation): Operation, plan: Plan) -> (u64, u64) {
    let (mut not_had, mut n) = (0, 0);
    crate::purge();
    let before = crate::stats();
    loop {
        let calls = refused();
        let mut had = false;
        thread::scope(|scope| {
            let run = || plan(n, &mut || had = operation());
            scope.spawn(run).join().unwrap_or_else(|panic| {
                println!("{name}: call {n}");
                std::panic::resume_unwind(panic)
            });
        });
        not_had += u64::from(!had);
        crate::purge();
        balanced();
        let now = crate::stats();
        assert_eq!(now.requested_bytes, before.requested_bytes, "{name}: call {n}");
        assert_eq!(now.allocated_bytes, before.allocated_bytes, "{name}: call {n}");
        let counts = (now.large_count, now.huge_count);
        assert_eq!(counts, (before.large_count, before.huge_count), "{name}: call {n}");
        assert_eq!(now.dirty_bytes, 0, "{name}: call {n}");
        if refused() == calls {
            assert!(had, "{name}: not had, and nothing was refused");
            return (not_had, n);
        }
        n += 1;
        assert!(n < 3000, "{name}: calls without an end");
    }
}

#[test]
fn every_operation_is_refused_at_every_call() {
    let _alone = alone();
    // What the process needs once.
    obtain(100, 8, 1, false).expect("memory").free();
    let plans: [(&str, Plan); 3] = [
        ("one", |n, run| failing_at(n, run)),
        ("all", |n, run| failing_after(n, run)),
        // Also what happens when the thread ends.
        ("to the end", |n, run| {
            failing_to_the_end(n);
            run();
        }),
    ];
    let (mut runs, mut needed) = (0, 0);
    for operation in OPERATIONS {
        for (which, plan) in plans {
            let (not_had, calls) = at_every_call(operation, plan);
            println!("{}, {which}: {calls} calls, {not_had} runs without all", operation.0);
            (runs, needed) = (runs + calls + 1, needed + not_had);
        }
    }
    println!("{runs} runs, {needed} of them refused what was asked for");
    assert!(needed >= 30, "{needed}");
    let kinds = refused();
    // The hook for forks is armed once in a process: below.
    let fork_hook = 8;
    for (kind, &n) in kinds.iter().enumerate() {
        assert!(n > 0 || kind == fork_hook, "calls of kind {kind} were never refused: {kinds:?}");
    }
}

/// In a process of its own, where no hook is armed yet.
#[test]
fn a_fork_hook_that_was_refused_is_armed_later() {
    const CHILD: &str = "TALLOW_FORK_HOOK_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let name = "faults::operations::a_fork_hook_that_was_refused_is_armed_later";
        let this = std::env::current_exe().expect("this program");
        let out = std::process::Command::new(this).args(["--exact", name]).env(CHILD, "1").output();
        let out = out.expect("a child process");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let before = refused();
    let first = thread::spawn(|| failing_after(0, || obtain(100, 8, 1, false).is_none()));
    assert!(first.join().expect("no panic"), "memory without the system");
    assert!(refused() != before);
    obtain(100, 8, 1, false).expect("memory").free();
    let generation = crate::thread::generation();
    // SAFETY: the child looks at a number, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let told = crate::thread::generation() == generation + 1;
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!told)) };
    }
    let mut status = 0;
    // SAFETY: our child, and a valid place.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child was not told that it is one");
    let _ = TALLOW;
}
