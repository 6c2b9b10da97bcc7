//! Loom models of the slab and bin protocol: the shipped code, small slabs.
//!
//! Each region has a cell that its owner writes to; loom reports when two
//! threads do so without one happening before the other. The supply checks that
//! a slab is retired once, with all its bits back, and writes to all its cells,
//! as the next user of the pages would.
//!
//! Beside each model stand its twins, which weaken one ordering or one step each and
//! must fail.

use super::{Bin, Supply, Walk};
use crate::class::{self, Class};
use crate::config::PAGE_BYTES;
use crate::model::{FEWER, model, model_with, side_by_side, twin};
use crate::slab::{After, Company, Header, Protocol, Slab, Tag};
use crate::sync::AtomicU64;
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

/// Regions come back without a release.
struct RelaxedReturn;
impl Protocol for RelaxedReturn {
    small!();
    const RETURN_BITS: Ordering = Ordering::Relaxed;
    const RETURN_COUNT: Ordering = Ordering::Relaxed;
}

/// Regions are taken without an acquire.
struct RelaxedTake;
impl Protocol for RelaxedTake {
    small!();
    const TAKE_BITS: Ordering = Ordering::Relaxed;
}

/// The count falls without ordering anything.
struct RelaxedCount;
impl Protocol for RelaxedCount {
    small!();
    const RETURN_COUNT: Ordering = Ordering::Relaxed;
}

/// The state changes in two steps.
struct TornChange;
impl Protocol for TornChange {
    small!();
    fn exchange(header: &AtomicU64, seen: Header, next: Header) -> Result<u64, u64> {
        header.store(next.word(), Ordering::Release);
        Ok(seen.word())
    }
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
    region_bytes: usize,
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
    /// What purging pages of a slab does: writes to the cells of all regions on them.
    fn overwrite(&self, start: *mut u8, first: usize, pages: usize) {
        let index = (start.addr() - FIRST) / SLAB_BYTES * CAPACITY as usize;
        for region in 0..CAPACITY as usize {
            if (first..first + pages).contains(&(region * self.region_bytes / PAGE_BYTES)) {
                self.write(index + region);
            }
        }
    }

    fn write(&self, cell: usize) {
        // SAFETY: loom checks that nobody else is at it.
        self.cells[cell].with_mut(|value| unsafe { *value += 1 });
    }
}

impl<P: Protocol + 'static> World<P> {
    /// Regions of 64 bytes, all on one page.
    fn new() -> Arc<Self> {
        Self::with_class(Class::new(4).unwrap())
    }

    /// Each region is a page.
    fn of_pages() -> Arc<Self> {
        Self::with_class(class::of_size(PAGE_BYTES))
    }

    fn with_class(class: Class) -> Arc<Self> {
        let cells = (0..SLABS * CAPACITY as usize).map(|_| UnsafeCell::new(0)).collect();
        let supply = Pages {
            slabs: Mutex::new(Vec::new()),
            retired: Mutex::new(Vec::new()),
            cells,
            region_bytes: class.info().region_bytes as usize,
            holes: AtomicU32::new(0),
        };
        let tag = Tag::new(class, 0);
        Arc::new(Self { bin: Bin::new(), supply, tag })
    }

    fn claim(&self, want: u32) -> Vec<usize> {
        let mut out = Vec::new();
        self.bin.refill(
            self.tag,
            0,
            want,
            &self.supply,
            &mut |row| out.extend(row.regions().map(<*mut u8>::addr)),
            || {},
        );
        for &at in &out {
            self.supply.write(self.cell(at));
            let slab = self.slab(at);
            let class = self.tag.class().unwrap();
            let index = slab.region_at(class, at).unwrap();
            assert!(!slab.is_punched(class, index), "a page in use is noted as punched");
        }
        out
    }

    fn cell(&self, address: usize) -> usize {
        (address - FIRST) / SLAB_BYTES * CAPACITY as usize + self.region(address)
    }

    /// The number of the region in its slab.
    fn region(&self, address: usize) -> usize {
        (address - FIRST) % SLAB_BYTES / self.supply.region_bytes
    }

    fn slab(&self, address: usize) -> &'static Slab<P> {
        self.supply.slabs.lock().unwrap()[(address - FIRST) / SLAB_BYTES]
    }

    fn give(&self, address: usize) {
        self.supply.write(self.cell(address));
        let slab = self.slab(address);
        let bit = 1 << self.region(address);
        let n = slab.put(0, bit, Company::Others).expect("freed once");
        self.settle(slab, slab.lower(n, Company::Others).expect("a live slab"));
    }

    fn settle(&self, slab: &'static Slab<P>, after: After) {
        if after == After::Settle {
            self.bin.settle(NonNull::from(slab), self.tag, &self.supply);
        }
    }

    /// Gives back what is still taken, read from the bit sets.
    fn give_claimed(&self) {
        let slabs: Vec<_> = self.supply.slabs.lock().unwrap().clone();
        for slab in slabs {
            for region in 0..CAPACITY as usize {
                let word = slab.words()[0].load(Ordering::Acquire);
                if word & (1 << region) == 0 {
                    self.give(slab.start().addr() + region * self.supply.region_bytes);
                }
            }
        }
    }

    /// Punches the listed slabs.
    fn punch(&self) {
        let class = self.tag.class().unwrap();
        let purge = |start: *mut u8, first, pages| {
            self.supply.overwrite(start, first, pages);
            true
        };
        self.bin.punch(class, &self.supply, purge).expect("a whole slab");
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

/// Two threads claim and return; every region has one owner at a time.
fn claims_and_returns<P: Protocol + 'static>() {
    let world = World::<P>::new();
    let turn = |n| {
        let world = world.clone();
        move || world.claim(n).into_iter().for_each(|at| world.give(at))
    };
    side_by_side(turn(2), turn(1));
    world.end();
}

/// One thread claims what another is just giving back.
fn claim_against_return<P: Protocol + 'static>() {
    let world = World::<P>::new();
    let at = world.claim(1)[0];
    let (here, there) = (world.clone(), world.clone());
    // The other region, or the one that is just coming back.
    let (mine, ()) = side_by_side(move || here.claim(1), move || there.give(at));
    mine.into_iter().for_each(|at| world.give(at));
    world.end();
}

/// A region is given back twice, by two threads.
fn double_return(company: Company) {
    let world = World::<Small>::new();
    let held = world.claim(CAPACITY);
    let slab = world.slab(held[0]);
    let other = thread::spawn(move || slab.put(0, 1, company).is_ok());
    let here = slab.put(0, 1, company).is_ok();
    let there = other.join().unwrap();
    assert!(here != there, "exactly one of two returns is the first");
}

/// A full slab loses its regions from two threads: listed and retired once.
fn full_to_empty<P: Protocol + 'static>(give: impl Fn(&World<P>, usize) + Copy + Send + 'static) {
    let world = World::<P>::new();
    let held = world.claim(CAPACITY);
    // Makes the first slab full and another one owned.
    let more = world.claim(1);
    let (first, second) = (held[0], held[1]);
    let other = {
        let world = world.clone();
        thread::spawn(move || give(&world, first))
    };
    give(&world, second);
    other.join().unwrap();
    more.into_iter().for_each(|at| world.give(at));
    world.end();
}

/// A listed slab is emptied while a refill may choose it.
fn return_against_refill<P: Protocol + 'static>() {
    let world = World::<P>::new();
    let held = world.claim(CAPACITY);
    let more = world.claim(CAPACITY);
    world.give(held[0]);
    let last = held[1];
    let (here, there) = (world.clone(), world.clone());
    // The owned slab is full: another one must be found.
    let (found, ()) = side_by_side(move || here.claim(1), move || there.give(last));
    found.into_iter().chain(more).for_each(|at| world.give(at));
    world.end();
}

/// A full slab gets its first region back, while a refill finds the owned slab full
/// and a third thread gives back the other region.
fn full_to_empty_against_refill<P: Protocol + 'static>() {
    let world = World::<P>::new();
    let held = world.claim(CAPACITY);
    let more = world.claim(CAPACITY);
    let (first, second) = (held[0], held[1]);
    let others = [first, second].map(|at| {
        let world = world.clone();
        thread::spawn(move || world.give(at))
    });
    let found = world.claim(1);
    others.into_iter().for_each(|other| other.join().unwrap());
    found.into_iter().chain(more).for_each(|at| world.give(at));
    world.end();
}

/// A slab is marked for evacuation while its last region comes back.
fn evacuation_against_return<P: Protocol + 'static>() {
    let world = World::<P>::new();
    let held = world.claim(CAPACITY);
    let _more = world.claim(1);
    world.give(held[0]);
    let last = held[1];
    let (here, there) = (world.clone(), world.clone());
    let evacuate = move || {
        here.bin.look(&mut Walk::default(), usize::MAX, |_| true);
        assert!(here.claim(1).iter().all(|&at| at != last), "claimed from an evacuating slab");
        here.bin.spare(&here.supply, usize::MAX);
    };
    side_by_side(evacuate, move || there.give(last));
    world.give_claimed();
    world.end();
}

/// A listed slab is punched while its last region comes back and a refill may
/// choose it.
fn punch_against_return_and_refill<P: Protocol + 'static>(punch: impl Fn(&World<P>) + 'static) {
    let world = World::<P>::new();
    let held = world.claim(CAPACITY);
    let more = world.claim(CAPACITY);
    world.give(held[0]);
    let last = held[1];
    let (here, there) = (world.clone(), world.clone());
    let returns = move || {
        there.give(last);
        there.claim(1)
    };
    let ((), found) = side_by_side(move || punch(&here), returns);
    found.into_iter().chain(more).for_each(|at| world.give(at));
    world.end();
}

/// A claim was counted while the slab was owned; before it has its bit the slab
/// is let go and punched.
fn punch_against_claim_on_its_way<P: Protocol + 'static>(punch: impl Fn(&World<P>) + 'static) {
    let world = World::<P>::of_pages();
    let held = world.claim(1);
    world.give(held[0]);
    let (here, there) = (world.clone(), world.clone());
    let lets_go = move || {
        here.bin.disown(&here.supply);
        punch(&here);
    };
    let ((), found) = side_by_side(lets_go, move || there.claim(1));
    found.into_iter().for_each(|at| world.give(at));
    world.end();
}

#[test]
fn region_claim_and_return() {
    model("region: claims and returns", claims_and_returns::<Small>);
    model("region: claim against return", claim_against_return::<Small>);
}

#[test]
fn twin_of_claims_that_returns_relaxed() {
    twin("region: bits return relaxed", "Causality violation", claims_and_returns::<RelaxedReturn>);
}

#[test]
fn twin_of_claims_that_takes_relaxed() {
    twin("region: bits taken relaxed", "Causality violation", claim_against_return::<RelaxedTake>);
}

#[test]
fn region_returned_twice() {
    model("region: double return", || double_return(Company::Others));
}

/// A load and a store, as when there is one thread.
#[test]
fn twin_of_double_return_in_two_steps() {
    let expected = "exactly one of two returns is the first";
    twin("region: bits return in two steps", expected, || double_return(Company::Alone));
}

#[test]
fn slab_full_to_empty() {
    model("slab: full to empty", || full_to_empty::<Small>(World::give));
}

#[test]
fn twin_of_full_to_empty_that_counts_relaxed() {
    let expected = "retired before all bits were back";
    twin("slab: count falls relaxed", expected, || full_to_empty::<RelaxedCount>(World::give));
}

/// The count falls before the bit is back: the other thread may retire the slab.
#[test]
fn twin_of_full_to_empty_that_counts_first() {
    let expected = "retired before all bits were back";
    twin("slab: count falls before the bit is back", expected, || {
        full_to_empty::<Small>(|world, at| {
            let slab = world.slab(at);
            world.supply.write(world.cell(at));
            let after = slab.lower(1, Company::Others).unwrap();
            slab.put(0, 1 << world.region(at), Company::Others).unwrap();
            world.settle(slab, after);
        });
    });
}

/// Nobody lists a full slab that loses a region: it is lost.
#[test]
fn twin_of_full_to_empty_that_does_not_settle() {
    twin("slab: not settled after a return", "slabs are left in lists", || {
        full_to_empty::<Small>(|world, at| {
            let slab = world.slab(at);
            world.supply.write(world.cell(at));
            let n = slab.put(0, 1 << world.region(at), Company::Others).unwrap();
            let _ = slab.lower(n, Company::Others).unwrap();
        });
    });
}

#[test]
fn slab_return_against_refill() {
    model("slab: partial to empty against refill", return_against_refill::<Small>);
}

#[test]
fn slab_full_to_empty_against_refill() {
    model_with("slab: full to empty against refill", FEWER, full_to_empty_against_refill::<Small>);
}

/// A count that falls in between is lost: the slab is never empty.
#[test]
fn twin_of_refill_that_changes_the_state_in_two_steps() {
    let expected = "slabs are left in lists";
    twin("slab: state changes in two steps", expected, return_against_refill::<TornChange>);
}

#[test]
fn evacuation_and_return() {
    model("evacuation against return", evacuation_against_return::<Small>);
}

/// As for the refill.
#[test]
fn twin_of_evacuation_that_changes_the_state_in_two_steps() {
    let expected = "slabs are left in lists";
    twin("evacuation: marked in two steps", expected, evacuation_against_return::<TornChange>);
}

#[test]
fn punch_and_return_and_refill() {
    model("punch against return and refill", || {
        punch_against_return_and_refill::<Small>(World::punch);
    });
}

#[test]
fn punch_and_claim_on_its_way() {
    model("punch against a claim on its way", || {
        punch_against_claim_on_its_way::<Small>(World::punch);
    });
}

/// The purge may go before the last owner's writes.
#[test]
fn twin_of_punch_whose_regions_return_relaxed() {
    twin("punch: bits return relaxed", "Causality violation", || {
        punch_against_return_and_refill::<RelaxedReturn>(World::punch);
    });
}

/// The page is noted when its regions are back: one may be taken already (L4).
#[test]
fn twin_of_punch_that_notes_late() {
    let punch = |world: &World<Small>| {
        let class = world.tag.class().unwrap();
        let supply = &world.supply;
        let punched = world.bin.each_partial(|lists, slab| {
            // SAFETY: the slabs live as long as the model.
            let it = unsafe { slab.as_ref() };
            let held = it.hold_free_pages(class);
            let done = held.purge(|first, pages| {
                supply.overwrite(it.start(), first, pages);
                true
            });
            supply.punched(done.count_ones());
            let after = it.hand_back(&held)?;
            it.note_punched(done);
            if after == After::Settle && lists.settle(it, world.tag) {
                supply.retire(slab);
            }
            Ok(())
        });
        punched.expect("a whole slab");
    };
    twin("punch: noted after the return", "noted as punched", move || {
        punch_against_claim_on_its_way::<Small>(punch);
    });
}
