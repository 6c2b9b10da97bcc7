//! One key and its value: a single block of memory for strings.
//!
//! ```text
//!   | kind 1 | access 3 | key length 4 | expires at 8 | key ... | value ... |
//! ```
//! A cache of small values is made of these, so their overhead is the whole of 16 bytes; Redis has
//! an object, one or two strings with headers of their own, and a second table for expiry. An
//! integer is kept as one (8 bytes), so that INCR changes it in place.
//!
//! What grows or has an inside (long strings, hashes, lists) has a box of its own instead
//! ([`Rich`]), behind the same 16 bytes in the table.

use super::value::{Value, ValueRef};
use crate::server::accounts::{self, Block, Dataset, block};
use crate::server::buffer::Buffer;
use crate::server::resp::number::parse_i64;
use allocator_api2::boxed::Box;
use tallow::In;
use tallow::defrag::{Mover, Relocate};

/// Unix time in milliseconds, the only time there is here.
pub(crate) type UnixMs = i64;

const HEADER_BYTES: usize = 16;
/// How `expires at` says never: nothing can expire before it was stored.
const NEVER: UnixMs = 0;
/// Strings above this have a block of their own, to be freed elsewhere and moved apart.
const MAX_PACKED_BYTES: usize = 8 * 1024;

/// Strings that are changed in length stay in one block, without spare room, up to this.
const MAX_FITTED_BYTES: usize = 1024;

const KIND_STRING: u8 = 0;
const KIND_INT: u8 = 1;

/// A key with its value, expiry and access time.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Header, key and a string, in one block.
    Packed(Block<Dataset>),
    /// Everything else.
    Rich(Box<Rich, In<Dataset>>),
}

/// An entry whose value has memory of its own.
#[derive(Debug)]
pub(crate) struct Rich {
    access: u32,
    expires_at: UnixMs,
    key: Block<Dataset>,
    value: Value,
}

// One slot of a table: a fat pointer, whose being null tells the two kinds apart.
const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    /// A string, in the smallest form for it.
    pub(crate) fn string(key: &[u8], value: &[u8], expires_at: Option<UnixMs>) -> Self {
        if let Some(number) = parse_i64(value) {
            return Self::int(key, number, expires_at);
        }
        if value.len() > MAX_PACKED_BYTES || u32::try_from(key.len()).is_err() {
            return Self::rich(key, Value::String(Buffer::copy_of(value)), expires_at);
        }
        Self::Packed(block([&header(KIND_STRING, key, expires_at), key, value]))
    }

    /// A string that is a number.
    pub(crate) fn int(key: &[u8], number: i64, expires_at: Option<UnixMs>) -> Self {
        if u32::try_from(key.len()).is_err() {
            let text = number.to_string();
            return Self::rich(key, Value::String(Buffer::copy_of(text.as_bytes())), expires_at);
        }
        Self::Packed(block([&header(KIND_INT, key, expires_at), key, &number.to_le_bytes()]))
    }

    /// A value with memory of its own.
    pub(crate) fn rich(key: &[u8], value: Value, expires_at: Option<UnixMs>) -> Self {
        let expires_at = expires_at.unwrap_or(NEVER);
        let rich = Rich { access: 0, expires_at, key: block([key]), value };
        Self::Rich(Box::new_in(rich, In::NEW))
    }

    /// The key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Packed(block) => &block[HEADER_BYTES..HEADER_BYTES + key_bytes(block)],
            Self::Rich(rich) => &rich.key,
        }
    }

    /// The value.
    #[inline]
    pub(crate) fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Packed(block) => {
                let value = &block[HEADER_BYTES + key_bytes(block)..];
                match (block[0], <[u8; 8]>::try_from(value)) {
                    (KIND_INT, Ok(number)) => ValueRef::Int(i64::from_le_bytes(number)),
                    _ => ValueRef::String(value),
                }
            }
            Self::Rich(rich) => rich.value.as_ref(),
        }
    }

    /// The value, if it has memory of its own.
    pub(crate) fn rich_mut(&mut self) -> Option<&mut Value> {
        match self {
            Self::Packed(_) => None,
            Self::Rich(rich) => Some(&mut rich.value),
        }
    }

    /// How many blocks it takes to free its value.
    #[inline]
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            Self::Packed(_) => 0,
            Self::Rich(rich) => rich.value.free_effort(),
        }
    }

    /// Bytes of its blocks as they were asked for, at least.
    pub(crate) fn least_bytes(&self) -> usize {
        let value = match self {
            Self::Packed(_) => 0,
            Self::Rich(rich) => rich.value.least_bytes(),
        };
        self.shell_bytes() + value
    }

    /// The same under another key, as much in use as before.
    pub(crate) fn renamed(self, key: &[u8]) -> Self {
        let (at, access) = (self.expires_at(), self.access());
        let mut entry = match self {
            Self::Packed(_) => match self.value() {
                ValueRef::Int(number) => Self::int(key, number, at),
                ValueRef::String(value) => Self::string(key, value, at),
                // Nothing else is packed.
                ValueRef::Hash(_) | ValueRef::List(_) => self,
            },
            Self::Rich(mut rich) => {
                rich.key = block([key]);
                Self::Rich(rich)
            }
        };
        entry.set_access(access);
        entry
    }

    /// A copy under another key.
    pub(crate) fn copied(&self, key: &[u8]) -> Self {
        let at = self.expires_at();
        match self.value() {
            ValueRef::Int(number) => Self::int(key, number, at),
            ValueRef::String(value) => Self::string(key, value, at),
            ValueRef::Hash(hash) => Self::rich(key, Value::Hash(hash.copied()), at),
            ValueRef::List(list) => Self::rich(key, Value::List(list.copied()), at),
        }
    }

    /// The bytes of a string in place, to be changed without changing its length.
    pub(crate) fn string_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Packed(block) if block[0] == KIND_STRING => {
                let start = HEADER_BYTES + key_bytes(block);
                Some(&mut block[start..])
            }
            Self::Rich(rich) => match &mut rich.value {
                Value::String(bytes) => Some(bytes.bytes_mut()),
                _ => None,
            },
            Self::Packed(_) => None,
        }
    }

    /// Makes a string `len` bytes long, with zeros at its end if it was shorter, and gives its bytes
    /// to be changed; `None` if it is no string. Up to [`MAX_FITTED_BYTES`] the block is made as
    /// long as it must be; beyond that the string gets a buffer with room to grow, so that adding
    /// byte after byte does not copy all of it each time.
    pub(crate) fn resize_string(&mut self, len: usize) -> Option<&mut [u8]> {
        if let Self::Packed(block) = &*self {
            let bytes = self.value().to_bytes()?;
            let kept = bytes.len().min(len);
            if len > MAX_FITTED_BYTES {
                let value = Value::String(Buffer::copy_of(&bytes));
                let (mut rich, access) =
                    (Self::rich(self.key(), value, self.expires_at()), self.access());
                rich.set_access(access);
                *self = rich;
            } else if len != bytes.len() || block[0] != KIND_STRING {
                let zeros = [0; MAX_FITTED_BYTES];
                let head = &block[..HEADER_BYTES + key_bytes(block)];
                let mut new = accounts::block([head, &bytes[..kept], &zeros[..len - kept]]);
                new[0] = KIND_STRING;
                *self = Self::Packed(new);
            }
        }
        if let Self::Rich(rich) = self
            && let Value::String(bytes) = &mut rich.value
        {
            bytes.resize(len);
        }
        self.string_mut()
    }

    /// Writes a number over a number, if that is what the value is. Returns whether it was.
    pub(crate) fn overwrite_int(&mut self, number: i64) -> bool {
        match self {
            Self::Packed(block) if block[0] == KIND_INT => {
                let start = HEADER_BYTES + key_bytes(block);
                block[start..].copy_from_slice(&number.to_le_bytes());
                true
            }
            _ => false,
        }
    }

    /// Writes a string over the one that is there, if that takes no other form and as many bytes.
    /// Returns whether it did: the block then need not be allocated anew.
    pub(crate) fn overwrite(&mut self, value: &[u8]) -> bool {
        let Self::Packed(block) = self else { return false };
        let start = HEADER_BYTES + key_bytes(block);
        match (block[0], parse_i64(value)) {
            (KIND_STRING, None) if block.len() - start == value.len() => {
                block[start..].copy_from_slice(value);
                true
            }
            (KIND_INT, Some(number)) => self.overwrite_int(number),
            _ => false,
        }
    }

    /// When it expires, if it does.
    #[inline]
    pub(crate) fn expires_at(&self) -> Option<UnixMs> {
        let at = match self {
            Self::Packed(block) => UnixMs::from_le_bytes(part(block, 8)),
            Self::Rich(rich) => rich.expires_at,
        };
        (at != NEVER).then_some(at)
    }

    /// Whether it has expired at `now`.
    #[inline]
    pub(crate) fn is_due(&self, now: UnixMs) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// Sets when it expires. The expiry index must be told ([`Db`](super::Db) does).
    pub(super) fn set_expires_at(&mut self, at: Option<UnixMs>) {
        let at = at.unwrap_or(NEVER);
        match self {
            Self::Packed(block) => block[8..16].copy_from_slice(&at.to_le_bytes()),
            Self::Rich(rich) => rich.expires_at = at,
        }
    }

    /// The 24 bits that eviction keeps about its use (LRU clock, or LFU counter and time).
    pub(crate) fn access(&self) -> u32 {
        match self {
            Self::Packed(block) => u32::from_le_bytes(part(block, 0)) >> 8,
            Self::Rich(rich) => rich.access,
        }
    }

    /// Sets them.
    #[inline]
    pub(crate) fn set_access(&mut self, access: u32) {
        match self {
            Self::Packed(block) => block[1..4].copy_from_slice(&access.to_le_bytes()[..3]),
            Self::Rich(rich) => rich.access = access & 0x00ff_ffff,
        }
    }

    /// Bytes of each block of the entry itself, a long string's too, without the inside of a hash
    /// or list.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = usize> {
        let blocks = match self {
            Self::Packed(block) => [block.len(), 0, 0],
            Self::Rich(rich) => {
                let string = match &rich.value {
                    Value::String(bytes) => bytes.capacity(),
                    Value::Hash(_) | Value::List(_) => 0,
                };
                [size_of::<Rich>(), rich.key.len(), string]
            }
        };
        blocks.into_iter()
    }

    /// Bytes of the entry's own block or blocks, without the inside of its value.
    pub(crate) fn shell_bytes(&self) -> usize {
        match self {
            Self::Packed(block) => block.len(),
            Self::Rich(rich) => size_of::<Rich>() + rich.key.len(),
        }
    }
}

impl Entry {
    /// Where its own block and what belongs to it lie, to see whether they have moved.
    pub(super) fn addresses(&self) -> [usize; 3] {
        match self {
            Self::Packed(block) => [block.as_ptr().addr(), 0, 0],
            Self::Rich(rich) => {
                let value = match rich.value.as_ref() {
                    ValueRef::String(bytes) => bytes.as_ptr().addr(),
                    ValueRef::Hash(hash) => hash.address(),
                    ValueRef::List(list) => list.address(),
                    ValueRef::Int(_) => 0,
                };
                [(&raw const **rich).addr(), rich.key.as_ptr().addr(), value]
            }
        }
    }
}

impl Relocate for Entry {
    /// Moves the entry's own blocks, a string, and the outermost block of a hash or list. These can
    /// be large: whoever walks the keyspace visits their insides in slices.
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            Self::Packed(block) => block.relocate(mover),
            Self::Rich(rich) => rich.relocate(mover),
        }
    }
}

impl Relocate for Rich {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.key.relocate(mover);
        match &mut self.value {
            Value::String(bytes) => bytes.relocate(mover),
            Value::Hash(hash) => hash.relocate_shell(mover),
            Value::List(list) => list.relocate_shell(mover),
        }
    }
}

fn header(kind: u8, key: &[u8], expires_at: Option<UnixMs>) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = kind;
    // The callers have checked that it fits.
    header[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
    header[8..].copy_from_slice(&expires_at.unwrap_or(NEVER).to_le_bytes());
    header
}

#[inline]
fn part<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&block[at..at + N]);
    part
}

#[inline]
fn key_bytes(block: &[u8]) -> usize {
    u32::from_le_bytes(part(block, 4)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_an_entry() {
        for value in [&b"hello"[..], b"", b"-17", b"017", &[7; 100_000]] {
            let mut entry = Entry::string(b"key", value, Some(99));
            assert_eq!(entry.key(), b"key");
            assert_eq!(entry.expires_at(), Some(99));
            assert!(entry.is_due(99) && !entry.is_due(98));
            entry.set_access(0x00ab_cdef);
            entry.set_expires_at(None);
            assert_eq!((entry.access(), entry.expires_at()), (0x00ab_cdef, None));
            assert_eq!(entry.value().to_bytes().as_deref(), Some(value));
            assert_eq!(entry.overwrite_int(5), value == b"-17");
        }
    }

    #[test]
    fn a_string_is_written_over_one_of_its_form_and_length() {
        for (old, new, is_over) in [
            (&b"hello"[..], &b"world"[..], true),
            (b"hello", b"worlds", false),
            (b"", b"", true),
            (b"12", b"-34567", true),
            (b"12", b"ab", false),
            (b"hello", b"12345", false),
            (&[7; 100_000], &[8; 100_000], false),
        ] {
            let mut entry = Entry::string(b"key", old, Some(99));
            entry.set_access(5);
            assert_eq!(entry.overwrite(new), is_over);
            let wanted = if is_over { new } else { old };
            assert_eq!(entry.value().to_bytes().as_deref(), Some(wanted));
            assert_eq!(
                (entry.key(), entry.expires_at(), entry.access()),
                (&b"key"[..], Some(99), 5)
            );
        }
    }

    #[test]
    fn strings_change_their_length_in_all_forms() {
        for value in [&b"hello"[..], b"-17", &[7; 1020], &[7; 100_000]] {
            let mut entry = Entry::string(b"key", value, Some(99));
            entry.set_access(0x00ab_cdef);
            for len in [value.len(), value.len() + 3, value.len() + 2000, 2] {
                assert_eq!(entry.resize_string(len).map(|bytes| bytes.len()), Some(len));
                let mut wanted = value.to_vec();
                wanted.resize(len, 0);
                assert_eq!(entry.value().to_bytes().as_deref(), Some(&wanted[..]));
                assert_eq!((entry.key(), entry.expires_at()), (&b"key"[..], Some(99)));
                assert_eq!(entry.access(), 0x00ab_cdef);
            }
        }
        let mut short = Entry::string(b"key", b"a", None);
        short.resize_string(40);
        assert_eq!(short.shell_bytes(), HEADER_BYTES + 3 + 40);
    }
}
