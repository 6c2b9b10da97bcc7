//! Limits of the process: each case in a process of its own, since a limit is.

use std::alloc::{Layout, alloc, dealloc};
use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use tallow::defrag::{Options, Pass};
use tallow::limit::{self, Limits, Measure};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

const MIB: u64 = 1 << 20;
static BEFORE: AtomicU64 = AtomicU64::new(0);

type Case = (&'static str, fn());
const CASES: &[Case] = &[
    ("hard_small", hard_small),
    ("hard_blocks", hard_blocks),
    ("hard_threads", hard_threads),
    ("soft", soft),
    ("resident", resident),
    ("run_time", run_time),
    ("at_once", at_once),
    #[cfg(target_os = "linux")]
    ("address_space", address_space),
    ("during_a_pass", during_a_pass),
];

fn main() {
    if let Some(name) = env::var_os("CASE") {
        let case = CASES.iter().find(|(case, _)| *case == name).expect("a case");
        case.1();
        tallow::audit().expect("the books balance");
        return;
    }
    for (name, _) in CASES {
        let this = env::current_exe().expect("this program");
        let output = Command::new(this).env("CASE", name).output().expect("started");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{text}", output.status);
        println!("test {name} ... ok");
    }
}

fn hard(measure: Measure, bytes: u64) {
    limit::set(measure, Limits { hard_bytes: Some(bytes), ..Limits::NONE });
}

fn allocated() -> u64 {
    tallow::stats().allocated_bytes
}

/// Blocks of `size` bytes until there are no more, or `most` of them.
fn take(size: usize, most: usize) -> Vec<*mut u8> {
    let mut held = Vec::with_capacity(most);
    take_into(&mut held, size);
    held
}

/// Blocks of `size` bytes until there are no more, or `held` is full.
fn take_into(held: &mut Vec<*mut u8>, size: usize) {
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    while held.len() < held.capacity() {
        // SAFETY: the layout has a size.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            break;
        }
        // SAFETY: the block has room for a byte.
        unsafe { block.write(1) };
        held.push(block);
    }
}

fn give(size: usize, mut held: Vec<*mut u8>) {
    give_from(&mut held, size);
}

fn give_from(held: &mut Vec<*mut u8>, size: usize) {
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    for block in held.drain(..) {
        // SAFETY: from `take` with this size.
        unsafe { dealloc(block, layout) };
    }
}

fn hard_small() {
    for size in [16, 100, 1000, 20_000] {
        let room = Vec::<*mut u8>::with_capacity(1 << 21);
        let before = allocated();
        hard(Measure::Allocated, before + 32 * MIB);
        drop(room);
        let held = take(size, 1 << 21);
        let now = allocated();
        // What one slab has free, and a magazine.
        assert!(now <= before + 33 * MIB, "{size}: {now}");
        assert!(now >= before + 15 * MIB, "{size}: {now}");
        assert!(limit::stats().refusals >= 1);
        give(size, held);
        limit::set(Measure::Allocated, Limits::NONE);
        give(size, take(size, 100_000));
    }
}

fn hard_blocks() {
    for size in [40_000, 300_000, 3 << 20] {
        let before = allocated();
        hard(Measure::Allocated, before + 64 * MIB);
        let held = take(size, 4000);
        let now = allocated();
        assert!(now <= before + 64 * MIB, "{size}: {now}");
        assert!(now + 2 * size as u64 >= before + 64 * MIB, "{size}: {now}");
        // A failed growth keeps the block.
        let mut vector: Vec<u8> = Vec::new();
        assert!(vector.try_reserve_exact(65 << 20).is_err());
        give(size, held);
        vector.try_reserve_exact(30 << 20).expect("room");
        vector.resize(30 << 20, 7);
        assert!(vector.try_reserve_exact(90 << 20).is_err());
        assert!(vector.len() == 30 << 20 && vector.iter().all(|&byte| byte == 7));
        drop(vector);
        limit::set(Measure::Allocated, Limits::NONE);
    }
}

fn hard_threads() {
    let (most, ready) = (AtomicU64::new(0), Barrier::new(5));
    thread::scope(|scope| {
        for t in 0..4 {
            let (most, ready) = (&most, &ready);
            scope.spawn(move || {
                // Made before the limit: what cannot fail must not be refused.
                let mut held = Vec::with_capacity(1 << 20);
                take_into(&mut held, 64);
                give_from(&mut held, 64);
                ready.wait();
                ready.wait();
                let size = 64 << t;
                for _ in 0..3 {
                    take_into(&mut held, size);
                    most.fetch_max(allocated(), Ordering::Relaxed);
                    give_from(&mut held, size);
                }
            });
        }
        ready.wait();
        tallow::purge();
        let before = allocated();
        hard(Measure::Allocated, before + 64 * MIB);
        most.store(before, Ordering::Relaxed);
        ready.wait();
        BEFORE.store(before, Ordering::Relaxed);
    });
    let (most, before) = (most.into_inner(), BEFORE.load(Ordering::Relaxed));
    assert!(most <= before + 68 * MIB, "{most}");
    assert!(most >= before + 24 * MIB, "{most}");
}

fn soft() {
    static CACHE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let before = allocated();
    let limits =
        Limits { soft_bytes: Some(before + 32 * MIB), hard_bytes: Some(before + 48 * MIB) };
    limit::set(Measure::Allocated, limits);
    assert_eq!(limit::get(Measure::Allocated), limits);
    limit::on_pressure(Some(|pressure| {
        assert!(pressure.account.is_none() && pressure.bytes > pressure.limit_bytes);
        CALLS.fetch_add(1, Ordering::Relaxed);
        CACHE.lock().expect("no panic").clear();
    }));
    for _ in 0..200_000 {
        let item = vec![1_u8; 1000];
        // Its own growth would be under the lock: made before.
        let mut cache = CACHE.lock().expect("no panic");
        if cache.len() == cache.capacity() {
            drop(cache);
            let mut larger: Vec<Vec<u8>> = Vec::with_capacity(100_000);
            cache = CACHE.lock().expect("no panic");
            if cache.capacity() < larger.capacity() {
                larger.append(&mut cache);
                *cache = larger;
            }
        }
        cache.push(item);
    }
    let calls = CALLS.load(Ordering::Relaxed);
    // 200 MB by 30 MiB.
    assert!((4..=9).contains(&calls), "{calls}");
    assert_eq!(limit::stats().refusals, 0);
    assert!(limit::stats().soft_hits >= 4);
}

fn resident() {
    // Dirty memory counts, and is given back before anything is refused.
    tallow::set_decay(None);
    give(2000, take(2000, 50_000));
    let dirty = tallow::stats();
    assert!(dirty.resident_bytes >= 90 * MIB);
    hard(Measure::Resident, 64 * MIB);
    let held = take(500_000, 80);
    assert_eq!(held.len(), 80, "40 MB fit when the dirty 100 MB are gone");
    assert!(tallow::stats().resident_bytes <= 64 * MIB);
    let more = take(500_000, 80);
    assert!(more.len() < 60, "{}", more.len());
    assert!(tallow::stats().resident_bytes <= 64 * MIB);
    give(500_000, more);
    give(500_000, held);
}

fn run_time() {
    let held = take(1000, 50_000);
    let before = allocated();
    let mut none = Vec::with_capacity(10);
    // Below what is there: nothing is lost, nothing more is had.
    hard(Measure::Allocated, MIB);
    take_into(&mut none, 100_000);
    assert!(none.is_empty());
    limit::set(Measure::Allocated, Limits { hard_bytes: Some(before + 8 * MIB), ..Limits::NONE });
    let some = take(100_000, 1000);
    assert!((70..=84).contains(&some.len()), "{}", some.len());
    limit::set(Measure::Allocated, Limits::NONE);
    let all = take(100_000, 1000);
    assert_eq!(all.len(), 1000);
    give(100_000, all);
    give(100_000, some);
    give(1000, held);
}

/// Threads that ask for blocks at the same moment do not pass the limit together.
fn at_once() {
    const THREADS: u64 = 6;
    let ready = Barrier::new(THREADS as usize);
    let (most, got) = (AtomicU64::new(0), AtomicU64::new(0));
    let before = allocated();
    for size in [20 << 20, 500_000] {
        // Room for a half of the threads' blocks, and what the threads are made of.
        hard(Measure::Allocated, before + THREADS / 2 * size as u64 + MIB);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..50 {
                        ready.wait();
                        let mut block: Vec<u8> = Vec::new();
                        let has = block.try_reserve_exact(size).is_ok();
                        got.fetch_add(has.into(), Ordering::Relaxed);
                        ready.wait();
                        most.fetch_max(allocated(), Ordering::Relaxed);
                        ready.wait();
                    }
                });
            }
        });
        limit::set(Measure::Allocated, Limits::NONE);
        let (most, got) = (most.swap(0, Ordering::Relaxed), got.swap(0, Ordering::Relaxed));
        assert!(most <= before + THREADS / 2 * size as u64 + MIB, "{size}: {most}");
        assert!(got >= 50, "{size}: {got}");
    }
}

/// Where the system has no more, what is free and waits makes room, of whatever kind.
#[cfg(target_os = "linux")]
fn address_space() {
    tallow::set_decay(None);
    give(2000, take(2000, 100_000));
    assert!(tallow::stats().dirty_bytes >= 190 * MIB);
    let mut big: Vec<u8> = Vec::new();
    let (mut small, mut large) = (Vec::with_capacity(75_000), Vec::with_capacity(160));
    let mut had = [false; 2];
    let soft = address_space_limit(None);
    // What fails ends without a limit, so that it can be told of.
    address_space_limit(Some(mapped_by_the_system() + 24 * MIB));
    had[0] = big.try_reserve_exact(150 << 20).is_ok();
    had[1] = big.try_reserve_exact(400 << 20).is_ok();
    big = Vec::new();
    // And the other way round: that block waits to be used again.
    take_into(&mut small, 2000);
    let smalls = small.len();
    give_from(&mut small, 2000);
    take_into(&mut large, 900_000);
    address_space_limit(Some(soft));
    assert_eq!(had, [true, false], "free segments make room for a huge block, as they can");
    assert_eq!(smalls, 75_000, "a huge block makes room for small ones");
    assert_eq!(large.len(), 160, "slabs make room for large blocks");
    give(900_000, large);
    drop(big);
}

#[cfg(target_os = "linux")]
fn mapped_by_the_system() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("the system tells");
    let pages: u64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    // SAFETY: asks for a number.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// The limit of address space, in bytes, as it was; sets another one.
#[cfg(target_os = "linux")]
fn address_space_limit(bytes: Option<u64>) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    let before = limit.rlim_cur;
    if let Some(bytes) = bytes {
        limit.rlim_cur = bytes;
        // SAFETY: a valid place.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    }
    before
}

/// What is free in slabs that a pass is about to empty comes before a refusal.
fn during_a_pass() {
    const SIZE: usize = 512;
    let mut held = take(SIZE, 100_000);
    assert_eq!(held.len(), 100_000);
    let sparse: Vec<_> = held.iter().copied().step_by(10).collect();
    let mut n = 0;
    held.retain(|_| {
        n += 1;
        n % 10 != 1
    });
    let free = held.len();
    let mut room = Vec::with_capacity(free);
    give(SIZE, held);
    let pass = Pass::begin(Options::default());
    let marked = pass.predicted().slabs;
    assert!(marked > 100, "{:?}", pass.predicted());
    hard(Measure::Resident, tallow::stats().resident_bytes);
    take_into(&mut room, SIZE);
    limit::set(Measure::Resident, Limits::NONE);
    assert!(room.len() >= free * 9 / 10, "{} of {free}", room.len());
    let outcome = pass.finish();
    // Slabs in use again were not released.
    assert!(outcome.slabs_released <= marked / 10, "{marked}: {outcome:?}");
    tallow::audit().expect("the books balance");
    give(SIZE, room);
    give(SIZE, sparse);
}
