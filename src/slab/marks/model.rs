//! Loom models of the hardened mode's marks: who is told what by a free.
//!
//! One region of a slab goes from owner to owner by its bit, as it does when it leaves a
//! thread's cache; its mark is watched.

use super::{JUNK, held, of_free, swap};
use crate::class::Class;
use crate::model::{model, side_by_side, twin};
use crate::slab::{Company, Protocol, Slab, Tag};
use crate::sync::Ordering;
use crate::sync::zeroed::AtomicU8;
use core::ptr;

const FIRST: usize = 1 << 20;
/// Sizes of blocks.
const SMALL: usize = 24;
const LONG: usize = 40;

/// As shipped, but with one region in the slab.
struct One;
impl Protocol for One {
    fn capacity(_: Tag) -> u32 {
        1
    }
}

/// Regions come back without a release.
struct RelaxedReturn;
impl Protocol for RelaxedReturn {
    fn capacity(_: Tag) -> u32 {
        1
    }
    const RETURN_BITS: Ordering = Ordering::Relaxed;
    const RETURN_COUNT: Ordering = Ordering::Relaxed;
}

/// The slab, and the mark of its region.
struct World<P: 'static> {
    slab: Slab<P>,
    tag: Tag,
    mark: AtomicU8,
}

impl<P: Protocol + 'static> World<P> {
    /// The region is held as a block of [`SMALL`] bytes.
    fn new() -> &'static Self {
        let tag = Tag::new(Class::new(4).expect("a class"), 0);
        let slab = Slab::for_model(tag, 1, FIRST);
        let it: &'static Self = Box::leak(Box::new(Self { slab, tag, mark: AtomicU8::new(0) }));
        it.mark.watch(0);
        assert!(it.take(SMALL));
        it
    }

    /// Hands the region out, if it is free.
    fn take(&self, size: usize) -> bool {
        let mut at = ptr::null_mut();
        if self.slab.claim(self.tag, 0, 1, &mut |row| at = row.first).0 == 0 {
            return false;
        }
        let was = of_free(&self.mark);
        assert!(was.is_ok(), "a free region is found held");
        self.mark.store(held(size), Ordering::Relaxed);
        true
    }

    /// Takes the mark of a block; whether it is one of that size.
    fn unmark(&self, size: usize, company: Company) -> bool {
        swap(&self.mark, JUNK, company) == held(size)
    }

    /// Returns the region to the slab.
    fn put(&self) {
        let n = self.slab.put(0, 1, Company::Others).expect("the first to return it");
        let _ = self.slab.lower(n, Company::Others).expect("a live slab");
    }

    /// As the shipped free does it.
    fn free(&self) {
        assert!(self.unmark(SMALL, Company::Others), "a block is not found held");
        self.put();
    }
}

/// Two threads free a block.
fn twice(company: Company) {
    let world = World::<One>::new();
    let free = move || world.unmark(SMALL, company);
    let (here, there) = side_by_side(free, free);
    assert!(here != there, "exactly one of two frees is the first");
    assert!(of_free(&world.mark).is_ok(), "a free region is found held");
}

/// A block is freed while another thread wants its region.
fn free_against_next_owner<P: Protocol + 'static>(free: fn(&World<P>)) {
    let world = World::<P>::new();
    let ((), had) = side_by_side(move || free(world), || world.take(LONG));
    let now = world.mark.load(Ordering::Relaxed);
    assert!(had == (now == held(LONG)), "the next owner's mark is lost");
}

/// A block is freed a second time, while its region may get another owner.
fn late_free() {
    let world = World::<One>::new();
    world.free();
    let (had, late) =
        side_by_side(|| world.take(LONG), || swap(&world.mark, JUNK, Company::Others));
    assert!(had, "nobody else had it");
    assert!(late != held(SMALL), "a late free is taken for a right one");
    // A double free, or another's block: that depends on who was first.
    assert!(late == JUNK || late == held(LONG), "a mark that nobody has set");
}

#[test]
fn mark_freed_twice() {
    model("mark: freed by two threads", || twice(Company::Others));
}

#[test]
fn mark_and_next_owner() {
    model("mark: free against the next owner", || free_against_next_owner(World::<One>::free));
}

#[test]
fn mark_and_late_free() {
    model("mark: a late free against the next owner", late_free);
}

/// A load and a store, as when there is one thread.
#[test]
fn twin_of_free_in_two_steps() {
    let expected = "exactly one of two frees is the first";
    twin("mark: taken in two steps", expected, || twice(Company::Alone));
}

/// The next owner may find the mark of the last one.
#[test]
fn twin_of_free_whose_region_returns_relaxed() {
    twin("mark: region returns relaxed", "a free region is found held", || {
        free_against_next_owner(World::<RelaxedReturn>::free);
    });
}

/// The region can be had before its mark is taken.
#[test]
fn twin_of_free_that_unmarks_late() {
    twin("mark: taken after the return", "found held", || {
        free_against_next_owner::<One>(|world| {
            world.put();
            assert!(world.unmark(SMALL, Company::Others), "a block is not found held");
        });
    });
}
