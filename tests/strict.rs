//! Small scenes in which every part of the allocator has its turn, for strict
//! judges: Miri, which interprets each access, and the sanitizers. They run
//! natively too, with more rounds.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::mpsc;
use std::thread;
use tallow::defrag::{Options, Pass};
use tallow::{In, Purpose, Tallow};

#[global_allocator]
static ALLOC: Tallow = Tallow::new();

/// Rounds of a scene: few where each costs a second.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 200 };

/// The heap is one, and a scene looks at its books: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A block that knows what it should hold.
struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u8,
}

// SAFETY: a block belongs to whoever has it.
unsafe impl Send for Block {}

impl Block {
    fn new(size: usize, align: usize, mark: u8) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: the size is not 0.
        let at = unsafe { Tallow.alloc(layout) };
        assert!(!at.is_null() && at.addr().is_multiple_of(align));
        let mut block = Self { at, layout, mark };
        block.write();
        block
    }

    /// Its ends; the middle of a large one would only take time.
    fn ends(&mut self) -> (&mut [u8], usize) {
        let size = self.layout.size();
        // SAFETY: all of the block, which is this value's.
        (unsafe { std::slice::from_raw_parts_mut(self.at, size) }, size.min(16))
    }

    fn write(&mut self) {
        let mark = self.mark;
        let (bytes, n) = self.ends();
        let from = bytes.len() - n;
        bytes[..n].fill(mark);
        bytes[from..].fill(mark);
    }

    fn check(&mut self) {
        let mark = self.mark;
        let (bytes, n) = self.ends();
        let from = bytes.len() - n;
        assert!(bytes[..n].iter().chain(&bytes[from..]).all(|&b| b == mark));
    }

    fn resize(&mut self, size: usize) {
        self.check();
        // SAFETY: this value's block, and a size that is not 0.
        let at = unsafe { Tallow.realloc(self.at, self.layout, size) };
        assert!(!at.is_null());
        let kept = size.min(self.layout.size()).min(16);
        self.at = at;
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
        let mark = self.mark;
        assert!(self.ends().0[..kept].iter().all(|&b| b == mark));
        self.write();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check();
        // SAFETY: allocated with this layout, and used no more.
        unsafe { Tallow.dealloc(self.at, self.layout) };
    }
}

/// The books are exact when nobody is at work. The thread of the test runner may be, for
/// a moment: what is wrong for long is wrong.
fn balanced() {
    let mut last = tallow::audit();
    for _ in 0..100 {
        if last.is_ok() {
            return;
        }
        thread::yield_now();
        last = tallow::audit();
    }
    panic!("{}", last.expect_err("an error"));
}

#[test]
fn one_thread_of_every_kind() {
    let _alone = alone();
    for round in 0..ROUNDS {
        let mut held: Vec<Block> = Vec::new();
        for size in [1, 8, 24, 100, 512, 1000, 4096, 10_000, 32 << 10, 40_000, 1 << 20, 3 << 20] {
            held.push(Block::new(size, 1 << (round % 5), held.len() as u8));
        }
        held.push(Block::new(64, 4096, 99));
        held.push(Block::new(4096, 1 << 16, 98));
        for (i, size) in [4, 90, 1, 120, 30_000, 900].into_iter().enumerate() {
            held[i].resize(size);
        }
        held[9].resize(90_000);
        held[11].resize(4 << 20);
        let layout = Layout::from_size_align(5000, 8).expect("a layout");
        // SAFETY: the size is not 0.
        let zeroed = unsafe { Tallow.alloc_zeroed(layout) };
        // SAFETY: a block of 5000 bytes, all of them written.
        assert!(unsafe { std::slice::from_raw_parts(zeroed, 5000) }.iter().all(|&b| b == 0));
        // SAFETY: as allocated, and used no more.
        unsafe { Tallow.dealloc(zeroed, layout) };
        held.swap(1, 7);
        drop(held);
    }
    tallow::purge();
    balanced();
}

#[test]
fn blocks_go_to_other_threads() {
    let _alone = alone();
    let n = if cfg!(miri) { 40 } else { 3000 };
    let (to, from) = mpsc::channel::<Block>();
    let makers: Vec<_> = (0..2)
        .map(|who| {
            let to = to.clone();
            thread::spawn(move || {
                for i in 0..n {
                    let block = Block::new(1 + i * 37 % 700, 1, (who * 100 + i) as u8);
                    if i % 3 != 0 {
                        to.send(block).expect("a receiver");
                    }
                }
            })
        })
        .collect();
    drop(to);
    let mut kept = Vec::new();
    for mut block in from {
        block.check();
        kept.push(block);
        if kept.len() > n / 4 {
            kept.swap_remove(kept.len() / 2);
        }
    }
    for maker in makers {
        maker.join().expect("a maker");
    }
    drop(kept);
    balanced();
}

/// Regions change hands within a slab while caches are recalled and pages go back.
#[test]
fn purges_come_between() {
    let _alone = alone();
    let n = if cfg!(miri) { 30 } else { 20_000 };
    let workers: Vec<_> = (0..2)
        .map(|who| {
            thread::spawn(move || {
                let mut held: Vec<Block> = Vec::new();
                for i in 0..n {
                    held.push(Block::new([48, 2048, 200][i % 3], 1, (who * 50 + i) as u8));
                    if i % 2 == 1 {
                        held.swap_remove(i * 7 % held.len());
                    }
                    if held.len() > 40 {
                        held.clear();
                    }
                }
            })
        })
        .collect();
    for _ in 0..if cfg!(miri) { 2 } else { 40 } {
        tallow::purge();
        thread::yield_now();
        assert!(tallow::stats().requested_bytes <= tallow::stats().mapped_bytes);
    }
    for worker in workers {
        worker.join().expect("a worker");
    }
    tallow::purge();
    balanced();
}

tallow::account!(Ours = "ours");

/// Records, and the tallies in them, go from a thread that ends to the next one.
#[test]
fn threads_come_and_go() {
    let _alone = alone();
    use allocator_api2::vec::Vec as VecIn;
    for _ in 0..ROUNDS.min(20) {
        let kept = thread::spawn(|| {
            let mut text: VecIn<u8, In<Ours>> = VecIn::new_in(In::NEW);
            text.extend_from_slice(&[7; 300]);
            (text, Block::new(500, 8, 5))
        });
        let (text, mut block) = kept.join().expect("a thread");
        assert!(text.iter().all(|&b| b == 7));
        block.resize(700);
    }
    assert_eq!(Ours::account().stats().live_bytes, 0);
    balanced();
}

/// A pass moves blocks while another thread allocates beside it.
#[test]
fn a_pass_moves_blocks() {
    let _alone = alone();
    let n = if cfg!(miri) { 140 } else { 20_000 };
    let mut blocks: Vec<Option<Block>> =
        (0..n).map(|i| Some(Block::new(1000, 8, i as u8))).collect();
    for (i, block) in blocks.iter_mut().enumerate() {
        if i % 5 != 0 {
            *block = None;
        }
    }
    let other = thread::spawn(move || {
        for i in 0..n / 8 {
            drop(Block::new(1000, 8, i as u8));
        }
    });
    let mut pass = Pass::begin(Options::default());
    let mut mover = pass.step(std::time::Duration::from_secs(60));
    for block in blocks.iter_mut().flatten() {
        let at = std::ptr::NonNull::new(block.at).expect("a block");
        // SAFETY: a whole block of that layout, which nobody else looks at.
        if let Some(to) = unsafe { mover.move_raw(at, block.layout) } {
            block.at = to.as_ptr();
        }
        block.check();
    }
    drop(mover);
    let outcome = pass.finish();
    assert!(outcome.hits > 0, "{outcome:?}");
    other.join().expect("the other thread");
    drop(blocks);
    balanced();
}
