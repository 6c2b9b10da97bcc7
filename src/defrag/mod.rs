//! Defragmentation: the program moves its own objects, in safe Rust, a little
//! at a time.
//!
//! After objects of mixed lifetimes have come and gone, every slab holds a few
//! survivors, and none can be given back. A [`Pass`] plans which slabs to empty
//! (per class, the emptiest that fit into the rest), marks them, and hands out
//! a [`Mover`] for each [`step`](Pass::step). The program visits its data with
//! it; [`Relocate`] moves what lies in a marked slab. `&mut Box<T>` proves that
//! nobody else looks, so no `unsafe` is needed.
//!
//! ```
//! use std::time::Duration;
//! use tallow::defrag::{Options, Pass, Relocate};
//!
//! #[global_allocator]
//! static ALLOC: tallow::Tallow = tallow::Tallow::new();
//!
//! let mut list: Vec<Option<Box<[u8; 100]>>> = (0..50_000).map(|i| Some(Box::new([i as u8; 100]))).collect();
//! for (i, item) in list.iter_mut().enumerate() {
//!     if i % 10 != 0 {
//!         *item = None; // nine in ten go; every slab keeps a few
//!     }
//! }
//! let mut pass = Pass::begin(Options::default());
//! let predicted = pass.predicted();
//! let mut rest = list.iter_mut();
//! while rest.len() > 0 {
//!     let mut mover = pass.step(Duration::from_micros(500));
//!     while let Some(item) = rest.next() {
//!         item.relocate(&mut mover);
//!         if mover.out_of_time() {
//!             break; // serve requests, then go on with the next step
//!         }
//!     }
//! }
//! let outcome = pass.finish();
//! assert!(outcome.released_bytes >= predicted.released_bytes * 9 / 10);
//! assert!(list.iter().flatten().count() == 5000);
//! tallow::audit().unwrap();
//! ```
//!
//! What may still hold an address: raw pointers, and whatever was handed to
//! foreign code. Do not relocate data of which such a pointer exists, as you
//! would not drop it. [`core::pin::Pin`] has no impl, so pinned data stays.

mod mover;
mod plan;
mod relocate;

pub use mover::Mover;
pub use relocate::Relocate;
/// The impl that visits each field, with the feature `derive`.
///
/// ```
/// use tallow::defrag::Relocate;
///
/// #[derive(Relocate)]
/// struct Entry<V> {
///     key: Box<str>,
///     value: Vec<V>,
///     #[relocate(skip)]
///     shared: std::rc::Weak<str>, // not visited, and needs no impl
/// }
/// ```
#[cfg(feature = "derive")]
pub use tallow_derive::Relocate;

use crate::arena::CENTRAL;
use crate::arena::bin::Bin;
use crate::class::{self, CLASS_COUNT, Class};
use crate::slab::Slab;
use crate::sync::{AtomicU64, Ordering};
use crate::thread::{Cache, generation, with_cache};
use core::alloc::Layout;
use core::ptr::NonNull;
use mover::Desk;
use std::time::Duration;

/// Regions of the fullest slab there is.
const MAX_CAPACITY: usize = 4096;
/// The process in which a pass is under way, by [`generation`] + 1; 0 when there
/// is none. There is one at a time. A forked child inherits its parent's value,
/// which is not its own.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Bytes that one step gives back to the system at most: some tens of
/// microseconds of its time.
pub const PURGE_STEP_BYTES: usize = 1 << 20;

/// How to run a [`Pass`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// A pass that would release fewer bytes does nothing.
    pub min_gain_bytes: u64,
}

/// What a pass is going to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Prediction {
    /// Bytes of regions to move.
    pub moved_bytes: u64,
    /// Bytes of slabs that will be empty then.
    pub released_bytes: u64,
    /// Slabs to empty.
    pub slabs: u64,
    /// Regions to move.
    pub regions: u64,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Outcome {
    /// Blocks moved.
    pub hits: u64,
    /// Blocks looked at and left where they are.
    pub misses: u64,
    /// Bytes of the regions moved.
    pub moved_bytes: u64,
    /// Bytes of the regions that the plan wanted moved.
    pub predicted_bytes: u64,
    /// Bytes of slabs that were emptied. They have gone back to the system, up
    /// to [`PURGE_STEP_BYTES`] with each step and the rest at the end.
    pub released_bytes: u64,
    /// Slabs emptied.
    pub slabs_released: u64,
    /// Steps taken.
    pub steps: u64,
    /// The longest step.
    pub longest_step: Duration,
    /// All steps together.
    pub time: Duration,
}

/// One pass of defragmentation over the program's data.
#[derive(Debug)]
pub struct Pass {
    predicted: Prediction,
    outcome: Outcome,
    /// Slabs marked in each class.
    marked: [u64; CLASS_COUNT],
    desk: Desk,
    /// Dirty pages when the pass began: what it makes dirty itself goes back.
    dirty_pages: usize,
    /// What [`RUNNING`] says for this pass; 0 when it does nothing.
    ticket: u64,
}

impl Pass {
    /// Plans a pass and marks the slabs to be emptied.
    ///
    /// Recalls the thread caches, and looks at every partial slab.
    ///
    /// The pass predicts and does nothing, so that nothing unsafe can come of it,
    /// - while another pass runs (a pass that is leaked runs for ever);
    /// - unless the program's global allocator hands its layouts to Tallow as they
    ///   are: `static ALLOC: Tallow`, or a wrapper that adds nothing of its own to
    ///   a block. That is found out by some small allocations.
    pub fn begin(options: Options) -> Self {
        let mut pass = Self {
            predicted: Prediction::default(),
            outcome: Outcome::default(),
            marked: [0; CLASS_COUNT],
            desk: Desk::new(),
            dirty_pages: 0,
            ticket: 0,
        };
        if !blocks_are_tallows() {
            return pass;
        }
        let ticket = generation() + 1;
        // Acquire pairs with the Release in `end`.
        let before = RUNNING.swap(ticket, Ordering::Acquire);
        if before == ticket {
            return pass;
        }
        pass.ticket = ticket;
        if before != 0 {
            // This is a child, forked while its parent ran a pass: end that here.
            for (_, bin) in each_bin() {
                bin.spare(&CENTRAL);
            }
        }
        with_cache(Cache::recall_all);
        CENTRAL.disown_all();
        pass.dirty_pages = CENTRAL.pages.books().dirty_pages;
        let would_gain = || -> u64 {
            let gain = |class: Class, bin: &Bin| {
                let plan = plan_bin(class, bin);
                plan.slabs * class.info().slab_bytes() as u64
            };
            each_bin().map(|(class, bin)| gain(class, bin)).sum()
        };
        if options.min_gain_bytes > 0 && would_gain() < options.min_gain_bytes {
            return pass;
        }
        for (class, bin) in each_bin() {
            pass.mark(class, bin);
        }
        pass
    }

    fn mark(&mut self, class: Class, bin: &Bin) {
        let plan = plan_bin(class, bin);
        if plan.slabs == 0 {
            return;
        }
        let (slabs, regions) = bin.lock().evacuate(plan.below, plan.more);
        let info = class.info();
        self.marked[class.index()] += slabs as u64;
        self.predicted.slabs += slabs as u64;
        self.predicted.regions += regions;
        self.predicted.moved_bytes += regions * u64::from(info.region_bytes);
        self.predicted.released_bytes += slabs as u64 * info.slab_bytes() as u64;
    }

    /// What the pass is going to do.
    pub fn predicted(&self) -> Prediction {
        self.predicted
    }

    /// Starts a step of about `budget`. The step ends when the [`Mover`] is
    /// dropped; stop visiting when [`Mover::out_of_time`] says so.
    pub fn step(&mut self, budget: Duration) -> Mover<'_> {
        let dirty_pages = if self.active() { self.dirty_pages } else { usize::MAX };
        Mover::new(&mut self.desk, &mut self.outcome, dirty_pages, budget)
    }

    /// Ends the pass: slabs that are not empty yet are used again. Returns what
    /// was done.
    pub fn finish(mut self) -> Outcome {
        self.end();
        self.outcome
    }

    /// Whether the pass does anything, in this process.
    fn active(&self) -> bool {
        self.ticket == generation() + 1
    }

    fn end(&mut self) {
        let active = self.active();
        let ticket = core::mem::take(&mut self.ticket);
        if ticket == 0 {
            return;
        }
        // Empty, unless a mover was leaked.
        self.desk.clear();
        self.outcome.predicted_bytes = self.predicted.moved_bytes;
        if !active {
            return;
        }
        for (class, bin) in each_bin() {
            let marked = &mut self.marked[class.index()];
            *marked = marked.saturating_sub(bin.spare(&CENTRAL) as u64);
        }
        for class in Class::all() {
            let slabs = self.marked[class.index()];
            self.outcome.slabs_released += slabs;
            self.outcome.released_bytes += slabs * class.info().slab_bytes() as u64;
        }
        CENTRAL.pages.purge_down_to(self.dirty_pages, usize::MAX);
        // Release pairs with the Acquire in `begin`.
        RUNNING.store(0, Ordering::Release);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether what the global allocator returns are Tallow's blocks of just the
/// layouts that were asked for. Somebody who wraps Tallow and keeps something of
/// his own in the blocks, or cuts them up, must not have them moved.
fn blocks_are_tallows() -> bool {
    let layouts = [(24, 8), (100, 4), (1000, 1), (512, 64)];
    layouts.into_iter().all(|(size, align)| {
        let Ok(layout) = Layout::from_size_align(size, align) else { return false };
        let before = with_cache(Cache::asked_bytes);
        // SAFETY: the layout has a size.
        let block = unsafe { std::alloc::alloc(layout) };
        let asked = with_cache(Cache::asked_bytes).wrapping_sub(before);
        if block.is_null() {
            return false;
        }
        let ours = class::of_layout(size, align)
            .is_some_and(|class| CENTRAL.place(class, block.addr()).is_ok());
        // SAFETY: allocated just now with this layout.
        unsafe { std::alloc::dealloc(core::hint::black_box(block), layout) };
        ours && asked == size as i64
    })
}

/// What a bin's slabs would gain now.
fn plan_bin(class: Class, bin: &Bin) -> plan::ClassPlan {
    let capacity = class.info().capacity;
    let mut by_live = [0; MAX_CAPACITY];
    bin.lock().histogram(&mut by_live[..capacity.into()]);
    plan::plan(capacity.into(), &by_live[..capacity.into()], u64::MAX)
}

fn each_bin() -> impl Iterator<Item = (Class, &'static Bin)> {
    CENTRAL
        .arenas
        .iter()
        .flat_map(|arena| Class::all().map(|class| (class, &arena.bins[class.index()])))
}

/// The slab of a block of `class` at `address`, if it is one of Tallow's.
fn slab_of(class: Class, address: usize) -> Option<NonNull<Slab>> {
    CENTRAL.place(class, address).ok().map(|place| place.slab)
}
