//! Elements that stay unvisited when the vector that holds them is moved.
//!
//! Moving a vector visits its elements too, in one go. The vectors here are walked in slices, by
//! those who know where the last slice ended; what is left to [`Relocate`] is their own memory.

use tallow::defrag::{Mover, Relocate};

/// An element that is visited by somebody else.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Still<T>(pub(crate) T);

impl<T> Relocate for Still<T> {
    fn relocate(&mut self, _: &mut Mover<'_>) {}
}
