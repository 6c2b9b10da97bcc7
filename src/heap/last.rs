//! Blocks while the process ends: for a handler of `SIGABRT`, on a thread that may hold every
//! lock. Each lies in a mapping of its own, which nobody takes back.

use super::{block_bytes, harden};
use crate::arena::CENTRAL;
use crate::bits::checked_round_up;
use crate::config::HARDENED;
use crate::os;
use crate::segment::{Entry, Segment};
use crate::sync::{AtomicPtr, Ordering};
use core::ptr;

/// What lies right before such a block.
#[repr(C, align(16))]
struct Header {
    bytes: usize,
    /// The one before it.
    next: *mut Header,
}

/// That of the newest one.
static NEWEST: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());

/// A block, or null.
#[cold]
pub(super) fn allocate(size: usize, align: usize) -> *mut u8 {
    let lead = align.max(os::page_bytes());
    let bytes = size.checked_add(lead).and_then(|sum| checked_round_up(sum, os::page_bytes()));
    let Some(at) = bytes.and_then(|bytes| os::reserve(bytes, lead)) else {
        return ptr::null_mut();
    };
    // SAFETY: the lead is longer than what is written at its end, and aligned to it.
    let (block, header) = unsafe { (at.add(lead), at.add(lead).cast::<Header>().sub(1)) };
    // Release pairs with the Acquire in `usable_bytes`.
    let _ = NEWEST.fetch_update(Ordering::Release, Ordering::Relaxed, |next| {
        // SAFETY: as above, and nobody knows it yet.
        unsafe { header.write(Header { bytes: size, next }) };
        Some(header.as_ptr())
    });
    block.as_ptr()
}

/// Bytes of the block at `address`, of whatever kind; `None` also where it would take the lock
/// of huge blocks, and somebody has that.
#[cold]
pub(super) fn usable_bytes(address: usize) -> Option<usize> {
    if let Entry::Slab { class, .. } = Segment::entry_of(address) {
        return Some(class.info().region_bytes as usize);
    }
    if Segment::find(address).is_some() {
        return block_bytes(address);
    }
    let mut at = NEWEST.load(Ordering::Acquire);
    // SAFETY: these stay for ever, and are whole when they are known.
    while let Some(header) = unsafe { at.as_ref() } {
        if at.addr() + size_of::<Header>() == address {
            return Some(header.bytes);
        }
        at = header.next;
    }
    let sampled = if HARDENED { harden::sampled_bytes(address) } else { None };
    sampled.or_else(|| CENTRAL.huge.try_bytes_at(address).flatten())
}

/// Changes the size of a block of whatever kind; null leaves it as it was.
///
/// # Safety
/// The block is the caller's.
#[cold]
pub(super) unsafe fn reallocate(block: *mut u8, new_size: usize, align: usize) -> *mut u8 {
    let Some(old) = usable_bytes(block.addr()) else { return ptr::null_mut() };
    if new_size <= old {
        return block;
    }
    let moved = allocate(new_size, align);
    if !moved.is_null() {
        // SAFETY: both blocks are at least that long, and distinct.
        unsafe { ptr::copy_nonoverlapping(block, moved, old) };
    }
    moved
}
