//! Loom models of the page map: slabs and large blocks come and go in the same pages,
//! and whoever frees a region finds its slab by the address alone (A1).
//!
//! Bin, slab, page heap, segment and metadata are shipped; slabs have two regions. The
//! page map's entries of the first pages are watched, and each region has a cell, which
//! its owner writes to.

use super::{fresh, retire};
use crate::arena::bin::{Bin, Supply};
use crate::arena::huge::Huge;
use crate::arena::large::Large;
use crate::class::Class;
use crate::config::{LG_PAGE, SEGMENT_BYTES};
use crate::meta::Meta;
use crate::model::{model, side_by_side, twin};
use crate::pages::PageHeap;
use crate::segment::{Entry, Segment, first_page};
use crate::slab::{After, Company, Protocol, Slab, Tag};
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use std::sync::Mutex;

pub(in crate::arena) const CAPACITY: usize = 2;
/// Slabs that fit in the watched pages.
const SLABS: usize = 3;

/// As shipped, but for the size of slabs.
pub(in crate::arena) struct Small;
impl Protocol for Small {
    fn capacity(_: Tag) -> u32 {
        CAPACITY as u32
    }
}

/// How slabs come and go, and large blocks go.
#[derive(Clone, Copy)]
pub(in crate::arena) struct Ways {
    pub(in crate::arena) fresh: fn(&World, Tag) -> Option<NonNull<Slab<Small>>>,
    pub(in crate::arena) retire: fn(&World, NonNull<Slab<Small>>),
    pub(in crate::arena) give_large: fn(&World, NonNull<u8>),
}

pub(in crate::arena) const SHIPPED: Ways = Ways {
    fresh: |world, tag| fresh(&world.heap, &world.meta, tag, || false),
    // SAFETY: a bin hands it over, empty and unlisted.
    retire: |world, slab| unsafe { retire(&world.heap, &world.meta, slab) },
    // SAFETY: a block of the model's, which nobody uses any more.
    give_large: |world, at| unsafe { world.large.free(&world.heap, at, world.slab_bytes()) },
};

pub(in crate::arena) struct World {
    /// Of two arenas.
    pub(in crate::arena) bins: [Bin<Small>; 2],
    pub(in crate::arena) heap: PageHeap,
    pub(in crate::arena) meta: Meta,
    pub(in crate::arena) large: Large,
    pub(in crate::arena) huge: Huge,
    class: Class,
    ways: Ways,
    cells: Vec<UnsafeCell<u32>>,
    /// Of a twin: entries that are still to be set. Not loom's, and must order nothing.
    late: Mutex<Vec<(usize, Entry)>>,
    /// And empty slabs that are still to be given back.
    empty: Mutex<Vec<usize>>,
}

// SAFETY: the cells are what loom watches; the rest is shared by design.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl Supply<Small> for World {
    fn fresh(&self, tag: Tag) -> Option<NonNull<Slab<Small>>> {
        (self.ways.fresh)(self, tag)
    }

    fn retire(&self, slab: NonNull<Slab<Small>>) {
        // SAFETY: the slab is whole.
        let start = unsafe { slab.as_ref() }.start().addr();
        let region_bytes = self.region_bytes();
        (0..CAPACITY).for_each(|region| self.write(start + region * region_bytes));
        (self.ways.retire)(self, slab);
    }

    fn punched(&self, _: u32) {}

    fn refaulted(&self, _: u32) {}
}

impl World {
    /// With one segment, all of whose pages are free, and one header of a slab.
    pub(in crate::arena) fn new(ways: Ways) -> &'static Self {
        let class = Class::new(4).expect("a class");
        let cells = (0..SLABS * CAPACITY).map(|_| UnsafeCell::new(0)).collect();
        let mut world = Self {
            bins: [Bin::new(), Bin::new()],
            heap: PageHeap::new(),
            meta: Meta::new(),
            large: Large::new(),
            huge: Huge::new(),
            class,
            ways: SHIPPED,
            cells,
            late: Mutex::new(Vec::new()),
            empty: Mutex::new(Vec::new()),
        };
        world.heap.tick(1);
        let at = world.claim(0, 1)[0];
        world.give(at);
        world.bins[0].disown(&world);
        let first = (at & !(SEGMENT_BYTES - 1)) + (first_page() << LG_PAGE);
        (0..SLABS).for_each(|slab| Segment::watch_entry(first + slab * world.slab_bytes()));
        world.ways = ways;
        Box::leak(Box::new(world))
    }

    fn region_bytes(&self) -> usize {
        self.class.info().region_bytes as usize
    }

    pub(in crate::arena) fn slab_bytes(&self) -> usize {
        usize::from(self.class.info().slab_pages) << LG_PAGE
    }

    fn write(&self, address: usize) {
        let offset = (address & (SEGMENT_BYTES - 1)) - (first_page() << LG_PAGE);
        let slab = offset / self.slab_bytes();
        let cell = slab * CAPACITY + offset % self.slab_bytes() / self.region_bytes();
        // SAFETY: loom checks that nobody else is at it.
        self.cells[cell].with_mut(|it| unsafe { *it += 1 });
    }

    pub(in crate::arena) fn claim(&self, arena: u8, want: usize) -> Vec<usize> {
        let mut out = Vec::new();
        let (bin, tag) = (&self.bins[usize::from(arena)], Tag::new(self.class, arena));
        bin.refill(
            tag,
            0,
            want as u32,
            self,
            &mut |row| out.extend(row.regions().map(<*mut u8>::addr)),
            || {},
        );
        out.iter().for_each(|&at| self.write(at));
        for (address, entry) in self.late.lock().unwrap().drain(..) {
            self.set_entry(address, entry);
        }
        out
    }

    /// As a thread's cache gives regions back: by their addresses.
    pub(in crate::arena) fn give(&self, address: usize) {
        self.write(address);
        let class = self.class;
        let slab = Segment::slab_of(class, address).expect("a region's slab is not found");
        let slab = slab.cast::<Slab<Small>>();
        // SAFETY: headers are never unmapped (meta, M1).
        let it = unsafe { slab.as_ref() };
        let index = it.region_at(class, address).expect("a region's slab is another");
        let tag = it.header().tag();
        let n = it.put(0, 1 << index, Company::Others).expect("freed once");
        if it.lower(n, Company::Others).expect("a live slab") == After::Settle {
            self.bins[tag.arena()].settle(slab, tag, self);
        }
        self.retire_those_left();
    }

    /// For twins: gives a slab back after the bin's lock was let go of.
    pub(in crate::arena) fn retire_later(&self, slab: NonNull<Slab<Small>>) {
        self.empty.lock().unwrap().push(slab.as_ptr().expose_provenance());
    }

    fn retire_those_left(&self) {
        let left = core::mem::take(&mut *self.empty.lock().unwrap());
        for slab in left {
            let slab = core::ptr::with_exposed_provenance_mut(slab);
            (SHIPPED.retire)(self, NonNull::new(slab).expect("not null"));
        }
    }

    fn set_entry(&self, address: usize, entry: Entry) {
        let segment = Segment::find(address).expect("a segment");
        segment.set_entry(Segment::page_of(address), self.slab_bytes() >> LG_PAGE, entry);
    }

    pub(in crate::arena) fn take_large(&self) -> NonNull<u8> {
        self.large.allocate(&self.heap, self.slab_bytes(), 1).expect("memory").start
    }

    /// Everything is back.
    pub(in crate::arena) fn end(&self) {
        self.bins.iter().for_each(|bin| bin.disown(self));
        self.retire_those_left();
        assert_eq!(self.heap.books().used_pages(), 0, "pages are lost");
    }
}

/// A slab is emptied while another arena needs one, which may get its pages.
fn retire_against_fresh(ways: Ways) {
    let world = World::new(ways);
    let held = world.claim(0, CAPACITY);
    let more = world.claim(0, 1);
    world.give(held[0]);
    let last = held[1];
    let (found, ()) = side_by_side(|| world.claim(1, 1), move || world.give(last));
    found.into_iter().chain(more).for_each(|at| world.give(at));
    world.end();
}

/// A large block is freed while another thread needs a slab, which may get its pages.
fn large_against_fresh(ways: Ways) {
    let world = World::new(ways);
    let block = world.take_large().addr();
    let give = move || {
        let at = core::ptr::with_exposed_provenance_mut(block.get());
        (world.ways.give_large)(world, NonNull::new(at).expect("not null"));
    };
    let (found, ()) = side_by_side(|| world.claim(0, 1), give);
    found.into_iter().for_each(|at| world.give(at));
    world.end();
}

/// Two threads claim of a slab that is just being made, and free at once.
fn fresh_against_claim(ways: Ways) {
    let world = World::new(ways);
    let turn = || world.claim(0, 1).into_iter().for_each(|at| world.give(at));
    side_by_side(turn, turn);
    world.end();
}

#[test]
fn page_map_of_slabs() {
    model("page map: a slab's end against a fresh one", || retire_against_fresh(SHIPPED));
    model("page map: fresh slab against a claim", || fresh_against_claim(SHIPPED));
}

#[test]
fn page_map_of_large_blocks() {
    model("page map: a large block's end against a fresh slab", || large_against_fresh(SHIPPED));
}

/// The pages are free before their entries are empty: they may be another slab's.
fn retire_freed_first(world: &World, slab: NonNull<Slab<Small>>) {
    // SAFETY: empty and unlisted.
    let start = NonNull::new(unsafe { slab.as_ref() }.start()).expect("not null");
    // SAFETY: as above.
    unsafe { world.heap.free(start, world.slab_bytes() >> LG_PAGE) };
    world.set_entry(start.addr().get(), Entry::None);
    // SAFETY: as above.
    unsafe { world.meta.give_header(slab.cast(), Slab::<Small>::node_bytes(world.class)) };
}

#[test]
fn twin_of_end_that_frees_first() {
    twin("page map: emptied when the pages are free", "a region's slab is not found", || {
        retire_against_fresh(Ways { retire: retire_freed_first, ..SHIPPED });
    });
}

/// The same for a large block.
fn large_freed_first(world: &World, at: NonNull<u8>) {
    // SAFETY: nobody uses the block any more.
    unsafe { world.heap.free(at, world.slab_bytes() >> LG_PAGE) };
    let segment = Segment::find(at.addr().get()).expect("a segment");
    segment.set_entry(Segment::page_of(at.addr().get()), 1, Entry::None);
}

#[test]
fn twin_of_large_block_that_is_freed_first() {
    let expected = "a region's slab is not found";
    twin("page map: a large block's pages free first", expected, || {
        large_against_fresh(Ways { give_large: large_freed_first, ..SHIPPED });
    });
}

/// The entries are set when the slab can be claimed from already.
fn fresh_entered_late(world: &World, tag: Tag) -> Option<NonNull<Slab<Small>>> {
    let slab = (SHIPPED.fresh)(world, tag)?;
    // SAFETY: a whole slab.
    let start = unsafe { slab.as_ref() }.start().addr();
    world.late.lock().unwrap().push((start, Segment::entry_of(start)));
    world.set_entry(start, Entry::None);
    Some(slab)
}

#[test]
fn twin_of_fresh_slab_that_is_entered_late() {
    twin("page map: entered after the slab is owned", "a region's slab is not found", || {
        fresh_against_claim(Ways { fresh: fresh_entered_late, ..SHIPPED });
    });
}
