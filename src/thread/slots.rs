//! The places of regions in magazines. A magazine's own thread loads and stores them one
//! by one; whole runs of them are written, moved and read here.

use crate::slab::Row;
use crate::sync::AtomicPtr;

/// Place of one region pointer in a magazine.
pub(crate) type Slot = AtomicPtr<u8>;

/// Bytes of a node for `n` places, and for the one below them.
pub(crate) const fn bytes(n: usize) -> usize {
    (1 + n) * size_of::<Slot>()
}

/// The first place in a node.
#[inline(always)]
pub(crate) fn first(node: *mut Slot) -> *mut Slot {
    node.wrapping_add(1)
}

#[cfg(not(loom))]
mod imp {
    use super::{Row, Slot};
    use crate::config::FETCHED_AHEAD;
    use crate::sync::{Ordering, prefetch};
    use core::ptr::NonNull;

    /// Has the first and the last line of a block of `bytes` fetched, to be written, that is
    /// popped soon after the one at `top`. Below the last item it is the place itself, which
    /// is near.
    ///
    /// # Safety
    /// `base` is the first of a node's places, and from the one below it up to `top` all are
    /// written.
    #[inline(always)]
    pub(crate) unsafe fn fetch(top: *mut Slot, base: *mut Slot, bytes: usize) {
        // The place below costs no comparison: with one, a pair took 1.2 times as long.
        let ahead = if FETCHED_AHEAD == 1 {
            top.wrapping_sub(1)
        } else {
            top.wrapping_sub(FETCHED_AHEAD).max(base)
        };
        // SAFETY: the caller's promise.
        let region = unsafe { (*ahead).load(Ordering::Relaxed) };
        prefetch(region);
        prefetch(region.wrapping_add(bytes.wrapping_sub(1)));
    }

    /// Writes the regions of a row, the last one first.
    ///
    /// # Safety
    /// So many places there are the caller's, and nobody reads them.
    #[inline(always)]
    pub(crate) unsafe fn lay_down(to: *mut Slot, row: Row) {
        let mut region = row.last();
        for i in 0..row.n {
            // SAFETY: the caller's promise; a slot has the layout of a pointer.
            unsafe { to.cast::<*mut u8>().add(i).write(region) };
            region = region.wrapping_sub(row.region_bytes);
        }
    }

    /// Makes `n` places of a new node. They are written before they are read.
    #[inline(always)]
    pub(crate) unsafe fn lay_out(_: NonNull<Slot>, _: usize) {}

    /// Writes the place below the first one: the address of itself.
    ///
    /// # Safety
    /// `first` is the first of a node's places, and the caller's.
    #[inline(always)]
    pub(crate) unsafe fn stop(first: *mut Slot) {
        // SAFETY: the caller's promise; a node begins with that place.
        let below = unsafe { first.sub(1) };
        // SAFETY: as above.
        unsafe { below.write(Slot::new(below.cast())) };
    }

    /// Moves `n` items, which may overlap.
    ///
    /// # Safety
    /// Both are places of the caller's.
    #[inline(always)]
    pub(crate) unsafe fn shift(from: *mut Slot, to: *mut Slot, n: usize) {
        // SAFETY: the caller's promise; slots are plain data.
        unsafe { core::ptr::copy(from, to, n) };
    }

    /// Runs `f` with `n` items.
    ///
    /// # Safety
    /// They have been written, and nobody writes them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read<R>(items: *mut Slot, n: usize, f: impl FnOnce(&[*mut u8]) -> R) -> R {
        // SAFETY: the caller's promise. A slot has the layout of a pointer.
        f(unsafe { core::slice::from_raw_parts(items.cast::<*mut u8>(), n) })
    }
}

/// One by one, so that loom sees each.
#[cfg(loom)]
mod imp {
    use super::{Row, Slot};
    use crate::sync::Ordering;
    use core::ptr::{self, NonNull};

    /// A hint, which models nothing.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn fetch(_: *mut Slot, _: *mut Slot, _: usize) {}

    /// Nothing is fetched.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn stop(_: *mut Slot) {}

    /// # Safety
    /// As above.
    pub(crate) unsafe fn lay_down(to: *mut Slot, row: Row) {
        for (i, region) in row.regions().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { (*to.add(row.n - 1 - i)).store(region, Ordering::Relaxed) };
        }
    }

    /// # Safety
    /// As above.
    pub(crate) unsafe fn lay_out(node: NonNull<Slot>, n: usize) {
        for i in 0..=n {
            // SAFETY: the caller's promise.
            unsafe { node.add(i).write(Slot::new(ptr::null_mut())) };
        }
    }

    /// # Safety
    /// As above.
    pub(crate) unsafe fn shift(from: *mut Slot, to: *mut Slot, n: usize) {
        // SAFETY: the caller's promise.
        let items = unsafe { read(from, n, <[*mut u8]>::to_vec) };
        for (i, item) in items.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { (*to.add(i)).store(item, Ordering::Relaxed) };
        }
    }

    /// # Safety
    /// As above.
    pub(crate) unsafe fn read<R>(items: *mut Slot, n: usize, f: impl FnOnce(&[*mut u8]) -> R) -> R {
        // SAFETY: the caller's promise.
        let list = (0..n).map(|i| unsafe { (*items.add(i)).load(Ordering::Relaxed) });
        f(&list.collect::<Vec<_>>())
    }
}

pub(crate) use imp::{fetch, lay_down, lay_out, read, shift, stop};
