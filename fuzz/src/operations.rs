//! One heap, and short-lived threads that share it.

use super::block::Block;
use super::{Input, balanced, same_as};
use std::alloc::Layout;
use std::collections::BTreeMap;

/// Bytes that one input may hold at a time.
const MOST_BYTES: usize = 48 << 20;
/// Threads that one input may start.
const MOST_THREADS: usize = 4;
/// Steps between two audits, and between two looks at the requested bytes.
const AUDIT_EVERY: usize = 16;
const LOOK_EVERY: usize = 4;

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
