//! Tallow as the global allocator of a whole process: threads, thread exit,
//! destructors, fork, purge, and the books after each of them.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::mpsc;
use std::thread;

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// The books of the whole process are looked at: one test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

/// Ends the other threads, also when an assertion fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A small generator, so that every run is the same.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn churn(seed: u64, rounds: usize) -> Vec<Vec<u8>> {
    let mut random = Random(seed | 1);
    let mut live: Vec<Vec<u8>> = Vec::new();
    for _ in 0..rounds {
        match random.below(8) {
            0..=3 => {
                let len = match random.below(100) {
                    0 => random.below(3 << 20),
                    1..=5 => random.below(100 << 10),
                    _ => random.below(2000),
                } as usize;
                let fill = random.next() as u8;
                let mut bytes = vec![fill; len];
                if let Some(last) = bytes.last_mut() {
                    *last = len as u8;
                }
                live.push(bytes);
            }
            4 if !live.is_empty() => {
                let at = random.below(live.len() as u64) as usize;
                let bytes = &mut live[at];
                let (len, fill) = (bytes.len(), bytes.first().copied().unwrap_or(0));
                if len > 1 {
                    assert_eq!(bytes[len - 1], len as u8);
                    bytes[len - 1] = fill;
                    bytes.resize(len + random.below(5000) as usize, fill);
                    let len = bytes.len();
                    bytes[len - 1] = len as u8;
                }
            }
            _ if !live.is_empty() => {
                let at = random.below(live.len() as u64) as usize;
                check(&live.swap_remove(at));
            }
            _ => {}
        }
        if live.len() > 2000 {
            live.truncate(1000);
        }
    }
    live
}

fn check(bytes: &[u8]) {
    if let [first, middle @ .., last] = bytes {
        assert_eq!(*last, bytes.len() as u8);
        assert!(middle.iter().all(|b| b == first), "contents changed");
    }
}

#[test]
fn eight_threads_hand_over_to_each_other() {
    let _alone = alone();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..8).map(|_| mpsc::channel::<Vec<Vec<u8>>>()).unzip();
    thread::scope(|scope| {
        for (i, receiver) in receivers.into_iter().enumerate() {
            let to = senders[(i + 1) % 8].clone();
            scope.spawn(move || {
                for round in 0..10 {
                    let live = churn((i * 100 + round) as u64, 3000);
                    // A neighbour that is done drops what it is sent.
                    let _ = to.send(live);
                    if let Ok(others) = receiver.try_recv() {
                        others.iter().for_each(|bytes| check(bytes));
                    }
                }
                drop(to);
                receiver.try_iter().flatten().for_each(|bytes| check(&bytes));
            });
        }
        for _ in 0..50 {
            balanced();
            tallow::purge();
        }
    });
    drop(senders);
    balanced();
    let stats = tallow::stats();
    assert!(stats.requested_bytes <= stats.allocated_bytes, "{stats}");
    assert!(stats.allocated_bytes <= stats.active_bytes, "{stats}");
    assert!(stats.active_bytes <= stats.resident_bytes, "{stats}");
    assert!(stats.resident_bytes <= stats.mapped_bytes, "{stats}");
}

#[test]
fn memory_of_ended_threads_is_used_again() {
    let _alone = alone();
    let round = || {
        for seed in 0..50 {
            thread::spawn(move || drop(churn(seed, 500))).join().unwrap();
        }
        tallow::purge();
        tallow::stats()
    };
    round();
    let before = round();
    for _ in 0..4 {
        round();
    }
    let after = tallow::stats();
    balanced();
    assert!(
        after.resident_bytes <= before.resident_bytes + (2 << 20),
        "threads leave memory behind: {} then {}",
        before.resident_bytes,
        after.resident_bytes
    );
    assert!(after.metadata_bytes <= before.metadata_bytes + (256 << 10));
}

/// Allocates in its destructor, which may run after the cache is gone.
struct Late(Option<Box<[u64; 40]>>);
impl Drop for Late {
    fn drop(&mut self) {
        let mut map = HashMap::new();
        for i in 0..100 {
            map.insert(i, vec![i as u8; 100 + i]);
        }
        assert_eq!(map[&50], [50; 150]);
        self.0.take();
    }
}

thread_local! {
    static LATE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) };
}

#[test]
fn destructors_of_thread_locals_may_allocate() {
    let _alone = alone();
    for _ in 0..20 {
        thread::spawn(|| LATE.with(|late| late.borrow_mut().0 = Some(Box::new([7; 40]))))
            .join()
            .unwrap();
    }
    balanced();
}

#[test]
fn every_alignment_and_size_is_served() {
    let _alone = alone();
    for lg_align in 0..=23 {
        for size in [
            1,
            7,
            8,
            9,
            100,
            1000,
            4096,
            4097,
            32 << 10,
            (32 << 10) + 1,
            1 << 20,
            (1 << 20) + 1,
            5 << 20,
        ] {
            let layout = Layout::from_size_align(size, 1 << lg_align).unwrap();
            // SAFETY: the layout has a size; what is written lies in the block.
            unsafe {
                let block = ALLOC.alloc(layout);
                assert!(!block.is_null());
                assert_eq!(block.addr() % layout.align(), 0);
                block.write_bytes(0xAB, size);
                let grown = ALLOC.realloc(block, layout, size * 2);
                assert_eq!(grown.addr() % layout.align(), 0);
                assert_eq!(*grown.add(size - 1), 0xAB);
                let bigger = Layout::from_size_align(size * 2, layout.align()).unwrap();
                ALLOC.dealloc(grown, bigger);
                let zero = ALLOC.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(zero, size).iter().all(|&b| b == 0));
                ALLOC.dealloc(zero, layout);
            }
        }
    }
    balanced();
}

#[test]
fn impossible_layouts_return_null() {
    let _alone = alone();
    for (size, align) in [(isize::MAX as usize - 8, 1), (1 << 60, 4096), (1 << 47, 1 << 46)] {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the layout has a size.
        assert!(unsafe { ALLOC.alloc(layout) }.is_null());
        let mut list: Vec<u8> = Vec::new();
        assert!(list.try_reserve_exact(size).is_err());
    }
    balanced();
}

#[test]
fn a_vector_grows_by_remapping() {
    let _alone = alone();
    let before = tallow::stats().os_calls.remap;
    let mut list = Vec::new();
    for i in 0..8 << 20 {
        list.push(i as u32);
    }
    assert!(list.iter().enumerate().all(|(i, &v)| v == i as u32));
    if cfg!(all(target_os = "linux", not(tallow_portable))) {
        assert!(tallow::stats().os_calls.remap > before);
    }
    list.truncate(1000);
    list.shrink_to_fit();
    assert_eq!(list[999], 999);
    drop(list);
    balanced();
}

#[test]
fn purge_gives_memory_back() {
    let _alone = alone();
    let blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4000]).collect();
    let full = tallow::process().rss_bytes;
    drop(blocks);
    tallow::purge();
    let empty = tallow::process().rss_bytes;
    assert!(full - empty > 70 << 20, "{full} -> {empty}");
    balanced();
}

#[test]
fn holes_between_survivors_are_given_back_and_come_back() {
    let _alone = alone();
    let fill = |i: usize| vec![i as u8; 600 + i * 7 % 3000];
    let mut list: Vec<Option<Vec<u8>>> = (0..40_000).map(|i| Some(fill(i))).collect();
    tallow::purge();
    let full = tallow::process().rss_bytes;
    for (i, item) in list.iter_mut().enumerate() {
        if i % 16 != 5 {
            *item = None;
        }
    }
    let before = tallow::stats();
    tallow::purge();
    let (after, low) = (tallow::stats(), tallow::process().rss_bytes);
    balanced();
    // Few pages of 64 KiB have no survivor.
    let holes = if cfg!(tallow_page_64k) { 1 << 16 } else { 20 << 20 };
    assert!(after.punched_bytes >= before.punched_bytes + holes, "{after}");
    assert!(full - low > holes, "{full} -> {low}");
    assert!(after.allocated_bytes <= after.active_bytes);
    for (i, item) in list.iter_mut().enumerate() {
        match item {
            Some(bytes) => assert_eq!(*bytes, fill(i)),
            None => *item = Some(fill(i)),
        }
    }
    balanced();
    let again = tallow::stats();
    let refaults = if cfg!(tallow_page_64k) { 1 } else { 1000 };
    assert!(again.pages_refaulted > after.pages_refaulted + refaults, "{again}");
    assert!(again.punched_bytes < after.punched_bytes);
    assert!(list.iter().enumerate().all(|(i, item)| *item == Some(fill(i))));
    drop(list);
    tallow::purge();
    balanced();
    let end = tallow::stats();
    assert!(end.punched_bytes <= before.punched_bytes + (1 << 20), "{end}");
}

#[test]
fn freed_memory_is_used_again_by_other_classes() {
    let _alone = alone();
    tallow::purge();
    let before = tallow::stats().resident_bytes;
    for len in [100, 3000, 20_000, 300_000] {
        let blocks: Vec<Vec<u8>> = (0..(32 << 20) / len).map(|_| vec![1; len]).collect();
        drop(blocks);
    }
    let after = tallow::stats().resident_bytes;
    // Slabs are rounded up to whole OS pages.
    let limit = if cfg!(tallow_page_64k) { 96 << 20 } else { 48 << 20 };
    assert!(after < before + limit, "each class took memory of its own: {before} -> {after}");
    balanced();
}

#[test]
fn a_purge_reaches_the_caches_of_sleeping_threads() {
    let _alone = alone();
    let (to_thread, go) = mpsc::channel::<()>();
    let (done, from_thread) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        while go.recv().is_ok() {
            let blocks: Vec<Box<[u8; 777]>> = (0..2000).map(|_| Box::new([1; 777])).collect();
            assert!(blocks.iter().all(|block| **block == [1; 777]));
            drop(blocks);
            // So few stay in the cache.
            drop(black_box((0..10).map(|_| Box::new([1u8; 777])).collect::<Vec<_>>()));
            done.send(()).unwrap();
        }
    });
    let class = tallow::stats().classes.iter().position(|c| c.region_bytes >= 777).unwrap();
    let cached = || tallow::stats().classes[class].regions_cached;
    tallow::purge();
    // Threads of the test runner may sleep on one each, and others start meanwhile.
    let before = cached() + 2;
    for _ in 0..5 {
        to_thread.send(()).unwrap();
        from_thread.recv().unwrap();
        assert!(cached() > before + 3, "{} {before}", cached());
        tallow::purge();
        if cfg!(all(target_os = "linux", not(tallow_portable))) {
            assert!(cached() <= before + 1, "the sleeping thread keeps its cache");
        }
        balanced();
        tallow::purge();
        balanced();
    }
    drop(to_thread);
    worker.join().unwrap();
    tallow::purge();
    assert!(cached() <= before);
    balanced();
}

#[test]
fn purges_under_load_neither_lose_nor_double_a_block() {
    let _alone = alone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for id in 0..3u64 {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random(id * 77 + 1);
                let mut live: Vec<Box<[u64; 6]>> = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Short runs of one direction, so that recalls meet both.
                    for _ in 0..random.below(40) {
                        live.push(Box::new([id << 32 | live.len() as u64; 6]));
                    }
                    for _ in 0..random.below(40).min(live.len() as u64) {
                        let block = live.pop().unwrap();
                        assert_eq!(
                            *block,
                            [id << 32 | live.len() as u64; 6],
                            "a block has two owners"
                        );
                    }
                }
            });
        }
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut round = 0;
        while std::time::Instant::now() < until {
            tallow::purge();
            round += 1;
            if round % 64 == 0 {
                balanced();
            }
        }
    });
    balanced();
}

#[test]
#[cfg(target_os = "linux")]
fn forked_children_have_a_whole_heap() {
    let _alone = alone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                let mut seed = seed;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(churn(seed, 300));
                    seed += 4;
                }
            });
        }
        for _ in 0..30 {
            // SAFETY: the child only allocates, checks, and ends by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let ok = tallow::audit().map_err(|error| eprintln!("{error}")).is_ok()
                    && std::panic::catch_unwind(|| drop(churn(99, 500))).is_ok()
                    && {
                        tallow::purge();
                        tallow::audit().map_err(|error| eprintln!("{error}")).is_ok()
                    };
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if ok { 0 } else { 1 }) };
            }
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: `child` is our child, `status` a valid place.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "the child's heap was not whole");
        }
    });
    balanced();
}

#[test]
fn stats_print_as_a_table() {
    let _alone = alone();
    let map: BTreeMap<u32, String> = (0..1000).map(|i| (i, format!("value {i}"))).collect();
    let text = format!("{}\n{}", tallow::stats(), tallow::process());
    for word in ["requested", "allocated", "active", "resident", "mapped", "region", "rss"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(map.len(), 1000);
}

/// Hardened, they go at once.
#[cfg(not(feature = "hardened"))]
#[test]
fn freed_huge_blocks_wait_for_the_next_ones() {
    const MIB: usize = 1 << 20;
    let _alone = alone();
    tallow::purge();
    let before = tallow::stats();
    let reserved = || tallow::stats().os_calls.reserve;
    let dirty = || tallow::stats().dirty_bytes as i64 - before.dirty_bytes as i64;
    drop(vec![1u8; 6 * MIB]);
    assert!(dirty() >= 6 * MIB as i64);
    assert_eq!(tallow::stats().huge_count, before.huge_count);
    balanced();
    // Another size fits into it, and what is left serves its growth, in place.
    let calls = reserved();
    let mut block = vec![2u8; 4 * MIB];
    let start = block.as_ptr();
    assert_eq!(reserved(), calls);
    block.reserve_exact(MIB);
    assert_eq!(block.as_ptr(), start);
    assert!(block.iter().all(|&byte| byte == 2));
    balanced();
    // Zero blocks come from the system, which has them.
    let zero = vec![0u8; 2 * MIB];
    assert!(zero.iter().all(|&byte| byte == 0));
    if cfg!(not(tallow_portable)) {
        assert!(reserved() > calls);
    }
    drop((block, zero));
    balanced();
    // Too large to wait.
    let waiting = dirty();
    drop(vec![3u8; 40 * MIB]);
    // Less where the decay clock ticked meanwhile.
    assert!(dirty() < waiting + MIB as i64);
    assert!(tallow::purge() >= 6 * MIB as u64);
    assert!(dirty() <= 0);
    balanced();
    tallow::set_decay(Some(std::time::Duration::ZERO));
    drop(vec![1u8; 6 * MIB]);
    assert!(dirty() <= 0);
    tallow::set_decay(Some(std::time::Duration::from_secs(10)));
    balanced();
}

/// Hardened, a guard follows each. Sizes are chosen so that none is a multiple of a huge
/// page's.
#[cfg(not(feature = "hardened"))]
#[test]
fn huge_blocks_begin_where_huge_pages_do_and_grow_into_their_rest() {
    const MIB: usize = 1 << 20;
    let _alone = alone();
    tallow::purge();
    let before = tallow::stats();
    let more = |now: u64, before: u64| usize::try_from(now - before).expect("grown");
    let aligned = |list: &Vec<u8>| list.as_ptr().addr().is_multiple_of(2 * MIB);
    let mut list = vec![1u8; 4 * MIB + 100_000];
    let (start, now) = (list.as_ptr(), tallow::stats());
    assert!(aligned(&list));
    // The rest is address space and nothing else.
    assert!(more(now.active_bytes, before.active_bytes) < 5 * MIB);
    assert!(more(now.resident_bytes, before.resident_bytes) < 5 * MIB);
    assert!(more(now.mapped_bytes, before.mapped_bytes) >= 6 * MIB);
    balanced();
    list.reserve_exact(6 * MIB - list.len());
    assert_eq!((list.as_ptr(), list.capacity()), (start, 6 * MIB));
    balanced();
    // What lies in the way has it move, in whole huge pages where the system moves any.
    let mut others = Vec::new();
    for to in [9, 14, 22, 34, 52] {
        list.resize(list.capacity(), 1);
        others.push(vec![2u8; 4 * MIB + 1]);
        list.reserve_exact(to * MIB + 5000 - list.len());
        assert!(aligned(&list));
        assert!(list.iter().all(|&byte| byte == 1));
        balanced();
    }
    assert!(others.iter().flatten().all(|&byte| byte == 2));
    // Made smaller, it has no rest.
    list.truncate(5 * MIB);
    list.shrink_to_fit();
    balanced();
    // Five blocks of hardly more than 4 MiB, mapped with 6: what nobody touched is not dirty.
    let dirty = tallow::stats().dirty_bytes;
    drop(others);
    assert!(more(tallow::stats().dirty_bytes, dirty) < 5 * (5 * MIB));
    balanced();
    drop(list);
    assert!(tallow::purge() >= 20 * MIB as u64);
    let after = tallow::stats();
    assert_eq!((after.huge_count, after.huge_bytes), (before.huge_count, before.huge_bytes));
    assert!(after.mapped_bytes < before.mapped_bytes + 5 * MIB as u64);
    balanced();
}

#[test]
fn huge_pages_are_asked_for_and_all_memory_goes_back() {
    let _alone = alone();
    tallow::purge();
    let (before, rss) = (tallow::stats(), tallow::process().rss_bytes);
    let huge = vec![1u8; 40 << 20];
    if cfg!(all(target_os = "linux", not(tallow_portable))) {
        assert!(tallow::stats().os_calls.advise > before.os_calls.advise);
    }
    let blocks: Vec<Box<[u8; 1000]>> = (0..100_000).map(|_| Box::new([1; 1000])).collect();
    balanced();
    let kept: Vec<_> = blocks.into_iter().step_by(10).collect();
    tallow::purge();
    balanced();
    assert!(kept.iter().all(|block| block.iter().all(|&byte| byte == 1)));
    assert!(huge.iter().all(|&byte| byte == 1));
    drop((kept, huge));
    tallow::purge();
    balanced();
    let after = tallow::process().rss_bytes;
    assert!(after < rss + (8 << 20), "{rss} -> {after}");
}
