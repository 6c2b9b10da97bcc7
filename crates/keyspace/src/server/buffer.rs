//! A growing string of bytes in an account: client buffers, and strings that are appended to.
//!
//! A vector fills its spare room element by element where its allocator is not the global one, at
//! about a nanosecond a byte. This one keeps its room initialised, so that adding is one copy of
//! memory.

use super::accounts::Bytes;
use allocator_api2::vec::Vec;
use std::ops::{Deref, Range};
use tallow::defrag::{Mover, Relocate};
use tallow::{In, Purpose};

/// Bytes with room to grow, in the account `P`.
#[derive(Debug)]
pub(crate) struct Buffer<P: Purpose> {
    /// Initialised to its end; what lies beyond `len` is not part of the string.
    room: Bytes<P>,
    len: usize,
}

impl<P: Purpose> Buffer<P> {
    /// The smallest room.
    const MIN_BYTES: usize = 64;
    /// The most room that is made for what may be added to a value.
    const MAX_SPARE_BYTES: usize = 1 << 20;

    /// An empty string without memory.
    pub(crate) const fn new() -> Self {
        Self { room: Vec::new_in(In::NEW), len: 0 }
    }

    /// A copy of `bytes`, without spare room.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::new();
        copy.make_room(bytes.len());
        copy.extend(bytes);
        copy
    }

    /// Bytes of memory it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.room.capacity()
    }

    /// How long the string can be before it has to grow.
    #[inline]
    pub(crate) fn room_bytes(&self) -> usize {
        self.room.len()
    }

    /// Makes room for `bytes` in all.
    pub(crate) fn reserve_to(&mut self, bytes: usize) {
        if bytes > self.room.len() {
            self.make_room(bytes);
        }
    }

    /// Adds `bytes` at the end.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end > self.room.len() {
            self.grow(end);
        }
        self.room[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Adds `parts`, one after the other.
    #[inline]
    pub(crate) fn extend_all<const N: usize>(&mut self, parts: [&[u8]; N]) {
        let end = self.len + parts.iter().map(|part| part.len()).sum::<usize>();
        if end > self.room.len() {
            self.grow(end);
        }
        let mut rest = &mut self.room[self.len..end];
        for part in parts {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        self.len = end;
    }

    /// Adds one byte.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// Makes the string `len` bytes long, with zeros at its end if it was shorter. Room for as much
    /// again is made, but for no more than a mebibyte, as in Redis: values stay for long.
    pub(crate) fn resize(&mut self, len: usize) {
        if len > self.len {
            if len > self.room.len() {
                self.make_room(len + len.min(Self::MAX_SPARE_BYTES));
            }
            self.room[self.len..len].fill(0);
        }
        self.len = len;
    }

    /// Drops all but the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Puts `parts`, one after the other, in place of the bytes in `range`. Afterwards there is no
    /// spare room: for values that are read more often than changed.
    pub(crate) fn replace_and_fit(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let (added, tail) = (parts.iter().map(|part| part.len()).sum::<usize>(), range.end);
        let (old, new) = (self.len, self.len - range.len() + added);
        if new > self.room.len() {
            self.make_room(new);
        }
        self.room.copy_within(tail..old, range.start + added);
        let mut at = range.start;
        for part in parts {
            self.room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len = new;
        self.shrink_beyond(0);
    }

    /// Gives spare room back, if it is more than `spare_bytes`.
    pub(crate) fn shrink_beyond(&mut self, spare_bytes: usize) {
        if self.room.len() - self.len > spare_bytes {
            self.room.truncate(self.len);
            self.room.shrink_to_fit();
        }
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.room.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// Gives all memory back.
    pub(crate) fn free(&mut self) {
        *self = Self::new();
    }

    /// The bytes, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }

    #[cold]
    fn grow(&mut self, least: usize) {
        self.make_room(least.max(self.room.len() * 2).max(Self::MIN_BYTES));
    }

    fn make_room(&mut self, bytes: usize) {
        self.room.reserve_exact(bytes.saturating_sub(self.room.len()));
        self.room.resize(bytes, 0);
    }
}

impl<P: Purpose> Deref for Buffer<P> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl<P: Purpose> Relocate for Buffer<P> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.room.relocate(mover);
    }
}
