//! Huge blocks: mappings of their own, or what earlier ones have left on the shelf.
//! They grow by `mremap`, without a copy, unless they are made of several mappings that
//! were neighbours on the shelf. Hardened, each lies between two inaccessible
//! pages, and none waits.
//!
//! A table by address tells what is alive, so that a wrong free is found out
//! and the books can be recounted.

mod mapping;
#[cfg(all(test, loom))]
mod model;

use self::mapping::Mapping;
use super::shelf::{Shelf, Shelved};
use crate::bits::checked_round_up;
use crate::config::HARDENED;
use crate::error::Corruption;
use crate::lock::Lock;
use crate::meta::Meta;
use crate::os;
use crate::pages::{BlockBooks, Extent};
use crate::sync::const_unless_loom;
use core::ptr::{self, NonNull};

const BUCKETS: usize = 256;
/// Bytes given back at a time by threads that have something else to do: a fifth of
/// a millisecond.
const TICK_BYTES: usize = 4 << 20;

struct Node {
    mapping: Mapping,
    next: *mut Node,
}

struct Table {
    buckets: [*mut Node; BUCKETS],
    blocks: BlockBooks,
    /// Bytes of the rests behind the blocks.
    rest_bytes: usize,
    shelf: Shelf,
    /// Nodes of blocks that have gone.
    spare: *mut Node,
    /// Whether freed blocks may wait on the shelf: not when memory is given back at once.
    decays: bool,
}

// SAFETY: the nodes belong to the table.
unsafe impl Send for Table {}

/// What there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HugeBooks {
    pub(crate) blocks: BlockBooks,
    /// Bytes mapped behind the blocks, which nobody touches.
    pub(crate) rest_bytes: usize,
    /// Bytes of the stretches that wait on the shelf, and how many of them nobody has
    /// touched, at least.
    pub(crate) shelf_bytes: usize,
    pub(crate) hollow_bytes: usize,
}

impl HugeBooks {
    /// Bytes of address space.
    pub(crate) fn mapped_bytes(&self) -> usize {
        self.blocks.bytes + self.rest_bytes + self.shelf_bytes
    }

    /// Bytes that wait to be used again.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.shelf_bytes - self.hollow_bytes
    }
}

/// The huge blocks.
pub(crate) struct Huge {
    table: Lock<Table>,
}

fn bucket(address: usize) -> usize {
    (address >> 12).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56
}

/// Whether a block of that size may wait on the shelf. Hardened, it goes at once: an
/// access to it is a fault then.
fn may_wait(bytes: usize) -> bool {
    !HARDENED && Shelf::takes(bytes)
}

/// Whole OS pages; `None` on overflow.
fn rounded(size: usize) -> Option<usize> {
    checked_round_up(size, os::page_bytes())
}

impl Shelved {
    fn start(&self) -> Option<NonNull<u8>> {
        NonNull::new(ptr::with_exposed_provenance_mut(self.address))
    }

    /// Gives a mapping that nobody uses back to the system.
    fn give_back(&self) {
        let Some(at) = self.start() else { return };
        // SAFETY: the mapping is whole, and whoever holds this is its only owner.
        if !unsafe { os::release_guarded(at, self.bytes) } {
            // Its address space is lost, but not the memory.
            // SAFETY: as above.
            unsafe { os::purge(at, self.bytes) };
        }
    }
}

impl Table {
    /// A node that is on no list; `None` when memory is out.
    fn node(&mut self, meta: &Meta) -> Option<NonNull<Node>> {
        let Some(node) = NonNull::new(self.spare) else {
            return meta.take(size_of::<Node>()).map(NonNull::cast);
        };
        // SAFETY: spare nodes are valid, and the table's.
        self.spare = unsafe { node.as_ref() }.next;
        Some(node)
    }

    /// Keeps a node for another block.
    fn keep(&mut self, node: NonNull<Node>) {
        // SAFETY: a node that is on no list, of the table's.
        unsafe { (*node.as_ptr()).next = self.spare };
        self.spare = node.as_ptr();
    }

    /// Enters a block.
    fn enter(&mut self, node: NonNull<Node>, mapping: Mapping) {
        // SAFETY: as above, and it has the room.
        unsafe { node.write(Node { mapping, next: ptr::null_mut() }) };
        self.link(node);
    }

    fn link(&mut self, node: NonNull<Node>) {
        // SAFETY: the node is the table's from here on.
        let it = unsafe { &mut *node.as_ptr() };
        let head = &mut self.buckets[bucket(it.mapping.address())];
        it.next = *head;
        *head = node.as_ptr();
        self.blocks.add(it.mapping.bytes);
        self.rest_bytes += it.mapping.rest_bytes();
    }

    fn unlink(&mut self, address: usize) -> Option<NonNull<Node>> {
        let mut at: *mut *mut Node = &raw mut self.buckets[bucket(address)];
        loop {
            // SAFETY: `at` is a bucket, or the link in a node of the table.
            let node = NonNull::new(unsafe { *at })?;
            // SAFETY: nodes in the table are valid.
            let it = unsafe { &mut *node.as_ptr() };
            if it.mapping.address() == address {
                // SAFETY: as above.
                unsafe { *at = it.next };
                self.blocks.remove(it.mapping.bytes);
                self.rest_bytes -= it.mapping.rest_bytes();
                return Some(node);
            }
            at = &raw mut it.next;
        }
    }
}

impl Table {
    /// Unlinks the block of `size` bytes at `at`; aborts when there is none.
    fn take_out(&mut self, at: NonNull<u8>, size: usize) -> (NonNull<Node>, Mapping) {
        let address = at.addr().get();
        let Some(node) = self.unlink(address) else {
            os::abort(Corruption::Foreign { address, size });
        };
        // SAFETY: the node is ours now.
        let mapping = unsafe { node.as_ref() }.mapping;
        if rounded(size) != Some(mapping.bytes) {
            let owned_bytes = mapping.bytes;
            os::abort(Corruption::Layout { address, freed_bytes: size, owned_bytes });
        }
        (node, mapping)
    }

    fn bytes_at(&self, address: usize) -> Option<usize> {
        let mut at = self.buckets[bucket(address)];
        // SAFETY: nodes in the table are valid.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.mapping.address() == address {
                return Some(node.mapping.bytes);
            }
            at = node.next;
        }
        None
    }

    fn books(&self) -> HugeBooks {
        HugeBooks {
            blocks: self.blocks,
            rest_bytes: self.rest_bytes,
            shelf_bytes: self.shelf.bytes(),
            hollow_bytes: self.shelf.hollow_bytes(),
        }
    }
}

impl Huge {
    const_unless_loom! {
        pub(crate) fn new() -> Huge {
            Huge {
                table: Lock::new(Table {
                    buckets: [ptr::null_mut(); BUCKETS],
                    blocks: BlockBooks::NONE,
                    rest_bytes: 0,
                    shelf: Shelf::new(),
                    spare: ptr::null_mut(),
                    decays: true,
                }),
            }
        }
    }

    /// A block; `None` when memory is out. May call the OS. One that is `zeroed` is
    /// always a fresh one.
    pub(crate) fn allocate(
        &self,
        meta: &Meta,
        size: usize,
        align: usize,
        zeroed: bool,
    ) -> Option<Extent> {
        let bytes = rounded(size)?;
        let may_be_old = !zeroed && may_wait(bytes) && os::aligns_mappings_to(align);
        let mut table = self.table.lock();
        let node = table.node(meta)?;
        if may_be_old && let Some(it) = table.shelf.take(bytes) {
            let start = it.start()?;
            let mapping = Mapping::whole(start, bytes);
            table.enter(node, mapping);
            drop(table);
            // A part of it may be what was a rest.
            if it.hollow_bytes > 0 {
                mapping.advise();
            }
            return Some(Extent { start, zeroed: false });
        }
        drop(table);
        let mapping = Mapping::fresh(bytes, align);
        let mut table = self.table.lock();
        match mapping {
            Some(mapping) => table.enter(node, mapping),
            None => table.keep(node),
        }
        mapping.map(|it| Extent { start: it.at, zeroed: true })
    }

    /// Whether freed blocks may wait from now on.
    pub(crate) fn set_decays(&self, decays: bool) {
        self.table.lock().decays = decays;
    }

    /// Gives back some of what has waited on the shelf for long enough, and says
    /// whether there was anything. Calls the OS then.
    pub(crate) fn tick(&self, now_ms: u64, decay_ms: Option<u64>) -> bool {
        let (Some(decay_ms), Some(mut table)) = (decay_ms, self.table.try_lock()) else {
            return false;
        };
        let overdue = table.shelf.is_overdue(now_ms, decay_ms / 2);
        let some = if overdue { table.shelf.some_of_the_oldest(TICK_BYTES) } else { None };
        drop(table);
        some.inspect(Shelved::give_back).is_some()
    }

    /// Gives back all that waits on the shelf. Returns the bytes of memory, without those
    /// that nobody has touched; `None` if nothing waited.
    pub(crate) fn clear_shelf(&self) -> Option<usize> {
        let mut bytes = None;
        loop {
            let it = self.table.lock().shelf.some_of_the_oldest(usize::MAX);
            let Some(it) = it else { return bytes };
            bytes = Some(bytes.unwrap_or(0) + it.bytes - it.hollow_bytes);
            it.give_back();
        }
    }

    /// Takes a block back, to be used again for a while; aborts when it is not one of that
    /// size.
    ///
    /// # Safety
    /// Nobody uses the block any more.
    pub(crate) unsafe fn free(&self, at: NonNull<u8>, size: usize) {
        let mut table = self.table.lock();
        let (node, it) = table.take_out(at, size);
        table.keep(node);
        let freed = Shelved::new(it.address(), it.mapped, it.rest_bytes());
        let mut leaves = if table.decays && may_wait(it.mapped) {
            table.shelf.put(freed, os::now_ms())
        } else {
            Some(freed)
        };
        leaves = leaves.or_else(|| table.shelf.excess());
        drop(table);
        while let Some(it) = leaves {
            it.give_back();
            leaves = self.table.lock().shelf.excess();
        }
    }

    /// Changes the size of a block, moving its pages if it must; `None` leaves
    /// it as it was.
    ///
    /// # Safety
    /// The block is the caller's, has `old` bytes, and is aligned to no more
    /// than a page.
    pub(crate) unsafe fn resize(
        &self,
        at: NonNull<u8>,
        old: usize,
        new: usize,
    ) -> Option<NonNull<u8>> {
        let to = rounded(new)?;
        if rounded(old) == Some(to) {
            return Some(at);
        }
        // Under the lock: the old address may be reused as soon as it is free,
        // and its new owner must find the table up to date.
        let mut table = self.table.lock();
        let (node, mapping) = table.take_out(at, old);
        // SAFETY: the node is on no list.
        let it = unsafe { &mut (*node.as_ptr()).mapping };
        let more = to.saturating_sub(mapping.mapped);
        let end = mapping.address() + mapping.mapped;
        if to > mapping.bytes && (more == 0 || table.shelf.take_at(end, more)) {
            it.grow_here(to);
            table.link(node);
            return Some(at);
        }
        // SAFETY: the block is the caller's.
        let moved = unsafe { it.resize(to) };
        table.link(node);
        drop(table);
        // What grows does not take from the shelf: let it not hold both.
        let mut more = if moved.is_some() { more } else { 0 };
        while more > 0 {
            let some = self.table.lock().shelf.some_of_the_oldest(more);
            let Some(it) = some else { break };
            more -= it.bytes;
            it.give_back();
        }
        moved
    }

    /// Bytes of the block at `address`, if there is one.
    pub(crate) fn bytes_at(&self, address: usize) -> Option<usize> {
        self.table.lock().bytes_at(address)
    }

    /// [`Huge::bytes_at`]; `None` where the table is in use.
    pub(crate) fn try_bytes_at(&self, address: usize) -> Option<Option<usize>> {
        Some(self.table.try_lock()?.bytes_at(address))
    }

    pub(crate) fn books(&self) -> HugeBooks {
        self.table.lock().books()
    }

    /// The books, and the same recounted from the table and from the shelf.
    ///
    /// # Safety
    /// The caller holds the lock by [`Huge::raw_lock`].
    pub(crate) unsafe fn recount_held(&self) -> (HugeBooks, HugeBooks) {
        // SAFETY: the caller's promise.
        let table = unsafe { self.table.value_held() };
        let (mut blocks, mut rest_bytes) = (BlockBooks::NONE, 0);
        for &head in &table.buckets {
            let mut at = head;
            // SAFETY: nodes in the table are valid.
            while let Some(node) = unsafe { at.as_ref() } {
                blocks.add(node.mapping.bytes);
                rest_bytes += node.mapping.rest_bytes();
                at = node.next;
            }
        }
        let (shelf_bytes, hollow_bytes) = table.shelf.recount();
        (table.books(), HugeBooks { blocks, rest_bytes, shelf_bytes, hollow_bytes })
    }

    pub(crate) fn raw_lock(&self) {
        self.table.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Huge::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.table.raw_unlock() }
    }
}
