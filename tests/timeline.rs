//! Threads that work in step: all take a turn at the same time, then all wait, and the
//! figures are looked at: requested <= allocated <= active <= resident <= mapped, the books
//! agree with a recount, and requested bytes with what the threads say.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

static TALLOW: tallow::Tallow = tallow::Tallow::new();

const THREADS: usize = 4;

/// What one thread does in one turn.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Blocks of one size.
    Take {
        size: u32,
        count: u16,
        zeroed: bool,
    },
    /// Frees so many, the newest or the oldest first.
    Free {
        count: u16,
        oldest: bool,
    },
    Resize {
        at: u16,
        size: u32,
    },
    /// Puts so many where the others take them from, and takes what is there.
    Exchange {
        count: u16,
    },
    Purge,
    Idle,
    Decay {
        ms: u8,
    },
    /// Ends, and goes on as a thread that is new to Tallow.
    End,
}

fn size(g: &mut Gen) -> u32 {
    let any = u32::arbitrary(g);
    match u8::arbitrary(g) {
        0..180 => any % 800 + 1,
        180..230 => any % (32 << 10) + 1,
        230..250 => any % (1 << 20) + 1,
        250.. => any % (4 << 20) + 1,
    }
}

impl Arbitrary for Turn {
    fn arbitrary(g: &mut Gen) -> Self {
        let count = match u8::arbitrary(g) {
            0..200 => u16::arbitrary(g) % 20,
            _ => u16::arbitrary(g) % 600,
        };
        match u8::arbitrary(g) % 24 {
            0..=9 => {
                let size = size(g);
                // No more than some MiB in a turn.
                let count = u32::from(count).min((2 << 20) / size + 1) as u16;
                Self::Take { size, count, zeroed: bool::arbitrary(g) }
            }
            10..=14 => Self::Free { count, oldest: bool::arbitrary(g) },
            15 | 16 => Self::Resize { at: count, size: size(g) },
            17 | 18 => Self::Exchange { count },
            19 | 20 => Self::Purge,
            21 => Self::Idle,
            22 => Self::Decay { ms: u8::arbitrary(g) % 3 },
            _ => Self::End,
        }
    }
}

struct Block {
    at: *mut u8,
    layout: Layout,
}

// SAFETY: a block belongs to whoever holds this, on any thread.
unsafe impl Send for Block {}

/// Bytes that the threads hold, by their own count.
static HELD: AtomicI64 = AtomicI64::new(0);
static EXCHANGE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

fn note(bytes: i64) {
    HELD.fetch_add(bytes, Ordering::Relaxed);
}

impl Block {
    fn new(size: u32, zeroed: bool) -> Self {
        let layout = Layout::from_size_align(size as usize, 8).expect("a layout");
        // SAFETY: the layout has a size.
        let at = unsafe { if zeroed { TALLOW.alloc_zeroed(layout) } else { TALLOW.alloc(layout) } };
        assert!(!at.is_null(), "no memory");
        note(i64::from(size));
        Self { at, layout }
    }

    fn resize(&mut self, size: u32) {
        // SAFETY: the block has this layout, and the size is not 0.
        let at = unsafe { TALLOW.realloc(self.at, self.layout, size as usize) };
        assert!(!at.is_null(), "no memory");
        note(i64::from(size) - self.layout.size() as i64);
        self.at = at;
        self.layout = Layout::from_size_align(size as usize, 8).expect("a layout");
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        note(-(self.layout.size() as i64));
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.dealloc(self.at, self.layout) };
    }
}

/// Takes one turn; `false` when the thread is to end.
fn take(turn: Turn, held: &mut Vec<Block>) -> bool {
    match turn {
        Turn::Take { size, count, zeroed } => {
            held.extend((0..count).map(|_| Block::new(size, zeroed)));
            // Not more than some MiB each.
            let mut bytes = 0;
            let long = held.iter().rev().position(|block| {
                bytes += block.layout.size();
                bytes > 12 << 20
            });
            held.drain(..long.map_or(0, |n| held.len() - n));
        }
        Turn::Free { count, oldest: false } => {
            held.truncate(held.len().saturating_sub(count.into()));
        }
        Turn::Free { count, oldest: true } => {
            held.drain(..held.len().min(count.into()));
        }
        Turn::Resize { at, size } => {
            if let Some(n) = usize::from(at).checked_rem(held.len()) {
                held[n].resize(size);
            }
        }
        Turn::Exchange { count } => {
            let mine = held.split_off(held.len().saturating_sub(count.into()));
            let mut there = EXCHANGE.lock().expect("no panic");
            held.append(&mut there);
            *there = mine;
        }
        Turn::Purge => {
            tallow::purge();
        }
        Turn::Idle => tallow::idle(),
        Turn::Decay { ms } => tallow::set_decay(Some(Duration::from_millis(ms.into()))),
        Turn::End => return false,
    }
    true
}

/// What is wrong with the figures now.
fn wrong(before: &tallow::Snapshot) -> Option<String> {
    if let Err(error) = tallow::audit() {
        return Some(error.to_string());
    }
    let now = tallow::stats();
    let held = HELD.load(Ordering::Relaxed) as u64;
    if now.requested_bytes - before.requested_bytes != held {
        return Some(format!("{held} bytes are held\n{now}"));
    }
    let line = [
        now.requested_bytes,
        now.allocated_bytes,
        now.active_bytes,
        now.resident_bytes,
        now.mapped_bytes,
    ];
    (!line.is_sorted()).then(|| format!("out of order: {line:?}\n{now}"))
}

static STEPS: AtomicU64 = AtomicU64::new(0);

/// Runs a list for each thread, a turn at a time.
fn run(lists: &[Vec<Turn>; THREADS]) -> Option<String> {
    let before = tallow::stats();
    let turns = lists.iter().map(Vec::len).max().unwrap_or(0);
    let (barrier, stop) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
    let mut found = None;
    thread::scope(|scope| {
        for list in lists {
            let (barrier, stop) = (&barrier, &stop);
            scope.spawn(move || {
                let (mut held, mut turn) = (Vec::new(), 0);
                let look = || {
                    barrier.wait();
                    barrier.wait();
                    !stop.load(Ordering::Relaxed)
                };
                while turn < turns {
                    // On one thread until it is to end; its end belongs to its last turn.
                    let life = || {
                        while turn < turns {
                            let lives = list.get(turn).is_none_or(|it| take(*it, &mut held));
                            turn += 1;
                            if !lives {
                                break;
                            }
                            if !look() {
                                return false;
                            }
                        }
                        turn <= turns && matches!(list.get(turn - 1), Some(Turn::End))
                    };
                    let ended = thread::scope(|inner| inner.spawn(life).join());
                    if ended.expect("nothing wrong on the thread") && !look() {
                        break;
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                drop(held);
            });
        }
        for turn in 0..turns {
            barrier.wait();
            found = wrong(&before).map(|what| format!("turn {turn}: {what}"));
            STEPS.fetch_add(1, Ordering::Relaxed);
            stop.store(found.is_some(), Ordering::Relaxed);
            barrier.wait();
            if found.is_some() {
                break;
            }
        }
    });
    EXCHANGE.lock().expect("no panic").clear();
    found.or_else(|| wrong(&before).map(|what| format!("in the end: {what}")))
}

#[test]
fn figures_are_in_order_after_every_turn_of_four_threads() {
    fn property(a: Vec<Turn>, b: Vec<Turn>, c: Vec<Turn>, d: Vec<Turn>) -> Result<(), String> {
        run(&[a, b, c, d]).map_or(Ok(()), Err)
    }
    type Property = fn(Vec<Turn>, Vec<Turn>, Vec<Turn>, Vec<Turn>) -> Result<(), String>;
    QuickCheck::new().tests(120).quickcheck(property as Property);
    println!("{} turns", STEPS.load(Ordering::Relaxed));
}
