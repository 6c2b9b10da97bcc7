//! Lists of operations on Tallow beside a plain map of what it handed out;
//! contents, places and books are compared after every step.
//!
//! This program runs on the system's allocator: Tallow serves the operations
//! and nothing else, so its books must agree with the map to the byte.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

static TALLOW: tallow::Tallow = tallow::Tallow::new();
/// The books are those of the whole process: one list at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The size and alignment of a block.
#[derive(Clone, Copy, Debug)]
struct Shape {
    size: usize,
    lg_align: u32,
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(Shape, /* zeroed */ bool),
    Realloc {
        at: usize,
        size: usize,
    },
    Free {
        at: usize,
    },
    /// Another thread, which lives on, resizes the block and hands it back, or
    /// frees it.
    HandOver {
        at: usize,
        size: Option<usize>,
    },
    /// A thread that ends allocates these, frees every second, and takes that
    /// many of ours with it.
    Thread {
        shapes: Vec<Shape>,
        frees: usize,
    },
    Purge,
    Stats,
}

const SMALL: usize = 32 << 10;
const LARGE: usize = 1 << 20;

fn size(g: &mut Gen) -> usize {
    let any = usize::arbitrary(g);
    match u8::arbitrary(g) {
        0..150 => any % 600 + 1,
        150..215 => any % SMALL + 1,
        // Around the borders between classes and between routes.
        215..232 => *g.choose(&[8, 128, 1024, 4096, SMALL, LARGE]).unwrap_or(&8) + any % 3 - 1,
        232..250 => any % LARGE + 1,
        250.. => LARGE + any % (3 << 20),
    }
}

impl Arbitrary for Shape {
    fn arbitrary(g: &mut Gen) -> Self {
        let most = *g.choose(&[4, 4, 4, 4, 13, 13, 23]).unwrap_or(&4);
        Self { size: size(g), lg_align: u32::arbitrary(g) % most }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let shrunk = (self.size - 1, self.lg_align).shrink();
        Box::new(shrunk.map(|(size, lg_align)| Self { size: size + 1, lg_align }))
    }
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let at = usize::arbitrary(g);
        match u8::arbitrary(g) % 32 {
            0..=10 => Self::Alloc(Shape::arbitrary(g), false),
            11..=12 => Self::Alloc(Shape::arbitrary(g), true),
            13..=17 => Self::Realloc { at, size: size(g) },
            18..=24 => Self::Free { at },
            25..=26 => Self::HandOver { at, size: None },
            27..=28 => Self::HandOver { at, size: Some(size(g)) },
            29 => Self::Thread {
                shapes: (0..u8::arbitrary(g) % 12).map(|_| Shape::arbitrary(g)).collect(),
                frees: at % 4,
            },
            30 => Self::Purge,
            _ => Self::Stats,
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match self.clone() {
            Self::Alloc(shape, zeroed) => {
                Box::new((shape, zeroed).shrink().map(|(shape, zeroed)| Self::Alloc(shape, zeroed)))
            }
            Self::Realloc { at, size } => Box::new(
                (at, size - 1).shrink().map(|(at, size)| Self::Realloc { at, size: size + 1 }),
            ),
            Self::Free { at } => Box::new(at.shrink().map(|at| Self::Free { at })),
            Self::HandOver { at, size } => {
                let at_home = size.map_or(Self::Free { at }, |size| Self::Realloc { at, size });
                Box::new(std::iter::once(at_home))
            }
            Self::Thread { shapes, frees } => Box::new(
                (shapes, frees).shrink().map(|(shapes, frees)| Self::Thread { shapes, frees }),
            ),
            Self::Purge | Self::Stats => Box::new(std::iter::empty()),
        }
    }
}

/// Length of the pattern: no power of two, so that a piece of a block in the
/// wrong place is found out.
const PERIOD: usize = 251;

/// A block with a pattern in it.
#[derive(Debug)]
struct Block {
    at: *mut u8,
    layout: Layout,
    fill: u8,
}

// SAFETY: a block belongs to whoever holds this, on any thread.
unsafe impl Send for Block {}

impl Block {
    fn new(shape: Shape, zeroed: bool, fill: u8) -> Self {
        let layout = Layout::from_size_align(shape.size, 1 << shape.lg_align).expect("a layout");
        // SAFETY: the layout has a size.
        let at = unsafe { if zeroed { TALLOW.alloc_zeroed(layout) } else { TALLOW.alloc(layout) } };
        assert!(!at.is_null(), "no memory for {layout:?}");
        let mut block = Self { at, layout, fill };
        if zeroed {
            assert!(block.bytes().iter().all(|&b| b == 0), "{layout:?} is not zero");
        }
        block.write();
        block
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is ours, and all of it was written or zeroed: by
        // `write`, or by the allocator, before anything is read.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
    }

    fn write(&mut self) {
        let fill = self.fill;
        // SAFETY: the block is ours, and a byte needs no initial value.
        unsafe { self.at.write_bytes(0, self.layout.size()) };
        let bytes = self.bytes();
        let head = bytes.len().min(PERIOD);
        for (i, byte) in bytes[..head].iter_mut().enumerate() {
            *byte = fill.wrapping_add(i as u8);
        }
        let mut done = head;
        while done < bytes.len() {
            // Whole periods, twice as many each time.
            let n = (done - done % PERIOD).min(bytes.len() - done);
            bytes.copy_within(..n, done);
            done += n;
        }
    }

    /// The first `len` bytes are as they were written.
    fn check(&mut self, len: usize) {
        let (fill, layout) = (self.fill, self.layout);
        let bytes = &self.bytes()[..len];
        let head = len.min(PERIOD);
        let right = bytes[..head].iter().enumerate().all(|(i, &b)| b == fill.wrapping_add(i as u8));
        assert!(right, "the start of {layout:?} changed");
        assert!(bytes[head..] == bytes[..len - head], "the contents of {layout:?} changed");
    }

    fn resize(&mut self, size: usize) {
        let kept = self.layout.size().min(size);
        // SAFETY: the block has this layout, and the new size is not 0.
        let at = unsafe { TALLOW.realloc(self.at, self.layout, size) };
        assert!(!at.is_null(), "no memory for {:?} resized to {size}", self.layout);
        self.at = at;
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
        self.check(kept);
        self.fill = self.fill.wrapping_add(101);
        self.write();
    }

    fn free(mut self) {
        self.check(self.layout.size());
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.dealloc(self.at, self.layout) };
    }
}

/// What the thread that lives on is asked to do, and what it answers.
type Task = (Block, Option<usize>);
type Answer = thread::Result<Option<Block>>;
static OTHER: LazyLock<Mutex<(Sender<Task>, Receiver<Answer>)>> = LazyLock::new(|| {
    let (ask, tasks) = channel::<Task>();
    let (reply, answers) = channel();
    thread::spawn(move || {
        for (mut block, size) in tasks {
            // It lives on also when something is wrong, for shorter lists.
            let work = AssertUnwindSafe(|| {
                let Some(size) = size else {
                    block.free();
                    return None;
                };
                block.check(block.layout.size());
                block.resize(size);
                Some(block)
            });
            let _ = reply.send(catch_unwind(work));
        }
    });
    Mutex::new((ask, answers))
});

/// What Tallow has handed out, by address.
struct Model {
    blocks: BTreeMap<usize, Block>,
    fill: u8,
    /// The books when the list began.
    start: tallow::Snapshot,
}

impl Model {
    fn new() -> Self {
        Self { blocks: BTreeMap::new(), fill: 1, start: tallow::stats() }
    }

    fn next_fill(&mut self) -> u8 {
        self.fill = self.fill.wrapping_mul(5).wrapping_add(3);
        self.fill
    }

    fn add(&mut self, block: Block) {
        let twice = self.blocks.insert(block.at.addr(), block);
        assert!(twice.is_none(), "handed out twice: {twice:?}");
    }

    fn take(&mut self, at: usize) -> Option<Block> {
        let n = at.checked_rem(self.blocks.len())?;
        let address = *self.blocks.keys().nth(n)?;
        self.blocks.remove(&address)
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Alloc(shape, zeroed) => {
                let fill = self.next_fill();
                self.add(Block::new(*shape, *zeroed, fill));
            }
            &Op::Realloc { at, size } => {
                let Some(mut block) = self.take(at) else { return };
                block.resize(size);
                self.add(block);
            }
            &Op::Free { at } => {
                if let Some(block) = self.take(at) {
                    block.free();
                }
            }
            &Op::HandOver { at, size } => {
                let Some(block) = self.take(at) else { return };
                let other = OTHER.lock().unwrap_or_else(PoisonError::into_inner);
                other.0.send((block, size)).expect("the other thread lives on");
                let answer = other.1.recv().expect("the other thread lives on");
                let answer = answer.unwrap_or_else(|panic| resume_unwind(panic));
                assert_eq!(answer.is_some(), size.is_some());
                if let Some(block) = answer {
                    self.add(block);
                }
            }
            Op::Thread { shapes, frees } => self.thread(shapes, *frees),
            Op::Purge => {
                tallow::purge();
            }
            Op::Stats => {
                let text = tallow::stats().to_string();
                assert!(text.contains("requested"));
            }
        }
    }

    fn thread(&mut self, shapes: &[Shape], frees: usize) {
        let ours: Vec<Block> = (0..frees).filter_map(|i| self.take(i * 3)).collect();
        let fills: Vec<u8> = shapes.iter().map(|_| self.next_fill()).collect();
        let shapes = shapes.to_vec();
        let worker = thread::spawn(move || {
            let mut kept = Vec::new();
            for (i, (shape, fill)) in shapes.into_iter().zip(fills).enumerate() {
                let block = Block::new(shape, i % 3 == 0, fill);
                if i % 2 == 0 { kept.push(block) } else { block.free() }
            }
            ours.into_iter().for_each(Block::free);
            kept
        });
        for block in worker.join().expect("the thread found nothing wrong") {
            self.add(block);
        }
    }

    fn check(&mut self) {
        let (mut end, mut sum) = (0, 0);
        for (&address, block) in &mut self.blocks {
            let layout = block.layout;
            assert!(end <= address, "{layout:?} at {address:#x} lies in the block below it");
            assert_eq!(address % layout.align(), 0, "{layout:?} is not aligned");
            block.check(layout.size());
            end = address + layout.size();
            sum += layout.size() as u64;
        }
        if let Err(error) = tallow::audit() {
            panic!("{error}");
        }
        let stats = tallow::stats();
        assert_eq!(stats.requested_bytes, self.start.requested_bytes + sum, "requested bytes");
        assert!(stats.requested_bytes <= stats.allocated_bytes, "{stats}");
        assert!(stats.allocated_bytes <= stats.active_bytes, "{stats}");
        assert!(stats.active_bytes <= stats.resident_bytes, "{stats}");
        assert!(stats.resident_bytes <= stats.mapped_bytes, "{stats}");
    }

    fn end(mut self) {
        while let Some(block) = self.take(0) {
            block.free();
        }
        self.check();
        let stats = tallow::stats();
        assert_eq!(stats.requested_bytes, self.start.requested_bytes);
        assert_eq!(stats.allocated_bytes, self.start.allocated_bytes);
        assert_eq!(stats.large_count, self.start.large_count);
        assert_eq!(stats.huge_count, self.start.huge_count);
    }
}

/// A list that failed gives back what it can, for those that follow.
impl Drop for Model {
    fn drop(&mut self) {
        for block in self.blocks.values() {
            // SAFETY: the block has this layout, and is used no more.
            unsafe { TALLOW.dealloc(block.at, block.layout) };
        }
    }
}

fn agrees(ops: &[Op]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut model = Model::new();
    for op in ops {
        model.step(op);
        model.check();
    }
    model.end();
}

#[test]
fn agrees_with_a_plain_map() {
    fn property(ops: Vec<Op>) -> bool {
        agrees(&ops);
        true
    }
    QuickCheck::new().tests(250).quickcheck(property as fn(Vec<Op>) -> bool);
}

/// Longer lists: magazines overflow, slabs fill and empty.
#[test]
fn agrees_with_a_plain_map_for_long() {
    #[derive(Clone, Debug)]
    struct Long(Vec<Op>);
    impl Arbitrary for Long {
        fn arbitrary(g: &mut Gen) -> Self {
            // Few shapes, so that classes are used more than once.
            let shapes: Vec<Shape> = (0..4)
                .map(|_| Shape { size: usize::arbitrary(g) % 9000 + 1, lg_align: 3 })
                .collect();
            let op = |g: &mut Gen| match (u8::arbitrary(g) % 3, g.choose(&shapes)) {
                (0 | 1, Some(&shape)) => Op::Alloc(shape, false),
                _ => Op::arbitrary(g),
            };
            Self((0..600).map(|_| op(g)).collect())
        }
        fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
            Box::new(self.0.shrink().map(Self))
        }
    }
    fn property(ops: Long) -> bool {
        agrees(&ops.0);
        true
    }
    QuickCheck::new().tests(10).quickcheck(property as fn(Long) -> bool);
}
