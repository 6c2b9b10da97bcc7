//! Settings chosen at compile time, and the environment's say. A process of its
//! own for each: settings hold for a process.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::process::{Command, Output};
use std::time::Duration;
use tallow::{Fill, HugePages, Tallow, Tuned};

#[global_allocator]
static ALLOC: Tuned = Tallow::builder()
    .decay(Some(Duration::ZERO))
    .magazine_bytes(1024)
    .arenas(1)
    .huge_pages(HugePages::Never)
    .fill(Fill::Junk)
    .environment(true)
    .build();

/// The first and last byte of a fresh block.
fn ends(size: usize, zeroed: bool) -> (u8, u8) {
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    // SAFETY: the layout has a size.
    let block = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
    // The compiler knows that nobody has written it.
    let block = std::hint::black_box(block);
    assert!(!block.is_null());
    // SAFETY: within the block, which the allocator has filled.
    let ends = unsafe { (block.read(), block.add(size - 1).read()) };
    // SAFETY: allocated just now with this layout.
    unsafe { dealloc(block, layout) };
    ends
}

/// The first and last of the bytes that a block gains where it is, and the byte before
/// them: what it held.
fn gained(from: usize, to: usize) -> (u8, u8, u8) {
    let layout = Layout::from_size_align(from, 8).expect("a layout");
    // SAFETY: the layout has a size.
    let block = unsafe { alloc(layout) };
    assert!(!block.is_null());
    // SAFETY: `from` bytes.
    unsafe { block.write_bytes(1, from) };
    // SAFETY: allocated just now with this layout.
    let grown = std::hint::black_box(unsafe { realloc(block, layout, to) });
    assert!(!grown.is_null());
    // SAFETY: `to` bytes, which the allocator has filled.
    let bytes =
        unsafe { (grown.add(from - 1).read(), grown.add(from).read(), grown.add(to - 1).read()) };
    let layout = Layout::from_size_align(to, 8).expect("a layout");
    // SAFETY: it has this layout now.
    unsafe { dealloc(grown, layout) };
    bytes
}

/// What a child finds; its output is compared.
fn look() {
    for (from, to) in
        [(17, 32), (100, 200), (70_000, 71_000), (70_000, 140_000), (2_000_000, 9_000_000)]
    {
        let (kept, first, last) = gained(from, to);
        println!("{from} to {to} {kept}: ({first:x?}, {last:x?}) (0, 0)");
    }
    for size in [1, 24, 5000, 100_000, 5_000_000] {
        // Twice: the second time in memory that was used.
        for _ in 0..2 {
            println!("{size} {:x?} {:x?}", ends(size, false), ends(size, true));
        }
    }
    let data: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 20_000]).collect();
    let cached = tallow::stats().cached_bytes;
    drop(data);
    let stats = tallow::stats();
    println!("cached {} dirty {}", cached.max(stats.cached_bytes) > 0, stats.dirty_bytes > 0);
    tallow::audit().expect("the books balance");
}

fn child(name: &str, value: &str) -> Output {
    Command::new(std::env::current_exe().expect("a program"))
        .arg("--child")
        .env(name, value)
        .output()
        .expect("a child process")
}

fn expect(name: &str, value: &str, fill: &str, rest: &str, warning: &str) {
    let out = child(name, value);
    let (text, errors) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{name}={value}: {errors}");
    let (lines, last) = text.trim_end().rsplit_once('\n').expect("lines");
    assert_eq!(last, rest, "{name}={value}");
    if !fill.is_empty() {
        for line in lines.lines() {
            assert!(line.ends_with(&format!("({fill}, {fill}) (0, 0)")), "{name}={value}: {line}");
        }
    }
    assert_eq!(errors, warning, "{name}={value}");
}

fn main() {
    if std::env::args().any(|arg| arg == "--child") {
        return look();
    }
    let built = "cached false dirty false";
    expect("TALLOW_NOTHING", "1", "a5", built, "");
    expect("TALLOW_FILL", "zero", "0", built, "");
    // Without a fill threads keep blocks; what is freed goes back at once all the same.
    expect("TALLOW_FILL", "none", "", "cached true dirty false", "");
    expect("TALLOW_DECAY_MS", "never", "a5", "cached false dirty true", "");
    expect("TALLOW_PREFAULT", "1", "a5", built, "");
    expect("TALLOW_HUGE_PAGES", "always", "a5", built, "");
    // More than there is room for is all that there is room for.
    expect("TALLOW_MAGAZINE_BYTES", "1048576", "a5", built, "");
    let wrong = [
        ("TALLOW_FILL", "junky", "none, junk or zero"),
        ("TALLOW_DECAY_MS", "-1", "milliseconds, or never"),
        ("TALLOW_ARENAS", "0", "a number from 1 to 4"),
        ("TALLOW_MAGAZINE_BYTES", "1k", "a number of bytes"),
        ("TALLOW_PREFAULT", "yes", "0 or 1"),
        ("TALLOW_HUGE_PAGES", "", "system, blocks, dense, always or never"),
    ];
    // Of the hardened mode: without it they are nobody's.
    let hardened = [
        ("TALLOW_ZERO_ON_FREE", "yes", "0 or 1"),
        ("TALLOW_ZERO_ON_FREE", "", "0 or 1"),
        ("TALLOW_GUARD_SAMPLE", "-1", "a number of allocations, or 0"),
        ("TALLOW_GUARD_SAMPLE", "4294967296", "a number of allocations, or 0"),
    ];
    let is_hardened = cfg!(feature = "hardened");
    for (i, (name, value, wanted)) in wrong.into_iter().chain(hardened).enumerate() {
        let known = i < wrong.len() || is_hardened;
        let line = format!("tallow: {name}={value} is not {wanted}; it is ignored\n");
        expect(name, value, "a5", built, if known { &line } else { "" });
    }
    expect("TALLOW_ZERO_ON_FREE", "1", "a5", built, "");
    expect("TALLOW_GUARD_SAMPLE", "1", "a5", built, "");
    println!("settings: 19 processes, all as told");
}
