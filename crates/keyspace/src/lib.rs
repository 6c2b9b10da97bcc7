//! A small in-memory keyspace that shows what the [`tallow`] allocator does for a real cache.
//!
//! The demo is [`churn`]: a store of keys with TTLs is filled and used until it is in a steady
//! state, most of it expires, and what is left is healed: defragmented, and the free memory given
//! back. The figures at each point come from the allocator's own books and from the kernel.
//!
//! | module | what it does | knows of |
//! |---|---|---|
//! | [`clock`], [`bytes`] | virtual time; hashes, sizes, checkable contents | nothing |
//! | [`store`] | the keyspace | clock, bytes, `tallow::defrag` |
//! | [`workload`] | what real clusters do, and a seeded generator of it | clock, bytes |
//! | [`trace`] | reads the public trace format | clock, workload |
//! | [`gauge`], [`machine`] | what the allocator and the machine say | `tallow`, the system allocator |
//! | [`churn`] | the three phases | all of the above |
//! | [`server`] | the keyspace for Redis clients | `tallow`, its accounts and defragmentation |
//! | [`load`] | the three phases over the wire, on any Redis-compatible server | clock, bytes, workload |
//! | [`report`] | the run as text, JSON and a page with charts | what churn and load return |

#![warn(missing_docs)]

pub mod bytes;
pub mod churn;
pub mod clock;
pub mod gauge;
pub mod load;
pub mod machine;
pub mod report;
pub mod server;
pub mod store;
pub mod trace;
pub mod workload;
