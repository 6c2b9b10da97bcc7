//! Hardened: what is checked when a block is handed out and when it comes back.
//!
//! A region is the program's between [`allocate`] and [`free`], and its mark says so
//! (slab, K1). In between the bytes behind the block hold a canary; otherwise the region
//! holds a poison, which must still be there when it is handed out again.
//!
//! Both are short for what is usual; everything else goes by a function that looks at it
//! all again.

mod chunk;
mod contents;
mod word;

use crate::arena::CENTRAL;
use crate::arena::guarded::{GUARDED, Request};
use crate::class::Class;
use crate::config::PAGE_BYTES;
use crate::error::{Corruption, Line};
use crate::os;
use crate::os::fault::{Teller, Wanted};
use crate::os::trace::Trace;
use crate::segment::{Entry, Segment, guard_pages};
use crate::settings::{SETTINGS, Settings};
use crate::slab::{Company, marks};
use crate::sync::Ordering;
use crate::sync::zeroed::AtomicU8;
use crate::thread::{Cache, heed, with_cache};
use core::alloc::Layout;
use core::fmt::Write as _;

pub(super) use contents::{check_canary, put_canary};

/// Puts a mark in the place of another, which it returns.
#[inline(always)]
fn swap(mark: &AtomicU8, new: u8) -> u8 {
    marks::swap(mark, new, if os::alone() { Company::Alone } else { Company::Others })
}

/// A block out of the thread's cache, from its slabs, or a sampled one; null when memory
/// is out.
#[inline(always)]
pub(super) fn allocate<const COUNTED: bool>(
    class: Class,
    layout: Layout,
    settings: &Settings,
) -> *mut u8 {
    let size = layout.size();
    if with_cache(Cache::sample_is_due) {
        return allocate_slow::<COUNTED>(class, layout, settings, true);
    }
    let Some(region) = with_cache(|cache| cache.allocate::<COUNTED>(class, size)) else {
        return allocate_slow::<COUNTED>(class, layout, settings, false);
    };
    let room = class.info().region_bytes as usize;
    // SAFETY: regions lie in segments.
    let mark = unsafe { Segment::mark_of_region(region.addr()) };
    // Relaxed: as in `swap`.
    let was = mark.load(Ordering::Relaxed);
    // SAFETY: a region out of the cache, with the room of its class.
    let holds_junk = || unsafe { contents::holds_junk(region, room) };
    // Never handed out before, there is nothing to look at.
    if was != marks::FREE && (was != marks::JUNK || !holds_junk()) {
        // SAFETY: as above; the class is the layout's.
        return unsafe { hand_out::<COUNTED>(region, class, size) };
    }
    if COUNTED {
        // SAFETY: as above.
        unsafe { contents::put_first_canary(region, size, room) };
    }
    mark.store(if COUNTED { marks::held(size) } else { marks::HELD }, Ordering::Relaxed);
    region
}

/// As [`allocate`], where it `is_due` to ask for a sample, or the cache is empty.
#[cold]
#[inline(never)]
fn allocate_slow<const COUNTED: bool>(
    class: Class,
    layout: Layout,
    settings: &Settings,
    is_due: bool,
) -> *mut u8 {
    if os::is_ending() {
        return super::last::allocate(layout.size(), layout.align());
    }
    if is_due && let Some(block) = sample::<COUNTED>(class, layout, settings) {
        return block;
    }
    let size = layout.size();
    let region = with_cache(|cache| match cache.allocate::<COUNTED>(class, size) {
        Some(region) => region,
        None => super::allocate_slow(cache, class, if COUNTED { size } else { 0 }, settings),
    });
    if region.is_null() {
        return region;
    }
    // SAFETY: a region of the layout's class.
    unsafe { hand_out::<COUNTED>(region, class, size) }
}

/// Makes a region the program's, as a block of `size` bytes, or of all its bytes if it
/// is not `COUNTED`. Aborts when it was written while it was free.
///
/// # Safety
/// `region` is one of `class`, which is nobody's, and has room for `size` bytes.
#[inline(never)]
unsafe fn hand_out<const COUNTED: bool>(region: *mut u8, class: Class, size: usize) -> *mut u8 {
    // SAFETY: regions lie in segments.
    let mark = unsafe { Segment::mark_of_region(region.addr()) };
    let Ok(was) = marks::of_free(mark) else { cache_overwritten(region, class) };
    contents::check(region, class, was);
    let room = class.info().region_bytes as usize;
    match was {
        _ if !COUNTED => {}
        // The block is to read as zero, or as it was filled.
        // SAFETY: the caller's promise.
        _ if was == marks::ZERO || SETTINGS.fill().is_some() => unsafe {
            put_canary(region, size, room);
        },
        // SAFETY: as above.
        _ => unsafe { contents::put_first_canary(region, size, room) },
    }
    mark.store(if COUNTED { marks::held(size) } else { marks::HELD }, Ordering::Relaxed);
    region
}

/// What a cache hands out is somebody else's, or no region: it has been overwritten.
#[cold]
#[inline(never)]
fn cache_overwritten(region: *mut u8, class: Class) -> ! {
    let (address, region_bytes) = (region.addr(), class.info().region_bytes as usize);
    let what = CENTRAL.place(class, address).err();
    os::abort(what.unwrap_or(Corruption::DoubleFree { address, region_bytes }));
}

/// Takes a block of `size` bytes back. Aborts when it was not handed out, or not with
/// this size, or when bytes behind it were written.
#[inline(always)]
pub(super) fn free<const COUNTED: bool>(block: *mut u8, class: Class, size: usize) {
    let wanted = if COUNTED { marks::held(size) } else { marks::HELD };
    let Some(mark) = Segment::mark_of(block.addr()) else {
        return free_unusual::<COUNTED>(block, class, size, None);
    };
    let room = class.info().region_bytes as usize;
    let was = swap(mark, marks::JUNK);
    let is_usual = was == wanted && contents::free_mark() == marks::JUNK;
    // SAFETY: handed out with this size.
    if !is_usual || COUNTED && !unsafe { contents::has_canary(block, size, room) } {
        return free_unusual::<COUNTED>(block, class, size, Some((mark, was)));
    }
    // SAFETY: a region that was the program's, and is nobody's now.
    unsafe { contents::fill_junk(block, if COUNTED { size } else { room }, room) };
    with_cache(|cache| cache.free::<COUNTED>(class, block, size));
}

/// As [`free`], of a sampled block, with other settings, or with an error. The mark says
/// junk now, and said what is with it.
#[cold]
#[inline(never)]
fn free_unusual<const COUNTED: bool>(
    block: *mut u8,
    class: Class,
    size: usize,
    mark: Option<(&AtomicU8, u8)>,
) {
    if os::is_ending() {
        return;
    }
    let wanted = if COUNTED { marks::held(size) } else { marks::HELD };
    let (was, free) = (mark.map(|(_, was)| was), contents::free_mark());
    if was.is_none() && free_sampled(block, COUNTED.then_some(size)) {
        return;
    }
    if was != Some(wanted) {
        wrong(block, class, size, was);
    }
    if COUNTED {
        // SAFETY: handed out with this size.
        unsafe { check_canary(block, size, class.info().region_bytes as usize) };
    }
    // Without a size the pointer is of the whole region.
    let size_reached = if COUNTED { size } else { class.info().region_bytes as usize };
    contents::fill(block, size_reached, class, free);
    if let Some((mark, _)) = mark {
        // Relaxed: the caller's region.
        mark.store(free, Ordering::Relaxed);
    }
    with_cache(|cache| cache.free::<COUNTED>(class, block, size));
}

/// Changes the mark of a block and returns the one before; `None` where no region can
/// start. If that is not the one expected the program ends, and it matters to nobody.
fn change(block: *mut u8, new: u8) -> Option<u8> {
    Some(swap(Segment::mark_of(block.addr())?, new))
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
/// [`free`] does. `false` for a sampled block, which must move.
#[cold]
#[inline(never)]
pub(super) fn resize(block: *mut u8, class: Class, old_size: usize, new_size: usize) -> bool {
    match change(block, marks::held(new_size)) {
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
    let was = Segment::mark_of(block.addr()).map(|mark| mark.load(Ordering::Relaxed));
    if was != Some(marks::HELD) {
        wrong(block, class, 0, was);
    }
}

/// Makes regions the program's that were claimed for it: as [`hand_out`] does, without
/// a size.
pub(crate) fn hold(region: *mut u8, class: Class) {
    // SAFETY: just claimed, as one of its class.
    let _ = unsafe { hand_out::<false>(region, class, 0) };
}

/// Ends that.
pub(crate) fn let_go(region: *mut u8, class: Class) {
    let free = contents::free_mark();
    if change(region, free).is_some() {
        contents::fill(region, 0, class, free);
    }
}

/// Moves the mark of a block to where its bytes were copied. The old region is held
/// without a size.
pub(crate) fn moved(from: *mut u8, to: *mut u8) {
    if let (Some(was), Some(mark)) = (change(from, marks::HELD), Segment::mark_of(to.addr())) {
        mark.store(was, Ordering::Relaxed);
    }
}

/// A block between guard pages, if this one is to be sampled.
fn sample<const COUNTED: bool>(
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
    os::fault::watch(&TELLER);
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
    os::fault::watch(&TELLER);
}

static TELLER: Teller =
    Teller { knows: |address| GUARDED.knows(address) || large_near(address).is_some(), tell };

/// Tells of an access to a page that is inaccessible on purpose. Takes no lock.
fn tell(address: usize, wanted: Wanted) {
    if GUARDED.tell(address, wanted) {
        return;
    }
    let Some((block, bytes, is_freed)) = large_near(address) else { return };
    let mut line = Line::new();
    // A `Line` takes every write, so there is no error to look at.
    let _ = if is_freed {
        let offset = address.wrapping_sub(block) as isize;
        write!(
            line,
            "tallow: use after free: {} of {address:#x}, byte {offset} of the block of {bytes} bytes at {block:#x}",
            wanted.name()
        )
    } else {
        write!(
            line,
            "tallow: access beside a block: {} of {address:#x}, on a guard page of the block of {bytes} bytes at {block:#x}",
            wanted.name()
        )
    };
    os::write_stderr(line.end().as_bytes());
    Trace::here().write("accessed");
}

/// The large block, and its bytes, on whose guard page `address` lies, or in which, if
/// it was freed; whether it was.
fn large_near(address: usize) -> Option<(usize, usize, bool)> {
    let (segment, page, guard) =
        (Segment::find(address)?, Segment::page_of(address), guard_pages());
    let large = |first: usize| match segment.entry(first) {
        Entry::Large { pages } => Some((first, pages, false)),
        Entry::Freed { pages } => Some((first, pages, true)),
        _ => None,
    };
    let is_its = |&(first, pages, is_freed): &(usize, usize, bool)| {
        let from = if is_freed { first } else { first + pages };
        (from..first + pages + guard).contains(&page)
    };
    let at_or_behind = (0..=page).find_map(|n| large(page - n)).filter(is_its);
    let before = || (1..=guard).find_map(|n| large(page + n));
    let (first, pages, is_freed) = at_or_behind.or_else(before)?;
    Some((segment.page_at(first).addr().get(), pages * PAGE_BYTES, is_freed))
}
