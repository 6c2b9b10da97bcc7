//! What an account costs: `cargo bench --bench account`.
//!
//! The same work through `Tallow` and through an account, turn and turn about, on one
//! thread and on several; then with a limit on the process. Medians of the rounds.

use allocator_api2::alloc::Allocator;
use std::alloc::Layout;
use std::hint::black_box;
use std::thread;
use std::time::Instant;
use tallow::limit::{self, Limits, Measure};
use tallow::{In, Purpose, Tallow};

#[global_allocator]
static ALLOC: Tallow = Tallow::new();

tallow::account!(Measured = "measured");

const ROUNDS: usize = 31;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(black_box(size), 8).expect("a layout")
}

/// Allocates and frees one block of 64 bytes, `n` times.
fn pair<A: Allocator>(alloc: A, n: usize) {
    for _ in 0..n {
        let block = alloc.allocate(layout(64)).expect("memory").cast::<u8>();
        // SAFETY: allocated with that layout just now.
        unsafe { alloc.deallocate(black_box(block), layout(64)) };
    }
}

/// Replaces one of 10 000 live blocks of 16..528 bytes, `n` times.
fn churn<A: Allocator>(alloc: A, n: usize) {
    let new = |size: usize| (alloc.allocate(layout(size)).expect("memory").cast::<u8>(), size);
    let mut live: Vec<_> = (0..10_000).map(|i| new(16 + i * 7919 % 512)).collect();
    let mut seed = 7_u64;
    for _ in 0..n {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = &mut live[(seed >> 33) as usize % 10_000];
        // SAFETY: allocated with that layout.
        unsafe { alloc.deallocate(place.0, layout(place.1)) };
        *place = new(16 + (seed >> 50) as usize % 512);
    }
    for (block, size) in live {
        // SAFETY: as above.
        unsafe { alloc.deallocate(block, layout(size)) };
    }
}

/// Nanoseconds for one operation of each thread.
fn timed(threads: usize, n: usize, work: impl Fn(usize) + Sync) -> f64 {
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(n));
        }
        work(n);
    });
    started.elapsed().as_secs_f64() * 1e9 / n as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs both in turns, and prints their medians.
fn compare(name: &str, mut plain: impl FnMut() -> f64, mut other: impl FnMut() -> f64) {
    let (mut a, mut b, mut more): (Vec<_>, Vec<_>, Vec<_>) = Default::default();
    for _ in 0..ROUNDS {
        let (x, y) = (plain(), other());
        a.push(x);
        b.push(y);
        more.push(y - x);
    }
    let (a, b, more) = (median(&mut a), median(&mut b), median(&mut more));
    println!("{name:<28}{a:>10.2}{b:>10.2}{more:>+10.2}");
}

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    const N: usize = 1_000_000;
    let account = In::<Measured>::NEW;
    println!("{:<28}{:>10}{:>10}{:>10}", "ns per operation", "plain", "account", "more");
    for threads in [1, 2, 8] {
        let name = |what: &str| format!("{what}, threads: {threads}");
        compare(
            &name("pair 64 B"),
            || timed(threads, N, |n| pair(Tallow, n)),
            || timed(threads, N, |n| pair(account, n)),
        );
        compare(
            &name("churn 10k mixed"),
            || timed(threads, N / 2, |n| churn(Tallow, n)),
            || timed(threads, N / 2, |n| churn(account, n)),
        );
    }
    println!("\n{:<28}{:>10}{:>10}{:>10}", "ns per operation", "no limit", "limit", "more");
    let limited = |hard: Option<u64>| {
        limit::set(Measure::Allocated, Limits { hard_bytes: hard, ..Limits::NONE });
        let time = timed(1, N, |n| churn(Tallow, n));
        limit::set(Measure::Allocated, Limits::NONE);
        time
    };
    compare("process, far", || limited(None), || limited(Some(1 << 40)));
    let on_account = |hard: Option<u64>| {
        Measured::account().set_limits(Limits { hard_bytes: hard, ..Limits::NONE });
        let time = timed(1, N, |n| churn(account, n));
        Measured::account().set_limits(Limits::NONE);
        time
    };
    compare("account, far", || on_account(None), || on_account(Some(1 << 40)));
    compare("account, near", || on_account(None), || on_account(Some(3 << 20)));
}
