//! Huge blocks: mappings of their own, or what earlier ones have left on the shelf.
//! They grow by `mremap`, without a copy. Hardened, each lies between two inaccessible
//! pages, and none waits.
//!
//! A table by address tells what is alive, so that a wrong free is found out
//! and the books can be recounted.

#[cfg(all(test, loom))]
mod model;

use super::shelf::{Shelf, Shelved};
use crate::bits::checked_round_up;
use crate::config::{HARDENED, HUGE_PAGE_BYTES};
use crate::error::Corruption;
use crate::lock::Lock;
use crate::meta::Meta;
use crate::os;
use crate::pages::{BlockBooks, Extent};
use crate::settings::{HugePages, SETTINGS};
use crate::sync::const_unless_loom;
use core::ptr::{self, NonNull};

const BUCKETS: usize = 256;
/// Bytes given back at a time by threads that have something else to do: a fifth of
/// a millisecond.
const TICK_BYTES: usize = 4 << 20;
/// Blocks from this size on are backed by huge pages where that is wanted for
/// what is dense: at most a half of such a block is backed in vain.
const DENSE_BYTES: usize = 2 * HUGE_PAGE_BYTES;

struct Node {
    /// Kept for stale readers by `meta`; unused here.
    _first: u64,
    address: usize,
    bytes: usize,
    next: *mut Node,
}

struct Table {
    buckets: [*mut Node; BUCKETS],
    books: BlockBooks,
    shelf: Shelf,
    /// Nodes of blocks that have gone.
    spare: *mut Node,
    /// Whether freed blocks may wait on the shelf: not when memory is given back at once.
    decays: bool,
}

// SAFETY: the nodes belong to the table.
unsafe impl Send for Table {}

/// The huge blocks.
pub(crate) struct Huge {
    table: Lock<Table>,
}

fn bucket(address: usize) -> usize {
    (address >> 12).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56
}

/// A fresh mapping, backed by huge pages if that is wanted.
fn fresh(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let at = os::reserve_guarded(bytes, align)?;
    advise(at, 0, bytes);
    if SETTINGS.prefault() {
        // SAFETY: a whole mapping of ours.
        unsafe { os::populate(at, bytes) };
    }
    Some(at)
}

/// Gives a block another size, with guards: a smaller one stays where it is, a larger one
/// moves, and its old guards go.
///
/// # Safety
/// A whole block, which is the caller's.
unsafe fn move_guarded(at: NonNull<u8>, bytes: usize, to: usize) -> Option<NonNull<u8>> {
    let page = os::page_bytes();
    if to < bytes {
        // SAFETY: the first page that is given up becomes the guard; the rest, and the
        // old guard behind it, go.
        unsafe {
            os::protect(at.add(to), page, os::Access::None);
            if !os::release(at.add(to + page), bytes - to) {
                // Its address space is lost, but not the memory.
                os::purge(at.add(to + page), bytes - to);
            }
        }
        return Some(at);
    }
    let place = os::reserve_guarded(to, page)?;
    // SAFETY: the caller's promise; the place is fresh.
    if unsafe { os::remap_onto(at, bytes, place, to) }.is_none() {
        // The place between the guards may be gone, and another's by now: it is lost.
        // SAFETY: the guards are there, and nobody's.
        unsafe {
            os::release(place.sub(page), page);
            os::release(place.add(to), page);
        }
        return None;
    }
    // SAFETY: the old block's guards, between which nothing is left.
    unsafe {
        os::release(at.sub(page), page);
        os::release(at.add(bytes), page);
    }
    Some(place)
}

/// Whether a block of that size may wait on the shelf. Hardened, it goes at once: an
/// access to it is a fault then.
fn may_wait(bytes: usize) -> bool {
    !HARDENED && Shelf::takes(bytes)
}

/// Asks for huge pages, or for none, for a mapping that has grown, if its size
/// decides that now.
fn advise(at: NonNull<u8>, old: usize, bytes: usize) {
    let least = match SETTINGS.huge_pages() {
        HugePages::System => return,
        HugePages::Blocks | HugePages::Dense => DENSE_BYTES,
        HugePages::Always => HUGE_PAGE_BYTES,
        HugePages::Never => 1,
    };
    if old < least && bytes >= least {
        // SAFETY: a whole mapping of ours.
        unsafe { os::advise_huge_pages(at, bytes, SETTINGS.huge_pages() != HugePages::Never) };
    }
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
    fn enter(&mut self, node: NonNull<Node>, address: usize, bytes: usize) {
        // SAFETY: as above, and it has the room.
        unsafe { node.write(Node { _first: 0, address, bytes, next: ptr::null_mut() }) };
        self.link(node);
    }

    fn link(&mut self, node: NonNull<Node>) {
        // SAFETY: the node is the table's from here on.
        let it = unsafe { &mut *node.as_ptr() };
        let head = &mut self.buckets[bucket(it.address)];
        it.next = *head;
        *head = node.as_ptr();
        self.books.count += 1;
        self.books.bytes += it.bytes;
    }

    fn unlink(&mut self, address: usize) -> Option<NonNull<Node>> {
        let mut at: *mut *mut Node = &raw mut self.buckets[bucket(address)];
        loop {
            // SAFETY: `at` is a bucket, or the link in a node of the table.
            let node = NonNull::new(unsafe { *at })?;
            // SAFETY: nodes in the table are valid.
            let it = unsafe { &mut *node.as_ptr() };
            if it.address == address {
                // SAFETY: as above.
                unsafe { *at = it.next };
                self.books.count -= 1;
                self.books.bytes -= it.bytes;
                return Some(node);
            }
            at = &raw mut it.next;
        }
    }
}

impl Table {
    /// Unlinks the block of `size` bytes at `at`; aborts when there is none.
    fn take_out(&mut self, at: NonNull<u8>, size: usize) -> (NonNull<Node>, usize) {
        let address = at.addr().get();
        let Some(node) = self.unlink(address) else {
            os::abort(Corruption::Foreign { address, size });
        };
        // SAFETY: the node is ours now.
        let bytes = unsafe { node.as_ref() }.bytes;
        if rounded(size) != Some(bytes) {
            os::abort(Corruption::Layout { address, freed_bytes: size, owned_bytes: bytes });
        }
        (node, bytes)
    }
}

impl Huge {
    const_unless_loom! {
        pub(crate) fn new() -> Huge {
            Huge {
                table: Lock::new(Table {
                    buckets: [ptr::null_mut(); BUCKETS],
                    books: BlockBooks::NONE,
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
            table.enter(node, it.address, bytes);
            return it.start().map(|start| Extent { start, zeroed: false });
        }
        drop(table);
        let fresh = || fresh(bytes, align);
        let start = fresh().or_else(|| (self.clear_shelf() > 0).then(fresh).flatten());
        let mut table = self.table.lock();
        match start {
            Some(start) => table.enter(node, start.addr().get(), bytes),
            None => table.keep(node),
        }
        start.map(|start| Extent { start, zeroed: true })
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

    /// Gives back all that waits on the shelf. Returns the bytes.
    pub(crate) fn clear_shelf(&self) -> usize {
        let mut bytes = 0;
        loop {
            let it = self.table.lock().shelf.some_of_the_oldest(usize::MAX);
            let Some(it) = it else { return bytes };
            bytes += it.bytes;
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
        let (node, bytes) = table.take_out(at, size);
        table.keep(node);
        let address = at.addr().get();
        let mut leaves = if table.decays && may_wait(bytes) {
            table.shelf.put(address, bytes, os::now_ms())
        } else {
            Some(Shelved::new(address, bytes))
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
        let (node, bytes) = table.take_out(at, old);
        // SAFETY: the node is on no list.
        let it = unsafe { &mut *node.as_ptr() };
        let more = to.saturating_sub(bytes);
        if more > 0 && table.shelf.take_at(it.address + bytes, more) {
            it.bytes = to;
            table.link(node);
            return Some(at);
        }
        let moved = if HARDENED {
            // SAFETY: the mapping is the caller's.
            unsafe { move_guarded(at, bytes, to) }
        } else {
            // SAFETY: the stretch is the caller's. It may be parts of two mappings that
            // were neighbours on the shelf: the system refuses then.
            unsafe { os::remap(at, bytes, to) }
        };
        if let Some(moved) = moved {
            (it.address, it.bytes) = (moved.addr().get(), to);
            advise(moved, bytes, to);
        }
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

    /// Bytes that wait on the shelf.
    pub(crate) fn shelf_bytes(&self) -> usize {
        self.table.lock().shelf.bytes()
    }

    /// Bytes of the block at `address`, if there is one.
    pub(crate) fn bytes_at(&self, address: usize) -> Option<usize> {
        let table = self.table.lock();
        let mut at = table.buckets[bucket(address)];
        // SAFETY: nodes in the table are valid.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.address == address {
                return Some(node.bytes);
            }
            at = node.next;
        }
        None
    }

    pub(crate) fn books(&self) -> BlockBooks {
        self.table.lock().books
    }

    /// The books, and the same recounted from the table.
    ///
    /// # Safety
    /// The caller holds the lock by [`Huge::raw_lock`].
    pub(crate) unsafe fn recount_held(&self) -> (BlockBooks, BlockBooks) {
        // SAFETY: the caller's promise.
        let table = unsafe { self.table.value_held() };
        let mut counted = BlockBooks::default();
        for &head in &table.buckets {
            let mut at = head;
            // SAFETY: nodes in the table are valid.
            while let Some(node) = unsafe { at.as_ref() } {
                counted.count += 1;
                counted.bytes += node.bytes;
                at = node.next;
            }
        }
        (table.books, counted)
    }

    /// Bytes that wait on the shelf, and the same recounted.
    ///
    /// # Safety
    /// The caller holds the lock by [`Huge::raw_lock`].
    pub(crate) unsafe fn recount_shelf_held(&self) -> (usize, usize) {
        // SAFETY: the caller's promise.
        let shelf = unsafe { &self.table.value_held().shelf };
        (shelf.bytes(), shelf.recount())
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
