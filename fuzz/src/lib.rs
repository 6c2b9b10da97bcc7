//! What the fuzz targets do with their bytes. Used by libFuzzer, and by
//! `tests/fuzz_corpus.rs` on a stable compiler.
//!
//! The program runs on another allocator; Tallow serves the operations and
//! nothing else, so its books must agree to the byte.

use allocator_api2::alloc::Allocator;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ptr::NonNull;

static TALLOW: tallow::Tallow = tallow::Tallow::new();

/// Bytes that one input may hold at a time.
const MOST_BYTES: usize = 48 << 20;
/// Blocks longer than that are written and read at their ends only.
const EDGE: usize = 512;
/// Threads that one input may start.
const MOST_THREADS: usize = 4;
/// Steps between two audits, and between two looks at the requested bytes.
const AUDIT_EVERY: usize = 16;
const LOOK_EVERY: usize = 4;

fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

/// The input, byte by byte; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    fn number(&mut self, bytes: usize) -> usize {
        (0..bytes).fold(0, |sum, _| sum << 8 | self.byte())
    }

    /// A size that is small, large or huge, or at a border.
    fn size(&mut self) -> usize {
        match self.byte() {
            0..=119 => self.byte() + 1,
            120..=199 => self.number(2) % (40 << 10) + 1,
            200..=231 => {
                let borders = [8, 16, 128, 1024, 4096, 32 << 10, 1 << 20, 4 << 20];
                borders[self.byte() % 8] + self.byte() % 3 - 1
            }
            232..=251 => self.number(3) % (1 << 20) + 1,
            _ => self.number(3) % (6 << 20) + 1,
        }
    }

    fn align(&mut self) -> usize {
        let byte = self.byte();
        1 << if byte < 200 { byte % 5 } else { byte % 23 }
    }
}

/// A block with a pattern at its ends.
struct Block {
    at: *mut u8,
    layout: Layout,
    seed: usize,
}

// SAFETY: a block belongs to whoever holds this, on any thread.
unsafe impl Send for Block {}

impl Block {
    fn new(layout: Layout, zeroed: bool, seed: usize) -> Option<Self> {
        // SAFETY: callers give layouts with a size.
        let at = unsafe { if zeroed { TALLOW.alloc_zeroed(layout) } else { TALLOW.alloc(layout) } };
        if at.is_null() {
            return None;
        }
        assert_eq!(at.addr() % layout.align(), 0, "{layout:?} is not aligned");
        let block = Self { at, layout, seed };
        if zeroed {
            block.each(layout.size(), |_, byte| assert_eq!(*byte, 0, "{layout:?} is not zero"));
        }
        block.fill();
        Some(block)
    }

    fn each(&self, len: usize, mut f: impl FnMut(usize, &mut u8)) {
        let head = len.min(EDGE);
        for i in (0..head).chain(len.saturating_sub(EDGE).max(head)..len) {
            // SAFETY: the byte lies in the block, which is ours.
            f(i, unsafe { &mut *self.at.add(i) });
        }
    }

    fn byte(&self, i: usize) -> u8 {
        (i % 251 + self.seed) as u8
    }

    fn fill(&self) {
        self.each(self.layout.size(), |i, byte| *byte = self.byte(i));
    }

    fn check(&self) {
        let layout = self.layout;
        self.each(layout.size(), |i, byte| {
            assert_eq!(*byte, self.byte(i), "byte {i} of {layout:?} changed");
        });
    }

    /// Leaves the block as it was when memory is refused.
    fn resize(&mut self, size: usize) {
        let old = self.layout;
        let Ok(layout) = Layout::from_size_align(size, old.align()) else { return };
        self.check();
        // SAFETY: the block has this layout; the new one has a size and fits.
        let at = unsafe { TALLOW.realloc(self.at, old, size) };
        if at.is_null() {
            return self.check();
        }
        assert_eq!(at.addr() % layout.align(), 0, "{layout:?} is not aligned");
        (self.at, self.layout) = (at, layout);
        let (kept, tail) = (old.size().min(size), old.size().saturating_sub(EDGE));
        for i in (0..kept.min(EDGE)).chain(tail.clamp(kept.min(EDGE), kept)..kept) {
            // SAFETY: the byte lies in the block, which is ours.
            assert_eq!(unsafe { *self.at.add(i) }, self.byte(i), "byte {i} was not copied");
        }
        self.fill();
    }

    fn free(self) {
        self.check();
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.dealloc(self.at, self.layout) };
    }
}

#[derive(Default)]
struct Heap {
    live: BTreeMap<usize, Block>,
    bytes: usize,
    threads: usize,
}

impl Heap {
    fn add(&mut self, block: Block) {
        let (start, size) = (block.at.addr(), block.layout.size());
        let below = self.live.range(..start + size).next_back();
        assert!(below.is_none_or(|(&s, b)| s + b.layout.size() <= start), "two blocks overlap");
        self.bytes += size;
        self.live.insert(start, block);
    }

    fn take(&mut self, at: usize) -> Option<Block> {
        let n = at.checked_rem(self.live.len())?;
        let start = *self.live.keys().nth(n)?;
        let block = self.live.remove(&start)?;
        self.bytes -= block.layout.size();
        Some(block)
    }

    fn step(&mut self, op: usize, input: &mut Input<'_>) {
        match op {
            0..=99 => {
                let (size, align) = (input.size(), input.align());
                let Ok(layout) = Layout::from_size_align(size, align) else { return };
                if self.bytes + size <= MOST_BYTES {
                    let block = Block::new(layout, op.is_multiple_of(4), input.0.len());
                    self.add(block.expect("memory"));
                }
            }
            // Many of one kind: magazines fill and overflow.
            100..=107 => {
                let layout = Layout::from_size_align(input.byte() * 16 + 1, 8).expect("a layout");
                for i in 0..input.byte() {
                    if self.bytes + layout.size() <= MOST_BYTES {
                        self.add(Block::new(layout, false, i).expect("memory"));
                    }
                }
            }
            108..=115 => {
                let (start, n) = (input.byte(), input.byte());
                (0..n).filter_map(|_| self.take(start)).for_each(Block::free);
            }
            116..=165 => {
                let at = input.byte();
                let size = input.size();
                let Some(mut block) = self.take(at) else { return };
                if self.bytes + size <= MOST_BYTES {
                    block.resize(size);
                }
                self.add(block);
            }
            166..=243 => {
                if let Some(block) = self.take(input.byte()) {
                    block.free();
                }
            }
            244..=247 => {
                tallow::purge();
            }
            _ if self.threads < MOST_THREADS => {
                // A thread frees some of ours, and leaves some of its own.
                self.threads += 1;
                let ours: Vec<Block> =
                    (0..input.byte() % 16).filter_map(|i| self.take(i)).collect();
                let layout =
                    Layout::from_size_align(input.size() % 50_000 + 1, 8).expect("a layout");
                let count = input.byte() % 16;
                let left = std::thread::scope(|scope| {
                    let work = move || {
                        let mut left: Vec<_> =
                            (0..count).filter_map(|i| Block::new(layout, i % 2 == 0, i)).collect();
                        ours.into_iter().for_each(Block::free);
                        left.split_off(count / 2).into_iter().for_each(Block::free);
                        left
                    };
                    scope.spawn(work).join().expect("nothing wrong on the thread")
                });
                left.into_iter().for_each(|block| self.add(block));
            }
            _ => {}
        }
    }
}

/// The bytes as a list of operations: allocate, resize, free, purge, other
/// threads. Contents, places and books are checked on the way.
///
/// # Panics
/// When anything is wrong.
pub fn operations(data: &[u8]) {
    let before = tallow::stats();
    let (mut heap, mut input, mut steps) = (Heap::default(), Input(data), 0);
    while !input.0.is_empty() {
        let op = input.byte();
        heap.step(op, &mut input);
        steps += 1;
        if steps % LOOK_EVERY == 0 {
            let requested = tallow::stats().requested_bytes - before.requested_bytes;
            assert_eq!(requested, heap.bytes as u64, "requested bytes after {op}");
        }
        if steps % AUDIT_EVERY == 0 {
            balanced();
        }
    }
    heap.live.values().for_each(Block::check);
    balanced();
    while let Some(block) = heap.take(0) {
        block.free();
    }
    balanced();
    same_as(&before);
}

fn same_as(before: &tallow::Snapshot) {
    let now = tallow::stats();
    assert_eq!(now.requested_bytes, before.requested_bytes);
    assert_eq!(now.allocated_bytes, before.allocated_bytes);
    assert_eq!((now.large_count, now.huge_count), (before.large_count, before.huge_count));
    assert!(now.allocated_bytes <= now.active_bytes && now.active_bytes <= now.resident_bytes);
    assert!(now.resident_bytes <= now.mapped_bytes);
}

/// Copying more than that takes too long.
const MOST_COPIED: usize = 8 << 20;

/// The bytes as a list of layouts, sizes up to the end of the address space
/// and impossible ones among them: null, or right.
///
/// # Panics
/// When anything is wrong.
pub fn layouts(data: &[u8]) {
    let before = tallow::stats();
    let mut input = Input(data);
    while !input.0.is_empty() {
        let bits = input.byte() % 64;
        let low = input.number(2);
        let size = (1usize << bits).wrapping_add(low).wrapping_sub(1 << 15);
        let align = 1usize << (input.byte() % 64);
        let Ok(layout) = Layout::from_size_align(size, align) else { continue };
        if size > 0 {
            by_global_alloc(layout, &mut input);
        }
        by_allocator(layout, &mut input);
        same_as(&before);
    }
    balanced();
}

fn by_global_alloc(layout: Layout, input: &mut Input<'_>) {
    let Some(mut block) = Block::new(layout, input.byte().is_multiple_of(2), 3) else {
        assert!(layout.size() > 1 << 30 || layout.align() > 1 << 30, "{layout:?} was refused");
        return;
    };
    let size = input.size();
    if layout.size().min(size) <= MOST_COPIED {
        block.resize(size);
    }
    block.free();
}

/// Also for blocks of no size, and with a change of the alignment.
fn by_allocator(old: Layout, input: &mut Input<'_>) {
    let Ok(block) = TALLOW.allocate(old) else { return };
    assert!(block.len() >= old.size() && block.addr().get() % old.align() == 0);
    let block: NonNull<u8> = block.cast();
    let size = input.size() - 1;
    let Ok(new) = Layout::from_size_align(size, input.align()) else { unreachable!() };
    let grow = size >= old.size();
    let head = old.size().min(size).min(EDGE);
    if old.size().min(size) > MOST_COPIED {
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.deallocate(block, old) };
        return;
    }
    // SAFETY: the first `head` bytes lie in the block.
    unsafe { block.as_ptr().write_bytes(0xC3, head) };
    let zeroed = grow && size.is_multiple_of(2);
    // SAFETY: the block has the old layout, and the new size is as `grow` says.
    let moved = unsafe {
        match (grow, zeroed) {
            (true, true) => TALLOW.grow_zeroed(block, old, new),
            (true, false) => TALLOW.grow(block, old, new),
            (false, _) => TALLOW.shrink(block, old, new),
        }
    };
    let moved = moved.expect("little memory");
    assert!(moved.len() >= size && moved.addr().get() % new.align() == 0, "{old:?} to {new:?}");
    // SAFETY: the block has `size` bytes; those read were written or copied.
    let kept = unsafe { std::slice::from_raw_parts(moved.cast::<u8>().as_ptr(), head) };
    assert!(kept.iter().all(|&b| b == 0xC3), "{old:?} to {new:?} lost its contents");
    if zeroed {
        let from = old.size();
        // SAFETY: as above; what is behind the old bytes was zeroed.
        let rest = unsafe {
            std::slice::from_raw_parts(moved.cast::<u8>().as_ptr().add(from), size - from)
        };
        assert!(rest.iter().all(|&b| b == 0), "{old:?} to {new:?} is not zero");
    }
    // SAFETY: the block has the new layout, and is used no more.
    unsafe { TALLOW.deallocate(moved.cast(), new) };
}
