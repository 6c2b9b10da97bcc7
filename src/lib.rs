#![doc = include_str!("../README.md")]
//!
//! # How it is built
//!
//! Ten floors; each uses only those above it in this list (`tests/layers.rs`
//! checks it):
//!
//! | floor | modules | what it owns |
//! |---|---|---|
//! | 0 | `sync`, [`config`], `error` | atomics (std's or loom's), the numbers, the last line |
//! | 1 | `bits`, `os`, `lock`, `settings`, `ceiling` | bit sets; the only door to the system; a lock that survives `fork`; what can be chosen; when limits are looked at |
//! | 2 | `class` | size classes, tables made at compile time |
//! | 3 | `meta`, `segment` | Tallow's own memory; from an address to its owner |
//! | 4 | `pages` | runs of pages: dirty, purged, given back; the decay clock |
//! | 5 | `slab` | a bit set and a header word: claim and return without a lock |
//! | 6 | `arena` | bins, large blocks, huge mappings |
//! | 7 | `thread` | magazines, records, thread exit, fork |
//! | 8 | `heap`, [`limit`] | the routes of `alloc`, `dealloc`, `realloc`; when they end |
//! | 9 | `global`, `account`, [`raw`], [`stats()`], [`audit()`], [`process()`], [`defrag`], [`janitor`] | what the outside sees |
//!
//! [`design`] says what was decided, and on what measurement; [`trust`] why it should be
//! right, and what was run to find out that it is not.

// Models use a part of each module.
#![cfg_attr(loom, allow(dead_code, unused_imports, unused_macros))]

#[cfg(not(unix))]
compile_error!("tallow needs a unix system: memory is taken by mmap and given back by madvise");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("tallow needs 64-bit addresses");

// Floor 0
pub mod config;
mod error;
mod sync;
// Floor 1
mod bits;
mod ceiling;
mod lock;
#[cfg(not(loom))]
mod os;
#[cfg(loom)]
use model::os;
mod settings;
// Floor 2
mod class;

// Floor 3
mod meta;
mod segment;
// Floor 4
mod pages;
// Floor 5
mod slab;
// Floor 6
mod arena;
// Floor 7
mod thread;
// Floor 8
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
pub mod limit;
// Floor 9
mod account;
#[cfg(not(loom))]
mod audit;
#[cfg(not(loom))]
pub mod defrag;
pub mod design;
#[cfg(not(loom))]
mod global;
#[cfg(not(loom))]
pub mod janitor;
#[cfg(not(loom))]
mod process;
#[cfg(not(loom))]
pub mod raw;
#[cfg(not(loom))]
mod stats;
pub mod trust;

#[cfg(all(test, not(loom)))]
mod faults;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod face {
    pub use crate::account::{Account, AccountStats, In, Purpose, accounts};
    pub use crate::audit::{Audit, AuditError, audit};
    pub use crate::class::CLASS_COUNT;
    pub use crate::global::{Tallow, Tuned};
    pub use crate::janitor::{idle, set_decay};
    pub use crate::os::OsCalls;
    pub use crate::process::{Overcommit, Process, Thp, process};
    pub use crate::settings::{Builder, Fill, HugePages};
    pub use crate::stats::{AccountList, ClassStats, SlabView, Snapshot, slabs, stats};

    /// Gives memory back now: empties the calling thread's cache, recalls those
    /// of all other threads (each comes back with its thread's next operation),
    /// returns empty slabs to the page heap and all free pages to the system.
    /// Returns the bytes that went to the system.
    ///
    /// Calls the OS; takes locks one at a time, so other threads go on. Never
    /// allocates. Costs about 0.1 ms for each 100 MB given back.
    pub fn purge() -> u64 {
        crate::heap::purge() as u64
    }

    /// [`purge`] by another name, for those who look for what reaches the caches
    /// of all threads.
    pub fn purge_all() -> u64 {
        purge()
    }
}
#[cfg(not(loom))]
pub use face::*;
