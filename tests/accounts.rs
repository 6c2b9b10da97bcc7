//! Accounts: their books against a recount, over threads, resizes, failures and
//! thread ends; their limits; their blocks under defragmentation.

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box as BoxIn;
use allocator_api2::vec::Vec as VecIn;
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use tallow::defrag::{Options, Pass, Relocate};
use tallow::limit::{Limits, Pressure};
use tallow::{Account, In, Purpose};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

tallow::account!(Books = "books");
tallow::account!(Handed = "handed");
tallow::account!(Limited = "limited");
tallow::account!(Soft = "soft");
tallow::account!(Moved = "moved");
tallow::account!(Charged = "charged");
tallow::account!(Ended = "ended");
tallow::account!(Watched = "watched");

type Bytes<P> = VecIn<u8, In<P>>;

fn bytes<P: Purpose>(len: usize) -> Bytes<P> {
    let mut new = VecIn::with_capacity_in(len, In::NEW);
    new.resize(len, len as u8);
    new
}

/// Callbacks and limits are of the process: one such test at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn books_agree_with_a_recount() {
    let mut live: Vec<Bytes<Books>> = Vec::new();
    let (mut seed, mut asked, mut allocations) = (7_u64, 0, 0);
    for round in 0..60_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (choice, at) = ((seed >> 33) % 10, (seed >> 40) as usize);
        match choice {
            0..=4 => {
                let len = 1 + at % if round % 500 == 0 { 3 << 20 } else { 3000 };
                live.push(bytes(len));
                asked += len as u64;
                allocations += 1;
            }
            5..=7 if !live.is_empty() => {
                let at = at % live.len();
                live.swap_remove(at);
            }
            8 if !live.is_empty() => {
                let at = at % live.len();
                let (block, more) = (&mut live[at], seed as usize % 900 + 1);
                let (before, len) = (block.capacity(), block.len());
                block.reserve_exact(before + more - len);
                asked += (block.capacity() - before) as u64;
            }
            9 if !live.is_empty() => {
                let at = at % live.len();
                let len = live[at].len() / 2 + 1;
                live[at].truncate(len);
                live[at].shrink_to_fit();
            }
            _ => {}
        }
        if round % 1000 == 0 {
            let stats = Books::account().stats();
            let expected: usize = live.iter().map(VecIn::capacity).sum();
            assert_eq!(stats.live_bytes, expected as u64, "round {round}");
            assert_eq!(stats.live_count, live.len() as u64, "round {round}");
            assert_eq!(stats.asked_bytes, asked, "round {round}");
            assert_eq!(stats.allocations, allocations, "round {round}");
            assert!(stats.peak_bytes >= stats.live_bytes);
        }
    }
    drop(live);
    let stats = Books::account().stats();
    assert_eq!((stats.live_bytes, stats.live_count), (0, 0));
    assert_eq!(stats.frees, stats.allocations);
    assert!(tallow::accounts().any(|account| account.name == "books"));
    assert!(tallow::stats().accounts.iter().any(|account| account.name == "books"));
}

#[test]
fn what_one_thread_takes_another_gives_back() {
    const THREADS: usize = 4;
    const EACH: usize = 20_000;
    let (to_main, from_threads) = mpsc::channel::<Vec<Bytes<Handed>>>();
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let to_main = to_main.clone();
            thread::spawn(move || {
                for i in 0..EACH / 100 {
                    let some = (0..100).map(|n| bytes(1 + (t + i * n) % 500)).collect();
                    to_main.send(some).expect("main listens");
                }
            })
        })
        .collect();
    drop(to_main);
    let mut held = Vec::new();
    for (n, some) in from_threads.into_iter().enumerate() {
        // Half at once, half after the threads have ended.
        if n % 2 == 0 {
            held.push(some);
        }
    }
    threads.into_iter().for_each(|t| t.join().expect("no panic"));
    let stats = Handed::account().stats();
    let expected: usize = held.iter().flatten().map(VecIn::capacity).sum();
    assert_eq!(stats.live_bytes, expected as u64);
    assert_eq!(stats.live_count, held.iter().flatten().count() as u64);
    assert_eq!(stats.allocations, (THREADS * EACH) as u64);
    drop(held);
    assert_eq!(Handed::account().live_bytes(), 0);
}

/// Whoever looks while a thread enters what is fresh may find too much, by what is
/// fresh, but not too little.
#[test]
fn a_look_in_between_never_finds_too_little() {
    const KEPT: usize = 1 << 20;
    let (account, done) = (Watched::account(), AtomicU64::new(0));
    account.charge(KEPT);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4_000_000 {
                account.charge(3000);
                account.credit(3000);
            }
            done.store(1, Ordering::Relaxed);
        });
        let mut least = u64::MAX;
        while done.load(Ordering::Relaxed) == 0 {
            least = least.min(account.live_bytes());
        }
        assert!(least >= KEPT as u64, "{least} of {KEPT} bytes");
    });
    account.credit(KEPT);
    assert_eq!(account.stats().live_bytes, 0);
}

#[test]
fn threads_that_end_take_nothing_with_them() {
    for round in 1..=300_u64 {
        let kept = thread::spawn(|| {
            let kept: Bytes<Ended> = bytes(40_000);
            drop(bytes::<Ended>(100));
            kept
        });
        let kept = kept.join().expect("no panic");
        let stats = Ended::account().stats();
        assert_eq!((stats.live_bytes, stats.live_count), (40_000, 1));
        assert_eq!((stats.allocations, stats.frees), (2 * round, 2 * round - 1));
        drop(kept);
    }
    assert_eq!(Ended::account().live_bytes(), 0);
}

#[test]
fn a_hard_limit_is_where_allocation_fails() {
    let _one = one_at_a_time();
    let account = Limited::account();
    account.set_limits(Limits { hard_bytes: Some(1 << 20), ..Limits::NONE });
    let mut held = Vec::new();
    loop {
        let mut more: Bytes<Limited> = VecIn::new_in(In::NEW);
        if more.try_reserve_exact(1000).is_err() {
            break;
        }
        held.push(more);
        assert!(account.live_bytes() <= 1 << 20);
    }
    assert_eq!(held.len(), (1 << 20) / 1000, "one thread: exact");
    assert!(account.stats().refusals >= 1);
    assert_eq!(account.stats().live_count, held.len() as u64, "refusals leave no trace");
    // What is given back can be had again, and a block may not grow past it.
    held.truncate(100);
    let mut grows: Bytes<Limited> = bytes(500_000);
    assert!(grows.try_reserve_exact(1_500_000).is_err());
    assert_eq!(grows.len(), 500_000);
    assert!(grows.iter().all(|&byte| byte == 500_000_usize as u8));
    account.set_limits(Limits::NONE);
    assert!(grows.try_reserve_exact(1_500_000).is_ok());
    drop((held, grows));
    assert_eq!(account.live_bytes(), 0);
}

#[test]
fn several_threads_pass_a_hard_limit_by_little() {
    let _one = one_at_a_time();
    static SHARED: Account = Account::new("shared limit");
    const LIMIT: u64 = 4 << 20;
    SHARED.set_limits(Limits { hard_bytes: Some(LIMIT), ..Limits::NONE });
    // Entered after each allocation and before each free, so never more than what is live:
    // the account adds up thread by thread, and finds too much while they go on.
    let (live, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let sum = |held: &[VecIn<u8, &'static Account>]| -> u64 {
        held.iter().map(|it| it.capacity() as u64).sum()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut held: Vec<VecIn<u8, &'static Account>> = Vec::new();
                for round in 0..40_000 {
                    let mut more = VecIn::new_in(&SHARED);
                    if more.try_reserve_exact(200 + round % 300).is_ok() {
                        let bytes = more.capacity() as u64;
                        let now = live.fetch_add(bytes, Ordering::Relaxed) + bytes;
                        most.fetch_max(now, Ordering::Relaxed);
                        held.push(more);
                    } else {
                        let kept = held.len() / 2;
                        live.fetch_sub(sum(&held[kept..]), Ordering::Relaxed);
                        held.truncate(kept);
                    }
                }
                live.fetch_sub(sum(&held), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(live.into_inner(), 0);
    let most = most.into_inner();
    assert!(most > LIMIT / 2, "{most}");
    assert!(most <= LIMIT + 4 * (64 << 10), "{most}");
    assert!(SHARED.stats().refusals > 0);
    assert_eq!(SHARED.live_bytes(), 0);
}

/// What is more than a thread may keep to itself is looked at by one thread at a time.
#[test]
fn blocks_asked_for_at_once_stay_within_a_hard_limit() {
    let _one = one_at_a_time();
    static AT_ONCE: Account = Account::new("at once");
    const THREADS: usize = 6;
    const ROUNDS: usize = 2000;
    const BLOCK: usize = 300_000;
    // Far from the limit by what threads have told, and near it.
    for fit in [40, THREADS / 2] {
        let limit = (fit * BLOCK) as u64;
        AT_ONCE.set_limits(Limits { hard_bytes: Some(limit), ..Limits::NONE });
        let rest: VecIn<u8, _> = VecIn::with_capacity_in((fit - 3) * BLOCK, &AT_ONCE);
        let (ready, got) = (Barrier::new(THREADS), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        ready.wait();
                        let mut block: VecIn<u8, _> = VecIn::new_in(&AT_ONCE);
                        let has = block.try_reserve_exact(BLOCK).is_ok();
                        got.fetch_add(has.into(), Ordering::Relaxed);
                        ready.wait();
                        let live = AT_ONCE.live_bytes();
                        assert!(live <= limit, "{live} of {limit}");
                        ready.wait();
                    }
                });
            }
        });
        drop(rest);
        // Nor is one refused because another's block was counted twice on its way in.
        assert_eq!(got.into_inner(), (3 * ROUNDS) as u64, "of three that fit in each round");
    }
    assert_eq!(AT_ONCE.live_bytes(), 0);
}

#[test]
fn a_soft_limit_calls_back_and_what_that_frees_counts() {
    static CACHE: Mutex<Vec<Bytes<Soft>>> = Mutex::new(Vec::new());
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn make_room(pressure: &Pressure) {
        assert_eq!(pressure.account, Some("soft"));
        assert!(pressure.bytes > pressure.limit_bytes);
        CALLS.fetch_add(1, Ordering::Relaxed);
        CACHE.lock().expect("no panic").clear();
    }
    let _one = one_at_a_time();
    let account = Soft::account();
    account.set_limits(Limits { soft_bytes: Some(2 << 20), hard_bytes: Some(3 << 20) });
    tallow::limit::on_pressure(Some(make_room));
    for _ in 0..10_000 {
        let more = bytes(1000);
        CACHE.lock().expect("no panic").push(more);
    }
    tallow::limit::on_pressure(None);
    let calls = CALLS.load(Ordering::Relaxed);
    // 10 MB by 2 MiB.
    assert!((4..=6).contains(&calls), "{calls} calls");
    assert_eq!(account.stats().refusals, 0);
    assert_eq!(account.stats().soft_hits, calls);
    account.set_limits(Limits::NONE);
    CACHE.lock().expect("no panic").clear();
    assert_eq!(account.live_bytes(), 0);
}

/// A program may answer to pressure by other limits.
#[test]
fn limits_that_the_callback_sets_stand() {
    static RAISED: Account = Account::new("raised");
    static LIFTED: Account = Account::new("lifted");
    fn set_anew(pressure: &Pressure) {
        match pressure.account {
            Some("raised") => {
                RAISED.set_limits(Limits { hard_bytes: Some(4 << 20), ..Limits::NONE })
            }
            Some("lifted") => LIFTED.set_limits(Limits::NONE),
            other => panic!("{other:?}"),
        }
    }
    let _one = one_at_a_time();
    tallow::limit::on_pressure(Some(set_anew));
    RAISED.set_limits(Limits { hard_bytes: Some(1 << 20), ..Limits::NONE });
    let had = VecIn::<u8, _>::with_capacity_in(3 << 20, &RAISED);
    assert_eq!((RAISED.live_bytes(), RAISED.stats().refusals), (3 << 20, 0));
    LIFTED.set_limits(Limits { soft_bytes: Some(1 << 20), hard_bytes: Some(2 << 20) });
    let blocks = [(); 8].map(|()| VecIn::<u8, _>::with_capacity_in(1 << 20, &LIFTED));
    assert_eq!((LIFTED.stats().soft_hits, LIFTED.stats().refusals), (1, 0));
    assert_eq!(LIFTED.limits(), Limits::NONE);
    tallow::limit::on_pressure(None);
    drop((had, blocks));
}

#[test]
fn blocks_in_accounts_move_and_stay_in_their_books() {
    let mut list: Vec<Option<BoxIn<[u8], In<Moved>>>> =
        (0..40_000).map(|i| Some(bytes::<Moved>(100 + i % 3).into_boxed_slice())).collect();
    let mut vectors: Vec<VecIn<u64, In<Moved>>> = (0..20_000)
        .map(|i| {
            let mut v = VecIn::with_capacity_in(20, In::NEW);
            v.extend_from_slice(&[i; 9]);
            v
        })
        .collect();
    for (i, item) in list.iter_mut().enumerate() {
        if i % 8 != 0 {
            *item = None;
        }
    }
    let mut n = 0;
    vectors.retain(|_| {
        n += 1;
        n % 8 == 0
    });
    let before = Moved::account().stats();
    let mut pass = Pass::begin(Options::default());
    let mut mover = pass.step(Duration::from_secs(10));
    list.iter_mut().flatten().for_each(|item| item.relocate(&mut mover));
    vectors.relocate(&mut mover);
    drop(mover);
    let outcome = pass.finish();
    assert!(outcome.hits > 1000, "{outcome:?}");
    for (i, item) in list.iter().enumerate() {
        if let Some(item) = item {
            assert!(item.len() == 100 + i % 3 && item.iter().all(|&b| b == item.len() as u8));
        }
    }
    assert!(vectors.iter().enumerate().all(|(i, v)| v[..] == [i as u64 * 8 + 7; 9]));
    assert_eq!(Moved::account().stats(), before);
    drop((list, vectors));
    assert_eq!(Moved::account().live_bytes(), 0);
    tallow::audit().expect("the books balance");
}

#[test]
fn foreign_memory_can_be_charged() {
    let account = Charged::account();
    account.charge(100_000);
    account.charge(5);
    assert_eq!(account.stats().live_bytes, 100_005);
    account.credit(100_000);
    account.credit(5);
    assert_eq!((account.live_bytes(), account.stats().live_count), (0, 0));
    assert_eq!(account.stats().peak_bytes, 100_005);
}

#[test]
fn accounts_beyond_the_tallies_are_exact_too() {
    let accounts: Vec<&'static Account> =
        (0..100).map(|_| &*Box::leak(Box::new(Account::new("one of many")))).collect();
    let layout = Layout::from_size_align(48, 8).expect("a layout");
    for (i, account) in accounts.iter().enumerate() {
        let blocks: Vec<_> =
            (0..=i).map(|_| account.allocate(layout).expect("memory").cast::<u8>()).collect();
        assert_eq!(account.live_bytes(), 48 * (i as u64 + 1));
        // SAFETY: allocated above, in this account.
        blocks.iter().for_each(|&block| unsafe { account.deallocate(block, layout) });
        assert_eq!((account.live_bytes(), account.stats().frees), (0, i as u64 + 1));
    }
    assert!(tallow::accounts().filter(|a| a.name == "one of many").count() == 100);
}

#[test]
fn nothing_and_failure_leave_no_trace() {
    static EMPTY: Account = Account::new("empty");
    let nothing: VecIn<u8, &'static Account> = VecIn::new_in(&EMPTY);
    drop(nothing);
    let huge = Layout::from_size_align(isize::MAX as usize - 4096, 8).expect("a layout");
    assert!((&EMPTY).allocate(huge).is_err());
    // A tally that has been used takes note of little, and of this nothing at all: more than
    // an address space, whose low bits alone are little.
    for _ in 0..3 {
        drop(VecIn::<u8, _>::with_capacity_in(10, &EMPTY));
    }
    for bytes in [(1 << 48) + 10, (1 << 62) + 10] {
        let absurd = Layout::from_size_align(bytes, 8).expect("a layout");
        assert!((&EMPTY).allocate(absurd).is_err());
        EMPTY.charge(bytes);
        assert_eq!(EMPTY.live_bytes(), bytes as u64);
        EMPTY.credit(bytes);
    }
    let stats = EMPTY.stats();
    assert_eq!((stats.live_bytes, stats.live_count, stats.allocations), (0, 0, 5));
}
