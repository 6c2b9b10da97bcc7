//! Books to the byte, and what happens to broken programs. One thread and no
//! test runner, so that nobody else allocates; the broken programs are child
//! processes of this one.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::process::{Command, ExitCode, Output};
use std::sync::Barrier;

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

fn requested_and_allocated_are_exact() {
    let sizes = (1..200).map(|n| n * 37).chain([40_000, 300_000, 1 << 20, 5 << 20]);
    let mut blocks: Vec<Box<[u8]>> = Vec::with_capacity(300);
    let before = tallow::stats();
    let (mut requested, mut allocated) = (0, 0);
    for size in sizes {
        blocks.push(vec![1u8; size].into_boxed_slice());
        requested += size as u64;
        let class = before.classes.iter().map(|c| c.region_bytes).find(|&r| r >= size as u64);
        allocated += class.unwrap_or((size as u64).next_multiple_of(4096));
        let now = tallow::stats();
        assert_eq!(now.requested_bytes - before.requested_bytes, requested);
        assert_eq!(now.allocated_bytes - before.allocated_bytes, allocated);
        balanced();
    }
    // In place, within a class; and by moving; and by remapping.
    for (from, to) in
        [(100, 110), (100, 5000), (50_000, 200_000), (3 << 20, 9 << 20), (9 << 20, 10)]
    {
        let mut list: Vec<u8> = Vec::with_capacity(from);
        let with = tallow::stats().requested_bytes;
        list.reserve_exact(to);
        list.extend_from_slice(&[3; 10]);
        list.shrink_to(to);
        assert_eq!(tallow::stats().requested_bytes, with - from as u64 + list.capacity() as u64);
        balanced();
    }
    blocks.clear();
    let after = tallow::stats();
    assert_eq!(after.requested_bytes, before.requested_bytes);
    assert_eq!(after.allocated_bytes, before.allocated_bytes);
    assert_eq!(after.large_count, before.large_count);
    assert_eq!(after.huge_count, before.huge_count);
}

/// Runs before `main`, as constructors of linked C code do.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the loader calls what stands in this section, with arguments that the
// function ignores.
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = early;

/// What `early` left behind.
static FROM_BEFORE_MAIN: std::sync::Mutex<Option<Vec<String>>> = std::sync::Mutex::new(None);

extern "C" fn early() {
    let words = (0..1000).map(|i| format!("word {i}")).collect();
    if let Ok(mut place) = FROM_BEFORE_MAIN.lock() {
        *place = Some(words);
    }
}

fn blocks_from_before_main_live_on() {
    let words = FROM_BEFORE_MAIN.lock().expect("no panic").take();
    if cfg!(target_os = "linux") {
        let words = words.expect("the constructor ran");
        assert!(words.iter().enumerate().all(|(i, word)| *word == format!("word {i}")));
    }
    balanced();
}

fn a_snapshot_allocates_nothing() {
    let before = tallow::stats();
    let (mut views, calls) = ([tallow::SlabView::default(); 64], before.os_calls);
    for _ in 0..100 {
        black_box(tallow::stats());
        black_box(tallow::process());
        black_box(tallow::slabs(&mut views));
        black_box(tallow::audit().is_ok());
    }
    assert_eq!(tallow::stats().requested_bytes, before.requested_bytes);
    assert_eq!(tallow::stats().os_calls, calls);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

/// What a broken program does, by name. Each must abort in its last call.
fn misdeed(name: &str) {
    // SAFETY: none: these are the errors that Tallow must find out.
    unsafe {
        match name {
            "double free" => {
                let block = ALLOC.alloc(layout(100));
                ALLOC.dealloc(block, layout(100));
                ALLOC.dealloc(block, layout(100));
                tallow::purge();
            }
            "double free after purge" => {
                let keep = ALLOC.alloc(layout(100));
                let block = ALLOC.alloc(layout(100));
                ALLOC.dealloc(block, layout(100));
                tallow::purge();
                ALLOC.dealloc(block, layout(100));
                tallow::purge();
                black_box(keep);
            }
            "double free of a large block" => {
                let block = ALLOC.alloc(layout(200_000));
                ALLOC.dealloc(block, layout(200_000));
                ALLOC.dealloc(block, layout(200_000));
            }
            "double free of a huge block" => {
                let block = ALLOC.alloc(layout(9 << 20));
                ALLOC.dealloc(block, layout(9 << 20));
                ALLOC.dealloc(block, layout(9 << 20));
            }
            "wrong layout" => {
                let block = ALLOC.alloc(layout(100));
                ALLOC.dealloc(block, layout(1000));
                tallow::purge();
            }
            "wrong layout of a large block" => {
                let block = ALLOC.alloc(layout(200_000));
                ALLOC.dealloc(block, layout(500_000));
            }
            "pointer into a block" => {
                let block = ALLOC.alloc(layout(100));
                ALLOC.dealloc(block.add(16), layout(100));
                tallow::purge();
            }
            "pointer to the stack" => {
                let mut place = [0u64; 20];
                ALLOC.dealloc(place.as_mut_ptr().cast(), layout(100));
                tallow::purge();
            }
            other => panic!("no such misdeed: {other}"),
        }
    }
}

fn broken_programs_are_stopped_with_one_line() {
    let this = std::env::current_exe().expect("this program has a path");
    for (name, expected) in [
        ("double free", "double free of 0x"),
        ("double free after purge", "double free of 0x"),
        ("double free of a large block", "already taken back"),
        ("double free of a huge block", "already taken back"),
        ("wrong layout", "the layouts differ"),
        ("wrong layout of a large block", "the layouts differ"),
        ("pointer into a block", "not the start of a block"),
        ("pointer to the stack", "did not hand out"),
    ] {
        let Output { status, stderr, .. } =
            Command::new(&this).arg("--misdeed").arg(name).output().expect("a child process");
        let text = String::from_utf8_lossy(&stderr);
        assert!(!status.success(), "{name}: not stopped");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGABRT),
            "{name}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{name}: {text}");
        assert!(text.starts_with("tallow: ") && text.contains(expected), "{name}: {text}");
    }
}

/// What a purge leaves in another thread's cache goes back with that thread's next block,
/// though it is no small one.
fn a_large_block_hands_back_what_a_purge_left() {
    const BYTES: usize = 3000;
    let cached = || {
        let stats = tallow::stats();
        let class = stats.classes.iter().find(|it| it.region_bytes >= BYTES as u64);
        class.expect("a class").regions_cached
    };
    let before = cached();
    let turn = Barrier::new(2);
    // Asserted when the thread has ended, which waits for its turns.
    let [full, left, handed_back] = std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(black_box(vec![vec![1u8; BYTES]; 3]));
            turn.wait();
            turn.wait();
            drop(black_box(vec![1u8; 100_000]));
            turn.wait();
            turn.wait();
        });
        turn.wait();
        let full = cached();
        tallow::purge();
        let left = cached();
        turn.wait();
        turn.wait();
        let handed_back = cached();
        turn.wait();
        [full, left, handed_back]
    });
    assert!(full > before, "{full} of {before}");
    assert!(left > 0, "nothing is left to be handed back");
    assert_eq!(handed_back, 0);
    balanced();
}

/// What others have allocated goes home from a thread that frees it, but for little; once it
/// allocates too, it keeps as much as before.
fn a_thread_that_only_frees_keeps_little() {
    let blocks = |n: usize| -> Vec<_> { (0..n).map(|_| Box::new([1u8; 1000])).collect() };
    let cached = || {
        let stats = tallow::stats();
        let class = stats.classes.iter().find(|it| it.region_bytes >= 1000);
        class.expect("a class").regions_cached
    };
    // So many slow paths earn a magazine all of its 64 KiB.
    (0..200).for_each(|_| drop(black_box(blocks(500))));
    let two_ways = |n: usize, least: u64| {
        drop(black_box(blocks(n)));
        assert!(cached() >= least, "{} of {n} cached", cached());
    };
    two_ways(40, 40);
    let others = std::thread::scope(|scope| scope.spawn(|| blocks(500)).join());
    let others = others.expect("the thread has not panicked").into_iter();
    let after_each = others.map(|block| {
        drop(block);
        cached()
    });
    // What it had when it last allocated goes with the first ones.
    let after_each: Vec<_> = after_each.skip(100).collect();
    let (least, most) = (after_each.iter().min(), after_each.iter().max());
    // A quarter of its magazine, and all of that at once.
    assert_eq!((least, most), (Some(&1), Some(&16)));
    // Half of the magazine stays when the rest goes for the first time.
    two_ways(70, 32);
    balanced();
}

/// A process whose address space ends gets null, and goes on.
fn out_of_address_space_is_null() {
    let this = std::env::current_exe().expect("this program has a path");
    let child = Command::new(this).arg("--short-of-memory").output().expect("a child process");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

fn short_of_memory() {
    let limit = libc::rlimit { rlim_cur: 600 << 20, rlim_max: 600 << 20 };
    // SAFETY: `limit` is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    for size in [64, 5000, 100_000, 10 << 20] {
        let mut blocks: Vec<*mut u8> = Vec::with_capacity(16 << 20 >> 3);
        loop {
            // SAFETY: the layout has a size.
            let block = unsafe { ALLOC.alloc(layout(size)) };
            if block.is_null() || blocks.len() == blocks.capacity() {
                break;
            }
            blocks.push(block);
        }
        assert!(size < 5000 || blocks.len() < blocks.capacity(), "never out of memory");
        balanced();
        for block in blocks {
            // SAFETY: allocated above with this layout.
            unsafe { ALLOC.dealloc(block, layout(size)) };
        }
        tallow::purge();
        balanced();
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--misdeed", name] => misdeed(name),
        [_, "--short-of-memory"] => short_of_memory(),
        // The listing that test runners ask for.
        [_, "--list", ..] => {}
        _ => {
            let tests: [(&str, fn()); 7] = [
                ("blocks_from_before_main_live_on", blocks_from_before_main_live_on),
                ("requested_and_allocated_are_exact", requested_and_allocated_are_exact),
                ("a_snapshot_allocates_nothing", a_snapshot_allocates_nothing),
                (
                    "a_large_block_hands_back_what_a_purge_left",
                    a_large_block_hands_back_what_a_purge_left,
                ),
                ("a_thread_that_only_frees_keeps_little", a_thread_that_only_frees_keeps_little),
                (
                    "broken_programs_are_stopped_with_one_line",
                    broken_programs_are_stopped_with_one_line,
                ),
                ("out_of_address_space_is_null", out_of_address_space_is_null),
            ];
            // As a test runner does it: `--skip NAME`.
            let skipped = |name| args.windows(2).any(|pair| pair[0] == "--skip" && pair[1] == name);
            let (out, run): (Vec<_>, Vec<_>) =
                tests.into_iter().partition(|(name, _)| skipped(*name));
            println!("\nrunning {} tests", run.len());
            for (name, test) in &run {
                test();
                println!("test {name} ... ok");
            }
            println!(
                "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {} filtered out",
                run.len(),
                out.len()
            );
        }
    }
    ExitCode::SUCCESS
}
