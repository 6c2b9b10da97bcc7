//! Hashes: fields with values.
//!
//! A small one is flat: pairs one after the other in one block, searched from its start, which for
//! some dozen fields is as fast as a table and takes a third of its memory. Redis calls that a
//! listpack and converts at the same sizes (`hash-max-listpack-entries`, `-value`).
//!
//! ```text
//!   flat:   | field bytes | value bytes | field ... | value ... |  next pair ...
//!   table:  shards of slots -> | field bytes 4 | field ... | value ... |
//! ```
//! A flat hash has no spare room: a change makes the block as long as its pairs, which the allocator
//! mostly does in place, since blocks come in size classes. A value as long as the one before is
//! written over it. Fields keep their order, that of their first being set.
//!
//! A large one is a [`Table`] as the keyspace itself is one, so it too grows in small steps, where
//! Redis rehashes a big hash over many commands.

use super::table::{Keyed, Table, Walk};
use crate::server::accounts::{Block, Dataset, block};
use crate::server::buffer::Buffer;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use std::ops::Range;
use tallow::In;
use tallow::defrag::{Mover, Relocate};

/// Up to where a hash is flat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlatLimits {
    /// Fields (`hash-max-listpack-entries`).
    pub(crate) entries: usize,
    /// Bytes of a field or a value (`hash-max-listpack-value`).
    pub(crate) value_bytes: usize,
}

/// A hash.
#[derive(Debug)]
pub(crate) enum Hash {
    /// Pairs one after the other, and how many.
    Flat(Buffer<Dataset>, usize),
    /// A table of pairs.
    Table(Box<Fields, In<Dataset>>),
}

/// A table of pairs, and how large they are.
#[derive(Debug)]
pub(crate) struct Fields {
    table: Table<Field, Dataset>,
    /// The sum of the pairs' blocks.
    pair_bytes: usize,
}

impl Fields {
    fn new() -> Self {
        Self { table: Table::new(super::secret::Secret::new()), pair_bytes: 0 }
    }

    /// Sets a field. Returns whether it is new.
    fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        let pair = Field::new(field, value);
        self.pair_bytes += pair.0.len();
        let old = self.table.insert(pair);
        self.pair_bytes -= old.as_ref().map_or(0, |old| old.0.len());
        old.is_none()
    }

    /// Removes a field. Returns whether it was there.
    fn remove(&mut self, field: &[u8]) -> bool {
        let old = self.table.remove(field);
        self.pair_bytes -= old.as_ref().map_or(0, |old| old.0.len());
        old.is_some()
    }
}

impl Relocate for Fields {
    /// Nothing: the fields are visited by [`Hash::relocate_fields`], not with their table's block.
    fn relocate(&mut self, _: &mut Mover<'_>) {}
}

/// A field and its value in one block.
#[derive(Debug)]
pub(crate) struct Field(Block<Dataset>);

impl Field {
    fn new(field: &[u8], value: &[u8]) -> Self {
        // Lengths are bounded by `proto-max-bulk-len`, far below.
        Self(block([&(field.len() as u32).to_le_bytes(), field, value]))
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let (head, rest) = self.0.split_at(4);
        rest.split_at(u32::from_le_bytes(head.try_into().unwrap_or_default()) as usize)
    }
}

impl Keyed for Field {
    fn key(&self) -> &[u8] {
        self.split().0
    }
}

impl Hash {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::Flat(Buffer::new(), 0)
    }

    /// Fields.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Flat(_, count) => *count,
            Self::Table(fields) => fields.table.len(),
        }
    }

    /// Whether it is flat.
    pub(crate) fn is_flat(&self) -> bool {
        matches!(self, Self::Flat(..))
    }

    /// Blocks it consists of.
    pub(crate) fn block_count(&self) -> usize {
        match self {
            Self::Flat(..) => 1,
            Self::Table(fields) => 1 + 2 * fields.table.shard_count() + fields.table.len(),
        }
    }

    /// Bytes of its blocks as they were asked for, at least: of a table's own memory the places of
    /// its fields only. Known without a look at them.
    pub(crate) fn least_bytes(&self) -> usize {
        match self {
            Self::Flat(bytes, _) => bytes.capacity(),
            Self::Table(fields) => {
                let places = fields.table.len() * size_of::<Field>();
                size_of::<Fields>() + places + fields.pair_bytes
            }
        }
    }

    /// Gives the memory of its fields back one by one, and tells before each how many bytes that is.
    /// Nothing but to drop it may be done with the hash after that.
    pub(super) fn free_pairs(&mut self, mut frees: impl FnMut(usize)) {
        let Self::Table(fields) = self else { return };
        let mut at = Walk::default();
        let mut free = |field: &mut Field| {
            frees(field.0.len());
            *field = Field(Vec::new_in(In::NEW).into_boxed_slice());
            true
        };
        while !fields.table.walk(&mut at, &mut free) {}
    }

    /// Bytes of each block that it consists of, but for those of a table's fields.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = usize> {
        let (flat, table) = match self {
            Self::Flat(bytes, _) => (Some(bytes.capacity()), None),
            Self::Table(fields) => (None, Some(&fields.table)),
        };
        let blocks =
            table.map(|table| std::iter::once(size_of::<Fields>()).chain(table.own_blocks()));
        flat.into_iter().chain(blocks.into_iter().flatten())
    }

    /// Bytes of the block of each field that has one.
    pub(crate) fn field_blocks(&self) -> impl Iterator<Item = usize> {
        let table = match self {
            Self::Flat(..) => None,
            Self::Table(fields) => Some(fields.table.iter().map(|field| field.0.len())),
        };
        table.into_iter().flatten()
    }

    /// The value of a field.
    pub(crate) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Flat(bytes, _) => Pairs(bytes).find(|pair| pair.0 == field).map(|pair| pair.1),
            Self::Table(fields) => fields.table.get(field).map(|it| it.split().1),
        }
    }

    /// Sets a field. Returns whether it is new.
    pub(crate) fn set(&mut self, field: &[u8], value: &[u8], limits: FlatLimits) -> bool {
        let Self::Flat(bytes, count) = self else {
            return self.convert().insert(field, value);
        };
        let found = find_flat(bytes, field);
        let is_new = found.is_none();
        let fits = field.len().max(value.len()) <= limits.value_bytes;
        if !fits || (is_new && *count >= limits.entries) {
            return self.convert().insert(field, value);
        }
        *count += usize::from(is_new);
        let place = found.unwrap_or(bytes.len()..bytes.len());
        let old = &bytes[place.clone()];
        if old.len() == pair_bytes(field, value) && Pairs(old).all(|it| it.1.len() == value.len()) {
            // As long as the one before: that is written over.
            let end = place.end;
            bytes.bytes_mut()[end - value.len()..end].copy_from_slice(value);
        } else {
            let (heads, values) = (Length::of(field.len()), Length::of(value.len()));
            bytes.replace_and_fit(place, &[heads.as_bytes(), values.as_bytes(), field, value]);
        }
        is_new
    }

    /// Removes a field. Returns whether it was there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Self::Flat(bytes, count) => {
                let Some(place) = find_flat(bytes, field) else { return false };
                bytes.replace_and_fit(place, &[]);
                *count -= 1;
                true
            }
            Self::Table(fields) => fields.remove(field),
        }
    }

    /// All fields with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (flat, table) = match self {
            Self::Flat(bytes, _) => (Some(Pairs(bytes)), None),
            Self::Table(fields) => (None, Some(fields.table.iter().map(Field::split))),
        };
        flat.into_iter().flatten().chain(table.into_iter().flatten())
    }

    /// A copy, in the same form.
    pub(crate) fn copied(&self) -> Self {
        match self {
            Self::Flat(bytes, count) => Self::Flat(Buffer::copy_of(bytes), *count),
            Self::Table(fields) => {
                let mut copy = Self::new();
                let into = copy.convert();
                for (field, value) in fields.table.iter().map(Field::split) {
                    into.insert(field, value);
                }
                copy
            }
        }
    }

    /// Goes on with a scan, as [`Table::scan`]; a flat one is met as a whole.
    pub(crate) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut meet: impl FnMut(&'a [u8], &'a [u8]),
    ) -> u64 {
        match self {
            Self::Flat(bytes, _) => {
                Pairs(bytes).for_each(|(field, value)| meet(field, value));
                0
            }
            Self::Table(fields) => fields.table.scan(cursor, count, |it| {
                let (field, value) = it.split();
                meet(field, value);
            }),
        }
    }

    /// Where its outermost block lies.
    pub(super) fn address(&self) -> usize {
        match self {
            Self::Flat(bytes, _) => bytes.as_ptr().addr(),
            Self::Table(fields) => (&raw const **fields).addr(),
        }
    }

    /// Moves its outermost block.
    pub(super) fn relocate_shell(&mut self, mover: &mut Mover<'_>) {
        match self {
            Self::Flat(bytes, _) => bytes.relocate(mover),
            Self::Table(fields) => fields.relocate(mover),
        }
    }

    /// Moves the fields from `at` on, and the memory of the table that holds them, until `goes_on`,
    /// which is told whether a field moved, says no. Returns whether that was all.
    pub(super) fn relocate_fields(
        &mut self,
        at: &mut Walk,
        mover: &mut Mover<'_>,
        mut goes_on: impl FnMut(bool, &mut Mover<'_>) -> bool,
    ) -> bool {
        let Self::Table(fields) = self else { return true };
        fields.table.relocate(at, mover, |field, mover| {
            let before = field.0.as_ptr();
            field.0.relocate(mover);
            goes_on(field.0.as_ptr() != before, mover)
        })
    }

    /// The table, made of the pairs if it was flat.
    fn convert(&mut self) -> &mut Fields {
        if let Self::Flat(bytes, _) = self {
            let mut fields = Fields::new();
            for (field, value) in Pairs(bytes) {
                fields.insert(field, value);
            }
            *self = Self::Table(Box::new_in(fields, In::NEW));
        }
        match self {
            Self::Table(fields) => fields,
            Self::Flat(..) => unreachable!("made a table above"),
        }
    }
}

/// The pairs of a flat hash.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field_bytes = read_length(&mut self.0);
        let value_bytes = read_length(&mut self.0);
        let (field, rest) = self.0.split_at(field_bytes);
        let (value, rest) = rest.split_at(value_bytes);
        self.0 = rest;
        Some((field, value))
    }
}

/// A length: seven bits a byte, the lowest first.
fn read_length(bytes: &mut &[u8]) -> usize {
    let (mut length, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    length
}

/// A length in its bytes.
struct Length([u8; 5], usize);

impl Length {
    fn of(mut length: usize) -> Self {
        // Lengths are bounded by `proto-max-bulk-len`, far below 35 bits.
        let mut it = Self([0; 5], 1);
        while length > 0x7f {
            it.0[it.1 - 1] = length as u8 | 0x80;
            length >>= 7;
            it.1 += 1;
        }
        it.0[it.1 - 1] = length as u8;
        it
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Bytes of a pair with its lengths.
fn pair_bytes(field: &[u8], value: &[u8]) -> usize {
    Length::of(field.len()).1 + Length::of(value.len()).1 + field.len() + value.len()
}

/// Where the pair of a field lies.
fn find_flat(bytes: &[u8], field: &[u8]) -> Option<Range<usize>> {
    let mut pairs = Pairs(bytes);
    loop {
        let start = bytes.len() - pairs.0.len();
        let (found, _) = pairs.next()?;
        if found == field {
            return Some(start..bytes.len() - pairs.0.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn as_a_map_would_flat_and_not() {
        let limits = FlatLimits { entries: 128, value_bytes: 64 };
        let (mut hash, mut model) = (Hash::new(), HashMap::new());
        for i in 0u32..3000 {
            let field = (i * 7919 % 500).to_string().into_bytes();
            let value = vec![b'v'; (i % 60) as usize];
            if i % 3 == 2 {
                assert_eq!(hash.remove(&field), model.remove(&field).is_some());
            } else {
                let is_new = model.insert(field.clone(), value.clone()).is_none();
                assert_eq!(hash.set(&field, &value, limits), is_new);
            }
            assert_eq!(hash.len(), model.len());
            assert_eq!(hash.get(&field), model.get(&field).map(|value| &value[..]));
        }
        assert!(!hash.is_flat());
        assert_eq!(hash.iter().count(), model.len());
        assert!(hash.iter().all(|(field, value)| model[field] == value));
    }

    #[test]
    fn least_bytes_are_those_of_the_pairs_and_their_places() {
        let limits = FlatLimits { entries: 0, value_bytes: 64 };
        let mut hash = Hash::new();
        for i in 0..5000 {
            let field = (i * 7919 % 700).to_string().into_bytes();
            if i % 4 == 3 {
                hash.remove(&field);
            } else {
                hash.set(&field, &vec![b'v'; i % 90], limits);
            }
            let pairs: usize = hash.field_blocks().sum();
            let least = pairs + hash.len() * size_of::<Field>() + size_of::<Fields>();
            assert_eq!((hash.least_bytes(), hash.copied().least_bytes()), (least, least));
        }
        assert!(hash.least_bytes() <= hash.own_blocks().chain(hash.field_blocks()).sum());
        let (mut freed, pairs) = (0, hash.field_blocks().sum());
        hash.free_pairs(|bytes| freed += bytes);
        assert_eq!((freed, hash.field_blocks().sum::<usize>()), (pairs, 0));
    }
}
