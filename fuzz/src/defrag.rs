//! Passes of defragmentation, with anything in between.

use super::block::Block;
use super::{Input, TALLOW, balanced, same_as};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;
use std::time::Duration;
use tallow::defrag::{Defrag, Mover, Settings, Visit};

/// Blocks that one input may hold, and bytes.
const SLOTS: usize = 8192;
const MOST_BYTES: usize = 24 << 20;
/// Steps between two audits.
const AUDIT_EVERY: usize = 8;

thread_local! {
    static ON_TALLOW: Cell<bool> = const { Cell::new(false) };
}

/// The program's allocator: Tallow where a pass looks whether it is, else the system's.
pub struct Switch;

// SAFETY: each block goes back to where it came from, which Tallow knows.
unsafe impl GlobalAlloc for Switch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON_TALLOW.get() {
            // SAFETY: the caller's promise is the same.
            unsafe { TALLOW.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if tallow::raw::usable_bytes(at).is_some() {
            // SAFETY: as above.
            unsafe { TALLOW.dealloc(at, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(at, layout) }
        }
    }
}

/// Runs `f` with this thread's allocations made by Tallow.
fn on_tallow<R>(f: impl FnOnce() -> R) -> R {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON_TALLOW.set(false);
        }
    }
    ON_TALLOW.set(true);
    let _off = Off;
    f()
}

struct Data {
    slots: Vec<Option<Block>>,
    bytes: usize,
}

impl Data {
    fn put(&mut self, at: usize, block: Block) {
        self.bytes += block.layout.size();
        if let Some(old) = self.slots[at].replace(block) {
            self.bytes -= old.layout.size();
            old.free();
        }
    }

    fn take(&mut self, at: usize) -> Option<Block> {
        let block = self.slots[at].take()?;
        self.bytes -= block.layout.size();
        Some(block)
    }

    /// Visits up to `n` slots from the cursor on.
    fn visit(&mut self, at: &mut usize, n: usize, mover: &mut Mover<'_>) -> Visit {
        let end = (*at + n).min(SLOTS);
        for block in self.slots[*at..end].iter_mut().flatten() {
            block.relocate(mover);
        }
        *at = end;
        if end < SLOTS { Visit::More } else { Visit::Done }
    }

    fn step(&mut self, op: usize, input: &mut Input<'_>, defrag: &mut Defrag<usize>) {
        match op {
            // Many of a size, in a row.
            0..=79 => {
                let layout = Layout::from_size_align(small(input), 8).expect("a layout");
                let (from, n) = (input.number(2), input.byte() * 8 + 1);
                for i in 0..n {
                    if self.bytes + layout.size() > MOST_BYTES {
                        break;
                    }
                    let block = Block::new(layout, op.is_multiple_of(8), i);
                    self.put((from + i) % SLOTS, block.expect("memory"));
                }
            }
            // All but every k-th go.
            80..=139 => {
                let (from, n, k) = (input.number(2), input.byte() * 16 + 1, input.byte() % 32 + 1);
                for at in (0..n).filter(|i| i % k != 0).map(|i| (from + i) % SLOTS) {
                    if let Some(block) = self.take(at) {
                        block.free();
                    }
                }
            }
            140..=155 => {
                let (at, size) = (input.number(2) % SLOTS, input.size());
                let Some(mut block) = self.take(at) else { return };
                if self.bytes + size <= MOST_BYTES {
                    block.resize(size);
                }
                self.put(at, block);
            }
            156..=163 => {
                tallow::purge();
            }
            164..=171 => {
                // Another thread takes some out of slabs that may be marked.
                let from = input.number(2);
                let ours = (0..input.byte()).filter_map(|i| self.take((from + i * 3) % SLOTS));
                let ours: Vec<Block> = ours.collect();
                let free = || ours.into_iter().for_each(Block::free);
                thread::scope(|scope| scope.spawn(free).join()).expect("nothing wrong there");
            }
            172..=175 => on_tallow(|| defrag.stop()),
            _ => {
                let n = input.byte() * 64 + 1;
                on_tallow(|| defrag.step(|at, mover| self.visit(at, n, mover)));
            }
        }
    }
}

/// Sizes of which a few hundred fill several slabs, and some that no pass moves.
fn small(input: &mut Input<'_>) -> usize {
    match input.byte() {
        0..=199 => input.byte() * 4 + 1,
        200..=249 => input.number(2) % 5000 + 1,
        _ => input.size(),
    }
}

impl Block {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        let at = std::ptr::NonNull::new(self.at).expect("a block");
        // SAFETY: the whole of an allocation of Tallow's with this layout, and nobody else's.
        if let Some(to) = unsafe { mover.move_raw(at, self.layout) } {
            self.at = to.as_ptr();
            self.check();
        }
    }
}

fn evacuating() -> u64 {
    tallow::stats().classes.iter().map(|class| class.slabs_evacuating).sum()
}

/// The bytes as a list of operations on a store of blocks, steps of defragmentation among
/// them: filling, thinning out, resizing, purging, other threads. The first byte says whether
/// planning is cut into slices. In the end a pass over all of it runs to its end.
///
/// # Panics
/// When anything is wrong.
pub fn defrag(data: &[u8]) {
    let before = tallow::stats();
    let mut input = Input(data);
    let mut settings = Settings::default();
    (settings.ignore_bytes, settings.threshold_lower_percent) = (0, 0);
    let sliced = input.byte().is_multiple_of(2);
    settings.step = if sliced { Duration::ZERO } else { Duration::from_secs(3600) };
    let mut defrag = Defrag::<usize>::new(settings);
    let mut store = Data { slots: (0..SLOTS).map(|_| None).collect(), bytes: 0 };
    let mut steps = 0;
    while !input.0.is_empty() {
        let op = input.byte();
        store.step(op, &mut input, &mut defrag);
        steps += 1;
        if steps % AUDIT_EVERY == 0 {
            balanced();
        }
    }
    on_tallow(|| defrag.stop());
    assert_eq!(evacuating(), 0, "slabs are marked without a pass");
    whole_pass(&mut store, &mut defrag);
    let requested = tallow::stats().requested_bytes - before.requested_bytes;
    assert_eq!(requested, store.bytes as u64, "requested bytes");
    store.slots.iter().flatten().for_each(Block::check);
    balanced();
    store.slots.into_iter().flatten().for_each(Block::free);
    on_tallow(|| drop(defrag));
    balanced();
    same_as(&before);
}

/// A pass that nobody disturbs does what it predicts.
fn whole_pass(store: &mut Data, defrag: &mut Defrag<usize>) {
    let mut predicted = None;
    let mut left = 100_000;
    while on_tallow(|| defrag.step(|at, mover| store.visit(at, 1000, mover))) {
        predicted = defrag.predicted().or(predicted);
        left -= 1;
        assert!(left > 0, "a pass without an end");
    }
    assert_eq!(evacuating(), 0, "slabs are marked behind a pass");
    let Some((predicted, outcome)) = predicted.zip(defrag.last_outcome()) else { return };
    // What the program holds moves; of what a pass had to leave, there is nothing here.
    assert!(outcome.slabs_released >= predicted.slabs, "{predicted:?} {outcome:?}");
    assert!(outcome.moved_bytes <= predicted.moved_bytes, "{predicted:?} {outcome:?}");
}
