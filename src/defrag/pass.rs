//! A pass, from the plan to the end of it, in slices of time.

use super::books::{BOOKS, add};
use super::mover::{Desk, Mover};
use super::plan::{Bound, ClassPlan, Market, Purchase, plan};
use crate::arena::CENTRAL;
use crate::arena::bin::{Bin, Walk};
use crate::arena::guarded::GUARDED;
use crate::class::{self, CLASS_COUNT, Class};
use crate::config::{HARDENED, LG_PAGE, MAX_ARENAS};
use crate::sync::{AtomicU64, Ordering};
use crate::thread::{Cache, generation, with_cache};
use core::alloc::Layout;
use std::time::{Duration, Instant};

/// Regions of the fullest slab there is.
const MAX_CAPACITY: usize = 4096;
const BINS: usize = MAX_ARENAS * CLASS_COUNT;
/// Slabs looked at, or spared, while a bin's lock is held: some microseconds.
const SLABS_AT_ONCE: usize = 64;
/// Pages purged between two looks at the clock.
pub(super) const PURGE_AT_ONCE: usize = (64 << 10) >> LG_PAGE;
/// The process in which a pass is under way, by [`generation`] + 1; 0 when there
/// is none. There is one at a time. A forked child inherits its parent's value,
/// which is not its own.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// How to run a [`Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// A pass that would release fewer bytes does nothing. 0 when not set.
    pub min_gain_bytes: u64,
    /// A pass releases about so many bytes and no more, those that cost the least
    /// to move. All that can be had when not set.
    pub max_gain_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_gain_bytes: 0, max_gain_bytes: u64::MAX }
    }
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
    /// Bytes of slabs that were emptied. They have gone back to the system.
    pub released_bytes: u64,
    /// Slabs emptied.
    pub slabs_released: u64,
    /// Steps taken: those of movers, and what [`Defrag`](super::Defrag) cuts
    /// planning and ending into.
    pub steps: u64,
    /// The longest step.
    pub longest_step: Duration,
    /// All steps together, planning and ending included.
    pub time: Duration,
}

impl Outcome {
    /// Enters a step.
    pub(super) fn note_step(&mut self, took: Duration) {
        self.steps += 1;
        self.time += took;
        self.longest_step = self.longest_step.max(took);
        BOOKS.note_step(took);
    }

    /// Enters planning or ending: a step, or all of it at once.
    fn note_slice(&mut self, since: Instant, deadline: Option<Instant>) {
        match deadline {
            Some(_) => self.note_step(since.elapsed()),
            None => {
                let took = since.elapsed();
                self.time += took;
                BOOKS.note_time(took);
            }
        }
    }
}

/// How far a pass has come. Bins are numbered class by class.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Counts the slabs of a bin, and plans its class when it is the last one.
    Counting {
        bin: usize,
    },
    /// Marks the slabs of a bin.
    Marking {
        bin: usize,
    },
    /// Movers do their work.
    Moving,
    /// Marked slabs of a bin that were not emptied are used again.
    Sparing {
        bin: usize,
    },
    /// What the pass made dirty goes back to the system.
    Purging,
    Over,
}

/// What planning needs, and nobody else.
#[derive(Debug)]
struct Planner {
    options: Options,
    walk: Walk,
    /// Slabs of the class at hand by live regions, in all arenas; room for the
    /// longest.
    by_live: Vec<u32>,
    plans: [ClassPlan; CLASS_COUNT],
    market: Market,
    bound: Bound,
}

impl Planner {
    /// `None` when memory is out.
    fn new(options: Options) -> Option<Self> {
        let mut by_live = Vec::new();
        by_live.try_reserve_exact(MAX_CAPACITY).ok()?;
        by_live.resize(MAX_CAPACITY, 0);
        let plans = [ClassPlan::default(); CLASS_COUNT];
        let market = Market::new();
        let bound = market.bound(0);
        Some(Self { options, walk: Walk::default(), by_live, plans, market, bound })
    }
}

/// One pass of defragmentation over the program's data.
///
/// [`Defrag`](super::Defrag) runs passes when they are worth while, and paces
/// them; this is what it is made of.
#[derive(Debug)]
pub struct Pass {
    stage: Stage,
    planner: Option<Planner>,
    predicted: Prediction,
    outcome: Outcome,
    /// Slabs marked in each class.
    marked: [u64; CLASS_COUNT],
    desk: Desk,
    /// Dirty pages when the pass began: what it makes dirty itself goes back.
    dirty_pages: usize,
    /// Bytes that the end of the pass has given back.
    purged_bytes: u64,
    /// What [`RUNNING`] says for this pass; 0 when it does nothing.
    ticket: u64,
}

impl Pass {
    /// Plans a pass and marks the slabs to be emptied.
    ///
    /// Recalls the thread caches, and looks at every partial slab twice: about
    /// 0.1 µs for each. [`Defrag`](super::Defrag) does it in slices.
    ///
    /// The pass predicts and does nothing, so that nothing unsafe can come of it,
    /// - while another pass runs (a pass that is leaked runs for ever);
    /// - unless the program's global allocator hands its layouts to Tallow as they
    ///   are: `static ALLOC: Tallow`, or a wrapper that adds nothing of its own to
    ///   a block. That is found out by some small allocations;
    /// - when memory is out.
    ///
    /// What is moved goes from Tallow to Tallow, past a wrapper: one that keeps a table of
    /// the blocks that it has handed out is told of neither the new block nor the old one,
    /// and cannot be found out. Whoever writes such an allocator must not let the program
    /// run passes.
    pub fn begin(options: Options) -> Self {
        let mut pass = Self::prepare(options, None);
        while !pass.plan_until(None) {}
        pass
    }

    /// A pass that is not planned yet: see [`Pass::plan_until`].
    pub(super) fn prepare(options: Options, deadline: Option<Instant>) -> Self {
        let started = Instant::now();
        let mut pass = Self {
            stage: Stage::Over,
            planner: None,
            predicted: Prediction::default(),
            outcome: Outcome::default(),
            marked: [0; CLASS_COUNT],
            desk: Desk::new(),
            dirty_pages: 0,
            purged_bytes: 0,
            ticket: 0,
        };
        if !blocks_are_tallows() {
            return pass;
        }
        let Some(planner) = Planner::new(options) else { return pass };
        let ticket = generation() + 1;
        // Acquire pairs with the Release in `end_until`.
        let before = RUNNING.swap(ticket, Ordering::Acquire);
        if before == ticket {
            return pass;
        }
        pass.ticket = ticket;
        if before != 0 {
            // This is a child, forked while its parent ran a pass: end that here.
            for (_, bin) in (0..).map_while(bin) {
                bin.spare(&CENTRAL, usize::MAX);
            }
        }
        with_cache(Cache::recall_all);
        CENTRAL.disown_all();
        pass.dirty_pages = CENTRAL.pages.books().dirty_pages;
        pass.planner = Some(planner);
        pass.stage = Stage::Counting { bin: 0 };
        pass.outcome.note_slice(started, deadline);
        pass
    }

    /// Goes on planning until `deadline`, or to the end. Returns whether the plan
    /// is made, and the slabs are marked.
    pub(super) fn plan_until(&mut self, deadline: Option<Instant>) -> bool {
        let Some(mut planner) = self.planner.take() else { return true };
        if !self.active() {
            return true;
        }
        let started = Instant::now();
        loop {
            match self.stage {
                Stage::Counting { bin: i } if i < BINS => self.count_some(&mut planner, i),
                Stage::Counting { .. } => {
                    let gain = planner.market.total_bytes();
                    let worth = gain >= planner.options.min_gain_bytes;
                    let wanted = if worth { planner.options.max_gain_bytes } else { 0 };
                    planner.bound = planner.market.bound(wanted);
                    self.stage = Stage::Marking { bin: if wanted > 0 { 0 } else { BINS } };
                }
                Stage::Marking { bin: i } if i < BINS => self.mark_some(&mut planner, i),
                _ => {
                    self.stage = Stage::Moving;
                    self.outcome.note_slice(started, deadline);
                    return true;
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.planner = Some(planner);
                self.outcome.note_slice(started, deadline);
                return false;
            }
        }
    }

    fn count_some(&mut self, planner: &mut Planner, i: usize) {
        let Some((class, bin)) = bin(i) else { return };
        let info = class.info();
        let by_live = &mut planner.by_live[..info.capacity.into()];
        let looked = bin.look(&mut planner.walk, SLABS_AT_ONCE, |live| {
            if let Some(n) = by_live.get_mut(live as usize) {
                *n += 1;
            }
            false
        });
        if looked == SLABS_AT_ONCE {
            return;
        }
        if (i + 1).is_multiple_of(MAX_ARENAS) {
            let it = plan(info.capacity.into(), by_live);
            planner.market.offer(info.capacity.into(), info.slab_bytes() as u64, by_live, &it);
            planner.plans[class.index()] = it;
            by_live.fill(0);
        }
        planner.walk = Walk::default();
        self.stage = Stage::Counting { bin: i + 1 };
    }

    fn mark_some(&mut self, planner: &mut Planner, i: usize) {
        let Some((class, bin)) = bin(i) else { return };
        let info = class.info();
        let (capacity, slab_bytes) = (info.capacity.into(), info.slab_bytes() as u64);
        let plan = planner.plans[class.index()];
        let mut purchase = Purchase { capacity, slab_bytes, plan, bound: &mut planner.bound };
        let (mut looked, mut slabs, mut regions) = (0, 0u64, 0u64);
        if plan.slabs > 0 {
            looked = bin.look(&mut planner.walk, SLABS_AT_ONCE, |live| {
                let goes = purchase.takes(live);
                slabs += u64::from(goes);
                regions += if goes { live.into() } else { 0 };
                goes
            });
        }
        planner.plans[class.index()] = purchase.plan;
        self.marked[class.index()] += slabs;
        self.predicted.slabs += slabs;
        self.predicted.regions += regions;
        self.predicted.moved_bytes += regions * u64::from(info.region_bytes);
        self.predicted.released_bytes += slabs * slab_bytes;
        if looked < SLABS_AT_ONCE {
            planner.walk = Walk::default();
            self.stage = Stage::Marking { bin: i + 1 };
        }
    }

    /// What the pass is going to do.
    pub fn predicted(&self) -> Prediction {
        self.predicted
    }

    /// Starts a step of about `budget`, purging included. The step ends when the
    /// [`Mover`] is dropped; stop visiting when [`Mover::out_of_time`] says so.
    pub fn step(&mut self, budget: Duration) -> Mover<'_> {
        let active = self.active() && matches!(self.stage, Stage::Moving);
        Mover::new(&mut self.desk, &mut self.outcome, active.then_some(self.dirty_pages), budget)
    }

    /// Ends the pass: slabs that are not empty yet are used again, and what the
    /// pass has freed goes back to the system. Returns what was done.
    pub fn finish(mut self) -> Outcome {
        while !self.end_until(None) {}
        self.outcome
    }

    /// Whether the pass does anything, in this process.
    pub(super) fn active(&self) -> bool {
        self.ticket == generation() + 1
    }

    /// What has been done so far.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Goes on ending the pass until `deadline`, or to the end. Returns whether
    /// it is over.
    pub(super) fn end_until(&mut self, deadline: Option<Instant>) -> bool {
        let active = self.active();
        if self.ticket == 0 {
            return true;
        }
        let started = Instant::now();
        if !matches!(self.stage, Stage::Sparing { .. } | Stage::Purging) {
            // Empty, unless a mover was leaked.
            self.desk.clear();
            self.planner = None;
            self.outcome.predicted_bytes = self.predicted.moved_bytes;
            self.stage = Stage::Sparing { bin: 0 };
        }
        if !active {
            // A child's: its parent ends the pass, and the child's next one starts anew.
            self.ticket = 0;
            return true;
        }
        let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            match self.stage {
                Stage::Sparing { bin: i } => match bin(i) {
                    Some((class, bin)) => {
                        let spared = bin.spare(&CENTRAL, SLABS_AT_ONCE);
                        let marked = &mut self.marked[class.index()];
                        *marked = marked.saturating_sub(spared.kept as u64);
                        if spared.handled < SLABS_AT_ONCE {
                            self.stage = Stage::Sparing { bin: i + 1 };
                        }
                    }
                    None => {
                        self.enter_outcome();
                        self.stage = Stage::Purging;
                    }
                },
                // No more than the pass has freed: others may free all the time.
                _ => {
                    let purged = CENTRAL.pages.purge_down_to(self.dirty_pages, PURGE_AT_ONCE);
                    self.purged_bytes += purged as u64;
                    if purged == 0 || self.purged_bytes >= self.outcome.released_bytes {
                        break;
                    }
                }
            }
            if late() {
                self.outcome.note_slice(started, deadline);
                return false;
            }
        }
        self.outcome.note_slice(started, deadline);
        self.stage = Stage::Over;
        self.ticket = 0;
        // Release pairs with the Acquire in `prepare`.
        RUNNING.store(0, Ordering::Release);
        true
    }

    /// Enters what was gained.
    fn enter_outcome(&mut self) {
        for class in Class::all() {
            let slabs = self.marked[class.index()];
            self.outcome.slabs_released += slabs;
            self.outcome.released_bytes += slabs * class.info().slab_bytes() as u64;
            BOOKS.note_emptied(class, slabs);
        }
        add(&BOOKS.passes, 1);
        add(&BOOKS.predicted_bytes, self.outcome.predicted_bytes);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        while !self.end_until(None) {}
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
        // A sampled one lies elsewhere, and is Tallow's.
        let ours = class::of_layout(size, align)
            .is_some_and(|class| CENTRAL.place(class, block.addr()).is_ok())
            || HARDENED && GUARDED.has(block.addr());
        // SAFETY: allocated just now with this layout.
        unsafe { std::alloc::dealloc(core::hint::black_box(block), layout) };
        ours && asked == size as i64
    })
}

/// The bin with that number; `None` behind the last one.
fn bin(i: usize) -> Option<(Class, &'static Bin)> {
    let class = Class::new(i / MAX_ARENAS)?;
    Some((class, &CENTRAL.arenas[i % MAX_ARENAS].bins[class.index()]))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::faults::{alone, on_tallow};
    use core::ptr::NonNull;

    /// A partial slab each in two arenas: neither has room for itself alone.
    #[test]
    fn arenas_empty_their_slabs_into_each_other() {
        let _alone = alone();
        let layout = Layout::from_size_align(1536, 8).expect("a layout");
        let class = class::of_layout(layout.size(), layout.align()).expect("a small one");
        let mut regions = Vec::new();
        with_cache(Cache::recall_all);
        CENTRAL.disown_all();
        let slabs = || CENTRAL.arenas.iter().map(|a| a.bins[class.index()].counts());
        let partial = || slabs().map(|c| c.partial.iter().sum::<usize>() + c.owned).sum::<usize>();
        let before = partial();
        with_cache(|cache| {
            cache.with_shared(|shared, _| {
                for arena in [MAX_ARENAS - 2, MAX_ARENAS - 1] {
                    let want = 3;
                    let got = CENTRAL.claim(arena, class, 0, want, &mut |row| {
                        regions.extend(row.regions());
                    });
                    assert_eq!(got, want);
                    shared.claimed[class.index()] += i64::from(got);
                }
            });
        });
        for (i, &at) in regions.iter().enumerate() {
            // SAFETY: the region is ours, and longer.
            unsafe { at.write_bytes(i as u8, layout.size()) };
        }
        assert_eq!(partial(), before + 2);
        on_tallow(|| {
            let mut pass = Pass::begin(Options::default());
            assert!(pass.predicted().slabs > 0);
            let mut mover = pass.step(Duration::from_secs(1));
            for at in &mut regions {
                let block = NonNull::new(*at).expect("claimed");
                // SAFETY: a whole region of that class, which nobody else knows.
                if let Some(to) = unsafe { mover.move_raw(block, layout) } {
                    *at = to.as_ptr();
                }
            }
            drop(mover);
            let (predicted, outcome) = (pass.predicted(), pass.finish());
            assert_eq!(outcome.slabs_released, predicted.slabs);
            assert_eq!(outcome.moved_bytes, predicted.moved_bytes);
        });
        for (i, &at) in regions.iter().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe { core::slice::from_raw_parts(at, layout.size()) };
            assert!(bytes.iter().all(|&b| b == i as u8));
        }
        assert_eq!(partial(), before + 1);
        give_back_all(class, &regions);
        assert!(crate::audit().is_ok());
    }

    fn give_back_all(class: Class, regions: &[*mut u8]) {
        with_cache(|cache| {
            cache.with_shared(|shared, _| {
                CENTRAL.give_back(class, regions);
                shared.claimed[class.index()] -= regions.len() as i64;
            });
        });
    }
}
