//! Floor 7: the thread caches, and what threads leave behind.
//!
//! ```text
//!  thread-local [`Cache`]       [`Record`], metadata, lives on
//!  cur:  | class 0 | 1 | .. |   | lock | books | 16 items of class 0 | of class 1 | .. |
//!  base: | class 0 | 1 | .. |   | many: | class 0 | class 1 | .. |
//!  end:  | class 0 | 1 | .. |                         +--> room for all items it may have
//!
//!  A class's bounds lead to its 16 places in the record, or once it has earned more to
//!  a node of its own. Before them is one place more, which no bound includes: a pop looks
//!  below what it takes for the region to fetch, and need not ask whether there is one.
//! ```
//!
//! The hot path touches the cache only: pop while `cur > base`, push while
//! `cur < end`. It takes no lock and makes no atomic read-modify-write. A cache
//! that was never used is all zero, so both directions fall into the slow path;
//! so is one whose thread has ended (`Dead`), and one that was recalled.
//!
//! Invariants
//! - T1: only its own thread moves `cur` or writes items; `base`, `end` and the
//!   record's books change under the record's lock. So whoever holds that lock
//!   may count what is cached.
//! - T2: every claim and every return of regions runs under the lock of one
//!   record and is entered in its books. So with all record locks held the
//!   slabs' counts stand still, and equal the books (A2).
//! - T3: *recall*: whoever holds a record's lock may set `base` to the highest
//!   address and `end` to null. The thread's next operation of any kind finds
//!   no room on either side, takes the slow path and hands everything back.
//!   An operation that was on its way may still end: one pop of the top item,
//!   or one push above it. After a barrier on all processors there can be no
//!   second one, so whoever recalled may then take all items below the top one,
//!   whether the thread runs or sleeps, and note how many in `taken`.
//! - T5: bytes are entered as requested after their block is taken and struck
//!   out before it is given back, so that requested <= allocated also holds for
//!   a thread that is stopped in between, as in a forked child.
//! - T4: records are never given back; `next` never changes once published.

mod cache;
mod chance;
mod fork;
mod local;
mod record;
mod slots;
mod tally;

pub(crate) use cache::{Cache, heed};
pub(crate) use fork::{generation, hold_everything, let_everything_go};
pub(crate) use local::with_cache;
pub(crate) use record::{Books, activity, each_record, sum_books};
#[cfg(loom)]
pub(crate) use tally::model as tally_model;
pub(crate) use tally::{GRAIN_BYTES, Sums, Tally, sum_tallies};
