//! Slabs for models: their bits are loom's, and lie elsewhere.

use super::{Header, Links, Protocol, Slab, Tag};
use crate::bits::mask;
use crate::sync::{AtomicU32, AtomicU64, Cell};
use core::cell::Cell as Kept;
use core::marker::PhantomData;
use core::ptr;

impl<P: Protocol> Slab<P> {
    /// Writes the bits of a new slab, elsewhere, and a first word where there is none yet.
    ///
    /// # Safety
    /// As for [`Slab::install`].
    pub(super) unsafe fn lay_out(slab: *mut Self, capacity: u32) {
        // SAFETY: a field of the node.
        unsafe { (&raw mut (*slab).words).write(Self::words_for_model(capacity)) };
        // SAFETY: the first word, which an atomic of loom's makes another than zero.
        if unsafe { slab.cast::<u64>().read() } == 0 {
            // SAFETY: as above.
            unsafe { (&raw mut (*slab).header).write(AtomicU64::new(0)) };
        }
    }

    fn words_for_model(capacity: u32) -> &'static [AtomicU64] {
        let bits = |w: usize| (capacity as usize - w * 64).min(64);
        let words = (0..capacity.div_ceil(64) as usize).map(|w| AtomicU64::new(mask(0, bits(w))));
        Box::leak(words.collect::<Vec<_>>().into_boxed_slice())
    }

    /// A slab for the models, with bits of its own.
    pub(crate) fn for_model(tag: Tag, capacity: u32, start: usize) -> Self {
        Self {
            header: AtomicU64::new(Header::install(Header(0), tag).0),
            start: Kept::new(ptr::without_provenance_mut(start)),
            links: Cell::new(Links { prev: ptr::null_mut(), next: ptr::null_mut() }),
            hint: AtomicU32::new(0),
            capacity: Kept::new(capacity as u16),
            list: Cell::new(0),
            words: Self::words_for_model(capacity),
            punched: AtomicU64::new(0),
            protocol: PhantomData,
        }
    }
}
