//! Loom models of holding everything: what an audit, or a fork, finds while other threads
//! are on their way.

use super::Locks;
use crate::arena::slabs::model::{CAPACITY, SHIPPED, Small, Ways, World};
use crate::config::{LG_PAGE, PAGE_BYTES};
use crate::model::{model, side_by_side, space, twin};
use crate::slab::Slab;
use core::ptr::NonNull;

const BLOCK_BYTES: usize = PAGE_BYTES;

fn locks(world: &World) -> Locks<'_> {
    Locks { large: &world.large, huge: &world.huge, pages: &world.heap, meta: &world.meta }
}

fn hold(world: &World) {
    locks(world).hold(world.bins.iter());
}

/// Looks at what is found while everything is held, and lets go.
fn check_and_let_go(world: &World) {
    let mut slabs = 0;
    for bin in &world.bins {
        // SAFETY: everything is held.
        let counts = unsafe { bin.counts_held() };
        slabs += counts.partial.iter().sum::<usize>() + counts.evacuating;
        slabs += counts.full + counts.owned;
    }
    // SAFETY: as above.
    let books = unsafe { world.heap.books_held() };
    let (used, told) = (books.used_pages(), slabs * world.slab_bytes() + books.blocks.bytes);
    assert_eq!(used << LG_PAGE, told, "pages are on their way");
    // SAFETY: as above.
    let (huge, counted) = unsafe { world.huge.recount_held() };
    assert_eq!(huge, counted, "the books are wrong");
    // SAFETY: as above.
    unsafe { locks(world).let_go(world.bins.iter()) };
}

/// A slab is emptied, and another one made, while everything is held.
fn against_slabs(ways: Ways, hold: fn(&World)) {
    let world = World::new(ways);
    let held = world.claim(0, CAPACITY);
    let more = world.claim(0, 1);
    world.give(held[0]);
    let last = held[1];
    let goes_on = move || {
        world.give(last);
        world.claim(1, 1)
    };
    let holds = move || {
        hold(world);
        check_and_let_go(world);
    };
    let (found, ()) = side_by_side(goes_on, holds);
    found.into_iter().chain(more).for_each(|at| world.give(at));
    world.end();
}

/// Blocks come and go while everything is held.
fn against_blocks() {
    let world = World::new(SHIPPED);
    space::open();
    let goes_on = || {
        let at = world.huge.allocate(&world.meta, BLOCK_BYTES, 1, false).expect("memory").start;
        let large = world.take_large();
        // SAFETY: lent just now.
        unsafe { world.huge.free(at, BLOCK_BYTES) };
        (SHIPPED.give_large)(world, large);
    };
    let holds = || {
        hold(world);
        check_and_let_go(world);
    };
    side_by_side(goes_on, holds);
    world.huge.clear_shelf();
    world.end();
}

#[test]
fn everything_held_against_slabs() {
    model("fork: all held against a slab's end and start", || against_slabs(SHIPPED, hold));
}

#[test]
fn everything_held_against_blocks() {
    model("fork: all held against large and huge blocks", against_blocks);
}

/// An empty slab is given back when the bin's lock has been let go of.
fn retire_later(world: &World, slab: NonNull<Slab<Small>>) {
    world.retire_later(slab);
}

#[test]
fn twin_of_slabs_on_their_way() {
    twin("fork: an empty slab on its way", "pages are on their way", || {
        against_slabs(Ways { retire: retire_later, ..SHIPPED }, hold);
    });
}

/// The page heap's lock comes first.
fn hold_pages_first(world: &World) {
    world.heap.raw_lock();
    world.bins.iter().for_each(|bin| bin.raw_lock());
    world.large.raw_lock();
    world.huge.raw_lock();
    world.meta.raw_lock();
}

#[test]
fn twin_of_another_order() {
    twin("fork: the page heap held first", "deadlock", || {
        against_slabs(SHIPPED, hold_pages_first);
    });
}
