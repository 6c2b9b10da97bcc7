//! Floor 8: the routes: which layout is served from where.
//!
//! | layout | served by |
//! |---|---|
//! | rounded size <= 32 KiB, alignment <= a page | a magazine, from slabs |
//! | size and alignment <= 1 MiB | a run of pages (*large*) |
//! | anything else | a mapping of its own (*huge*) |
//!
//! The route is a function of the layout, in both directions.

use crate::arena::{CENTRAL, large};
use crate::class;
use crate::thread::with_cache;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// A block for `layout`, or null. May call the OS.
#[inline(always)]
pub(crate) fn allocate(layout: Layout) -> *mut u8 {
    match class::of_layout(layout.size(), layout.align()) {
        Some(class) => with_cache(|cache| cache.allocate(class, layout.size())),
        None => allocate_block(layout, false),
    }
}

/// A block whose bytes are zero, or null. Pages fresh from the OS are not
/// written again.
#[inline]
pub(crate) fn allocate_zeroed(layout: Layout) -> *mut u8 {
    if class::of_layout(layout.size(), layout.align()).is_none() {
        return allocate_block(layout, true);
    }
    let block = allocate(layout);
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
    match class::of_layout(layout.size(), layout.align()) {
        Some(class) => with_cache(|cache| cache.free(class, block, layout.size())),
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
pub(crate) unsafe fn reallocate(block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    let (old_size, align) = (layout.size(), layout.align());
    let from = class::of_layout(old_size, align);
    let to = class::of_layout(new_size, align);
    if from.is_some() && from == to {
        with_cache(|cache| cache.request(old_size, new_size));
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
    let moved = allocate(new_layout);
    if !moved.is_null() {
        // SAFETY: both blocks are at least that long, and distinct.
        unsafe { ptr::copy_nonoverlapping(block, moved, old_size.min(new_size)) };
        // SAFETY: the caller's promise.
        unsafe { free(block, layout) };
    }
    moved
}

#[cold]
fn allocate_block(layout: Layout, zeroed: bool) -> *mut u8 {
    let (size, align) = (layout.size(), layout.align());
    let block = if large::serves(size, align) {
        CENTRAL.large.allocate(&CENTRAL.pages, size, align).map(|extent| {
            if zeroed && !extent.zeroed {
                // SAFETY: a fresh block of at least this size.
                unsafe { ptr::write_bytes(extent.start.as_ptr(), 0, size) };
            }
            extent.start
        })
    } else {
        CENTRAL.huge.allocate(&CENTRAL.meta, size, align)
    };
    let Some(block) = block else { return ptr::null_mut() };
    with_cache(|cache| cache.request_block(0, size));
    block.as_ptr()
}

/// # Safety
/// As for [`free`].
#[cold]
unsafe fn free_block(block: *mut u8, layout: Layout) {
    let Some(block) = NonNull::new(block) else { return };
    let (size, align) = (layout.size(), layout.align());
    with_cache(|cache| cache.request_block(size, 0));
    if large::serves(size, align) {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.large.free(&CENTRAL.pages, block, size) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { CENTRAL.huge.free(&CENTRAL.meta, block, size) };
    }
}

/// # Safety
/// As for [`reallocate`].
#[cold]
unsafe fn resize_block(block: *mut u8, layout: Layout, new_size: usize) -> Option<NonNull<u8>> {
    let at = NonNull::new(block)?;
    let (old_size, align) = (layout.size(), layout.align());
    // Less is entered before, more after (thread, T5).
    with_cache(|cache| cache.request_block(old_size, new_size.min(old_size)));
    let kept = match (large::serves(old_size, align), large::serves(new_size, align)) {
        (true, true) => {
            // SAFETY: the caller's promise.
            unsafe { CENTRAL.large.resize(&CENTRAL.pages, at, old_size, new_size) }.then_some(at)
        }
        // A remapped block is aligned to a page, no further.
        (false, false) if align <= crate::os::mapping_align() => {
            // SAFETY: the caller's promise.
            unsafe { CENTRAL.huge.resize(at, old_size, new_size) }
        }
        _ => None,
    };
    let now = if kept.is_some() { new_size } else { old_size };
    with_cache(|cache| cache.request(new_size.min(old_size), now));
    kept
}

/// Gives back everything that can be given back now; returns the bytes that
/// went to the OS.
#[cold]
pub(crate) fn purge() -> usize {
    with_cache(crate::thread::Cache::recall_all);
    CENTRAL.disown_all();
    CENTRAL.punch_holes() + CENTRAL.pages.purge_all()
}

/// The chores of a thread that is about to wait.
#[cold]
pub(crate) fn idle() {
    with_cache(crate::thread::Cache::empty_own);
    CENTRAL.pages.tick(crate::os::now_ms());
}
