//! A block of Tallow's that knows what is in it. Used by the fuzz targets and by the
//! crate's own tests of refusals, which say what `TALLOW` is, and how much of a longer
//! block's ends is written and read (`EDGE`).

use super::{EDGE, TALLOW};
use std::alloc::{GlobalAlloc, Layout};

/// A block with a pattern at its ends.
pub(crate) struct Block {
    pub(crate) at: *mut u8,
    pub(crate) layout: Layout,
    seed: usize,
}

// SAFETY: a block belongs to whoever holds this, on any thread.
unsafe impl Send for Block {}

impl Block {
    /// `None` when memory was refused.
    pub(crate) fn new(layout: Layout, zeroed: bool, seed: usize) -> Option<Self> {
        // SAFETY: callers give layouts with a size.
        let at = unsafe { if zeroed { TALLOW.alloc_zeroed(layout) } else { TALLOW.alloc(layout) } };
        if at.is_null() {
            return None;
        }
        assert_eq!(at.addr() % layout.align(), 0, "{layout:?} is not aligned");
        let block = Self { at, layout, seed };
        if zeroed {
            block.each(layout.size(), |_, byte| assert_eq!(*byte, 0, "{layout:?} is not zero"));
        }
        block.fill();
        Some(block)
    }

    /// Calls `f` with the bytes at both ends of the first `len`.
    fn each(&self, len: usize, mut f: impl FnMut(usize, &mut u8)) {
        let head = len.min(EDGE);
        for i in (0..head).chain(len.saturating_sub(EDGE).max(head)..len) {
            // SAFETY: the byte lies in the block, which is ours.
            f(i, unsafe { &mut *self.at.add(i) });
        }
    }

    fn byte(&self, i: usize) -> u8 {
        (i % 251 + self.seed) as u8
    }

    fn fill(&self) {
        self.each(self.layout.size(), |i, byte| *byte = self.byte(i));
    }

    pub(crate) fn check(&self) {
        let layout = self.layout;
        self.each(layout.size(), |i, byte| {
            assert_eq!(*byte, self.byte(i), "byte {i} of {layout:?} changed");
        });
    }

    /// `false` when memory was refused, or no layout has that size: then the block is as
    /// it was.
    pub(crate) fn resize(&mut self, size: usize) -> bool {
        let old = self.layout;
        let Ok(layout) = Layout::from_size_align(size, old.align()) else { return false };
        self.check();
        // SAFETY: the block has this layout; the new one has a size and fits.
        let at = unsafe { TALLOW.realloc(self.at, old, size) };
        if at.is_null() {
            self.check();
            return false;
        }
        assert_eq!(at.addr() % layout.align(), 0, "{layout:?} is not aligned");
        (self.at, self.layout) = (at, layout);
        // What was written of the old block, as far as it was kept.
        let kept = old.size().min(size);
        let head = kept.min(EDGE);
        for i in (0..head).chain(old.size().saturating_sub(EDGE).clamp(head, kept)..kept) {
            // SAFETY: the byte lies in the block, which is ours.
            assert_eq!(unsafe { *self.at.add(i) }, self.byte(i), "byte {i} was not copied");
        }
        self.fill();
        true
    }

    pub(crate) fn free(self) {
        self.check();
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.dealloc(self.at, self.layout) };
    }
}
