//! Floor 9: blocks without layouts, for those who stand between Tallow and
//! programs in other languages (`crates/preload` is one).
//!
//! A block that comes from here goes back by [`free`] and not by Rust's `dealloc`,
//! nor the other way round: its size is not entered in `requested_bytes`, since
//! nobody will say it again. All other books are the same.

use crate::config::HARDENED;
use crate::heap;
use crate::os;
use crate::segment::{Entry, Segment};
use crate::settings::{self, Builder, Settings};
use crate::slab::{Slab, State};
use core::alloc::Layout;
use core::ffi::CStr;
use core::ptr;

const DEFAULT: &Settings = &Builder::DEFAULT;

/// At least `size` bytes at a multiple of `align`, a power of two; null when
/// memory is out or the two do not make a layout. Size 0 is a block too. Aligned
/// to 16 bytes from a size of 9 on, whatever `align`.
#[inline]
pub fn allocate(size: usize, align: usize) -> *mut u8 {
    match Layout::from_size_align(size.max(1), align) {
        Ok(layout) => heap::allocate::<false>(layout, DEFAULT),
        Err(_) => ptr::null_mut(),
    }
}

/// What [`allocate`] does for an alignment of at most 8 when the thread's cache has
/// such a block, and null when it has none: the part worth having in line.
#[inline(always)]
pub fn allocate_cached(size: usize) -> *mut u8 {
    heap::allocate_cached(size)
}

/// As [`allocate`] with an alignment of at most 8, all bytes zero.
#[inline]
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    match Layout::from_size_align(size.max(1), 8) {
        Ok(layout) => heap::allocate_zeroed::<false>(layout, DEFAULT),
        Err(_) => ptr::null_mut(),
    }
}

/// Takes a block back; nothing happens to null. Aborts when it is no block, of a
/// slab at the latest when it gets there.
///
/// # Safety
/// From this module, and used no more.
#[inline]
pub unsafe fn free(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { heap::free_unsized(block) }
}

/// Bytes of the block that may be used, at least those asked for; 0 for null.
/// `None` when it is no block.
pub fn usable_bytes(block: *const u8) -> Option<usize> {
    if block.is_null() { Some(0) } else { heap::usable_bytes(block.addr()) }
}

/// Changes a block's size, moving it if it must; null leaves it as it was. Aborts
/// when it is no block. Alignment beyond that of the new size may be lost.
///
/// # Safety
/// From this module, and not null; the old address is used no more unless null is
/// returned.
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { heap::reallocate_unsized(block, size.max(1), 8, DEFAULT) }
}

/// Puts settings into effect, whatever held before: for those who can read the
/// environment only after the first allocation. May call the OS. With the feature
/// `hardened` it also says that no Rust runtime is yet to come: the handler of `SIGSEGV`
/// need not wait for its.
pub fn configure(settings: &Builder) {
    if HARDENED {
        os::fault::expect_no_runtime();
    }
    heap::configure(settings);
}

/// Whether the environment switches something on: `1`, and not `0`. Read as
/// [`Builder::environment`] says, so another value is worth a line on stderr. Allocates
/// nothing.
#[doc(hidden)]
pub fn is_on(name: &CStr) -> bool {
    settings::is_on(name)
}

/// Whether a block lies in a slab that is being emptied by the
/// [`Pass`](crate::defrag::Pass) under way: then [`Mover::move_raw`](crate::defrag::Mover::move_raw)
/// is worth while, with the layout of [`usable_bytes`] and an alignment of 8. Some
/// loads; `false` for what is no block of Tallow's.
pub fn should_move(block: *const u8) -> bool {
    match Segment::entry_of(block.addr()) {
        Entry::Slab { header, .. } => {
            // SAFETY: headers are never unmapped (meta, M1).
            unsafe { header.cast::<Slab>().as_ref() }.header().state() == State::Evacuating
        }
        Entry::None | Entry::Large { .. } | Entry::Freed { .. } => false,
    }
}
