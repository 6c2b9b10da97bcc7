//! The kinds of values.

use super::hash::Hash;
use super::list::List;
use crate::server::accounts::Dataset;
use crate::server::buffer::Buffer;
use crate::server::resp::number::Digits;
use std::borrow::Cow;

/// A value with memory of its own.
#[derive(Debug)]
pub(crate) enum Value {
    /// A long string, or one that is appended to.
    String(Buffer<Dataset>),
    /// Fields with values.
    Hash(Hash),
    /// Elements in order.
    List(List),
}

/// A value of any kind, to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueRef<'a> {
    /// A string.
    String(&'a [u8]),
    /// A string that is a number, and kept as one.
    Int(i64),
    /// Fields with values.
    Hash(&'a Hash),
    /// Elements in order.
    List(&'a List),
}

impl Value {
    /// To be read.
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::String(bytes) => ValueRef::String(bytes),
            Self::Hash(hash) => ValueRef::Hash(hash),
            Self::List(list) => ValueRef::List(list),
        }
    }

    /// Elements that can be moved one by one.
    pub(super) fn elements(&self) -> usize {
        match self {
            Self::String(_) => 0,
            Self::Hash(hash) if hash.is_flat() => 0,
            Self::Hash(hash) => hash.len(),
            Self::List(list) => list.chunk_count(),
        }
    }

    /// Bytes of its blocks as they were asked for, at least ([`Hash::least_bytes`]). For a list all
    /// chunks are looked at.
    pub(super) fn least_bytes(&self) -> usize {
        match self {
            Self::String(bytes) => bytes.capacity(),
            Self::Hash(hash) => hash.least_bytes(),
            Self::List(list) => list.own_blocks().sum(),
        }
    }

    /// Gives the memory of what is inside back block by block, and tells before each how many bytes
    /// that is. Nothing but to drop it may be done with the value after that.
    pub(super) fn free_inside(&mut self, frees: impl FnMut(usize)) {
        match self {
            Self::String(_) => {}
            Self::Hash(hash) => hash.free_pairs(frees),
            Self::List(list) => list.free_chunks(frees),
        }
    }

    /// How many blocks it takes to free it: what decides whether another thread does it.
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            Self::String(_) => 1,
            Self::Hash(hash) => hash.block_count(),
            Self::List(list) => list.block_count(),
        }
    }
}

impl<'a> ValueRef<'a> {
    /// What TYPE says.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::String(_) | Self::Int(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
        }
    }

    /// What OBJECT ENCODING says, in Redis's words for the nearest thing.
    pub(crate) fn encoding(self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::String(bytes) if bytes.len() <= 44 => "embstr",
            Self::String(_) => "raw",
            Self::Hash(hash) => {
                if hash.is_flat() {
                    "listpack"
                } else {
                    "hashtable"
                }
            }
            Self::List(_) => "quicklist",
        }
    }

    /// The bytes of a string; `None` for other kinds.
    pub(crate) fn to_bytes(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::String(bytes) => Some(Cow::Borrowed(bytes)),
            Self::Int(number) => Some(Cow::Owned(Digits::of(number).as_bytes().to_vec())),
            Self::Hash(_) | Self::List(_) => None,
        }
    }
}
