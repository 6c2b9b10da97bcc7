//! Hardened: what is checked when a block is handed out and when it comes back.
//!
//! A region is the program's between [`hand_out`] and [`take_back`], and its mark says
//! so (slab, K1). In between the bytes behind the block hold a canary; otherwise the
//! region holds a poison, which must still be there when it is handed out again.
//!
//! Two threads that free one block at the same moment are found out too: the mark is
//! swapped. In a process that has never had a second thread a load and a store do.

use crate::arena::CENTRAL;
use crate::arena::guarded::{GUARDED, Request};
use crate::class::Class;
use crate::config::{PAGE_BYTES, POISON_BYTES};
use crate::error::{Corruption, Line};
use crate::os;
use crate::os::fault::Wanted;
use crate::os::trace::Trace;
use crate::segment::{Entry, Segment, guard_pages};
use crate::settings::{Poison, SETTINGS, Settings};
use crate::slab::{Slab, marks};
use crate::sync::Ordering;
use crate::sync::unwatched::AtomicU8;
use crate::thread::{Cache, heed};
use core::alloc::Layout;
use core::fmt::Write as _;

/// Eight bytes of poison. As an address it is none, so that what is read from a freed
/// block and followed is a fault.
const JUNK: u64 = 0xDFDF_DFDF_DFDF_DFDF;
/// Bytes behind a block that are looked at, if there are so many.
const CANARY_BYTES: usize = 8;

/// The mark of the region of `class` that starts at `address`; an error if none does.
#[inline(always)]
fn mark_of(class: Class, address: usize) -> Result<&'static AtomicU8, Corruption> {
    let slab = match Segment::slab_of(class, address) {
        Some(header) => header.cast::<Slab>(),
        // There is none: this says why.
        None => CENTRAL.place(class, address)?,
    };
    // SAFETY: headers are never unmapped (meta, M1).
    let slab: &'static Slab = unsafe { slab.as_ref() };
    let index = slab.region_at(class, address)?;
    slab.marks().get(index).ok_or(Corruption::Foreign { address, size: 0 })
}

/// Takes the mark away, and says what it was.
#[inline(always)]
fn swap(mark: &AtomicU8, new: u8) -> u8 {
    if os::alone() {
        let old = mark.load(Ordering::Relaxed);
        mark.store(new, Ordering::Relaxed);
        return old;
    }
    // Relaxed: who has it is decided here; contents are ordered by the way from one
    // owner to the next.
    mark.swap(new, Ordering::Relaxed)
}

/// The two parts of a region that are poisoned, in words: from the start, and to the
/// end.
#[inline(always)]
fn parts(class: Class, whole: bool) -> (usize, usize) {
    let bytes = class.info().region_bytes as usize;
    if whole || bytes <= POISON_BYTES {
        return (bytes / 8, 0);
    }
    (POISON_BYTES / 16, POISON_BYTES / 16)
}

/// Whether `words` words from `at` on hold `value`.
#[inline(always)]
unsafe fn holds(at: *const u64, words: usize, value: u64) -> bool {
    let mut difference = 0;
    for i in 0..words {
        // SAFETY: the caller's promise.
        difference |= unsafe { at.add(i).read() } ^ value;
    }
    difference == 0
}

#[inline(always)]
unsafe fn put(at: *mut u64, words: usize, value: u64) {
    for i in 0..words {
        // SAFETY: the caller's promise.
        unsafe { at.add(i).write(value) };
    }
}

/// Fills a region that is free now; returns its mark.
#[inline(always)]
fn poison(region: *mut u8, class: Class) -> u8 {
    let (value, mark) = match SETTINGS.poison() {
        Poison::Junk => (JUNK, marks::JUNK),
        Poison::Zero => (0, marks::ZERO),
        Poison::None => return marks::FREE,
    };
    let (head, tail) = parts(class, value == 0);
    let end = region.wrapping_add(class.info().region_bytes as usize);
    // SAFETY: within the region, which is nobody's; regions are multiples of eight bytes,
    // and aligned to that.
    unsafe {
        put(region.cast(), head, value);
        put(end.cast::<u64>().wrapping_sub(tail), tail, value);
    }
    mark
}

/// Aborts if a free region with that mark does not hold what it was filled with.
#[inline(always)]
fn check_poison(region: *mut u8, class: Class, mark: u8) {
    let value = match mark {
        marks::JUNK => JUNK,
        marks::ZERO => 0,
        _ => return,
    };
    let (head, tail) = parts(class, value == 0);
    let end = region.wrapping_add(class.info().region_bytes as usize);
    // SAFETY: as in `poison`.
    let intact = unsafe {
        holds(region.cast(), head, value)
            && holds(end.cast::<u64>().wrapping_sub(tail), tail, value)
    };
    if !intact && SETTINGS.poison() != Poison::None {
        written_after_free(region, class, value);
    }
}

#[cold]
#[inline(never)]
fn written_after_free(region: *mut u8, class: Class, value: u64) -> ! {
    let region_bytes = class.info().region_bytes as usize;
    // SAFETY: within the region.
    let wrong = |&i: &usize| unsafe { region.add(i).read() } != value as u8;
    let (head, tail) = parts(class, value == 0);
    let offset = (0..head * 8).chain(region_bytes - tail * 8..region_bytes).find(wrong);
    os::abort(Corruption::WriteAfterFree {
        address: region.addr(),
        offset: offset.unwrap_or(0),
        region_bytes,
    });
}

/// The canary's place behind a block of `size` bytes in one of `room`.
#[inline(always)]
fn canary(block: *mut u8, size: usize, room: usize) -> (*mut u8, usize) {
    (block.wrapping_add(size), (room - size).min(CANARY_BYTES))
}

/// Puts a canary behind a block.
///
/// # Safety
/// The block has `room` bytes, of which the program may use `size`.
#[inline(always)]
pub(super) unsafe fn put_canary(block: *mut u8, size: usize, room: usize) {
    let (at, n) = canary(block, size, room);
    if n == CANARY_BYTES {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<u64>().write_unaligned(JUNK) };
        return;
    }
    for i in 0..n {
        // SAFETY: the caller's promise.
        unsafe { at.add(i).write(JUNK as u8) };
    }
}

/// Aborts if the canary behind a block is gone.
///
/// # Safety
/// As for [`put_canary`], which was called with these.
#[inline(always)]
pub(super) unsafe fn check_canary(block: *mut u8, size: usize, room: usize) {
    let (at, n) = canary(block, size, room);
    let intact = if n == CANARY_BYTES {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<u64>().read_unaligned() == JUNK }
    } else {
        // SAFETY: as above.
        (0..n).all(|i| unsafe { at.add(i).read() } == JUNK as u8)
    };
    if !intact {
        os::abort(Corruption::Overflow { address: block.addr(), size });
    }
}

/// Makes a region the program's, as a block of `size` bytes, or of all its bytes if it
/// is not `COUNTED`. Aborts when it was written while it was free. Null is null.
#[inline(never)]
pub(super) fn hand_out<const COUNTED: bool>(region: *mut u8, class: Class, size: usize) -> *mut u8 {
    if region.is_null() {
        return region;
    }
    let mark = match mark_of(class, region.addr()) {
        Ok(mark) => mark,
        Err(what) => os::abort(what),
    };
    let was = mark.load(Ordering::Relaxed);
    if was >= marks::HELD {
        // Somebody else's: a cache has been overwritten.
        os::abort(Corruption::DoubleFree {
            address: region.addr(),
            region_bytes: class.info().region_bytes as usize,
        });
    }
    check_poison(region, class, was);
    if COUNTED {
        // SAFETY: a region of this class, and the layout's size fits it.
        unsafe { put_canary(region, size, class.info().region_bytes as usize) };
    }
    mark.store(if COUNTED { marks::held(size) } else { marks::HELD }, Ordering::Relaxed);
    region
}

/// Takes a region back that was handed out as a block of `size` bytes. Aborts when it
/// was not, or not with this size, or when bytes behind it were written. Returns
/// whether it is a region at all: a sampled block has been dealt with.
#[inline(never)]
pub(super) fn take_back<const COUNTED: bool>(
    cache: &Cache,
    block: *mut u8,
    class: Class,
    size: usize,
) -> bool {
    let mark = match mark_of(class, block.addr()) {
        Ok(mark) => mark,
        Err(what) => {
            if free_sampled(cache, block, COUNTED.then_some(size)) {
                return false;
            }
            os::abort(what);
        }
    };
    let was = swap(mark, marks::FREE);
    let wanted = if COUNTED { marks::held(size) } else { marks::HELD };
    if was != wanted {
        wrong_mark(block, class, size, was);
    }
    if COUNTED {
        // SAFETY: handed out with this size.
        unsafe { check_canary(block, size, class.info().region_bytes as usize) };
    }
    mark.store(poison(block, class), Ordering::Relaxed);
    true
}

#[cold]
#[inline(never)]
fn wrong_mark(block: *mut u8, class: Class, size: usize, was: u8) -> ! {
    let (address, region_bytes) = (block.addr(), class.info().region_bytes as usize);
    os::abort(match was {
        marks::HELD.. => Corruption::Size { address, freed_bytes: size },
        _ => Corruption::DoubleFree { address, region_bytes },
    });
}

/// Gives a block another size where it is; a canary must be put behind it. Aborts as
/// [`take_back`] does. `false` for a sampled block, which must move.
#[cold]
#[inline(never)]
pub(super) fn resize(block: *mut u8, class: Class, old_size: usize, new_size: usize) -> bool {
    let mark = match mark_of(class, block.addr()) {
        Ok(mark) => mark,
        Err(_) if GUARDED.usable_bytes(block.addr()).is_some() => return false,
        Err(what) => os::abort(what),
    };
    let was = swap(mark, marks::held(new_size));
    if was != marks::held(old_size) {
        wrong_mark(block, class, old_size, was);
    }
    // SAFETY: handed out with this size.
    unsafe { check_canary(block, old_size, class.info().region_bytes as usize) };
    true
}

/// Makes regions the program's that were claimed for it: as [`hand_out`] does, without
/// a size.
pub(crate) fn hold(region: *mut u8, class: Class) {
    hand_out::<false>(region, class, 0);
}

/// Ends that.
pub(crate) fn let_go(region: *mut u8, class: Class) {
    if let Ok(mark) = mark_of(class, region.addr()) {
        mark.store(poison(region, class), Ordering::Relaxed);
    }
}

/// Moves the mark of a block to where its bytes were copied. The old region is held
/// without a size.
pub(crate) fn moved(from: *mut u8, to: *mut u8, class: Class) {
    if let (Ok(old), Ok(new)) = (mark_of(class, from.addr()), mark_of(class, to.addr())) {
        new.store(swap(old, marks::HELD), Ordering::Relaxed);
    }
}

/// A block between guard pages, if this one is to be sampled.
#[cold]
#[inline(never)]
pub(super) fn sample<const COUNTED: bool>(
    cache: &Cache,
    class: Class,
    layout: Layout,
    settings: &Settings,
) -> Option<*mut u8> {
    heed(settings);
    if !cache.draw_sample(SETTINGS.guard_one_in()) || SETTINGS.fill().is_some() {
        return None;
    }
    let region_bytes = class.info().region_bytes as usize;
    if !CENTRAL.permits(region_bytes.next_multiple_of(os::page_bytes())) {
        return None;
    }
    os::fault::watch(tell);
    // C's blocks are aligned to 16 bytes once they have as many.
    let align = layout.align().max(if COUNTED || layout.size() <= 8 { 1 } else { 16 });
    let size = layout.size();
    let request = Request { size, align, region_bytes, counted: COUNTED };
    let block = GUARDED.allocate(request)?;
    if COUNTED {
        cache.request(0, size);
    }
    Some(block.as_ptr())
}

/// Takes a sampled block back; `false` when it is none.
#[cold]
#[inline(never)]
pub(super) fn free_sampled(cache: &Cache, block: *mut u8, size: Option<usize>) -> bool {
    if !GUARDED.has(block.addr()) {
        return false;
    }
    // Before the block counts as free: requested <= allocated (thread, T5). A wrong size
    // ends the program.
    if let Some(size) = size {
        cache.request(size, 0);
    }
    GUARDED.free(block.addr(), size);
    true
}

/// Bytes of the sampled block at `address`.
pub(super) fn sampled_bytes(address: usize) -> Option<usize> {
    GUARDED.usable_bytes(address)
}

/// Has accesses to guard pages told of, from the first block on that has some.
pub(super) fn watch() {
    os::fault::watch(tell);
}

/// Tells of an access to a page that is inaccessible on purpose. Takes no lock.
fn tell(address: usize, wanted: Wanted) {
    if GUARDED.tell(address, wanted) {
        return;
    }
    let Some((block, bytes)) = large_near(address) else { return };
    let mut line = Line::new();
    // A `Line` takes every write, so there is no error to look at.
    let _ = writeln!(
        line,
        "tallow: access beside a block: {} of {address:#x}, on a guard page of the block of {bytes} bytes at {block:#x}",
        wanted.name()
    );
    os::write_stderr(line.as_bytes());
    Trace::here().write("accessed");
}

/// The large block, and its bytes, on whose guard page `address` lies.
fn large_near(address: usize) -> Option<(usize, usize)> {
    let (segment, page, guard) =
        (Segment::find(address)?, Segment::page_of(address), guard_pages());
    let large = |first: usize| match segment.entry(first) {
        Entry::Large { pages } => Some((first, pages)),
        _ => None,
    };
    let behind = (1..=page).find_map(|n| large(page - n));
    let on_guard =
        |&(first, pages): &(usize, usize)| (first + pages..first + pages + guard).contains(&page);
    let behind = behind.filter(on_guard);
    let before = || (1..=guard).find_map(|n| large(page + n));
    let (first, pages) = behind.or_else(before)?;
    Some((segment.page_at(first).addr().get(), pages * PAGE_BYTES))
}
