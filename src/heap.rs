//! Floor 8: the routes: which layout is served from where.
//!
//! | layout | served by |
//! |---|---|
//! | rounded size <= 32 KiB, alignment <= a page | a magazine, from slabs |
//! | size and alignment <= 1 MiB | a run of pages (*large*) |
//! | anything else | a mapping of its own (*huge*) |
//!
//! The route is a function of the layout, in both directions.

pub(crate) mod harden;
mod last;

use crate::arena::{CENTRAL, large};
use crate::bits::round_up;
use crate::class::{self, Class};
use crate::config::{HARDENED, LG_PAGE, PAGE_BYTES, SMALL_MAX_BYTES};
use crate::error::Corruption;
use crate::limit::{self, Permit, Verdict};
use crate::os;
use crate::pages::Extent;
use crate::segment::{Entry, Segment};
use crate::settings::{Moment, SETTINGS, Settings};
use crate::thread::{Cache, heed, with_cache};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// A block for `layout`, or null. May call the OS. The first call of all puts
/// `settings` into effect. The size is entered as requested if `COUNTED`; then it
/// must be given back by [`free`].
#[inline(always)]
pub(crate) fn allocate<const COUNTED: bool>(layout: Layout, settings: &Settings) -> *mut u8 {
    if HARDENED {
        return match class::of_layout(layout.size(), layout.align()) {
            Some(class) => harden::allocate::<COUNTED>(class, layout, settings),
            None => allocate_block::<COUNTED>(layout, false, settings),
        };
    }
    // The usual case. No more than that is compiled into every caller.
    if let Some(class) = class::of_little(layout.size(), layout.align())
        && let Some(region) = with_cache(|cache| cache.allocate::<COUNTED>(class, layout.size()))
    {
        return region;
    }
    allocate_otherwise::<COUNTED>(layout, settings)
}

/// [`allocate`], whatever the layout and the cache.
#[inline(never)]
fn allocate_otherwise<const COUNTED: bool>(layout: Layout, settings: &Settings) -> *mut u8 {
    match class::of_layout(layout.size(), layout.align()) {
        Some(class) => with_cache(|cache| match cache.allocate::<COUNTED>(class, layout.size()) {
            Some(region) => region,
            None => {
                let size = if COUNTED { layout.size() } else { 0 };
                allocate_slow(cache, class, size, settings)
            }
        }),
        None => allocate_block::<COUNTED>(layout, false, settings),
    }
}

#[cold]
#[inline(never)]
fn allocate_slow(cache: &Cache, class: Class, size: usize, settings: &Settings) -> *mut u8 {
    if os::is_ending() {
        return last::allocate(class.info().region_bytes as usize, 1);
    }
    let region = cache.allocate_slow(class, size, settings);
    if region.is_null() { allocate_at_last(cache, class, size, settings) } else { region }
}

/// [`allocate_slow`], once no more was to be had, or permitted: null is the last word.
#[cold]
#[inline(never)]
fn allocate_at_last(cache: &Cache, class: Class, size: usize, settings: &Settings) -> *mut u8 {
    /// Others may take what was found to be left.
    const TRIES: u32 = 64;
    for n in 0..TRIES {
        let verdict = limit::look(class.info().slab_bytes());
        let is_worth_a_try = match (verdict, n) {
            // That has made room itself.
            (Verdict::Refused, _) => cache.reuse(class),
            // Limits may have been changed since it was tried.
            (_, 0) => true,
            // The system has no more: what is free, of whatever kind, becomes its own.
            (_, 1) => purge() > 0 || cache.reuse(class),
            (Verdict::Permitted, _) => true,
            (Verdict::Unlimited, _) => cache.reuse(class),
        };
        if !is_worth_a_try {
            if verdict == Verdict::Refused {
                limit::note(true);
            }
            break;
        }
        let region = cache.allocate_slow(class, size, settings);
        if !region.is_null() {
            return region;
        }
    }
    ptr::null_mut()
}

/// A block of at least `size` bytes, uncounted, if the thread's cache has one; else
/// null, and [`allocate`] may have one.
#[inline(always)]
pub(crate) fn allocate_cached(size: usize) -> *mut u8 {
    // Hardened, all go by `allocate`, which looks at them.
    if HARDENED || size > SMALL_MAX_BYTES {
        return ptr::null_mut();
    }
    with_cache(|cache| cache.pop(class::of_size(size), size)).unwrap_or(ptr::null_mut())
}

/// A block whose bytes are zero, or null. Pages fresh from the OS are not
/// written again.
#[inline]
pub(crate) fn allocate_zeroed<const COUNTED: bool>(layout: Layout, settings: &Settings) -> *mut u8 {
    if class::of_layout(layout.size(), layout.align()).is_none() {
        return allocate_block::<COUNTED>(layout, true, settings);
    }
    let block = allocate::<COUNTED>(layout, settings);
    if !block.is_null() {
        // SAFETY: a fresh block of at least this size.
        unsafe { ptr::write_bytes(block, 0, layout.size()) };
    }
    block
}

/// Takes a block back.
///
/// # Safety
/// It was allocated with this layout and is used no more.
#[inline(always)]
pub(crate) unsafe fn free(block: *mut u8, layout: Layout) {
    if HARDENED {
        return match class::of_layout(layout.size(), layout.align()) {
            Some(class) => harden::free::<true>(block, class, layout.size()),
            // SAFETY: the caller's promise.
            None => unsafe { free_block(block, layout) },
        };
    }
    // As in `allocate`.
    if let Some(class) = class::of_little(layout.size(), layout.align())
        && with_cache(|cache| cache.push::<true>(class, block, layout.size()))
    {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { free_otherwise(block, layout) }
}

/// [`free`], whatever the layout and the cache.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn free_otherwise(block: *mut u8, layout: Layout) {
    match class::of_layout(layout.size(), layout.align()) {
        Some(class) => with_cache(|cache| cache.free::<true>(class, block, layout.size())),
        // SAFETY: the caller's promise.
        None => unsafe { free_block(block, layout) },
    }
}

/// Changes the size of a block; null leaves it as it was. Stays in place while
/// the class, or the pages, stay the same; a large block grows into free pages
/// behind it, a huge one is remapped.
///
/// # Safety
/// The block was allocated with `layout`, and `new_size`, rounded up to its
/// alignment, fits `isize`.
#[inline]
pub(crate) unsafe fn reallocate(
    block: *mut u8,
    layout: Layout,
    new_size: usize,
    settings: &Settings,
) -> *mut u8 {
    let (old_size, align) = (layout.size(), layout.align());
    let from = class::of_layout(old_size, align);
    let to = class::of_layout(new_size, align);
    if let Some(class) = from
        && from == to
        && (!HARDENED || harden::resize(block, class, old_size, new_size))
    {
        with_cache(|cache| cache.request(old_size, new_size));
        // SAFETY: a region has room for all sizes of its class.
        unsafe { fill_change(block, old_size, new_size) };
        if HARDENED {
            let room = class.info().region_bytes as usize;
            // SAFETY: as above.
            unsafe { harden::put_canary(block, new_size, room) };
        }
        return block;
    }
    if from.is_none() && to.is_none() {
        // SAFETY: the caller's promise.
        if let Some(kept) = unsafe { resize_block(block, layout, new_size) } {
            return kept.as_ptr();
        }
    }
    // SAFETY: the caller's promise about `new_size`.
    let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, align) };
    let moved = allocate::<true>(new_layout, settings);
    if !moved.is_null() {
        // SAFETY: both blocks are at least that long, and distinct.
        unsafe { ptr::copy_nonoverlapping(block, moved, old_size.min(new_size)) };
        // SAFETY: the caller's promise.
        unsafe { free(block, layout) };
    }
    moved
}

#[cold]
fn allocate_block<const COUNTED: bool>(
    layout: Layout,
    zeroed: bool,
    settings: &Settings,
) -> *mut u8 {
    heed(settings);
    let (size, align) = (layout.size(), layout.align());
    if os::is_ending() {
        return last::allocate(size, align);
    }
    let Some(permit) = Permit::of(size) else {
        limit::note(true);
        return ptr::null_mut();
    };
    let extent = take_extent(size, align, zeroed);
    let Some(extent) = extent.or_else(|| take_extent_at_last(size, align, zeroed)) else {
        return ptr::null_mut();
    };
    drop(permit);
    let block = extent.start;
    if zeroed && !extent.zeroed {
        // SAFETY: a fresh block of at least this size.
        unsafe { ptr::write_bytes(block.as_ptr(), 0, size) };
    }
    with_cache(|cache| cache.request_block(0, if COUNTED { size } else { 0 }));
    if HARDENED {
        harden::watch();
        if COUNTED {
            // SAFETY: a block of whole pages.
            unsafe { harden::put_canary(block.as_ptr(), size, in_pages(size)) };
        }
    }
    if !zeroed {
        // Whoever allocates uncounted may use all of it.
        let bytes = if COUNTED { size } else { in_pages(size) };
        // SAFETY: a fresh block of at least this size.
        unsafe { fill(block.as_ptr(), 0, bytes, Moment::Allocated) };
    }
    block.as_ptr()
}

#[inline]
fn take_extent(size: usize, align: usize, zeroed: bool) -> Option<Extent> {
    if large::serves(size, align) {
        CENTRAL.large.allocate(&CENTRAL.pages, size, align)
    } else {
        CENTRAL.huge.allocate(&CENTRAL.meta, size, align, zeroed)
    }
}

/// [`take_extent`], once the system had no more: what is free becomes its own, first what
/// waits to be used as it is, then all the rest.
#[cold]
#[inline(never)]
fn take_extent_at_last(size: usize, align: usize, zeroed: bool) -> Option<Extent> {
    let again = || take_extent(size, align, zeroed);
    let soon = CENTRAL.clear_waiting().then(again).flatten();
    soon.or_else(|| (purge() > 0).then(again).flatten())
}

/// The bytes of a block that is not small: whole pages of the system's.
fn in_pages(size: usize) -> usize {
    round_up(size, os::page_bytes())
}

/// Whether a block of that size lies at that address, for the hardened mode, which looks
/// behind it.
fn is_block_of(block: *mut u8, size: usize) -> bool {
    block_bytes(block.addr()) == Some(in_pages(size))
}

/// Fills the bytes `from..to` of a block, if that is wanted.
///
/// # Safety
/// They belong to the block, and hold nothing any more.
#[inline]
unsafe fn fill(block: *mut u8, from: usize, to: usize, moment: Moment) {
    if let (true, Some(fill)) = (from < to, SETTINGS.fill()) {
        // SAFETY: the caller's promise.
        let first = unsafe { block.add(from) };
        // SAFETY: as above.
        unsafe { first.write_bytes(fill.byte(moment), to - from) };
    }
}

/// Fills what a block gains where it is, or will lose.
///
/// # Safety
/// The block has the larger of the two sizes.
#[inline]
unsafe fn fill_change(block: *mut u8, old_size: usize, new_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { fill(block, old_size, new_size, Moment::Allocated) };
    // SAFETY: as above.
    unsafe { fill(block, new_size, old_size, Moment::Freed) };
}

/// # Safety
/// As for [`free`].
#[cold]
unsafe fn free_block(block: *mut u8, layout: Layout) {
    let Some(block) = NonNull::new(block) else { return };
    if os::is_ending() {
        return;
    }
    let (size, align) = (layout.size(), layout.align());
    with_cache(|cache| cache.request_block(size, 0));
    if HARDENED && is_block_of(block.as_ptr(), size) {
        // SAFETY: a block of that size, by the books.
        unsafe { harden::check_canary(block.as_ptr(), size, in_pages(size)) };
    }
    // What is no block is found out below, and not written to.
    if SETTINGS.fill().is_some()
        && block_bytes(block.addr().get()).is_some_and(|owned| size <= owned)
    {
        // SAFETY: a block of that size, which is used no more.
        unsafe { fill(block.as_ptr(), 0, size, Moment::Freed) };
    }
    if large::serves(size, align) {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.large.free(&CENTRAL.pages, block, size) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.free_huge(block, size) };
    }
}

/// # Safety
/// As for [`reallocate`].
#[cold]
unsafe fn resize_block(block: *mut u8, layout: Layout, new_size: usize) -> Option<NonNull<u8>> {
    let at = NonNull::new(block)?;
    let (old_size, align) = (layout.size(), layout.align());
    if os::is_ending() {
        return None;
    }
    let _permit = Permit::of(new_size.saturating_sub(old_size))?;
    if HARDENED && is_block_of(block, old_size) {
        // SAFETY: a block of that size, by the books.
        unsafe { harden::check_canary(block, old_size, in_pages(old_size)) };
    }
    // Less is entered before, more after (thread, T5).
    with_cache(|cache| cache.request_block(old_size, new_size.min(old_size)));
    let kept = match (large::serves(old_size, align), large::serves(new_size, align)) {
        (true, true) => {
            // SAFETY: the caller's promise.
            unsafe { CENTRAL.large.resize(&CENTRAL.pages, at, old_size, new_size) }.then_some(at)
        }
        // A remapped block is aligned to a page, no further.
        (false, false) if os::aligns_mappings_to(align) => {
            // SAFETY: the caller's promise.
            unsafe { CENTRAL.huge.resize(at, old_size, new_size) }
        }
        _ => None,
    };
    if let Some(kept) = kept {
        // What it lost beyond its last page has gone, and been filled if that is wanted.
        let owned = old_size.min(in_pages(new_size));
        // SAFETY: the block has its new size.
        unsafe { fill_change(kept.as_ptr(), owned, new_size) };
        if HARDENED {
            // SAFETY: as above.
            unsafe { harden::put_canary(kept.as_ptr(), new_size, in_pages(new_size)) };
        }
    }
    let now = if kept.is_some() { new_size } else { old_size };
    with_cache(|cache| cache.request(new_size.min(old_size), now));
    kept
}

/// Takes a block back whose layout its owner does not know; aborts when it is
/// none. It must have been allocated uncounted.
///
/// # Safety
/// It is used no more.
#[inline(always)]
pub(crate) unsafe fn free_unsized(block: *mut u8) {
    match Segment::class_of(block.addr()) {
        Some(class) if HARDENED => harden::free::<false>(block, class, 0),
        Some(class) => with_cache(|cache| cache.free::<false>(class, block, 0)),
        // SAFETY: the caller's promise.
        None => unsafe { free_block_unsized(block) },
    }
}

/// # Safety
/// As for [`free_unsized`].
#[cold]
unsafe fn free_block_unsized(block: *mut u8) {
    let Some(at) = NonNull::new(block) else { return };
    if os::is_ending() {
        return;
    }
    if HARDENED && harden::free_sampled(block, None) {
        return;
    }
    let Some(size) = block_bytes(block.addr()) else {
        os::abort(Corruption::Foreign { address: block.addr(), size: 0 });
    };
    with_cache(|cache| cache.request_block(0, 0));
    // SAFETY: a block of that size, by the books.
    unsafe { fill(block, 0, size, Moment::Freed) };
    if large::serves(size, 1) && Segment::find(block.addr()).is_some() {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.large.free(&CENTRAL.pages, at, size) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.free_huge(at, size) };
    }
}

/// Bytes of the large or huge block at `address`.
fn block_bytes(address: usize) -> Option<usize> {
    match Segment::entry_of(address) {
        Entry::Large { pages } if address.is_multiple_of(PAGE_BYTES) => Some(pages << LG_PAGE),
        Entry::None => CENTRAL.huge.bytes_at(address),
        _ => None,
    }
}

/// Bytes that the owner of the block at `address` may use; `None` when there is
/// no block.
pub(crate) fn usable_bytes(address: usize) -> Option<usize> {
    if os::is_ending() {
        return last::usable_bytes(address);
    }
    match Segment::entry_of(address) {
        Entry::Slab { class, .. } => Some(class.info().region_bytes as usize),
        Entry::None if HARDENED => harden::sampled_bytes(address).or_else(|| block_bytes(address)),
        _ => block_bytes(address),
    }
}

/// [`reallocate`] for an owner who does not know the layout, which was aligned to
/// no more than `align`.
///
/// # Safety
/// The block is the caller's, and was allocated uncounted.
pub(crate) unsafe fn reallocate_unsized(
    block: *mut u8,
    new_size: usize,
    align: usize,
    settings: &Settings,
) -> *mut u8 {
    if os::is_ending() {
        // SAFETY: the caller's promise.
        return unsafe { last::reallocate(block, new_size, align) };
    }
    let (Some(at), Some(old)) = (NonNull::new(block), usable_bytes(block.addr())) else {
        os::abort(Corruption::Foreign { address: block.addr(), size: 0 });
    };
    if HARDENED {
        harden::check_held(block);
    }
    // First, since what follows takes the size for one that can be had.
    let Ok(layout) = Layout::from_size_align(new_size, align) else { return ptr::null_mut() };
    let to = class::of_layout(new_size, align);
    if to.is_some_and(|class| class.info().region_bytes as usize == old) {
        return block;
    }
    if to.is_none()
        && old > SMALL_MAX_BYTES
        && let Some(_permit) = Permit::of(new_size.saturating_sub(old))
    {
        let large = Segment::find(block.addr()).is_some();
        let kept = match (large, large::serves(new_size, align)) {
            (true, true) => {
                // SAFETY: the caller's promise.
                unsafe { CENTRAL.large.resize(&CENTRAL.pages, at, old, new_size) }.then_some(at)
            }
            // SAFETY: the caller's promise. A remapped block is aligned to a page.
            (false, false) => unsafe { CENTRAL.huge.resize(at, old, new_size) },
            _ => None,
        };
        if let Some(kept) = kept {
            // What it lost beyond its last page has gone, and been filled if that is wanted.
            let (from, owned) = (old.min(new_size), in_pages(new_size));
            // SAFETY: the block has so many bytes, of which the first are as they were.
            unsafe { fill(kept.as_ptr(), from, owned, Moment::Allocated) };
            return kept.as_ptr();
        }
    }
    let moved = allocate::<false>(layout, settings);
    if !moved.is_null() {
        // SAFETY: both blocks are at least that long, and distinct.
        unsafe { ptr::copy_nonoverlapping(block, moved, old.min(new_size)) };
        // SAFETY: the caller's promise.
        unsafe { free_unsized(block) };
    }
    moved
}

/// Gives back everything that can be given back now; returns the bytes that
/// went to the OS.
#[cold]
pub(crate) fn purge() -> usize {
    with_cache(crate::thread::Cache::recall_all);
    CENTRAL.disown_all();
    if HARDENED {
        CENTRAL.large.release_waiting(&CENTRAL.pages);
    }
    let waiting = CENTRAL.huge.clear_shelf().unwrap_or(0);
    CENTRAL.punch_holes() + waiting + CENTRAL.pages.purge_all()
}

/// The chores of a thread that is about to wait.
#[cold]
pub(crate) fn idle() {
    with_cache(crate::thread::Cache::empty_own);
    while CENTRAL.tick(crate::os::now_ms()) {}
}

/// Puts settings into effect, whatever held before. May call the OS.
#[cold]
pub(crate) fn configure(settings: &Settings) {
    let decay = SETTINGS.put(settings);
    CENTRAL.set_decay(decay);
    if SETTINGS.fill().is_some() {
        with_cache(crate::thread::Cache::give_up);
    }
    if HARDENED {
        with_cache(crate::thread::Cache::forget_sample);
    }
}
