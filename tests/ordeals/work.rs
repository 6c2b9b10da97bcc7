//! Work of all kinds, whose results can be checked.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};

pub fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

/// The figures of a snapshot are in their order.
pub fn in_order(now: &tallow::Snapshot) {
    assert!(now.requested_bytes <= now.allocated_bytes, "{now}");
    assert!(now.allocated_bytes <= now.active_bytes, "{now}");
    assert!(now.active_bytes <= now.resident_bytes, "{now}");
    assert!(now.resident_bytes <= now.mapped_bytes, "{now}");
}

/// The same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A block whose first and last bytes say whose it is. Memory may be refused.
pub struct Block {
    at: *mut u8,
    layout: Layout,
    seed: u8,
}

// SAFETY: a block belongs to whoever holds this, on any thread.
unsafe impl Send for Block {}

impl Block {
    pub fn new(size: usize, align: usize, zeroed: bool, seed: u8) -> Option<Self> {
        let layout = Layout::from_size_align(size.max(1), align).expect("a layout");
        // SAFETY: the layout has a size.
        let at = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        if at.is_null() {
            return None;
        }
        assert_eq!(at.addr() % align, 0, "{layout:?} is not aligned");
        let mut block = Self { at, layout, seed };
        if zeroed {
            assert_eq!(block.ends(), [0; 2], "{layout:?} is not zero");
        }
        block.mark();
        Some(block)
    }

    fn ends(&self) -> [u8; 2] {
        // SAFETY: both lie in the block, and were zeroed or written.
        unsafe { [self.at.read(), self.at.add(self.layout.size() - 1).read()] }
    }

    fn mark(&mut self) {
        // SAFETY: both lie in the block.
        unsafe {
            self.at.write(self.seed);
            self.at.add(self.layout.size() - 1).write(self.seed);
        }
    }

    pub fn check(&self) {
        assert_eq!(self.ends(), [self.seed; 2], "{:?} changed", self.layout);
    }

    /// `false` when memory was refused: then the block is as it was.
    pub fn resize(&mut self, size: usize) -> bool {
        self.check();
        // SAFETY: the block has this layout, and the new size is not 0.
        let at = unsafe { realloc(self.at, self.layout, size.max(1)) };
        if at.is_null() {
            self.check();
            return false;
        }
        // SAFETY: at least one byte was kept.
        assert_eq!(unsafe { at.read() }, self.seed, "not copied");
        self.at = at;
        self.layout = Layout::from_size_align(size.max(1), self.layout.align()).expect("a layout");
        self.mark();
        true
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check();
        // SAFETY: the block has this layout, and is used no more.
        unsafe { dealloc(self.at, self.layout) };
    }
}

fn size(random: &mut Random) -> usize {
    let size = match random.below(256) {
        0 => random.below(5 << 20),
        1..=5 => random.below(300 << 10),
        6..=40 => random.below(20 << 10),
        _ => random.below(700),
    };
    size as usize + 1
}

/// Takes `turns` turns with blocks of all kinds; returns how often memory was refused.
pub fn churn(seed: u64, turns: usize, held: &mut Vec<Block>) -> u64 {
    let (mut random, mut refused) = (Random((seed * 0x9E37_79B9) | 1), 0);
    // What holds the blocks cannot be refused, or it has room already.
    let room = held.capacity();
    for _ in 0..turns {
        match random.below(10) {
            0..=4 if held.len() < room => {
                let align = 1 << if random.below(20) == 0 { random.below(17) } else { 3 };
                let zeroed = random.below(4) == 0;
                match Block::new(size(&mut random), align, zeroed, seed as u8) {
                    Some(block) => held.push(block),
                    None => refused += 1,
                }
            }
            5 if !held.is_empty() => {
                let at = random.below(held.len() as u64) as usize;
                refused += u64::from(!held[at].resize(size(&mut random)));
            }
            6 if random.below(300) == 0 => {
                tallow::purge();
            }
            7 if random.below(300) == 0 => tallow::idle(),
            _ if !held.is_empty() => {
                let at = random.below(held.len() as u64) as usize;
                drop(held.swap_remove(at));
            }
            _ => {}
        }
    }
    refused
}
