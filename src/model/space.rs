//! A small address space, for the models of mappings: places are used again at once,
//! the lowest first.
//!
//! Each page has a cell. Its owner writes to it, and so does the system when it maps or
//! unmaps it. A lock orders these, as the kernel's does: what goes before a place is
//! unmapped happens before it is mapped again.

use crate::config::{LG_PAGE, PAGE_BYTES};
use core::ptr::{self, NonNull};
use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use std::cell::Cell;

/// Pages that there are.
const PAGES: usize = 8;
const FIRST: usize = 1 << 30;

struct Space {
    mapped: Mutex<[bool; PAGES]>,
    cells: [UnsafeCell<u32>; PAGES],
}

// SAFETY: the cells are what loom watches.
unsafe impl Sync for Space {}
// SAFETY: as above.
unsafe impl Send for Space {}

loom::lazy_static! {
    /// Of one execution.
    static ref SPACE: Space = Space {
        mapped: Mutex::new([false; PAGES]),
        cells: core::array::from_fn(|_| UnsafeCell::new(0)),
    };
}

// Of the thread that runs a model; loom's threads are coroutines on it.
thread_local! {
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

/// Begins an execution, without a space.
pub(super) fn begin() {
    IN_USE.with(|it| it.set(false));
}

/// Has mappings of some pages made here.
pub(crate) fn open() {
    IN_USE.with(|it| it.set(true));
}

/// Whether a mapping of that size is made here.
pub(super) fn serves(bytes: usize) -> bool {
    bytes <= PAGES * PAGE_BYTES && IN_USE.with(Cell::get)
}

fn place(at: NonNull<u8>) -> usize {
    at.addr().get().checked_sub(FIRST).expect("a mapping") >> LG_PAGE
}

fn address(page: usize) -> NonNull<u8> {
    NonNull::new(ptr::without_provenance_mut(FIRST + page * PAGE_BYTES)).expect("not null")
}

/// What the owner of pages does with them, and the system.
fn touch(first: usize, pages: usize) {
    for cell in &SPACE.cells[first..first + pages] {
        // SAFETY: loom checks that nobody else is at it.
        cell.with_mut(|it| unsafe { *it += 1 });
    }
}

/// Writes to a mapping.
pub(crate) fn write(at: NonNull<u8>, bytes: usize) {
    touch(place(at), bytes >> LG_PAGE);
}

fn map_pages(mapped: &mut [bool; PAGES], pages: usize) -> Option<usize> {
    let free = |first: &usize| !mapped[*first..*first + pages].contains(&true);
    let first = (0..=PAGES - pages).find(free)?;
    mapped[first..first + pages].fill(true);
    touch(first, pages);
    Some(first)
}

fn unmap_pages(mapped: &mut [bool; PAGES], first: usize, pages: usize) {
    let run = &mut mapped[first..first + pages];
    assert!(!run.contains(&false), "what is not mapped is given back");
    run.fill(false);
    touch(first, pages);
}

pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
    map_pages(&mut SPACE.mapped.lock().unwrap(), bytes >> LG_PAGE).map(address)
}

pub(super) fn unmap(at: NonNull<u8>, bytes: usize) {
    unmap_pages(&mut SPACE.mapped.lock().unwrap(), place(at), bytes >> LG_PAGE);
}

/// What grows always moves, and its old place can be had at once.
pub(super) fn remap(at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
    let mut mapped = SPACE.mapped.lock().unwrap();
    let (first, pages, to) = (place(at), old >> LG_PAGE, new >> LG_PAGE);
    if to <= pages {
        unmap_pages(&mut mapped, first + to, pages - to);
        return Some(at);
    }
    let moved = map_pages(&mut mapped, to)?;
    unmap_pages(&mut mapped, first, pages);
    Some(address(moved))
}

/// Pages that are mapped.
pub(crate) fn mapped_pages() -> usize {
    SPACE.mapped.lock().unwrap().iter().filter(|it| **it).count()
}
