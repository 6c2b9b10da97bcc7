//! What is left of a spike: `cargo bench --bench spike`.
//!
//! Four threads allocate many objects of mixed sizes, and keep one in sixteen.
//! Then nobody does anything for twelve seconds, but for the janitor. What the
//! process holds then is compared with what is live; in the last column the
//! program lets its objects move (`Relocate`) and purges. Each row is a process
//! of its own; RSS is the whole process's, nothing subtracted.

#![allow(missing_docs, reason = "a program, not a library")]

use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use tallow::defrag::{Options, Pass, Relocate};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

const THREADS: usize = 4;
const KEPT_OF: usize = 16;
const IDLE: Duration = Duration::from_secs(12);
/// Smallest and largest object, and MB live in the end.
const ROWS: [(usize, usize, usize); 2] = [(32, 4096, 24), (16, 256, 15)];

type Objects = Vec<Option<Box<[u8]>>>;

fn spike(seed: usize, low: usize, high: usize, objects: usize) -> Objects {
    let mut random = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed as u64 + 1) | 1;
    let mut list: Objects = (0..objects)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let len = low + (random >> 20) as usize % (high - low + 1);
            Some(vec![random as u8; len].into_boxed_slice())
        })
        .collect();
    for (i, item) in list.iter_mut().enumerate() {
        if i % KEPT_OF != 0 {
            *item = None;
        }
    }
    list.retain(Option::is_some);
    list.shrink_to_fit();
    list
}

fn heal(lists: &mut [Objects]) {
    for _ in 0..3 {
        let mut pass = Pass::begin(Options::default());
        if pass.predicted().slabs == 0 {
            break;
        }
        let mut objects = lists.iter_mut().flatten();
        let mut more = true;
        while more {
            let mut mover = pass.step(Duration::from_micros(500));
            more = false;
            for object in &mut objects {
                object.relocate(&mut mover);
                if mover.out_of_time() {
                    more = true;
                    break;
                }
            }
        }
        pass.finish();
    }
    tallow::purge();
}

/// The child: prints live bytes, RSS after the spike, after the rest, and healed.
fn row(low: usize, high: usize, live_mb: usize) {
    let mean = (low + high) / 2;
    let objects = live_mb * 1_000_000 * KEPT_OF / mean / THREADS;
    tallow::janitor::start().expect("one more thread");
    let (ready, done) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let rss = || tallow::process().rss_bytes;
    thread::scope(|scope| {
        // The threads stay, and sleep: their caches must be reached.
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (ready, done) = (&ready, &done);
                scope.spawn(move || {
                    let list = spike(seed, low, high, objects);
                    ready.wait();
                    done.wait();
                    list
                })
            })
            .collect();
        ready.wait();
        let after_spike = rss();
        thread::sleep(IDLE);
        let rested = rss();
        done.wait();
        let mut lists: Vec<Objects> =
            threads.into_iter().map(|t| t.join().expect("no panic")).collect();
        // What the program asked for: the objects, and the lists that hold them.
        let live = tallow::stats().requested_bytes;
        heal(&mut lists);
        println!("{live} {after_spike} {rested} {}", rss());
        assert!(tallow::audit().is_ok());
    });
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, mode, low, high, live] = &args[..]
        && mode == "--row"
    {
        let number = |text: &String| text.parse().expect("a number");
        return row(number(low), number(high), number(live));
    }
    let this = std::env::current_exe().expect("this program has a path");
    println!(
        "{:<16}{:>10}{:>14}{:>18}{:>18}",
        "sizes", "live MB", "after spike", "12 s idle", "with Relocate"
    );
    for (low, high, live) in ROWS {
        let child = Command::new(&this)
            .arg("--row")
            .args([low, high, live].map(|n| n.to_string()))
            .output()
            .expect("a child process");
        let text = String::from_utf8_lossy(&child.stdout);
        let mb: Vec<f64> = text
            .split_whitespace()
            .filter_map(|n| n.parse::<f64>().ok())
            .map(|n| n / 1e6)
            .collect();
        let [live, spike, rested, healed] = mb[..] else {
            panic!("the child failed: {}", String::from_utf8_lossy(&child.stderr));
        };
        let with_ratio = |mb: f64| format!("{mb:.1} ({:.2}x)", mb / live);
        println!(
            "{:<16}{live:>10.1}{spike:>14.1}{:>18}{:>18}",
            format!("{low}..{high}"),
            with_ratio(rested),
            with_ratio(healed)
        );
    }
}
