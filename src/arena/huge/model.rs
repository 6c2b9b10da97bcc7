//! Loom models of huge blocks: mappings that are freed, shelved, given back and remapped
//! while other threads want some.
//!
//! Mappings lie in a small address space ([`crate::model::space`]), where a place that is
//! given back is another's at once.

use super::mapping::Mapping;
use super::{Huge, Shelved};
use crate::config::{LG_PAGE, PAGE_BYTES};
use crate::meta::Meta;
use crate::model::{FEWER, model, model_with, side_by_side, space, twin};
use crate::os;
use core::ptr::NonNull;
use loom::thread;

struct World {
    huge: Huge,
    meta: Meta,
}

#[derive(Clone, Copy)]
struct Block {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address.
unsafe impl Send for Block {}

impl World {
    fn new() -> &'static Self {
        space::open();
        Box::leak(Box::new(Self { huge: Huge::new(), meta: Meta::new() }))
    }

    /// A block, written to.
    fn take(&self, pages: usize) -> Block {
        let bytes = pages << LG_PAGE;
        let extent = self.huge.allocate(&self.meta, bytes, 1, false).expect("memory");
        let block = Block { at: extent.start, bytes };
        Self::write(block);
        block
    }

    fn write(block: Block) {
        space::write(block.at, block.bytes);
    }

    /// Frees a block, which waits on the shelf if it may.
    fn give(&self, block: Block) {
        Self::write(block);
        // SAFETY: `take` has lent it.
        unsafe { self.huge.free(block.at, block.bytes) };
    }

    fn grow(&self, block: Block) -> Block {
        let bytes = block.bytes + PAGE_BYTES;
        // SAFETY: as above.
        let at = unsafe { self.huge.resize(block.at, block.bytes, bytes) }.expect("memory");
        let block = Block { at, bytes };
        Self::write(block);
        block
    }

    /// The books equal the table and the shelf, and what is live.
    fn check(&self, live: &[Block]) {
        self.huge.raw_lock();
        // SAFETY: the lock is held.
        let (books, counted) = unsafe { self.huge.recount_held() };
        // SAFETY: as above.
        unsafe { self.huge.raw_unlock() };
        assert_eq!(books, counted, "the books are wrong");
        assert_eq!(books.blocks.count, live.len(), "a block is off the table");
        for block in live {
            let told = self.huge.bytes_at(block.at.addr().get());
            assert_eq!(told, Some(block.bytes), "a block is off the table");
        }
        let bytes: usize = live.iter().map(|block| block.bytes).sum();
        assert_eq!(
            space::mapped_pages() << LG_PAGE,
            bytes + books.shelf_bytes,
            "address space is lost"
        );
    }

    /// Frees what is live; then nothing may be left.
    fn end(&self, live: &[Block]) {
        self.check(live);
        live.iter().for_each(|block| self.give(*block));
        self.huge.clear_shelf();
        self.check(&[]);
    }
}

/// A block is freed while another thread wants one.
fn free_against_take(give: impl FnOnce(&World, Block) + 'static) {
    free_of_against_take(World::new(), give);
}

fn free_of_against_take(world: &'static World, give: impl FnOnce(&World, Block) + 'static) {
    let block = world.take(2);
    let ((), taken) = side_by_side(move || give(world, block), || world.take(1));
    world.end(&[taken]);
}

/// A block is freed while memory is told to go back at once.
fn free_against_decay(stop_decay: impl FnOnce(&World) + 'static) {
    let world = World::new();
    let block = world.take(1);
    side_by_side(move || world.give(block), move || stop_decay(world));
    assert_eq!(world.huge.books().shelf_bytes, 0, "a block waits");
    world.end(&[]);
}

fn stop_decay(world: &World) {
    world.huge.set_decays(false);
    clear(world);
}

/// A stretch that waits on the shelf is given back while another thread wants a part of
/// it.
fn shelf_against_take(give_back: impl FnOnce(&World) + 'static) {
    let world = World::new();
    world.give(world.take(2));
    let ((), taken) = side_by_side(move || give_back(world), || world.take(1));
    world.end(&[taken]);
}

/// The decay clock has run out.
fn run_out(world: &World) {
    while world.huge.tick(1_000_000, Some(1000)) {}
}

fn clear(world: &World) {
    world.huge.clear_shelf();
}

/// Three threads: one frees, one gives back, one takes.
fn free_against_clear_and_take() {
    let world = World::new();
    let block = world.take(2);
    let frees = thread::spawn(move || world.give(block));
    let ((), taken) = side_by_side(|| clear(world), || world.take(1));
    frees.join().unwrap();
    world.end(&[taken]);
}

/// A block moves as it grows, while another thread wants one and may get its old place.
fn grow_against_take(grow: impl FnOnce(&World, Block) -> Block + 'static) {
    let world = World::new();
    let block = world.take(2);
    let (grown, taken) = side_by_side(move || grow(world, block), || world.take(1));
    world.end(&[grown, taken]);
}

/// A block moves as it grows, while everything is held for an audit or a fork.
fn grow_against_audit(grow: impl FnOnce(&World, Block) -> Block + 'static) {
    let world = World::new();
    let block = world.take(1);
    let audit = || {
        world.huge.raw_lock();
        // SAFETY: the lock is held.
        let (books, counted) = unsafe { world.huge.recount_held() };
        // SAFETY: as above.
        unsafe { world.huge.raw_unlock() };
        assert_eq!((books.blocks.count, counted.blocks.count), (1, 1), "a block is off the table");
    };
    let (grown, ()) = side_by_side(move || grow(world, block), audit);
    world.end(&[grown]);
}

/// A block grows into what waits on the shelf behind it, or moves, while that is given
/// back.
fn grow_against_clear() {
    let world = World::new();
    let (block, behind) = (world.take(1), world.take(1));
    world.give(behind);
    let (grown, ()) = side_by_side(move || world.grow(block), || clear(world));
    world.end(&[grown]);
}

#[test]
fn huge_free_and_take() {
    let name = "huge: freed onto the shelf against an allocation";
    model(name, || free_against_take(World::give));
    let name = "huge: freed and given back against an allocation";
    model(name, || {
        let world = World::new();
        world.huge.set_decays(false);
        free_of_against_take(world, World::give);
    });
}

#[test]
fn huge_free_and_decay() {
    model("huge: freed while decay is turned off", || free_against_decay(stop_decay));
}

#[test]
fn twin_of_decay_turned_off_late() {
    twin("huge: shelf cleared before decay is off", "a block waits", || {
        free_against_decay(|world| {
            clear(world);
            world.huge.set_decays(false);
        });
    });
}

#[test]
fn huge_shelf_and_take() {
    model("huge: shelf cleared against an allocation", || shelf_against_take(clear));
    model("huge: shelf decays against an allocation", || shelf_against_take(run_out));
}

#[test]
fn huge_free_and_clear_and_take() {
    model_with("huge: free, purge and allocation", FEWER, free_against_clear_and_take);
}

#[test]
fn huge_grow() {
    model("huge: remapped against an allocation", || grow_against_take(World::grow));
    model("huge: remapped against an audit", || grow_against_audit(World::grow));
    model("huge: grows into the shelf against a purge", grow_against_clear);
}

/// The oldest stretch is looked at, the lock let go of, and then it is given back.
fn clear_after_an_old_look(world: &World) {
    let mut table = world.huge.table.lock();
    let Some(it) = table.shelf.some_of_the_oldest(usize::MAX) else { return };
    table.shelf.put(it, 1);
    drop(table);
    it.give_back();
    world.huge.table.lock().shelf.some_of_the_oldest(usize::MAX);
}

#[test]
fn twin_of_shelf_cleared_after_an_old_look() {
    let expected = "Causality violation: Concurrent write";
    twin("huge: given back after an old look", expected, || {
        shelf_against_take(clear_after_an_old_look);
    });
}

/// The mapping goes before the block is off the table.
fn give_released_first(world: &World, block: Block) {
    World::write(block);
    let address = block.at.addr().get();
    Shelved::new(address, block.bytes, 0).give_back();
    world.huge.table.lock().take_out(block.at, block.bytes);
}

#[test]
fn twin_of_free_that_releases_first() {
    twin("huge: given back while on the table", "the layouts differ", || {
        free_against_take(give_released_first);
    });
}

/// The table is told when the block has moved: its old address may be another's by then.
fn grow_told_late(world: &World, block: Block) -> Block {
    let bytes = block.bytes + PAGE_BYTES;
    // SAFETY: the block is the caller's.
    let at = unsafe { os::remap(block.at, block.bytes, bytes) }.expect("memory");
    let mut table = world.huge.table.lock();
    let (node, _) = table.take_out(block.at, block.bytes);
    // SAFETY: the node is off the table.
    unsafe { (*node.as_ptr()).mapping = Mapping::whole(at, bytes) };
    table.link(node);
    Block { at, bytes }
}

#[test]
fn twin_of_remap_told_late() {
    twin("huge: told of a remap afterwards", "the layouts differ", || {
        grow_against_take(grow_told_late);
    });
}

/// The lock is let go of while the block moves.
fn grow_off_the_table(world: &World, block: Block) -> Block {
    let bytes = block.bytes + PAGE_BYTES;
    let (node, _) = world.huge.table.lock().take_out(block.at, block.bytes);
    // SAFETY: as above.
    let at = unsafe { os::remap(block.at, block.bytes, bytes) }.expect("memory");
    // SAFETY: as above.
    unsafe { (*node.as_ptr()).mapping = Mapping::whole(at, bytes) };
    world.huge.table.lock().link(node);
    Block { at, bytes }
}

#[test]
fn twin_of_remap_off_the_table() {
    twin("huge: off the table while it is remapped", "a block is off the table", || {
        grow_against_audit(grow_off_the_table);
    });
}
