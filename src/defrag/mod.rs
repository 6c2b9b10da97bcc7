//! Defragmentation: the program moves its own objects, in safe Rust, a little
//! at a time.
//!
//! After objects of mixed lifetimes have come and gone, every slab holds a few
//! survivors, and none can be given back. A [`Pass`] plans which slabs to empty
//! (per class, the emptiest that fit into the rest), marks them, and hands out
//! a [`Mover`] for each [`step`](Pass::step). The program visits its data with
//! it; [`Relocate`] moves what lies in a marked slab. `&mut Box<T>` proves that
//! nobody else looks, so no `unsafe` is needed.
//!
//! [`Defrag`] runs such passes beside the program's work when there is enough to
//! gain. A single one, for those who know the moment:
//!
//! ```
//! use std::time::Duration;
//! use tallow::defrag::{Options, Pass, Relocate};
//!
//! #[global_allocator]
//! static ALLOC: tallow::Tallow = tallow::Tallow::new();
//!
//! let mut list: Vec<Option<Box<[u8; 100]>>> = (0..50_000).map(|i| Some(Box::new([i as u8; 100]))).collect();
//! for (i, item) in list.iter_mut().enumerate() {
//!     if i % 10 != 0 {
//!         *item = None; // nine in ten go; every slab keeps a few
//!     }
//! }
//! let mut pass = Pass::begin(Options::default());
//! let predicted = pass.predicted();
//! let mut rest = list.iter_mut();
//! while rest.len() > 0 {
//!     let mut mover = pass.step(Duration::from_micros(500));
//!     while let Some(item) = rest.next() {
//!         item.relocate(&mut mover);
//!         if mover.out_of_time() {
//!             break; // serve requests, then go on with the next step
//!         }
//!     }
//! }
//! let outcome = pass.finish();
//! assert!(outcome.released_bytes >= predicted.released_bytes * 9 / 10);
//! assert!(list.iter().flatten().count() == 5000);
//! tallow::audit().unwrap();
//! ```
//!
//! What may still hold an address: raw pointers, and whatever was handed to
//! foreign code. Do not relocate data of which such a pointer exists, as you
//! would not drop it. [`core::pin::Pin`] has no impl, so pinned data stays.

mod books;
mod cycle;
mod mover;
mod pass;
mod plan;
mod relocate;

pub(crate) use books::BOOKS;
pub use books::DefragStats;
pub use cycle::{Defrag, Settings, Visit};
pub use mover::Mover;
pub use pass::{Options, Outcome, Pass, Prediction};
pub use relocate::Relocate;
/// The impl that visits each field, with the feature `derive`.
///
/// ```
/// use tallow::defrag::Relocate;
///
/// #[derive(Relocate)]
/// struct Entry<V> {
///     key: Box<str>,
///     value: Vec<V>,
///     #[relocate(skip)]
///     shared: std::rc::Weak<str>, // not visited, and needs no impl
/// }
/// ```
#[cfg(feature = "derive")]
pub use tallow_derive::Relocate;
