//! The places of regions in magazines. A magazine's own thread loads and stores them one
//! by one; whole runs of them are written, moved and read here.

use crate::slab::Row;
use crate::sync::AtomicPtr;

/// Place of one region pointer in a magazine.
pub(crate) type Slot = AtomicPtr<u8>;

#[cfg(not(loom))]
mod imp {
    use super::{Row, Slot};

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

    /// Makes `n` places of new memory. They are written before they are read.
    #[inline(always)]
    pub(crate) unsafe fn lay_out(_: *mut Slot, _: usize) {}

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
    use core::ptr;

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
    pub(crate) unsafe fn lay_out(items: *mut Slot, n: usize) {
        for i in 0..n {
            // SAFETY: the caller's promise.
            unsafe { items.add(i).write(Slot::new(ptr::null_mut())) };
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

pub(crate) use imp::{lay_down, lay_out, read, shift};
