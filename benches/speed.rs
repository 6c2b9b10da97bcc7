//! Speed against the system's allocator: `cargo bench --bench speed`.
//!
//! Both are called through `GlobalAlloc` in one binary, turn and turn about, so
//! the ratios mean something on a noisy machine: medians of interleaved rounds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tallow::Tallow;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(black_box(size), 8).expect("a valid layout")
}

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Allocates and frees one block of 64 bytes, `n` times.
fn pair<A: GlobalAlloc>(alloc: &A, n: usize) {
    for _ in 0..n {
        // SAFETY: the layout has a size, and the block is freed with it.
        unsafe {
            let block = alloc.alloc(layout(64));
            block.write(1);
            alloc.dealloc(black_box(block), layout(64));
        }
    }
}

/// Allocates a thousand blocks of 64 bytes, then frees them in order.
fn batch<A: GlobalAlloc>(alloc: &A, n: usize) {
    let mut blocks = [std::ptr::null_mut::<u8>(); 1000];
    for _ in 0..n / 1000 {
        for block in &mut blocks {
            // SAFETY: the layout has a size.
            *block = unsafe { alloc.alloc(layout(64)) };
            // SAFETY: the block has room for a byte.
            unsafe { block.write(1) };
        }
        for block in &blocks {
            // SAFETY: allocated above with this layout.
            unsafe { alloc.dealloc(*block, layout(64)) };
        }
    }
}

/// Replaces a random one of 10 000 live blocks of 16..528 bytes, `n` times.
fn churn<A: GlobalAlloc>(alloc: &A, n: usize) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let size = |r: u64| 16 + (r % 512) as usize;
    let mut live: Vec<(*mut u8, usize)> = (0..10_000)
        .map(|_| {
            let size = size(random.next());
            // SAFETY: the layout has a size.
            (unsafe { alloc.alloc(layout(size)) }, size)
        })
        .collect();
    for _ in 0..n {
        let r = random.next();
        let at = (r % 10_000) as usize;
        let new = size(r >> 32);
        // SAFETY: allocated with the size noted beside it.
        unsafe { alloc.dealloc(live[at].0, layout(live[at].1)) };
        // SAFETY: the layout has a size, and room for a byte.
        live[at] = unsafe {
            let block = alloc.alloc(layout(new));
            block.write(1);
            (block, new)
        };
    }
    for (block, size) in live {
        // SAFETY: as above.
        unsafe { alloc.dealloc(block, layout(size)) };
    }
}

/// A parcel of blocks that two threads hand to and fro without a lock.
struct Parcel {
    full: AtomicBool,
    blocks: UnsafeCell<[*mut u8; PARCEL]>,
}
const PARCEL: usize = 512;
// SAFETY: `full` says whose turn it is.
unsafe impl Sync for Parcel {}

impl Parcel {
    /// Waits until the parcel is full, or empty; then `f` may use it.
    fn turn(&self, full: bool, f: impl FnOnce(&mut [*mut u8; PARCEL])) {
        let mut spins = 0;
        while self.full.load(Ordering::Acquire) != full {
            spins += 1;
            if spins % 1000 == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        // SAFETY: it is our turn.
        f(unsafe { &mut *self.blocks.get() });
        self.full.store(!full, Ordering::Release);
    }
}

/// One thread allocates `n` blocks, another frees them.
fn hand_over<A: GlobalAlloc + Sync>(alloc: &A, n: usize) {
    let parcels: [Parcel; 8] = std::array::from_fn(|_| Parcel {
        full: AtomicBool::new(false),
        blocks: UnsafeCell::new([std::ptr::null_mut(); PARCEL]),
    });
    let rounds = || parcels.iter().cycle().take(n / PARCEL);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for parcel in rounds() {
                parcel.turn(true, |blocks| {
                    // SAFETY: allocated below with this layout.
                    blocks.iter().for_each(|&block| unsafe { alloc.dealloc(block, layout(64)) });
                });
            }
        });
        for parcel in rounds() {
            parcel.turn(false, |blocks| {
                for place in blocks {
                    // SAFETY: the layout has a size, and room for a byte.
                    *place = unsafe {
                        let block = alloc.alloc(layout(64));
                        block.write(1);
                        block
                    };
                }
            });
        }
    });
}

type Work<A> = fn(&A, usize);

fn works<A: GlobalAlloc + Sync>() -> [(&'static str, Work<A>, usize); 4] {
    [
        ("pair 64 B", pair::<A>, 1_000_000),
        ("batch of 1000", batch::<A>, 1_000_000),
        ("churn 10k mixed", churn::<A>, 1_000_000),
        ("hand-over", hand_over::<A>, 512_000),
    ]
}

fn timed(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The ratios, from interleaved rounds.
fn ratios() {
    println!("\n{:<18}{:>12}{:>12}{:>10}", "ns per operation", "tallow", "system", "ratio");
    for ((name, ours, n), (_, theirs, _)) in works::<Tallow>().into_iter().zip(works::<System>()) {
        let (mut a, mut b, mut r) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..15 {
            let (x, y) = (timed(|| ours(&Tallow, n)), timed(|| theirs(&System, n)));
            a.push(x * 1e9 / n as f64);
            b.push(y * 1e9 / n as f64);
            r.push(y / x);
        }
        println!("{name:<18}{:>12.2}{:>12.2}{:>9.2}x", median(a), median(b), median(r));
    }
}

/// What a snapshot takes beside 2.5 million live blocks.
fn snapshots() {
    let live: Vec<(*mut u8, usize)> = (0..2_500_000)
        .map(|i| {
            let size = 16 + i * 7919 % 800;
            // SAFETY: the layout has a size.
            (unsafe { Tallow.alloc(layout(size)) }, size)
        })
        .collect();
    let mib = tallow::stats().allocated_bytes >> 20;
    let times = (0..1000).map(|_| timed(|| _ = black_box(tallow::stats()))).collect();
    println!("a snapshot with {mib} MiB live: {:.1} \u{b5}s", median(times) * 1e6);
    for (block, size) in live {
        // SAFETY: allocated above with this layout.
        unsafe { Tallow.dealloc(block, layout(size)) };
    }
}

/// What it costs a thread that all caches are recalled a hundred times a second.
fn recalled() {
    const N: usize = 1_000_000;
    let (on, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut calm, mut recalled, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if on.load(Ordering::Relaxed) {
                    tallow::purge_all();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        for _ in 0..51 {
            on.store(false, Ordering::Relaxed);
            let x = timed(|| pair(&Tallow, 10 * N));
            on.store(true, Ordering::Relaxed);
            let y = timed(|| pair(&Tallow, 10 * N));
            calm.push(x * 1e8 / N as f64);
            recalled.push(y * 1e8 / N as f64);
            ratio.push((y / x - 1.0) * 100.0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "pair 64 B, while another thread calls purge_all() 100 times a second: {:.2} ns against \
         {:.2} ns, {:+.1} %",
        median(recalled),
        median(calm),
        median(ratio)
    );
}

fn main() {
    ratios();
    snapshots();
    recalled();
}
