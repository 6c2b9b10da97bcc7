//! Hardened: what lies in free regions, and behind blocks: poison and canaries.

use super::chunk::{self, CHUNK_BYTES};
use super::word;
use crate::class::Class;
use crate::config::{LG_GRANULE, POISON_BYTES};
use crate::error::Corruption;
use crate::os;
use crate::settings::{Poison, SETTINGS};
use crate::slab::marks;

/// The poison. As an address it is none, so that what is read from a freed block and
/// followed is a fault.
const JUNK: u8 = 0xDF;
/// A word of it.
const JUNKS: u64 = u64::from_ne_bytes([JUNK; 8]);
/// Bytes behind a block that are looked at, if there are so many: with the block's last
/// one or more they are a word.
const CANARY_BYTES: usize = 7;

const _: () = assert!(POISON_BYTES == 4 * CHUNK_BYTES && CHUNK_BYTES == 1 << LG_GRANULE);

/// The chunks of a region that are filled with junk: four, some of them twice where the
/// region has fewer, so that there is nothing to decide.
#[inline(always)]
fn chunks(region: *mut u8, room: usize) -> [*mut u8; 4] {
    let last = (room - CHUNK_BYTES).min(POISON_BYTES - CHUNK_BYTES);
    let second = last.min(CHUNK_BYTES);
    [0, second, last - second, last].map(|offset| region.wrapping_add(offset))
}

/// Fills a region of `room` bytes with junk, as [`marks::JUNK`] says, that was a block of
/// `size` bytes.
///
/// # Safety
/// The region is nobody's.
#[inline(always)]
pub(super) unsafe fn fill_junk(region: *mut u8, size: usize, room: usize) {
    if cfg!(any(miri, not(target_arch = "x86_64"))) {
        // SAFETY: within the region, which is nobody's.
        return unsafe { word::fill(region, size, room.min(POISON_BYTES), JUNK) };
    }
    // SAFETY: within the region, and aligned: regions are multiples of a chunk.
    unsafe { chunk::fill(chunks(region, room), JUNK) };
}

/// Whether a region of `room` bytes still holds what [`fill_junk`] wrote.
///
/// # Safety
/// The region is the caller's.
#[inline(always)]
pub(super) unsafe fn holds_junk(region: *mut u8, room: usize) -> bool {
    // SAFETY: as in `fill_junk`.
    unsafe { chunk::hold(chunks(region, room), JUNK) }
}

/// The mark of free regions, by which they are filled.
#[inline(always)]
pub(super) fn free_mark() -> u8 {
    match SETTINGS.poison() {
        Poison::None => marks::FREE,
        Poison::Junk => marks::JUNK,
        Poison::Zero => marks::ZERO,
    }
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
pub(super) fn fill(region: *mut u8, size: usize, class: Class, mark: u8) {
    let (bytes, value) = filled(mark, class);
    // SAFETY: within the region, which is nobody's.
    unsafe { word::fill(region, size, bytes, value) };
}

/// Aborts if a free region with that mark does not hold what it was filled with.
pub(super) fn check(region: *mut u8, class: Class, mark: u8) {
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

/// The last eight bytes of block and canary, and how many of them are canary.
#[inline(always)]
fn canary(block: *mut u8, size: usize, room: usize) -> (*mut u64, usize) {
    let bytes = (room - size).min(CANARY_BYTES);
    let at = block.wrapping_add(size + bytes).wrapping_sub(size_of::<u64>());
    (at.cast(), bytes)
}

/// The last `bytes`, fewer than eight, of a word: in numbers the high ones.
#[inline(always)]
fn last(bytes: usize) -> u64 {
    (!(u64::MAX >> (bytes * 8))).to_le()
}

/// Puts a canary behind a block.
///
/// # Safety
/// The block has `room` bytes, a multiple of eight, of which the program may use `size`.
#[inline(always)]
pub(in crate::heap) unsafe fn put_canary(block: *mut u8, size: usize, room: usize) {
    let (at, bytes) = canary(block, size, room);
    // SAFETY: the caller's promise.
    unsafe { word::write(at, last(bytes), JUNKS) };
}

/// Puts a canary behind a block that is handed out, and junk over its last bytes, which
/// hold nothing yet. Nothing is read: a page that was never touched is a fault once, and
/// not for the read and for the write.
///
/// # Safety
/// As for [`put_canary`], and nobody has used the block yet.
#[inline(always)]
pub(super) unsafe fn put_first_canary(block: *mut u8, size: usize, room: usize) {
    let (at, _) = canary(block, size, room);
    // SAFETY: the caller's promise.
    unsafe { at.write_unaligned(JUNKS) };
}

/// Whether the canary behind a block is still there.
///
/// # Safety
/// As for [`put_canary`], which was called with these.
#[inline(always)]
pub(super) unsafe fn has_canary(block: *mut u8, size: usize, room: usize) -> bool {
    let (at, bytes) = canary(block, size, room);
    // SAFETY: the caller's promise.
    let differences = unsafe { word::read(at, last(bytes)) } ^ JUNKS;
    // The program's bytes are shifted out: with a mask, the compiler compares all of the
    // word at once, of which memcheck does not see that theirs do not matter.
    u64::from_le(differences) >> 8 >> (56 - bytes * 8) == 0
}

/// Aborts if the canary behind a block is gone.
///
/// # Safety
/// As for [`has_canary`].
#[inline(always)]
pub(in crate::heap) unsafe fn check_canary(block: *mut u8, size: usize, room: usize) {
    // SAFETY: the caller's promise.
    if !unsafe { has_canary(block, size, room) } {
        overflow(block, size);
    }
}

#[cold]
#[inline(never)]
fn overflow(block: *mut u8, size: usize) -> ! {
    os::abort(Corruption::Overflow { address: block.addr(), size });
}
