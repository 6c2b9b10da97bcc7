//! Signals at all moments, which interrupt what the allocator asks of the system.

use super::work::{Block, balanced, churn};
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_int;
use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};

static SIGNALS: AtomicU64 = AtomicU64::new(0);

fn errno() -> *mut c_int {
    // SAFETY: the place is valid as long as the thread.
    unsafe { libc::__errno_location() }
}

extern "C" fn nothing(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// As handlers should not: what it interrupts finds another error there.
extern "C" fn touch_errno(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { *errno() = libc::EINTR };
}

/// Has `handler` called every 40 microseconds, without `SA_RESTART`.
fn every_40_us(handler: extern "C" fn(c_int)) {
    // SAFETY: zero is a valid value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // SAFETY: valid places.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) }, 0);
    let time = libc::timeval { tv_sec: 0, tv_usec: 40 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) }, 0);
}

/// All operations, on three threads, while signals come.
fn operations_under(handler: extern "C" fn(c_int)) {
    every_40_us(handler);
    thread::scope(|scope| {
        for i in 0..3 {
            scope.spawn(move || {
                for round in 0..6 {
                    let mut held = Vec::with_capacity(3000);
                    assert_eq!(churn(i * 100 + round, 15_000, &mut held), 0, "memory was refused");
                    held.iter().for_each(Block::check);
                    tallow::purge();
                }
            });
        }
        for _ in 0..20 {
            balanced();
            assert!(tallow::process().rss_bytes > 0, "a file could not be read");
            // Not asleep: a sleep that is interrupted so often may never end.
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2) {
                thread::yield_now();
            }
        }
    });
    balanced();
    let mut heaps = Vec::new();
    for _ in 0..40 {
        // Enough to be mapped, purged and given back.
        heaps.push(Block::new(9 << 20, 8, true, 3).expect("memory"));
        tallow::purge();
        heaps.truncate(3);
    }
    assert!(SIGNALS.load(Ordering::Relaxed) > 500, "hardly any signals");
    println!("{} signals", SIGNALS.load(Ordering::Relaxed));
}

pub fn that_do_nothing() {
    operations_under(nothing);
    // Freeing leaves the error of the call before it alone.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(200) {
        for size in [100, 50_000, 500_000, 5 << 20] {
            let block = Block::new(size, 8, false, 4).expect("memory");
            // SAFETY: the place is valid as long as the thread.
            unsafe { *errno() = 77 };
            drop(block);
            tallow::purge();
            // A call that fails changes it no more than one that does not.
            assert!(Block::new(1 << 47, 8, false, 4).is_none());
            // SAFETY: as above.
            assert_eq!(unsafe { *errno() }, 77, "{size}");
        }
    }
}

pub fn that_touch_errno() {
    operations_under(touch_errno);
}

/// Aborts while stderr is a full pipe, and signals interrupt the writing: its reader waits.
pub fn the_last_line_gets_through() {
    let fill = vec![b'\n'; 1 << 20];
    // SAFETY: plain numbers.
    let flags = unsafe { libc::fcntl(2, libc::F_GETFL) };
    // SAFETY: as above. So that filling it ends.
    unsafe { libc::fcntl(2, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    // SAFETY: the pointer and length are those of a vector.
    while unsafe { libc::write(2, fill.as_ptr().cast(), fill.len()) } > 0 {}
    // SAFETY: as above, byte by byte up to the brim.
    while unsafe { libc::write(2, fill.as_ptr().cast(), 1) } > 0 {}
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(2, libc::F_SETFL, flags) };
    every_40_us(touch_errno);
    let layout = Layout::new::<[u8; 100]>();
    // SAFETY: none for the second one: that is what is to be found out.
    unsafe {
        let block = std::hint::black_box(alloc(layout));
        dealloc(block, layout);
        dealloc(std::hint::black_box(block), layout);
    }
    tallow::purge();
}

/// The output of a child whose stderr is read after a while; without the line ends that
/// it was filled with.
pub fn output_read_late(command: &mut Command) -> io::Result<Output> {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_millis(300));
    let mut text = Vec::new();
    child.stderr.take().expect("a pipe").read_to_end(&mut text)?;
    let start = text.iter().position(|&b| b != b'\n').unwrap_or(text.len());
    let stderr = text.split_off(start);
    Ok(Output { status: child.wait()?, stdout: Vec::new(), stderr })
}
