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
use crate::slab::{Company, marks};
use crate::sync::Ordering;
use crate::sync::zeroed::AtomicU8;
use crate::thread::{heed, with_cache};
use core::alloc::Layout;
use core::fmt::Write as _;

mod word;

/// The poison. As an address it is none, so that what is read from a freed block and
/// followed is a fault.
const JUNK: u8 = 0xDF;
/// A word of it.
const JUNKS: u64 = u64::from_ne_bytes([JUNK; 8]);
/// Bytes behind a block that are looked at, if there are so many: with the block's last
/// one or more they are a word.
const CANARY_BYTES: usize = 7;

/// Puts a mark in the place of another, which it returns.
#[inline(always)]
fn swap(mark: &AtomicU8, new: u8) -> u8 {
    marks::swap(mark, new, if os::alone() { Company::Alone } else { Company::Others })
}

/// The mark of free regions, by which they are filled.
#[inline(always)]
fn free_mark() -> u8 {
    match SETTINGS.poison() {
        Poison::None => marks::FREE,
        Poison::Junk => marks::JUNK,
        Poison::Zero => marks::ZERO,
    }
}

/// Whether a region with that mark is filled with [`POISON_BYTES`] of junk.
#[inline(always)]
fn is_usual(mark: u8, class: Class) -> bool {
    mark == marks::JUNK && class.info().region_bytes as usize >= POISON_BYTES
}

/// The bytes of a region that are filled, and with what.
fn filled(mark: u8, class: Class) -> (usize, u8) {
    let bytes = class.info().region_bytes as usize;
    match mark {
        marks::JUNK => (bytes.min(POISON_BYTES), JUNK),
        marks::ZERO => (bytes, 0),
        _ => (0, 0),
    }
}

/// Fills a region that is free now, and was a block of `size` bytes.
#[inline(always)]
fn fill(region: *mut u8, size: usize, class: Class, mark: u8) {
    if is_usual(mark, class) {
        // SAFETY: within the region, which is nobody's.
        return unsafe { word::fill(region, size, POISON_BYTES, JUNK) };
    }
    let (bytes, value) = filled(mark, class);
    // SAFETY: as above.
    unsafe { word::fill(region, size, bytes, value) };
}

/// Aborts if a free region with that mark does not hold what it was filled with.
#[inline(always)]
fn check_poison(region: *mut u8, class: Class, mark: u8) {
    if !is_usual(mark, class) {
        return check_unusual(region, class, mark);
    }
    let mut difference = 0;
    for i in 0..POISON_BYTES / 8 {
        // SAFETY: as in `fill`.
        difference |= unsafe { region.cast::<u64>().add(i).read() } ^ JUNKS;
    }
    if difference != 0 {
        written_after_free(region, class, mark);
    }
}

fn check_unusual(region: *mut u8, class: Class, mark: u8) {
    let (bytes, value) = filled(mark, class);
    let intact = (0..bytes / 8).all(|i| {
        // SAFETY: as in `fill`; regions are multiples of eight bytes.
        unsafe { region.cast::<u64>().add(i).read() == u64::from_ne_bytes([value; 8]) }
    });
    if !intact {
        written_after_free(region, class, mark);
    }
}

/// Aborts, unless free regions are not looked at any more.
#[cold]
#[inline(never)]
fn written_after_free(region: *mut u8, class: Class, mark: u8) {
    if SETTINGS.poison() == Poison::None {
        return;
    }
    let (bytes, value) = filled(mark, class);
    // SAFETY: within the region.
    let wrong = |&i: &usize| unsafe { region.add(i).read() } != value;
    os::abort(Corruption::WriteAfterFree {
        address: region.addr(),
        offset: (0..bytes).find(wrong).unwrap_or(0),
        region_bytes: class.info().region_bytes as usize,
    });
}

/// The last eight bytes of block and canary, and which of their bits are canary.
#[inline(always)]
fn canary(block: *mut u8, size: usize, room: usize) -> (*mut u64, u64) {
    let bytes = (room - size).min(CANARY_BYTES);
    let at = block.wrapping_add(size + bytes).wrapping_sub(size_of::<u64>());
    // The last bytes are the high ones.
    (at.cast(), (!(u64::MAX >> (bytes * 8))).to_le())
}

/// Puts a canary behind a block.
///
/// # Safety
/// The block has `room` bytes, a multiple of eight, of which the program may use `size`.
#[inline(always)]
pub(super) unsafe fn put_canary(block: *mut u8, size: usize, room: usize) {
    let (at, bits) = canary(block, size, room);
    // SAFETY: the caller's promise.
    unsafe { word::write(at, bits, JUNKS) };
}

/// Aborts if the canary behind a block is gone.
///
/// # Safety
/// As for [`put_canary`], which was called with these.
#[inline(always)]
pub(super) unsafe fn check_canary(block: *mut u8, size: usize, room: usize) {
    let (at, bits) = canary(block, size, room);
    // SAFETY: the caller's promise.
    if (unsafe { word::read(at, bits) } ^ JUNKS) & bits != 0 {
        overflow(block, size);
    }
}

#[cold]
#[inline(never)]
fn overflow(block: *mut u8, size: usize) -> ! {
    os::abort(Corruption::Overflow { address: block.addr(), size });
}

/// Makes a region the program's, as a block of `size` bytes, or of all its bytes if it
/// is not `COUNTED`. Aborts when it was written while it was free.
///
/// # Safety
/// `region` is one of `class`, which is nobody's, and has room for `size` bytes.
#[inline(always)]
pub(super) unsafe fn hand_out<const COUNTED: bool>(region: *mut u8, class: Class, size: usize) {
    // SAFETY: regions lie in segments.
    let mark = unsafe { Segment::mark_of_region(class, region.addr()) };
    let Ok(was) = marks::of_free(mark) else { cache_overwritten(region, class) };
    check_poison(region, class, was);
    if COUNTED {
        // SAFETY: the caller's promise.
        unsafe { put_canary(region, size, class.info().region_bytes as usize) };
    }
    mark.store(if COUNTED { marks::held(size) } else { marks::HELD }, Ordering::Relaxed);
}

/// What a cache hands out is somebody else's, or no region: it has been overwritten.
#[cold]
#[inline(never)]
fn cache_overwritten(region: *mut u8, class: Class) -> ! {
    let (address, region_bytes) = (region.addr(), class.info().region_bytes as usize);
    let what = CENTRAL.place(class, address).err();
    os::abort(what.unwrap_or(Corruption::DoubleFree { address, region_bytes }));
}

/// Takes a region back that was handed out as a block of `size` bytes. Aborts when it
/// was not, or not with this size, or when bytes behind it were written. Returns
/// whether it is a region at all: a sampled block has been dealt with.
#[inline(always)]
pub(super) fn take_back<const COUNTED: bool>(block: *mut u8, class: Class, size: usize) -> bool {
    let wanted = if COUNTED { marks::held(size) } else { marks::HELD };
    let Some(mark) = Segment::mark_of(class, block.addr()) else {
        return not_held::<COUNTED>(block, class, size, None);
    };
    let free = free_mark();
    let was = swap(mark, free);
    if was != wanted {
        return not_held::<COUNTED>(block, class, size, Some(was));
    }
    if COUNTED {
        // SAFETY: handed out with this size.
        unsafe { check_canary(block, size, class.info().region_bytes as usize) };
    }
    // Without a size the pointer is of the whole region.
    let size = if COUNTED { size } else { class.info().region_bytes as usize };
    fill(block, size, class, free);
    true
}

/// Changes the mark of a block and returns the one before; `None` where no region can
/// start. If that is not the one expected the program ends, and it matters to nobody.
fn change(block: *mut u8, class: Class, new: u8) -> Option<u8> {
    Some(swap(Segment::mark_of(class, block.addr())?, new))
}

/// Takes a sampled block back, or aborts, and says why.
#[cold]
#[inline(never)]
fn not_held<const COUNTED: bool>(
    block: *mut u8,
    class: Class,
    size: usize,
    was: Option<u8>,
) -> bool {
    if was.is_none() && free_sampled(block, COUNTED.then_some(size)) {
        return false;
    }
    wrong(block, class, size, was)
}

/// Aborts: a block of this class and size is not held there, where the mark was `was`.
#[cold]
#[inline(never)]
fn wrong(block: *mut u8, class: Class, size: usize, was: Option<u8>) -> ! {
    let (address, region_bytes) = (block.addr(), class.info().region_bytes as usize);
    os::abort(match (CENTRAL.place(class, address), was) {
        (Err(what), _) => what,
        (Ok(_), Some(marks::HELD..)) => Corruption::Size { address, freed_bytes: size },
        (Ok(_), _) => Corruption::DoubleFree { address, region_bytes },
    });
}

/// Gives a block another size where it is; a canary must be put behind it. Aborts as
/// [`take_back`] does. `false` for a sampled block, which must move.
#[cold]
#[inline(never)]
pub(super) fn resize(block: *mut u8, class: Class, old_size: usize, new_size: usize) -> bool {
    match change(block, class, marks::held(new_size)) {
        Some(was) if was == marks::held(old_size) => {}
        None if GUARDED.usable_bytes(block.addr()).is_some() => return false,
        was => wrong(block, class, old_size, was),
    }
    // SAFETY: handed out with this size.
    unsafe { check_canary(block, old_size, class.info().region_bytes as usize) };
    true
}

/// Aborts if the region at `block`, of an owner who does not know its size, is not his.
pub(super) fn check_held(block: *mut u8) {
    let Some(class) = Segment::class_of(block.addr()) else { return };
    // Relaxed: the owner's own, if he is one.
    let was = Segment::mark_of(class, block.addr()).map(|mark| mark.load(Ordering::Relaxed));
    if was != Some(marks::HELD) {
        wrong(block, class, 0, was);
    }
}

/// Makes regions the program's that were claimed for it: as [`hand_out`] does, without
/// a size.
pub(crate) fn hold(region: *mut u8, class: Class) {
    // SAFETY: just claimed, as one of its class.
    unsafe { hand_out::<false>(region, class, 0) };
}

/// Ends that.
pub(crate) fn let_go(region: *mut u8, class: Class) {
    let free = free_mark();
    if change(region, class, free).is_some() {
        fill(region, 0, class, free);
    }
}

/// Moves the mark of a block to where its bytes were copied. The old region is held
/// without a size.
pub(crate) fn moved(from: *mut u8, to: *mut u8, class: Class) {
    if let (Some(was), Some(mark)) =
        (change(from, class, marks::HELD), Segment::mark_of(class, to.addr()))
    {
        mark.store(was, Ordering::Relaxed);
    }
}

/// A block between guard pages, if this one is to be sampled.
#[cold]
#[inline(never)]
pub(super) fn sample<const COUNTED: bool>(
    class: Class,
    layout: Layout,
    settings: &Settings,
) -> Option<*mut u8> {
    heed(settings);
    if !with_cache(|cache| cache.draw_sample(SETTINGS.guard_one_in())) || SETTINGS.fill().is_some()
    {
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
        with_cache(|cache| cache.request(0, size));
    }
    Some(block.as_ptr())
}

/// Takes a sampled block back; `false` when it is none.
#[cold]
#[inline(never)]
pub(super) fn free_sampled(block: *mut u8, size: Option<usize>) -> bool {
    if !GUARDED.has(block.addr()) {
        return false;
    }
    // Before the block counts as free: requested <= allocated (thread, T5). A wrong size
    // ends the program.
    if let Some(size) = size {
        with_cache(|cache| cache.request(size, 0));
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
