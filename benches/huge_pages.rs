//! What huge pages gain and cost, by setting: `cargo bench --bench huge_pages`.
//!
//! Each figure is the median of rounds (`--rounds 3`), each a process of its own that was
//! told its setting by `TALLOW_HUGE_PAGES`, the settings in turn. RSS is the whole
//! process's. `--gib 1` is how much the large heap holds. It matters what the system does
//! by itself: `/sys/kernel/mm/transparent_hugepage/enabled` is printed first.
//!
//! Each process touches as much memory before, and gives it back: what a virtual machine
//! has not used for a while its host must find first, which takes many times as long, and
//! would be charged to whoever asks for huge pages next.

#![allow(missing_docs, reason = "a program, not a library")]

mod random;

use random::Random;
use std::fs;
use std::process::Command;
use std::time::Instant;

#[global_allocator]
static ALLOC: tallow::Tuned = tallow::Tallow::builder().environment(true).build();

const MODES: [&str; 5] = ["blocks", "dense", "always", "never", "system"];
const ROWS: [(&str, Row); 5] =
    [("small", small), ("loop", replace), ("heap", heap), ("fork", fork), ("fill", fill)];
/// What each block of the large heap is asked for with.
const BLOCK_BYTES: usize = 1000;
/// Of the blocks of the large heap, one in so many survives.
const KEPT_OF: u64 = 16;
const READS: usize = 5_000_000;
/// Blocks written after a fork.
const WRITES: usize = 10_000;

/// Figures with their names. GiB of the large heap.
type Row = fn(f64) -> Vec<(&'static str, f64)>;

fn rss_mb() -> f64 {
    tallow::process().rss_bytes as f64 / 1e6
}

/// What this process alone holds, kilobytes.
fn private_kb() -> f64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("Private_Dirty")).expect("a figure");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// A program with 1 MB live.
fn small(_: f64) -> Vec<(&'static str, f64)> {
    let mut random = Random(7);
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while bytes < 1_000_000 {
        let len = 16 + random.below(497);
        blocks.push(vec![1u8; len]);
        bytes += len;
    }
    let figures = vec![("a program with 1 MB live: RSS, MB", rss_mb())];
    drop(blocks);
    figures
}

/// 32 blocks of 64 KiB to 32 MiB, evenly by the logarithm, one replaced at a time, and a
/// byte of each page written.
fn replace(_: f64) -> Vec<(&'static str, f64)> {
    const TURNS: usize = 2000;
    warm(0.5);
    let mut random = Random(7);
    let mut blocks: Vec<Vec<u8>> = (0..32).map(|_| Vec::new()).collect();
    let mut peak = 0.0f64;
    let start = Instant::now();
    for turn in 0..TURNS {
        let (at, share) = (random.below(blocks.len()), random.below(1 << 20) as f64);
        let len = (65_536.0 * 512f64.powf(share / f64::from(1 << 20))) as usize;
        blocks[at] = Vec::new();
        let mut block: Vec<u8> = Vec::with_capacity(len);
        for byte in block.spare_capacity_mut().iter_mut().step_by(4096) {
            byte.write(1);
        }
        blocks[at] = block;
        if turn % 50 == 0 {
            peak = peak.max(rss_mb());
        }
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / TURNS as f64;
    vec![("64 KiB to 32 MiB replaced and touched: each, µs", each), ("… RSS at most, MB", peak)]
}

/// Has the system find as much memory, in huge pages, and gives it back.
fn warm(gib: f64) {
    let bytes = (gib * f64::from(1 << 30)) as usize;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping of our own, of which nobody else knows.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        assert_ne!(at, libc::MAP_FAILED, "{gib} GiB of memory");
        libc::madvise(at, bytes, libc::MADV_HUGEPAGE);
        for offset in (0..bytes).step_by(4096) {
            at.cast::<u8>().add(offset).write_volatile(1);
        }
        libc::munmap(at, bytes);
    }
}

/// The large heap, filled, and how many seconds that took.
fn filled(gib: f64) -> (Vec<Box<[u8]>>, f64) {
    warm(1.1 * gib);
    let count = (gib * f64::from(1 << 30)) as usize / 1024;
    let start = Instant::now();
    let mut blocks = Vec::with_capacity(count);
    for i in 0..count {
        blocks.push(vec![i as u8; BLOCK_BYTES].into_boxed_slice());
    }
    (blocks, start.elapsed().as_secs_f64())
}

/// The large heap: filled, read, mostly freed and given back.
fn heap(gib: f64) -> Vec<(&'static str, f64)> {
    let (mut blocks, seconds) = filled(gib);
    let full = rss_mb();
    let mut random = Random(7);
    let start = Instant::now();
    let mut sum = 0u64;
    for _ in 0..READS {
        sum += u64::from(blocks[random.below(blocks.len())][sum as usize % BLOCK_BYTES]);
    }
    let read = start.elapsed().as_secs_f64() * 1e9 / READS as f64;
    blocks.retain(|_| random.next().is_multiple_of(KEPT_OF));
    let start = Instant::now();
    tallow::purge();
    let purge = start.elapsed().as_secs_f64();
    vec![
        ("large heap: filled in, s", seconds),
        ("… RSS, MB", full),
        ("… a block read at random, ns", read),
        ("… one in 16 survives: purge, s", purge),
        ("… RSS then, MB", rss_mb()),
    ]
}

/// A fork of the large heap, and what the first writes cost the parent then.
fn fork(gib: f64) -> Vec<(&'static str, f64)> {
    let (mut blocks, _) = filled(gib);
    let start = Instant::now();
    // SAFETY: the child does nothing but wait for its end.
    let child = unsafe { libc::fork() };
    assert_ne!(child, -1, "a fork");
    if child == 0 {
        loop {
            // SAFETY: it waits for a signal.
            unsafe { libc::pause() };
        }
    }
    let forked = start.elapsed().as_secs_f64() * 1e3;
    let before = private_kb();
    let mut random = Random(7);
    let start = Instant::now();
    for _ in 0..WRITES {
        let at = random.below(blocks.len());
        blocks[at][0] ^= 1;
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / WRITES as f64;
    let copied = (private_kb() - before) / WRITES as f64;
    // SAFETY: the child of above.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    vec![
        ("large heap: fork, ms", forked),
        ("… a write after it, µs", each),
        ("… what it copies, KB", copied),
    ]
}

/// The large heap, filled with and without the pages made ready ahead.
fn fill(gib: f64) -> Vec<(&'static str, f64)> {
    vec![("large heap with prefault: filled in, s", filled(gib).1)]
}

/// A process for a row: name and value, line by line.
fn child(row: Row, gib: f64) {
    for (name, value) in row(gib) {
        println!("{value} {name}");
    }
}

fn run(row: &str, mode: &str, gib: f64) -> Vec<(String, f64)> {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.args(["--row", row, "--gib", &gib.to_string()]).env("TALLOW_HUGE_PAGES", mode);
    if row == "fill" {
        command.env("TALLOW_PREFAULT", "1");
    }
    let output = command.output().expect("a child process");
    assert!(output.status.success(), "{row}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.split_once(' ').expect("a value and a name"))
        .map(|(value, name)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// The text after a name.
fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: what is {text}?")))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let gib = option("--gib").unwrap_or(1.0);
    if let Some(name) = option::<String>("--row") {
        let (_, row) = ROWS.iter().find(|(row, _)| *row == name).expect("a row");
        return child(*row, gib);
    }
    let rounds: usize = option("--rounds").unwrap_or(3);
    let system = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    println!("transparent huge pages: {}", system.unwrap_or_default().trim());
    println!(
        "large heap: {gib} GiB of blocks of {BLOCK_BYTES} bytes; medians of {rounds} rounds\n"
    );
    println!("{:<50}{}", "", MODES.map(|mode| format!("{mode:>10}")).concat());
    for (row, _) in ROWS {
        let mut taken: [Vec<Vec<(String, f64)>>; MODES.len()] = Default::default();
        for _ in 0..rounds {
            for (mode, taken) in MODES.iter().zip(&mut taken) {
                taken.push(run(row, mode, gib));
            }
        }
        for figure in 0..taken[0][0].len() {
            let values = taken.each_ref().map(|rounds| {
                let value = median(rounds.iter().map(|round| round[figure].1).collect());
                let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
                format!("{value:>10.digits$}")
            });
            println!("{:<50}{}", taken[0][0][figure].0, values.concat());
        }
    }
}
