//! Floor 3: metadata, the only memory that Tallow takes for itself.
//!
//! Slab headers, thread records and nodes for huge blocks are cut one after
//! the other from chunks of [`CHUNK_BYTES`]. Headers come back: each size goes on a
//! free list of its own and is only ever used for a header of that size again, and
//! chunks are never given back: a stale pointer to a header still points to a header
//! (M1), which is what lets other threads read one without a lock. The free lists'
//! links live in headers that are off duty, behind the first word (M2): that is an
//! atomic one, and keeps its last value. All else stays for ever.

use crate::lock::Lock;
use crate::os;
use crate::sync::const_unless_loom;
use core::ptr::{self, NonNull};

const CHUNK_BYTES: usize = 256 << 10;
/// Nodes are multiples of this, and aligned to it: half a cache line.
const NODE_ALIGN: usize = 32;
/// Sizes of headers.
const KINDS: usize = 16;

/// Free headers of one size.
#[derive(Clone, Copy)]
struct Kind {
    bytes: usize,
    free: *mut FreeNode,
}

/// A header off duty. Its first word is left alone (M2).
#[repr(C)]
struct FreeNode {
    kept: u64,
    next: *mut FreeNode,
}

struct State {
    at: *mut u8,
    left: usize,
    mapped: usize,
    /// Bytes cut off so far; what is left of the chunk has not been written.
    used: usize,
    kinds: [Kind; KINDS],
}

// SAFETY: the pointers lead to memory that this state owns.
unsafe impl Send for State {}

/// The metadata allocator.
pub(crate) struct Meta {
    state: Lock<State>,
}

impl State {
    /// The next `bytes` of a chunk, a multiple of [`NODE_ALIGN`].
    fn cut(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        if self.left < bytes {
            let chunk = bytes.next_multiple_of(CHUNK_BYTES);
            let start = os::reserve_guarded(chunk, os::page_bytes())?;
            // What was left of the last chunk stays unwritten, and unbacked.
            self.mapped += chunk;
            self.at = start.as_ptr();
            self.left = chunk;
        }
        let node = NonNull::new(self.at)?;
        // SAFETY: `left >= bytes`, so the end lies in the chunk or at its end.
        self.at = unsafe { self.at.add(bytes) };
        self.left -= bytes;
        self.used += bytes;
        Some(node)
    }
}

/// What metadata costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetaBytes {
    pub(crate) mapped: usize,
    pub(crate) used: usize,
}

impl Meta {
    const_unless_loom! {
        pub(crate) fn new() -> Meta {
            let none = Kind { bytes: 0, free: ptr::null_mut() };
            Meta {
                state: Lock::new(State {
                    at: ptr::null_mut(),
                    left: 0,
                    mapped: 0,
                    used: 0,
                    kinds: [none; KINDS],
                }),
            }
        }
    }

    /// Room for `bytes` for ever, zero, aligned to [`NODE_ALIGN`]. `None` when memory is
    /// out. May call the OS.
    pub(crate) fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.state.lock().cut(bytes.next_multiple_of(NODE_ALIGN))
    }

    /// The same for a header: one that has come back, or a new one.
    pub(crate) fn take_header(&self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.next_multiple_of(NODE_ALIGN);
        let mut state = self.state.lock();
        if let Some(kind) = state.kinds.iter_mut().find(|k| k.bytes == bytes)
            && let Some(node) = NonNull::new(kind.free)
        {
            // SAFETY: nodes on a free list are valid and ours (M1).
            kind.free = unsafe { (*node.as_ptr()).next };
            return Some(node.cast());
        }
        state.cut(bytes)
    }

    /// Takes a header back.
    ///
    /// # Safety
    /// It came from [`Meta::take_header`] with the same size, and nobody but stale
    /// readers of its first word uses it.
    pub(crate) unsafe fn give_header(&self, node: NonNull<u8>, bytes: usize) {
        let bytes = bytes.next_multiple_of(NODE_ALIGN);
        let mut state = self.state.lock();
        let Some(kind) = state.kinds.iter_mut().find(|k| k.bytes == bytes || k.bytes == 0) else {
            // More sizes than there are kinds: the node is lost, not misused.
            return;
        };
        kind.bytes = bytes;
        // From the address: the pointer that comes back may have been made from a
        // reference, which leads to the header alone. Chunks are exposed.
        let node = ptr::with_exposed_provenance_mut::<FreeNode>(node.addr().get());
        // SAFETY: the node is ours, and the link lies behind its first word (M2).
        unsafe { (*node).next = kind.free };
        kind.free = node;
    }

    pub(crate) fn bytes(&self) -> MetaBytes {
        let state = self.state.lock();
        MetaBytes { mapped: state.mapped, used: state.used }
    }

    /// For the fork handlers.
    pub(crate) fn raw_lock(&self) {
        self.state.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Meta::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.state.raw_unlock() }
    }
}
