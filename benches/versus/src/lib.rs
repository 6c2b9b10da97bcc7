//! Tallow against other allocators.
//!
//! From the bottom up:
//! - [`block`]: blocks of raw memory from the global allocator; the only `unsafe` code here.
//! - [`workloads`]: what is measured, a list of functions.
//! - [`child`]: the main function of a worker: one workload, one line of JSON.
//! - [`run`]: builds the workers and runs them in turns.
//! - [`pairs`]: Tallow and one other at once, changed over.
//! - [`summary`]: medians, ratios, geometric means.
//! - [`table`] and [`html`]: the same for people.
//!
//! A worker is one process with one global allocator; the binaries in `src/bin` differ in nothing
//! else.

pub mod block;
pub mod child;
pub mod html;
pub mod pairs;
pub mod run;
pub mod summary;
pub mod table;
pub mod workloads;
