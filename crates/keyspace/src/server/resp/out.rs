//! A client's output buffer: in the account of the client's class, and within its limit.
//!
//! The limit is looked at where the buffer grows, so a reply stops being written in its midst once
//! it would pass it, and replies that fit cost nothing more. The buffer has no more room than its
//! limit and what was sent already (less than half of it) take: there is no spare room to hide in.

use crate::server::accounts::{Output, OutputPubsub};
use crate::server::buffer::Buffer;
use std::ops::Deref;

#[derive(Debug)]
enum Room {
    Normal(Buffer<Output>),
    Pubsub(Buffer<OutputPubsub>),
}

/// What a client is told, until it has taken it.
#[derive(Debug)]
pub(super) struct Out {
    room: Room,
    /// The most that may wait; `usize::MAX` for any number.
    limit_bytes: usize,
    /// Whether something did not fit: the client is not told the rest.
    is_over: bool,
}

macro_rules! each {
    ($it:expr, $buffer:ident => $do:expr) => {
        match $it {
            Room::Normal($buffer) => $do,
            Room::Pubsub($buffer) => $do,
        }
    };
}

impl Out {
    /// Nothing, without memory.
    pub(super) const fn new() -> Self {
        Self { room: Room::Normal(Buffer::new()), limit_bytes: usize::MAX, is_over: false }
    }

    /// Room taken.
    pub(super) fn capacity(&self) -> usize {
        each!(&self.room, it => it.capacity())
    }

    /// Whether the limit was met.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sets the limit for what is added from now on; 0 is none.
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit_bytes = match bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
    }

    /// Moves to the account of subscribers, or away from it, with all that waits.
    pub(super) fn set_pubsub(&mut self, is_pubsub: bool) {
        let bytes = &**self;
        let room = match (&self.room, is_pubsub) {
            (Room::Normal(_), true) => Room::Pubsub(Buffer::copy_of(bytes)),
            (Room::Pubsub(_), false) => Room::Normal(Buffer::copy_of(bytes)),
            _ => return,
        };
        self.room = room;
    }

    /// Adds bytes, if they are within the limit.
    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let fits = each!(&self.room, it => it.len() + bytes.len() <= it.room_bytes());
        if fits || self.grow(bytes.len()) {
            each!(&mut self.room, it => it.extend(bytes));
        }
    }

    /// Adds `parts`, one after the other: all or none.
    #[inline]
    pub(super) fn extend_all<const N: usize>(&mut self, parts: [&[u8]; N]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let fits = each!(&self.room, it => it.len() + bytes <= it.room_bytes());
        if fits || self.grow(bytes) {
            each!(&mut self.room, it => it.extend_all(parts));
        }
    }

    /// Adds one byte.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// Makes room for more; false if that is more than may be.
    #[cold]
    fn grow(&mut self, more: usize) -> bool {
        let least = self.len() + more;
        if self.is_over || least > self.limit_bytes {
            self.is_over = true;
            return false;
        }
        let wanted = (self.capacity() * 2).clamp(64, self.limit_bytes.max(64)).max(least);
        each!(&mut self.room, it => it.reserve_to(wanted));
        true
    }

    /// Drops all but the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        each!(&mut self.room, it => it.truncate(len));
    }

    /// Drops the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        each!(&mut self.room, it => it.consume(count));
    }

    /// Gives the room back.
    pub(super) fn free(&mut self) {
        each!(&mut self.room, it => it.free());
    }
}

impl Deref for Out {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        each!(&self.room, it => it)
    }
}
