//! Threads that work at the same time, and hand blocks to each other.

use super::block::Block;
use super::{Input, TALLOW, balanced, in_order, same_as};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Where blocks wait for whoever takes them.
const PILES: usize = 8;
/// Bytes that may wait on one pile.
const MOST_BYTES: usize = 4 << 20;
const MOST_STEPS: usize = 600;

type Pile = Mutex<Vec<Block>>;

fn open(pile: &Pile) -> MutexGuard<'_, Vec<Block>> {
    pile.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(pile: &[Block]) -> usize {
    pile.iter().map(|block| block.layout.size()).sum()
}

/// What one thread does: an operation, a pile, and two numbers.
type Step = [u8; 4];

fn layout(a: u8, b: u8) -> Layout {
    // Few sizes, so that threads meet in a class; seldom large or huge ones.
    let size = match a % 16 {
        0..=11 => 8 << (a % 4) | usize::from(b >> 6),
        12 | 13 => usize::from(b) * 64 + 1,
        14 => usize::from(b) * 2048 + 1,
        _ => usize::from(b) * 8192 + 1,
    };
    Layout::from_size_align(size, 1 << (b % 8)).expect("a layout")
}

fn step(piles: &[Pile; PILES], [op, pile, a, b]: Step) {
    let (from, to) = (&piles[pile as usize % PILES], &piles[pile as usize / PILES % PILES]);
    match op % 16 {
        // Blocks of one kind: as many as a magazine holds, or more.
        0..=4 => {
            let layout = layout(a, b);
            let room = MOST_BYTES.saturating_sub(bytes(&open(from))) / layout.size();
            let count = (usize::from(a) * 4 + 1).min(room);
            let made = (0..count).filter_map(|i| Block::new(layout, op % 16 == 4, i));
            let made: Vec<Block> = made.collect();
            assert_eq!(made.len(), count, "memory was refused");
            open(from).extend(made);
        }
        5..=8 => {
            let mut pile = open(from);
            let kept = pile.len().saturating_sub(usize::from(a) * 4 + 1);
            let taken = pile.split_off(kept);
            drop(pile);
            taken.into_iter().for_each(Block::free);
        }
        // The oldest ones: those of another thread, most likely.
        9 | 10 => {
            let mut pile = open(from);
            let count = pile.len().min(usize::from(a) + 1);
            let taken: Vec<Block> = pile.drain(..count).collect();
            drop(pile);
            taken.into_iter().for_each(Block::free);
        }
        11 => {
            let taken = std::mem::take(&mut *open(from));
            open(to).extend(taken);
        }
        12 => {
            let Some(mut block) = open(from).pop() else { return };
            block.resize(layout(a, b).size());
            open(to).push(block);
        }
        13 => {
            tallow::purge();
        }
        14 => tallow::idle(),
        _ => balanced(),
    }
}

/// Works through the steps; at each `end` on a new thread.
fn work(piles: &[Pile; PILES], steps: &[Step]) {
    let mut rest = steps;
    while !rest.is_empty() {
        let end = rest.iter().position(|step| step[0] >= 248).map_or(rest.len(), |n| n + 1);
        let now;
        (now, rest) = rest.split_at(end);
        thread::scope(|scope| {
            let run = || now.iter().for_each(|it| step(piles, *it));
            scope.spawn(run).join().expect("nothing wrong on the thread");
        });
    }
}

/// The bytes as lists of operations for two to four threads, which work at the same time:
/// blocks by the hundred onto shared piles, off them, from one to another; resizing, purging,
/// ending. Contents are checked whenever a block is touched; books while the threads run and
/// when they have ended.
///
/// # Panics
/// When anything is wrong.
pub fn transfers(data: &[u8]) {
    let before = tallow::stats();
    let mut input = Input(data);
    let threads = 2 + input.byte() % 3;
    let mut lists: Vec<Vec<Step>> = vec![Vec::new(); threads];
    for (i, step) in input.0.chunks_exact(4).take(MOST_STEPS).enumerate() {
        lists[i % threads].push([step[0], step[1], step[2], step[3]]);
    }
    let piles: [Pile; PILES] = std::array::from_fn(|_| Pile::default());
    let ready = Barrier::new(threads);
    thread::scope(|scope| {
        for list in &lists {
            let (piles, ready) = (&piles, &ready);
            scope.spawn(move || {
                ready.wait();
                work(piles, list);
            });
        }
    });
    balanced();
    let mut held: Vec<Block> =
        piles.into_iter().flat_map(|pile| open(&pile).split_off(0)).collect();
    let now = tallow::stats();
    assert_eq!(now.requested_bytes - before.requested_bytes, bytes(&held) as u64);
    in_order(&now);
    held.sort_unstable_by_key(|block| block.at);
    for pair in held.windows(2) {
        let end = pair[0].at.addr() + pair[0].layout.size();
        assert!(end <= pair[1].at.addr(), "two blocks overlap");
    }
    held.into_iter().for_each(Block::free);
    balanced();
    same_as(&before);
    // What ended threads had cached can be had again.
    let layout = layout(0, 0);
    // SAFETY: the layout has a size, and the block goes back with it.
    unsafe { TALLOW.dealloc(TALLOW.alloc(layout), layout) };
}
