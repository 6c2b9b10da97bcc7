//! Floor 6: what the threads share: bins, large blocks, huge mappings.
//!
//! [`CENTRAL`] holds all of it. A process starts with one arena, so that its
//! memory lies together; when refills are seen to wait for each other another
//! arena is opened, up to one per processor and
//! [`MAX_ARENAS`](crate::config::MAX_ARENAS).
//!
//! Locks, in the order in which they may be taken (thread records come before
//! all of them): a bin, large, huge, the sampled blocks, the page heap, metadata.
//!
//! Invariants
//! - A1: a slab's pages have its entry from before its first region is handed
//!   out until after its last one is back.
//! - A2: `claimed` of all thread records, summed, equals the slabs' live counts
//!   (they hold it; returns run under a record's lock).

pub(crate) mod bin;
#[cfg(not(loom))]
mod central;
#[cfg(not(loom))]
pub(crate) mod guarded;
mod hold;
pub(crate) mod huge;
pub(crate) mod large;
mod shelf;
mod slabs;

#[cfg(loom)]
pub(crate) use crate::model::central::{CENTRAL, guarded};
#[cfg(not(loom))]
pub(crate) use central::CENTRAL;
