//! Instructions for each operation, counted and not timed: `cargo bench --bench count`.
//!
//! Each row runs twice under `valgrind --tool=cachegrind`, with so many turns and with
//! twice as many; half of the difference is what a turn takes, whatever comes before and
//! after. The figures are the same in each run of the same program on the same machine, so
//! a change of a single instruction shows. They leave out what waits: caches, branches that
//! were guessed wrong, the kernel's part of a call. glibc's allocator is beside it.

#![allow(missing_docs, reason = "a program, not a library")]

mod random;

use random::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::Command;
use tallow::Tallow;

#[global_allocator]
static ALLOC: Tallow = Tallow::new();

/// What a turn is, the turns of the shorter run, and the row for each allocator.
const ROWS: [Row; 7] = [
    Row::new("pair of 64 bytes", 100_000, pair::<Tallow>, pair::<System>),
    Row::new("pair, size unknown to the compiler", 100_000, mixed::<Tallow>, mixed::<System>),
    Row::new("batch of 10 000, freed in order", 20, in_order::<Tallow>, in_order::<System>),
    Row::new("batch of 10 000, freed at random", 20, shuffled::<Tallow>, shuffled::<System>),
    Row::new("one of 10 000 replaced", 200_000, churn::<Tallow>, churn::<System>),
    Row::new("256 bytes grow to 64 KiB by halves", 200, grow::<Tallow>, grow::<System>),
    Row::new("pair of 256 KiB", 10_000, large::<Tallow>, large::<System>),
];

const BATCH: usize = 10_000;

struct Row {
    name: &'static str,
    turns: usize,
    tallow: fn(&Tallow, usize) -> usize,
    system: fn(&System, usize) -> usize,
}

impl Row {
    const fn new(
        name: &'static str,
        turns: usize,
        tallow: fn(&Tallow, usize) -> usize,
        system: fn(&System, usize) -> usize,
    ) -> Self {
        Self { name, turns, tallow, system }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a layout")
}

/// A block, written.
fn take<A: GlobalAlloc>(a: &A, layout: Layout) -> *mut u8 {
    // SAFETY: no layout here is of no bytes.
    unsafe {
        let at = a.alloc(layout);
        assert!(!at.is_null(), "memory is out");
        at.write(1);
        black_box(at)
    }
}

/// Frees a block of [`take`].
fn give<A: GlobalAlloc>(a: &A, at: *mut u8, layout: Layout) {
    // SAFETY: from `take`, with this layout, and freed once.
    unsafe { a.dealloc(at, layout) };
}

/// Each row returns how many operations it made.
fn pair<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    for _ in 0..turns {
        give(a, take(a, layout(64)), layout(64));
    }
    turns
}

fn mixed<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    for turn in 0..turns {
        let layout = layout(black_box(16 + turn % 64 * 8));
        give(a, take(a, layout), layout);
    }
    turns
}

fn batches<A: GlobalAlloc>(a: &A, turns: usize, order: &[usize]) -> usize {
    let mut blocks = vec![std::ptr::null_mut(); BATCH];
    for _ in 0..turns {
        blocks.fill_with(|| take(a, layout(64)));
        order.iter().for_each(|&at| give(a, blocks[at], layout(64)));
    }
    turns * BATCH
}

fn in_order<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    batches(a, turns, &(0..BATCH).collect::<Vec<_>>())
}

fn shuffled<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    let (mut order, mut random) = ((0..BATCH).collect::<Vec<_>>(), Random(7));
    (1..BATCH).for_each(|i| order.swap(i, random.below(i + 1)));
    batches(a, turns, &order)
}

fn churn<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    let mut random = Random(7);
    let mut blocks: Vec<_> = (0..BATCH)
        .map(|_| layout(16 + random.below(500)))
        .map(|layout| (take(a, layout), layout))
        .collect();
    for _ in 0..turns {
        let (at, new) = (random.below(BATCH), layout(16 + random.below(500)));
        give(a, blocks[at].0, blocks[at].1);
        blocks[at] = (take(a, new), new);
    }
    turns
}

fn grow<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    let mut steps = 0;
    for _ in 0..turns {
        let (mut now, mut at) = (layout(256), take(a, layout(256)));
        while now.size() < 64 << 10 {
            let more = layout(now.size() * 3 / 2);
            // SAFETY: from `take` or from here, with this layout.
            at = unsafe { a.realloc(at, now, more.size()) };
            assert!(!at.is_null(), "memory is out");
            (now, steps) = (more, steps + 1);
        }
        give(a, at, now);
    }
    steps
}

fn large<A: GlobalAlloc>(a: &A, turns: usize) -> usize {
    for _ in 0..turns {
        give(a, take(a, layout(256 << 10)), layout(256 << 10));
    }
    turns
}

/// Instructions of a process, and the operations of its row.
fn counted(row: usize, allocator: &str, turns: usize) -> Option<(f64, f64)> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--row", &row.to_string(), allocator, &turns.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("I refs:") || line.contains("I   refs:"))?;
    let count = line.rsplit(' ').next()?.replace(',', "").parse().ok()?;
    let operations = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    Some((count, operations))
}

/// Instructions for an operation.
fn each(row: usize, allocator: &str) -> Option<f64> {
    let turns = ROWS[row].turns;
    let (once, twice) = (counted(row, allocator, turns)?, counted(row, allocator, 2 * turns)?);
    Some((twice.0 - once.0) / (twice.1 - once.1))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, row, allocator, turns] = &args[..]
        && mode == "--row"
    {
        let row = &ROWS[row.parse::<usize>().expect("a number")];
        let turns = turns.parse().expect("a number");
        let operations = match allocator.as_str() {
            "tallow" => (row.tallow)(&ALLOC, turns),
            _ => (row.system)(&System, turns),
        };
        println!("{operations}");
        return;
    }
    // `cargo test --all-targets` starts it too, and wants no figures.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    println!("{:<40}{:>10}{:>10}", "instructions for each", "tallow", "system");
    for (i, row) in ROWS.iter().enumerate() {
        let (Some(tallow), Some(system)) = (each(i, "tallow"), each(i, "system")) else {
            println!("valgrind is needed for this, and was not found or not understood");
            return;
        };
        println!("{:<40}{tallow:>10.1}{system:>10.1}", row.name);
    }
}
