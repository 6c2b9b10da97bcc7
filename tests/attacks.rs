//! The attack table of `docs/attacks.md`: each row is a broken program, a process of
//! its own; how it ends is compared with what the table says, for the build that is
//! tested: without and with the feature `hardened`.

use std::alloc::{GlobalAlloc, Layout};
use std::env;
use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

#[global_allocator]
static ALLOC: tallow::Tuned = tallow::Tallow::builder().environment(true).build();

const HARDENED: bool = cfg!(feature = "hardened");

/// How a program ends, where it is broken.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Stopped in the wrong call, with one line that has this in it.
    AtOnce(&'static str),
    /// Stopped later, when the thread's cache is flushed or the memory used again.
    Later(&'static str),
    /// By a fault, with this on stderr; nothing need be said if it is empty.
    Fault(&'static str),
    /// Not stopped; it prints this.
    GoesOn(&'static str),
}
use End::{AtOnce, Fault, GoesOn, Later};

struct Attack {
    name: &'static str,
    run: fn(),
    default: End,
    hardened: End,
    /// Settings of the hardened build.
    settings: &'static [(&'static str, &'static str)],
}

const NO_SAMPLES: &[(&str, &str)] = &[("TALLOW_GUARD_SAMPLE", "0")];
const SAMPLES: &[(&str, &str)] = &[("TALLOW_GUARD_SAMPLE", "1")];
const ZEROS: &[(&str, &str)] = &[("TALLOW_GUARD_SAMPLE", "0"), ("TALLOW_ZERO_ON_FREE", "1")];

const fn row(name: &'static str, run: fn(), default: End, hardened: End) -> Attack {
    Attack { name, run, default, hardened, settings: NO_SAMPLES }
}

const fn with(settings: &'static [(&'static str, &'static str)], attack: Attack) -> Attack {
    Attack { settings, ..attack }
}

const WENT_ON: End = GoesOn("went on");
const DOUBLE: &str = "double free of 0x";
const NOT_OURS: &str = "did not hand out";
const LAYOUTS: &str = "the layouts differ";
const BEHIND: &str = "bytes behind the block";
const WRITTEN: &str = "write after free: byte 8 of the free block";

#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    row("overflow by 1", overflow_by_1, WENT_ON, AtOnce(BEHIND)),
    row("overflow by 1 into a free neighbour", overflow_into_free, WENT_ON, Later("write after free: byte 0")),
    with(SAMPLES, row("overflow by 1, sampled", overflow_exact, WENT_ON, Fault("access behind a block: write"))),
    row("overflow by a page", overflow_page, WENT_ON, Later(BEHIND)),
    with(SAMPLES, row("overflow by a page, sampled", overflow_page_exact, WENT_ON, Fault("access behind a block: write"))),
    with(SAMPLES, row("underflow by 1, sampled", underflow_by_1, WENT_ON, AtOnce("bytes before the block"))),
    row("overflow by 1, large", overflow_large_by_1, WENT_ON, AtOnce(BEHIND)),
    row("overflow by a page, large", overflow_large, WENT_ON, Fault("access beside a block: write")),
    row("underflow by a page, large", underflow_large, WENT_ON, Fault("access beside a block: write")),
    row("overflow by a page, huge", overflow_huge, WENT_ON, Fault("")),
    row("use after free, read", read_after_free, GoesOn("secret"), GoesOn("nothing")),
    row("use after free, write", write_after_free, WENT_ON, Later(WRITTEN)),
    with(SAMPLES, row("use after free, read, sampled", read_after_free, GoesOn("secret"), Fault("use after free: read"))),
    with(SAMPLES, row("use after free, write, sampled", write_after_free, WENT_ON, Fault("use after free: write"))),
    row("use after free, huge", read_huge_after_free, WENT_ON, Fault("")),
    with(SAMPLES, row("use after free, write, sampled, beside 900 live ones", write_after_many, WENT_ON, Fault("use after free: write"))),
    row("use after free, read, large", read_large_after_free, GoesOn("secret"), Fault("use after free: read")),
    row("use after free, write, large", write_large_after_free, WENT_ON, Fault("use after free: write")),
    row("use after free, read, large, after 20 others", read_large_after_others, GoesOn("secret"), Fault("use after free: read")),
    row("use after free, read, large, after 70 others", read_large_after_all, GoesOn("secret"), GoesOn("secret")),
    with(ZEROS, row("use after free, read, large, after 70 others, zero on free", read_large_after_all, GoesOn("secret"), GoesOn("nothing"))),
    row("double free", double_free, Later(DOUBLE), AtOnce(DOUBLE)),
    row("double free by another thread", double_free_elsewhere, AtOnce(DOUBLE), AtOnce(DOUBLE)),
    row("double free after reuse", double_free_after_reuse, Later(DOUBLE), AtOnce(DOUBLE)),
    row("double free after reuse, another size", double_free_resized, Later(DOUBLE), AtOnce(LAYOUTS)),
    with(SAMPLES, row("double free, sampled", double_free, Later(DOUBLE), AtOnce(DOUBLE))),
    row("double free, large, after reuse", double_free_large_after_reuse, Later("already taken back"), AtOnce("already taken back")),
    row("realloc of a freed block, C", realloc_freed, Later(DOUBLE), AtOnce(DOUBLE)),
    row("double free, C", double_free_c, Later(DOUBLE), AtOnce(DOUBLE)),
    row("interior pointer, C", interior_c, Later("not the start of a block"), AtOnce("not the start of a block")),
    row("double free, large", double_free_large, AtOnce("already taken back"), AtOnce("already taken back")),
    row("interior pointer", interior, Later("not the start of a block"), AtOnce("not the start of a block")),
    with(SAMPLES, row("interior pointer, sampled", interior, Later("not the start of a block"), AtOnce("not the start of a block"))),
    with(SAMPLES, row("wrong size, sampled", wrong_size, WENT_ON, AtOnce(LAYOUTS))),
    row("pointer to the stack", stack, Later(NOT_OURS), AtOnce(NOT_OURS)),
    row("another allocator's pointer", foreign, Later(NOT_OURS), AtOnce(NOT_OURS)),
    row("wrong size, another class", wrong_class, Later(LAYOUTS), AtOnce(LAYOUTS)),
    row("wrong size, the same class", wrong_size, WENT_ON, AtOnce(LAYOUTS)),
    row("wrong size, large", wrong_large, AtOnce(LAYOUTS), AtOnce(LAYOUTS)),
    row("recycled secret, read uninitialised", recycled, GoesOn("secret"), GoesOn("nothing")),
    row("recycled secret amid a large region", recycled_middle, GoesOn("secret"), GoesOn("secret")),
    with(ZEROS, row("recycled secret, zero on free", recycled_middle, GoesOn("secret"), GoesOn("nothing"))),
];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// A block that the compiler knows nothing about.
fn take(size: usize) -> *mut u8 {
    // SAFETY: the layout has a size.
    black_box(unsafe { ALLOC.alloc(layout(size)) })
}

/// Gives a block back: rightly or wrongly.
fn give(block: *mut u8, size: usize) {
    // SAFETY: none: these are the errors that are to be found out.
    unsafe { ALLOC.dealloc(black_box(block), layout(size)) }
}

fn write(block: *mut u8, at: isize, byte: u8) {
    // SAFETY: none, as above.
    unsafe { black_box(block).wrapping_offset(at).write_volatile(byte) }
}

fn read(block: *mut u8, at: usize) -> u8 {
    // SAFETY: none, as above.
    unsafe { black_box(block).wrapping_add(at).read_volatile() }
}

/// Told by a program that was not stopped in the wrong call.
fn went_on() {
    println!("went on");
    tallow::purge();
}

fn overflow_by_1() {
    let block = take(100);
    write(block, 100, 0);
    give(block, 100);
    went_on();
}

fn overflow_exact() {
    let block = take(96);
    write(block, 96, 0);
    went_on();
}

/// Neighbours of one slab, and the one behind is free.
fn overflow_into_free() {
    let mut blocks: Vec<*mut u8> = (0..2000).map(|_| take(96)).collect();
    blocks.sort();
    let pair = blocks.windows(2).find(|w| w[1].addr() - w[0].addr() == 96).expect("neighbours");
    let (first, second) = (pair[0], pair[1]);
    give(second, 96);
    write(first, 96, 0);
    went_on();
    for _ in 0..2000 {
        take(96);
    }
}

fn overflow_page() {
    let mut blocks: Vec<_> = (0..2000).map(|_| take(100)).collect();
    blocks.sort_unstable();
    let from = blocks[0];
    let other = blocks.iter().find(|it| it.addr() > from.addr() + 4096).expect("a block there");
    write(from, (other.addr() - from.addr() + 100) as isize, 1);
    println!("went on");
    blocks.into_iter().for_each(|block| give(block, 100));
}

fn overflow_page_exact() {
    let block = take(100);
    write(block, 4096, 1);
    went_on();
}

fn underflow_by_1() {
    let block = take(100);
    write(block, -1, 1);
    give(block, 100);
    went_on();
}

fn overflow_large_by_1() {
    let block = take(100_000);
    write(block, 100_000, 0);
    give(block, 100_000);
    went_on();
}

/// The page behind is there where nothing guards it: another block is.
fn large_block() -> (*mut u8, *mut u8, *mut u8) {
    (take(65_536), take(65_536), take(65_536))
}

fn overflow_large() {
    let blocks = large_block();
    write(blocks.1, 65_536 + 100, 0);
    went_on();
    black_box(blocks);
}

fn underflow_large() {
    let blocks = large_block();
    write(blocks.1, -100, 0);
    went_on();
    black_box(blocks);
}

fn overflow_huge() {
    // Neighbours by the way that Linux lays mappings out: the first is the upper one.
    let (_upper, lower) = (take(4 << 20), take(4 << 20));
    write(lower, (4 << 20) + 100, 0);
    went_on();
}

const SECRET: u8 = 0x53;

fn tell(byte: u8) {
    println!("{}", if byte == SECRET { "secret" } else { "nothing" });
}

fn read_after_free() {
    let block = take(96);
    write(block, 20, SECRET);
    give(block, 96);
    tell(read(block, 20));
}

fn write_after_free() {
    let block = take(96);
    give(block, 96);
    write(block, 8, 1);
    // Without a purge: pages that are given back hold nothing to look at.
    println!("went on");
    for _ in 0..2000 {
        take(96);
    }
}

fn read_large_after_free() {
    let block = take(200_000);
    write(block, 100_000, SECRET);
    give(block, 200_000);
    tell(read(block, 100_000));
}

fn write_large_after_free() {
    let block = take(200_000);
    give(block, 200_000);
    write(block, 199_000, 1);
    went_on();
}

fn read_large_after_others() {
    read_large_after(20);
}

fn read_large_after_all() {
    read_large_after(70);
}

/// Other blocks are freed in between, none of which is lent the same memory.
fn read_large_after(others: usize) {
    let block = take(40_000);
    let others: Vec<_> = (0..others).map(|_| take(40_000)).collect();
    write(block, 20_000, SECRET);
    give(block, 40_000);
    others.into_iter().for_each(|block| give(block, 40_000));
    tell(read(block, 20_000));
}

/// Samples that live do not keep others from being sampled.
fn write_after_many() {
    let live: Vec<_> = (0..900).map(|_| take(96)).collect();
    let block = take(96);
    give(block, 96);
    write(block, 8, 1);
    black_box(live);
    went_on();
}

fn read_huge_after_free() {
    let block = take(4 << 20);
    write(block, 20, SECRET);
    give(block, 4 << 20);
    read(block, 20);
    went_on();
}

fn double_free() {
    let block = take(100);
    give(block, 100);
    give(block, 100);
    went_on();
}

fn double_free_elsewhere() {
    let block = take(100).expose_provenance();
    let free = move || give(std::ptr::with_exposed_provenance_mut(block), 100);
    thread::spawn(free).join().expect("no panic");
    thread::spawn(free).join().expect("no panic");
    went_on();
}

fn double_free_after_reuse() {
    let block = take(100);
    give(block, 100);
    let again = take(100);
    assert_eq!(block, again, "reused at once");
    give(block, 100);
    give(again, 100);
    went_on();
}

fn double_free_resized() {
    let block = take(100);
    give(block, 100);
    let again = take(110);
    assert_eq!(block, again, "reused at once");
    give(block, 100);
    give(again, 110);
    went_on();
}

fn double_free_large() {
    let block = take(200_000);
    give(block, 200_000);
    give(block, 200_000);
    went_on();
}

fn double_free_large_after_reuse() {
    let block = take(200_000);
    give(block, 200_000);
    let again = take(200_000);
    // Hardened, it is not.
    assert_eq!(block == again, !HARDENED, "reused at once");
    give(block, 200_000);
    println!("went on");
    give(again, 200_000);
}

/// A block of C's, which has no layout.
fn take_c(size: usize) -> *mut u8 {
    black_box(tallow::raw::allocate(size, 16))
}

fn give_c(block: *mut u8) {
    // SAFETY: none, as above.
    unsafe { tallow::raw::free(black_box(block)) }
}

fn realloc_freed() {
    let block = take_c(100);
    give_c(block);
    // SAFETY: none, as above.
    let again = unsafe { tallow::raw::reallocate(black_box(block), 105) };
    give_c(again);
    went_on();
}

fn double_free_c() {
    let block = take_c(100);
    give_c(block);
    give_c(block);
    went_on();
}

fn interior_c() {
    give_c(take_c(100).wrapping_add(16));
    went_on();
}

fn interior() {
    give(take(100).wrapping_add(16), 100);
    went_on();
}

fn stack() {
    let mut place = [0_u64; 20];
    give(place.as_mut_ptr().cast(), 100);
    went_on();
}

fn foreign() {
    // SAFETY: any size will do.
    give(unsafe { libc::malloc(100) }.cast(), 100);
    went_on();
}

fn wrong_class() {
    give(take(100), 1000);
    went_on();
}

fn wrong_size() {
    give(take(100), 110);
    went_on();
}

fn wrong_large() {
    give(take(200_000), 500_000);
    went_on();
}

fn recycled() {
    recycled_at(1000, 50);
}

fn recycled_middle() {
    recycled_at(20_000, 10_000);
}

fn recycled_at(size: usize, at: usize) {
    let block = take(size);
    write(block, at as isize, SECRET);
    give(block, size);
    let again = take(size);
    assert_eq!(block, again, "reused at once");
    tell(read(again, at));
}

/// What a program that is not broken does, with every block sampled and with none: the
/// checks find nothing, and the books balance.
fn sound() {
    let mut live: Vec<Vec<u8>> = Vec::new();
    for i in 0..20_000_usize {
        let size = i * 7919 % 3000 + usize::from(i % 500 == 0) * 100_000;
        let mut bytes = vec![i as u8; size];
        bytes.push(7);
        bytes.shrink_to_fit();
        live.push(bytes);
        if live.len() > 300 {
            let gone = live.swap_remove(i * 31 % 300);
            assert!(gone.last() == Some(&7));
        }
    }
    let stats = tallow::stats();
    assert!(stats.requested_bytes <= stats.allocated_bytes, "{stats}");
    assert!(stats.active_bytes <= stats.resident_bytes, "{stats}");
    assert!(stats.resident_bytes <= stats.mapped_bytes, "{stats}");
    tallow::audit().expect("the books balance");
    drop(live);
    tallow::purge();
    tallow::audit().expect("the books balance");
    println!("sound");
}

/// A handler of `SIGABRT` that does what it should not: it allocates and frees, small
/// blocks and large ones.
extern "C" fn tell_at_length(_: libc::c_int) {
    let mut text = String::new();
    for i in 0..3000 {
        text.push_str(&black_box(vec![i; 30 + i]).len().to_string());
        drop(black_box(vec![1_u8; 50_000 * (1 + i % 30)]));
    }
    let mut blocks: Vec<_> = (0..500).map(|i| Box::new([i; 20])).collect();
    blocks.truncate(100);
    let line = if text.len() > 1000 && blocks.len() == 100 { "told\n" } else { "" };
    // SAFETY: a slice's pointer and length.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Has [`tell_at_length`] called, and the process killed if it hangs.
fn watch_the_end() {
    let handler: extern "C" fn(libc::c_int) = tell_at_length;
    // SAFETY: a valid handler.
    unsafe { libc::signal(libc::SIGABRT, handler as *const () as usize) };
    // SAFETY: takes a number.
    unsafe { libc::alarm(300) };
}

/// Calls itself until the stack ends.
#[allow(unconditional_recursion, reason = "that is the error")]
fn stack_without_end(depth: u64) -> u64 {
    let room = black_box([depth; 100]);
    stack_without_end(depth + 1) + room[7]
}

/// Where a thread's stack ends, the handler of Rust's runtime says so.
fn the_end_of_a_stack_is_told_of() {
    for settings in [NO_SAMPLES, SAMPLES] {
        let output = child("stack without end", settings);
        let err = String::from_utf8_lossy(&output.stderr);
        let seen = format!("{settings:?}: {}\n{err}", output.status);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{seen}");
        assert!(err.contains("has overflowed its stack"), "{seen}");
    }
}

/// A handler of `SIGABRT` may allocate, whatever lock was held when the error was found.
fn the_end_may_be_told_of() {
    for name in ["double free", "double free, large", "double free, C", "wrong size, another class"]
    {
        let settings: &[_] = &[("HANDLER", "1"), ("TALLOW_GUARD_SAMPLE", "0")];
        let output = child_with(name, settings);
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        let seen = format!("{name}: {}\n{out}{err}", output.status);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{seen}");
        assert!(out.contains("told") && err.lines().count() == 1, "{seen}");
    }
}

fn child(name: &str, settings: &[(&str, &str)]) -> std::process::Output {
    child_with(name, if HARDENED { settings } else { &[] })
}

fn child_with(name: &str, settings: &[(&str, &str)]) -> std::process::Output {
    let this = env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.env("ATTACK", name).envs(settings.iter().copied());
    command.output().expect("started")
}

fn check(attack: &Attack) {
    let output = child(attack.name, attack.settings);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let wanted = if HARDENED { attack.hardened } else { attack.default };
    let seen = format!("{}: wanted {wanted:?}, got {}\n{out}{err}", attack.name, output.status);
    let (went_on, signal) = (out.contains("went on"), output.status.signal());
    let sampled = HARDENED && attack.settings.as_ptr() == SAMPLES.as_ptr();
    match wanted {
        AtOnce(line) | Later(line) => {
            assert_eq!(signal, Some(libc::SIGABRT), "{seen}");
            assert!(err.starts_with("tallow: ") && err.contains(line), "{seen}");
            assert_eq!(went_on, matches!(wanted, Later(_)), "{seen}");
            assert!(sampled || err.lines().count() == 1, "{seen}");
        }
        Fault(line) => {
            assert_eq!(signal, Some(libc::SIGSEGV), "{seen}");
            assert!(err.contains(line) && !went_on, "{seen}");
        }
        GoesOn(text) => assert!(output.status.success() && out.contains(text), "{seen}"),
    }
    if sampled {
        // Where it was allocated, and where it was freed if it was.
        assert!(err.contains("  allocated by thread") && err.contains("attacks"), "{seen}");
        let freed = attack.name.contains("after free") || attack.name.contains("double");
        assert_eq!(err.contains("  freed by thread"), freed, "{seen}");
        assert!(err.matches("    #0 0x").count() >= if freed { 3 } else { 2 }, "{seen}");
    }
}

/// The word that a cell of the table begins with.
fn cell(end: End) -> &'static str {
    match end {
        AtOnce(_) => "at once",
        Later(_) => "later",
        Fault(_) => "fault",
        GoesOn("went on") => "unnoticed",
        GoesOn(_) => "reads",
    }
}

/// The table has a line for every row here, which says the same, and no others.
fn the_table_is_whole() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/attacks.md");
    let table = fs::read_to_string(path).expect("docs/attacks.md");
    let lines: Vec<&str> =
        table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).collect();
    let lines: Vec<_> = lines.into_iter().take_while(|line| line.starts_with('|')).collect();
    for attack in ATTACKS {
        let wanted =
            (format!("| {} | {}", attack.name, cell(attack.default)), cell(attack.hardened));
        let found = lines.iter().any(|line| {
            let last = line.rsplit(" | ").next().unwrap_or_default();
            line.starts_with(&wanted.0) && last.starts_with(wanted.1)
        });
        assert!(
            found,
            "docs/attacks.md: no line begins with {} and ends otherwise {}",
            wanted.0, wanted.1
        );
    }
    assert_eq!(lines.len(), ATTACKS.len(), "docs/attacks.md has lines without a row here");
}

fn main() {
    if let Some(name) = env::var_os("ATTACK") {
        // Its buffer would be allocated in the middle of things.
        std::io::stdout().flush().expect("flushed");
        if env::var_os("HANDLER").is_some() {
            watch_the_end();
        }
        if name == "stack without end" {
            // The handler is there from some blocks on.
            for _ in 0..40 {
                give(take(100_000), 100_000);
                give(take(100), 100);
            }
            thread::spawn(|| println!("{}", stack_without_end(0))).join().expect("no panic");
        }
        let attack = ATTACKS.iter().find(|attack| *attack.name == *name);
        attack.map_or(sound as fn(), |attack| attack.run)();
        return;
    }
    if env::args().any(|argument| argument == "--list") {
        return;
    }
    let mut failed = 0;
    for attack in ATTACKS {
        match std::panic::catch_unwind(|| check(attack)) {
            Ok(()) => println!("test {} ... ok", attack.name),
            Err(_) => failed += 1,
        }
    }
    for settings in [NO_SAMPLES, SAMPLES, ZEROS] {
        let output = child("sound", settings);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{settings:?}: {}\n{err}", output.status);
    }
    the_end_may_be_told_of();
    // As a test runner does it. ThreadSanitizer tells of that end itself.
    let arguments: Vec<String> = env::args().collect();
    if !arguments.windows(2).any(|pair| pair == ["--skip", "the_end_of_a_stack_is_told_of"]) {
        the_end_of_a_stack_is_told_of();
    }
    the_table_is_whole();
    assert_eq!(failed, 0, "rows that end otherwise");
}
