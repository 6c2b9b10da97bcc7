//! Loom models of the slab and bin protocol: the shipped code, small slabs.
//!
//! Each region has a cell that its owner writes to; loom reports when two
//! threads do so without one happening before the other. The supply checks that
//! a slab is retired once, with all its bits back, and writes to all its cells,
//! as the next user of the pages would.
//!
//! The twins at the end weaken one ordering or one step each, and must fail.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release --lib`.

use super::{Bin, Supply, Walk};
use crate::class::Class;
use crate::slab::{After, Company, Protocol, Slab, Tag};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::sync::Mutex;

const CAPACITY: u32 = 2;
const SLABS: usize = 3;
const SLAB_BYTES: usize = 1 << 16;
const FIRST: usize = 1 << 20;

/// Slabs of [`CAPACITY`] regions.
macro_rules! small {
    () => {
        fn capacity(_: Tag) -> u32 {
            CAPACITY
        }
    };
}

/// The protocol as it is shipped, on small slabs.
struct Small;
impl Protocol for Small {
    small!();
}

struct World<P: 'static> {
    bin: Bin<P>,
    supply: Pages<P>,
    tag: Tag,
}

/// A page heap of [`SLABS`] slabs. Its own bookkeeping is std's: it is not what
/// is modelled, and must not order anything.
struct Pages<P: 'static> {
    slabs: Mutex<Vec<&'static Slab<P>>>,
    retired: Mutex<Vec<usize>>,
    cells: Vec<UnsafeCell<u32>>,
    /// Not loom's: a count beside the protocol.
    holes: AtomicU32,
}

// SAFETY: the cells are what loom watches.
unsafe impl<P> Sync for Pages<P> {}
// SAFETY: as above.
unsafe impl<P> Send for Pages<P> {}

impl<P: Protocol> Supply<P> for Pages<P> {
    fn fresh(&self, tag: Tag) -> Option<NonNull<Slab<P>>> {
        let mut slabs = self.slabs.lock().unwrap();
        if slabs.len() == SLABS {
            return None;
        }
        let start = FIRST + slabs.len() * SLAB_BYTES;
        let slab: &'static Slab<P> = Box::leak(Box::new(Slab::for_model(tag, CAPACITY, start)));
        slabs.push(slab);
        Some(NonNull::from(slab))
    }

    fn retire(&self, slab: NonNull<Slab<P>>) {
        // SAFETY: the slabs live as long as the model.
        let slab = unsafe { slab.as_ref() };
        assert_eq!(slab.count_free(), CAPACITY, "retired before all bits were back");
        let index = (slab.start().addr() - FIRST) / SLAB_BYTES;
        for region in 0..CAPACITY as usize {
            self.write(index * CAPACITY as usize + region);
        }
        self.holes.fetch_sub(slab.punched_pages(), Ordering::Relaxed);
        let mut retired = self.retired.lock().unwrap();
        assert!(!retired.contains(&index), "retired twice");
        retired.push(index);
    }

    fn punched(&self, pages: u32) {
        self.holes.fetch_add(pages, Ordering::Relaxed);
    }

    fn refaulted(&self, pages: u32) {
        self.holes.fetch_sub(pages, Ordering::Relaxed);
    }
}

impl<P> Pages<P> {
    /// What purging the pages of a slab does: writes to all of its cells.
    fn overwrite(&self, start: *mut u8) {
        let index = (start.addr() - FIRST) / SLAB_BYTES;
        (0..CAPACITY as usize).for_each(|region| self.write(index * CAPACITY as usize + region));
    }

    fn write(&self, cell: usize) {
        // SAFETY: loom checks that nobody else is at it.
        self.cells[cell].with_mut(|value| unsafe { *value += 1 });
    }
}

impl<P: Protocol + 'static> World<P> {
    fn new() -> Arc<Self> {
        let cells = (0..SLABS * CAPACITY as usize).map(|_| UnsafeCell::new(0)).collect();
        let supply = Pages {
            slabs: Mutex::new(Vec::new()),
            retired: Mutex::new(Vec::new()),
            cells,
            holes: AtomicU32::new(0),
        };
        let tag = Tag::new(Class::new(4).unwrap(), 0);
        Arc::new(Self { bin: Bin::new(), supply, tag })
    }

    fn claim(&self, want: u32) -> Vec<usize> {
        let mut out = Vec::new();
        self.bin.refill(self.tag, 0, want, &self.supply, &mut |at| out.push(at.addr()), || {});
        out.iter().for_each(|&at| self.supply.write(self.cell(at)));
        out
    }

    fn cell(&self, address: usize) -> usize {
        let region = 64;
        (address - FIRST) / SLAB_BYTES * CAPACITY as usize + (address - FIRST) % SLAB_BYTES / region
    }

    fn slab(&self, address: usize) -> &'static Slab<P> {
        self.supply.slabs.lock().unwrap()[(address - FIRST) / SLAB_BYTES]
    }

    fn give(&self, address: usize) {
        self.supply.write(self.cell(address));
        let slab = self.slab(address);
        let bit = 1 << ((address - FIRST) % SLAB_BYTES / 64);
        let n = slab.put(0, bit, Company::Others).expect("freed once");
        self.settle(slab, slab.lower(n, Company::Others).expect("a live slab"));
    }

    fn settle(&self, slab: &'static Slab<P>, after: After) {
        if after == After::Settle {
            self.bin.settle(NonNull::from(slab), self.tag, &self.supply);
        }
    }

    /// Everything is back: the owned slab goes, and then no slab may be left.
    fn end(&self) {
        self.bin.disown(&self.supply);
        let counts = self.bin.counts();
        assert_eq!((counts.partial, counts.full), ([0; 4], 0), "slabs are left in lists");
        assert_eq!((counts.evacuating, counts.owned), (0, 0));
        let (made, retired) =
            (self.supply.slabs.lock().unwrap().len(), self.supply.retired.lock().unwrap().len());
        assert_eq!(made, retired, "a slab was lost");
        assert_eq!(self.supply.holes.load(Ordering::Relaxed), 0, "a hole was lost");
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Two threads claim and return; every region has one owner at a time.
fn claims_and_returns<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || world.claim(1).into_iter().for_each(|at| world.give(at)))
        };
        world.claim(2).into_iter().for_each(|at| world.give(at));
        other.join().unwrap();
        world.end();
    });
}

/// A full slab loses its regions from two threads: listed and retired once.
fn full_to_empty<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let held = world.claim(CAPACITY);
        // Makes the first slab full and another one owned.
        let more = world.claim(1);
        let (first, second) = (held[0], held[1]);
        let other = {
            let world = world.clone();
            thread::spawn(move || world.give(first))
        };
        world.give(second);
        other.join().unwrap();
        more.into_iter().for_each(|at| world.give(at));
        world.end();
    });
}

/// A listed slab is emptied while a refill may choose it.
fn return_against_refill<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let held = world.claim(CAPACITY);
        let more = world.claim(CAPACITY);
        world.give(held[0]);
        let last = held[1];
        let other = {
            let world = world.clone();
            thread::spawn(move || world.give(last))
        };
        // The owned slab is full: another one must be found.
        let found = world.claim(1);
        other.join().unwrap();
        found.into_iter().chain(more).for_each(|at| world.give(at));
        world.end();
    });
}

/// A slab is marked for evacuation while its last region comes back.
fn evacuation_against_return<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let held = world.claim(CAPACITY);
        let more = world.claim(1);
        world.give(held[0]);
        let last = held[1];
        let other = {
            let world = world.clone();
            thread::spawn(move || world.give(last))
        };
        world.bin.look(&mut Walk::default(), usize::MAX, |_| true);
        assert!(world.claim(1).iter().all(|&at| at != last), "claimed from an evacuating slab");
        world.bin.spare(&world.supply, usize::MAX);
        other.join().unwrap();
        drop(more);
        world.give_claimed();
        world.end();
    });
}

/// A listed slab is punched while its last region comes back and a refill may
/// choose it.
fn punch_against_return_and_refill<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let held = world.claim(CAPACITY);
        let more = world.claim(CAPACITY);
        world.give(held[0]);
        let last = held[1];
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                world.give(last);
                world.claim(1)
            })
        };
        let class = world.tag.class().unwrap();
        let purge = |start: *mut u8, _, _| {
            world.supply.overwrite(start);
            true
        };
        world.bin.punch(class, &world.supply, purge).expect("a whole slab");
        let found = other.join().unwrap();
        found.into_iter().chain(more).for_each(|at| world.give(at));
        world.end();
    });
}

/// A claim was counted while the slab was owned; before it has its bit the slab
/// is let go and punched.
fn punch_against_claim_on_its_way<P: Protocol + 'static>() {
    model(|| {
        let world = World::<P>::new();
        let held = world.claim(1);
        world.give(held[0]);
        let other = {
            let world = world.clone();
            thread::spawn(move || world.claim(1))
        };
        world.bin.disown(&world.supply);
        let class = world.tag.class().unwrap();
        let purge = |start: *mut u8, _, _| {
            world.supply.overwrite(start);
            true
        };
        world.bin.punch(class, &world.supply, purge).expect("a whole slab");
        other.join().unwrap().into_iter().for_each(|at| world.give(at));
        world.end();
    });
}

#[test]
fn shipped_punch_against_claim_on_its_way() {
    punch_against_claim_on_its_way::<Small>();
}

#[test]
fn shipped_punch_against_return_and_refill() {
    punch_against_return_and_refill::<Small>();
}

/// Regions that come back without a release: the purge may go before the last
/// owner's writes.
#[test]
#[should_panic(expected = "Causality violation")]
fn twin_relaxed_return_to_a_punched_slab_is_caught() {
    punch_against_return_and_refill::<RelaxedReturn>();
}

impl<P: Protocol + 'static> World<P> {
    /// Gives back what is still taken, read from the bit sets.
    fn give_claimed(&self) {
        let slabs: Vec<_> = self.supply.slabs.lock().unwrap().clone();
        for slab in slabs {
            for region in 0..CAPACITY as usize {
                let word = slab.words()[0].load(Ordering::Acquire);
                if word & (1 << region) == 0 {
                    self.give(slab.start().addr() + region * 64);
                }
            }
        }
    }
}

#[test]
fn shipped_claims_and_returns() {
    claims_and_returns::<Small>();
}

#[test]
fn shipped_full_to_empty() {
    full_to_empty::<Small>();
}

#[test]
fn shipped_return_against_refill() {
    return_against_refill::<Small>();
}

#[test]
fn shipped_evacuation_against_return() {
    evacuation_against_return::<Small>();
}

#[test]
fn shipped_double_return_is_seen() {
    model(|| {
        let world = World::<Small>::new();
        let held = world.claim(CAPACITY);
        let other = {
            let (world, at) = (world.clone(), held[0]);
            thread::spawn(move || world.slab(at).put(0, 1, Company::Others).is_ok())
        };
        let here = world.slab(held[0]).put(0, 1, Company::Others).is_ok();
        let there = other.join().unwrap();
        assert!(here != there, "exactly one of two returns is the first");
    });
}

struct RelaxedReturn;
impl Protocol for RelaxedReturn {
    small!();
    const RETURN_BITS: Ordering = Ordering::Relaxed;
    const RETURN_COUNT: Ordering = Ordering::Relaxed;
}

struct RelaxedTake;
impl Protocol for RelaxedTake {
    small!();
    const TAKE_BITS: Ordering = Ordering::Relaxed;
}

struct RelaxedCount;
impl Protocol for RelaxedCount {
    small!();
    const RETURN_COUNT: Ordering = Ordering::Relaxed;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn twin_relaxed_return_is_caught() {
    claims_and_returns::<RelaxedReturn>();
}

#[test]
#[should_panic(expected = "retired before all bits were back")]
fn twin_relaxed_count_is_caught() {
    full_to_empty::<RelaxedCount>();
}

/// The count falls before the bit is back: the other thread may retire the slab.
#[test]
#[should_panic(expected = "retired before all bits were back")]
fn twin_count_first_is_caught() {
    model(|| {
        let world = World::<Small>::new();
        let held = world.claim(CAPACITY);
        let more = world.claim(1);
        let (first, second) = (held[0], held[1]);
        let other = {
            let world = world.clone();
            thread::spawn(move || {
                let slab = world.slab(first);
                world.supply.write(world.cell(first));
                let after = slab.lower(1, Company::Others).unwrap();
                slab.put(0, 1, Company::Others).unwrap();
                world.settle(slab, after);
            })
        };
        world.give(second);
        other.join().unwrap();
        more.into_iter().for_each(|at| world.give(at));
        world.end();
    });
}

/// Nobody lists a full slab that loses a region: it is lost.
#[test]
#[should_panic(expected = "slabs are left in lists")]
fn twin_unsettled_slab_is_caught() {
    model(|| {
        let world = World::<Small>::new();
        let held = world.claim(CAPACITY);
        let more = world.claim(1);
        for at in held {
            let slab = world.slab(at);
            let n = slab.put(0, 1 << ((at - FIRST) % SLAB_BYTES / 64), Company::Others).unwrap();
            let _ = slab.lower(n, Company::Others).unwrap();
        }
        more.into_iter().for_each(|at| world.give(at));
        world.end();
    });
}

/// Taking without acquiring is caught by a claim that the header's count did
/// not order: the region was given back by a thread whose count comes later.
#[test]
#[should_panic(expected = "Causality violation")]
fn twin_relaxed_take_is_caught() {
    model(|| {
        let world = World::<RelaxedTake>::new();
        let held = world.claim(1);
        let at = held[0];
        let other = {
            let world = world.clone();
            thread::spawn(move || world.give(at))
        };
        // Claims the other region, or the one that is just coming back.
        let mine = world.claim(1);
        other.join().unwrap();
        mine.into_iter().for_each(|at| world.give(at));
        world.end();
    });
}
