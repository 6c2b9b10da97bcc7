//! What threads take regions from in their models: a list under a lock, in place of
//! slabs, which have models of their own (`arena::bin`). Each region has a cell for its
//! bytes.

use super::os;
use crate::class::Class;
use crate::config::MAX_ARENAS;
use crate::lock::Lock;
use crate::meta::Meta;
use crate::slab::Row;
use core::ptr;
use loom::cell::UnsafeCell;

/// Regions that there are.
const REGIONS: usize = 8;
const FIRST: usize = 1 << 12;
const REGION_BYTES: usize = 8;

/// Sampled blocks, of which there are none: it is the hardened mode that has them.
pub(crate) mod guarded {
    pub(crate) struct Guarded;

    pub(crate) static GUARDED: Guarded = Guarded;

    impl Guarded {
        pub(crate) fn raw_lock(&self) {}

        /// # Safety
        /// As in the shipped one.
        pub(crate) unsafe fn raw_unlock(&self) {}
    }
}

/// As the shipped one to the threads.
pub(crate) struct Central {
    pub(crate) meta: Meta,
    /// Regions that nobody has; the last is handed out first.
    free: Lock<Vec<usize>>,
    cells: Vec<UnsafeCell<u32>>,
}

// SAFETY: the cells are what loom watches.
unsafe impl Sync for Central {}
// SAFETY: as above.
unsafe impl Send for Central {}

loom::lazy_static! {
    /// Of one execution.
    pub(crate) static ref CENTRAL: Central = Central {
        meta: Meta::new(),
        free: Lock::new((0..REGIONS).rev().collect()),
        cells: (0..REGIONS).map(|_| UnsafeCell::new(0)).collect(),
    };
}

impl Central {
    pub(crate) fn arena_of(&self, ordinal: usize) -> usize {
        ordinal % MAX_ARENAS
    }

    pub(crate) fn claim(
        &self,
        _: usize,
        _: Class,
        _: u16,
        want: u32,
        out: &mut impl FnMut(Row),
    ) -> u32 {
        if os::is_left_behind() {
            return 0;
        }
        let mut free = self.free.lock();
        let n = free.len().min(want as usize);
        for _ in 0..n {
            let region = free.pop().expect("counted");
            out(Row::one(ptr::without_provenance_mut(FIRST + region * REGION_BYTES)));
        }
        n as u32
    }

    pub(crate) fn give_back(&self, _: Class, regions: &[*mut u8]) {
        if os::is_left_behind() {
            return;
        }
        let mut free = self.free.lock();
        for region in regions {
            let region = Self::region(*region);
            assert!(!free.contains(&region), "a region is given back twice");
            free.push(region);
        }
    }

    /// What the owner of a region does with it.
    pub(crate) fn write(&self, region: *mut u8) {
        if os::is_left_behind() {
            return;
        }
        // SAFETY: loom checks that nobody else is at it.
        self.cells[Self::region(region)].with_mut(|bytes| unsafe { *bytes += 1 });
    }

    /// Regions that are taken.
    pub(crate) fn taken(&self) -> i64 {
        (REGIONS - self.free.lock().len()) as i64
    }

    fn region(at: *mut u8) -> usize {
        at.addr().checked_sub(FIRST).expect("a region") / REGION_BYTES
    }

    pub(crate) fn hold(&self) {
        self.free.raw_lock();
        self.meta.raw_lock();
    }

    /// # Safety
    /// As in the shipped one.
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.meta.raw_unlock() };
        // SAFETY: as above.
        unsafe { self.free.raw_unlock() };
    }

    /// # Safety
    /// As in the shipped one.
    pub(crate) unsafe fn recover_in_child(&self) {}

    /// Regions that are taken, for a caller that holds everything.
    ///
    /// # Safety
    /// It does.
    pub(crate) unsafe fn taken_held(&self) -> i64 {
        // SAFETY: the caller's promise.
        (REGIONS - unsafe { self.free.value_held() }.len()) as i64
    }

    pub(crate) fn place(&self, _: Class, _: usize) -> Result<(), crate::error::Corruption> {
        Ok(())
    }

    pub(crate) fn tick(&self, _: u64) -> bool {
        false
    }

    pub(crate) fn set_decay(&self, _: Option<u64>) {}
}
