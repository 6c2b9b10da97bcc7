//! An idle process gives its memory back by itself.

use std::time::{Duration, Instant};
use tallow::janitor;

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// The settings are the process's: one test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const DECAY: Duration = Duration::from_millis(1000);

/// Whatever is waited for has come by then, however slow and busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn spike() {
    let blocks: Vec<Vec<u8>> = (0..40_000).map(|i| vec![i as u8; 500 + i % 3000]).collect();
    assert_eq!(blocks[7][7], 7);
}

fn rss() -> u64 {
    tallow::process().rss_bytes
}

#[test]
fn an_idle_process_shrinks() {
    let _alone = alone();
    // A service with some data. (One region of a class that stays in a sleeping
    // thread's cache may pin a slab: up to half a megabyte in all.)
    let data: Vec<Vec<u8>> = (0..20_000).map(|i| vec![i as u8; 1000 + i % 1000]).collect();
    spike();
    tallow::purge();
    let quiesced = rss();
    tallow::set_decay(Some(DECAY));
    janitor::start().unwrap();
    spike();
    let high = rss();
    assert!(high > quiesced + (50 << 20), "{quiesced} {high}");
    // No allocation from here: `process` makes none.
    let since = Instant::now();
    while rss() > quiesced + quiesced / 20 {
        assert!(
            since.elapsed() < PATIENCE,
            "still {} of {high}, quiesced {quiesced}\n{}",
            rss(),
            tallow::stats()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("within 5 % of {quiesced} bytes after {:?}, decay {DECAY:?}", since.elapsed());
    janitor::stop();
    assert!(!janitor::is_running());
    assert_eq!(data[77][77], 77);
    tallow::audit().unwrap();
}

#[test]
fn without_a_janitor_slow_paths_decay() {
    let _alone = alone();
    tallow::set_decay(Some(Duration::from_millis(300)));
    spike();
    let high = tallow::stats().dirty_bytes;
    assert!(high > 50 << 20);
    let since = Instant::now();
    while tallow::stats().dirty_bytes >= high / 20 {
        assert!(since.elapsed() < PATIENCE, "{high} -> {}", tallow::stats().dirty_bytes);
        drop(std::hint::black_box(vec![1u8; 50_000]));
    }
}

#[test]
fn zero_is_at_once_and_none_is_never() {
    let _alone = alone();
    tallow::set_decay(Some(Duration::ZERO));
    spike();
    tallow::idle();
    assert_eq!(tallow::stats().dirty_bytes, 0);
    tallow::set_decay(None);
    spike();
    let high = tallow::stats().dirty_bytes;
    janitor::start().unwrap();
    janitor::start().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    let low = tallow::stats().dirty_bytes;
    janitor::stop();
    janitor::stop();
    assert!(low + (4 << 20) > high, "{high} -> {low}");
    tallow::audit().unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_forked_child_starts_its_own() {
    let _alone = alone();
    janitor::start().unwrap();
    // SAFETY: the child starts a thread, ends it, and exits by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = !janitor::is_running() && janitor::start().is_ok() && janitor::is_running() && {
            janitor::stop();
            tallow::audit().is_ok()
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `child` is our child, `status` a valid place.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    janitor::stop();
    assert_eq!(status, 0);
}

/// A signal that is meant for the program is delivered to a thread of the program's, also
/// when that blocks it for `sigwait` after the janitor has started.
#[cfg(target_os = "linux")]
#[test]
fn signals_are_the_programs() {
    let _alone = alone();
    janitor::stop();
    let blocked_here = blocked("self").expect("this thread has a status");
    janitor::start().unwrap();
    assert_eq!(blocked("self"), Some(blocked_here), "the caller's own mask");
    // A thread tells its name itself, when it has started.
    let since = Instant::now();
    let mut janitors = masks_of_janitors();
    while janitors.is_empty() && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
        janitors = masks_of_janitors();
    }
    let [mask] = janitors[..] else { panic!("not one janitor: {janitors:?}") };
    let is_blocked = |signal: i32| mask >> (signal - 1) & 1 == 1;
    assert!(
        [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD].into_iter().all(is_blocked)
    );
    assert!(![libc::SIGSEGV, libc::SIGBUS].into_iter().any(is_blocked));
    janitor::stop();
}

/// What the threads of that name have blocked.
#[cfg(target_os = "linux")]
fn masks_of_janitors() -> Vec<u64> {
    let threads = std::fs::read_dir("/proc/self/task").expect("the threads");
    threads
        .map(|thread| thread.expect("a thread").file_name().into_string().expect("a number"))
        .filter(|thread| {
            let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
            name.is_ok_and(|name| name.trim() == "tallow janitor")
        })
        .filter_map(|thread| blocked(&thread))
        .collect()
}

/// The signals that a thread has blocked: bit 0 is signal 1.
#[cfg(target_os = "linux")]
fn blocked(thread: &str) -> Option<u64> {
    let folder = if thread == "self" { "thread-self" } else { &format!("self/task/{thread}") };
    let status = std::fs::read_to_string(format!("/proc/{folder}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
