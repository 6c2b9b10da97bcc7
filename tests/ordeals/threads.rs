//! Threads that begin, end, fork and are left behind.

use super::work::{Block, Random, balanced, churn, in_order};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};
use tallow::defrag::{Defrag, Relocate, Settings, Visit};

/// Ends the other threads, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const FORKS: usize = 150;

/// Forks at random moments while four threads do all kinds of work and one defragments. The
/// child's books are whole, and in order; it can allocate, free what it has inherited, and
/// start a thread; the parent goes on.
pub fn forks_under_load() {
    let stop = AtomicBool::new(false);
    let inherited: Vec<Vec<u8>> = (0..2000).map(|i| vec![i as u8; 1 + i * 7 % 3000]).collect();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for i in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                let (mut held, mut seed) = (Vec::with_capacity(2000), i);
                while !stop.load(Ordering::Relaxed) {
                    churn(seed, 2000, &mut held);
                    seed += 3;
                }
            });
        }
        scope.spawn(|| defragment_until(&stop));
        let mut random = Random(0x1234_5678_9ABC);
        for n in 0..FORKS {
            // A moment that nobody has chosen.
            for _ in 0..random.below(200_000) {
                std::hint::spin_loop();
            }
            // SAFETY: the child ends by `_exit`.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "no child");
            if child == 0 {
                let work = std::panic::catch_unwind(|| in_the_child(&inherited, n));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(work.is_err())) };
            }
            let mut status = 0;
            // SAFETY: our child, and a valid place.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "child {n}");
            if n.is_multiple_of(10) {
                balanced();
            }
        }
    });
    balanced();
    assert!(inherited.iter().enumerate().all(|(i, v)| v.iter().all(|&b| b == i as u8)));
    println!("{FORKS} forks");
}

fn in_the_child(inherited: &[Vec<u8>], n: usize) {
    balanced();
    in_order(&tallow::stats());
    let mut held = Vec::with_capacity(2000);
    assert_eq!(churn(n as u64 + 7, 2000, &mut held), 0);
    // Freed here, and there: two processes.
    for at in (0..inherited.len()).step_by(17) {
        // SAFETY: read once here and never again: this process ends without dropping.
        drop(unsafe { ptr::read(&raw const inherited[at]) });
    }
    if n.is_multiple_of(5) {
        thread::spawn(|| assert_eq!(churn(3, 500, &mut Vec::with_capacity(200)), 0))
            .join()
            .expect("a thread of the child");
    }
    tallow::purge();
    balanced();
    in_order(&tallow::stats());
    drop(held);
    balanced();
}

fn defragment_until(stop: &AtomicBool) {
    let mut settings = Settings::default();
    (settings.ignore_bytes, settings.threshold_lower_percent) = (0, 1);
    let mut defrag = Defrag::<usize>::new(settings);
    let mut list: Vec<Option<Box<[u8; 120]>>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        list.clear();
        list.extend((0..20_000).map(|i| (i % 9 == 0).then(|| Box::new([i as u8; 120]))));
        let noise: Vec<Box<[u8; 120]>> = (0..20_000).map(|_| Box::new([1; 120])).collect();
        list.extend((0..5000).map(|i| Some(Box::new([i as u8; 120]))));
        drop(noise);
        while defrag.step(|at, mover| {
            let end = (*at + 300).min(list.len());
            list[*at..end].iter_mut().for_each(|item| item.relocate(mover));
            *at = end;
            if end < list.len() { Visit::More } else { Visit::Done }
        }) {
            thread::sleep(Duration::from_micros(50));
        }
        assert!(
            list[..20_000]
                .iter()
                .enumerate()
                .all(|(i, item)| { item.as_ref().is_none_or(|item| item[..] == [i as u8; 120]) })
        );
    }
}

const THREADS: usize = 100_000;
/// As many as live at a time.
const AT_ONCE: usize = 8;
/// Bytes by which RSS may differ over the last nine tenths.
const FLAT_BYTES: u64 = 1 << 20;

/// Threads that allocate, leave something to the one after them, and end: what the process
/// holds after the first tenth is what it holds in the end.
pub fn a_hundred_thousand() {
    let left: Vec<std::sync::Mutex<Option<Block>>> = (0..AT_ONCE).map(|_| None.into()).collect();
    let mut early = None;
    for wave in 0..THREADS / AT_ONCE {
        thread::scope(|scope| {
            let threads = left.iter().enumerate().map(|(i, left)| {
                scope.spawn(move || {
                    let mut blocks = Vec::with_capacity(12);
                    blocks.extend(left.lock().expect("no panic").take());
                    blocks.extend((0..10).filter_map(|n| Block::new(16 << n, 8, false, i as u8)));
                    assert!(blocks.len() >= 10);
                    *left.lock().expect("no panic") = blocks.pop();
                })
            });
            let threads: Vec<_> = threads.collect();
            // The scope waits for their work alone, and not for what the standard library
            // frees behind it.
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        if wave == THREADS / AT_ONCE / 10 {
            balanced();
            early = Some((tallow::process().rss_bytes, tallow::stats()));
        }
    }
    balanced();
    let (rss, stats) = early.expect("more than ten waves");
    let (rss_now, now) = (tallow::process().rss_bytes, tallow::stats());
    assert!(rss_now <= rss + FLAT_BYTES, "RSS: {rss} bytes, then {rss_now}");
    assert_eq!(now.requested_bytes, stats.requested_bytes);
    assert!(now.metadata_bytes <= stats.metadata_bytes + (64 << 10), "{now}");
    println!("{THREADS} threads: RSS {rss} B after a tenth, {rss_now} B in the end");
}

/// Allocates, resizes and frees when it is dropped.
struct Late(u64);

static LATE: AtomicU64 = AtomicU64::new(0);

impl Drop for Late {
    fn drop(&mut self) {
        let mut held = Vec::with_capacity(300);
        assert_eq!(churn(self.0, 400, &mut held), 0);
        LATE.fetch_add(1, Ordering::Relaxed);
        // Where it is the first time that this is used, in the middle of the end.
        SECOND.with(|it| it.borrow_mut().get_or_insert(Later(held)).0[0].check());
    }
}

struct Later(Vec<Block>);

impl Drop for Later {
    fn drop(&mut self) {
        self.0.iter().for_each(Block::check);
        LATE.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static FIRST: RefCell<Option<Late>> = const { RefCell::new(None) };
    static SECOND: RefCell<Option<Later>> = const { RefCell::new(None) };
}

static KEY: AtomicUsize = AtomicUsize::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// A destructor of C's: called again as long as there is a value, four times in all; the
/// thread's cache ends somewhere in between.
unsafe extern "C" fn again(value: *mut c_void) {
    ROUNDS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the box that was set for this key, below or here.
    let mut blocks: Box<Vec<Block>> = unsafe { Box::from_raw(value.cast()) };
    blocks.iter().for_each(Block::check);
    let mut more = Vec::with_capacity(300);
    churn(blocks.len() as u64, 300, &mut more);
    *blocks = more;
    let key = KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
    let left = Box::into_raw(blocks);
    if ROUNDS.load(Ordering::Relaxed).is_multiple_of(3) {
        // SAFETY: made just now, and handed to nobody.
        drop(unsafe { Box::from_raw(left) });
        return;
    }
    // SAFETY: a key that is never deleted.
    unsafe { libc::pthread_setspecific(key, left.cast()) };
}

pub fn destructors_that_allocate() {
    let mut key = 0;
    // SAFETY: a valid place and a valid function.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(again)) }, 0);
    KEY.store(key as usize, Ordering::Relaxed);
    tallow::purge();
    // What were lost could be less than nothing, which no sum shows: there is more than that.
    let weight: Vec<u8> = Vec::with_capacity(64 << 20);
    let before = tallow::stats().requested_bytes;
    for i in 0..300 {
        thread::spawn(move || {
            let set = || {
                let mut blocks = Box::new(Vec::with_capacity(300));
                churn(i, 200, &mut blocks);
                // SAFETY: a key that is never deleted.
                unsafe { libc::pthread_setspecific(key, Box::into_raw(blocks).cast()) };
            };
            // Before the cache knows its end, and after.
            if i % 2 == 0 {
                set();
            }
            FIRST.with(|it| *it.borrow_mut() = Some(Late(i + 1)));
            if i % 2 == 1 {
                set();
            }
        })
        .join()
        .expect("nothing wrong");
        if i % 20 == 0 {
            balanced();
        }
    }
    balanced();
    let (late, rounds) = (LATE.load(Ordering::Relaxed), ROUNDS.load(Ordering::Relaxed));
    assert!(late >= 600 && rounds == 900, "{late}, {rounds}");
    let now = tallow::stats().requested_bytes;
    assert!(now.abs_diff(before) <= 4096, "{before} bytes, then {now}");
    drop(weight);
    println!("{late} destructors, {rounds} of C's");
}

/// Blocks of one size come and go in short runs, so that whoever takes from this thread's
/// cache meets an operation on its way.
fn come_and_go(id: u64) -> ! {
    let mut random = Random(id * 77 + 1);
    let mut live: Vec<Box<[u64; 6]>> = Vec::with_capacity(1000);
    loop {
        for _ in 0..random.below(40).min(1000 - live.len() as u64) {
            live.push(Box::new([id << 32 | live.len() as u64; 6]));
        }
        for _ in 0..random.below(40).min(live.len() as u64) {
            let block = live.pop().expect("there are as many");
            assert_eq!(*block, [id << 32 | live.len() as u64; 6], "a block has two owners");
        }
    }
}

/// Starts threads that work for ever.
pub fn keep_busy() {
    let ready: &Barrier = Box::leak(Box::new(Barrier::new(5)));
    for i in 0..4 {
        thread::spawn(move || {
            ready.wait();
            if i > 0 {
                come_and_go(i);
            }
            let mut held = Vec::with_capacity(3000);
            for seed in 0.. {
                churn(seed * 4 + i, 1000, &mut held);
            }
        });
    }
    ready.wait();
    thread::sleep(Duration::from_millis(5));
}

/// What runs at the end allocates too, and takes from the caches of the threads, which
/// work on: for a while, since one look would hardly see them do wrong.
extern "C" fn at_exit() {
    let mut held = Vec::with_capacity(500);
    let start = Instant::now();
    for seed in 11.. {
        assert_eq!(churn(seed, 50, &mut held), 0);
        for _ in 0..100 {
            tallow::purge();
        }
        balanced();
        if start.elapsed() > Duration::from_millis(300) {
            break;
        }
    }
}

pub fn exit_with_threads() {
    // SAFETY: a valid function.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    keep_busy();
    std::process::exit(7);
}
