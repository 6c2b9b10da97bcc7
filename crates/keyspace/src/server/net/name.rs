//! What a client calls itself and its library: checked text, in an account.
//!
//! CLIENT LIST shows it in a line of words, so there are no spaces in it. Redis takes a name of any
//! length; here each client may have three of [`MAX_BYTES`], so that a list of all stays readable.

use crate::server::accounts::Names;
use crate::server::buffer::Buffer;
use std::fmt;
use std::ops::Deref;

/// The longest name.
pub(crate) const MAX_BYTES: usize = 1024;

/// A name; empty for none.
#[derive(Debug)]
pub(crate) struct Name(Buffer<Names>);

/// What may be wrong with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Something in it would spoil CLIENT LIST.
    Characters,
    /// It is longer than [`MAX_BYTES`].
    Length,
}

impl Name {
    /// None.
    pub(crate) const fn new() -> Self {
        Self(Buffer::new())
    }

    /// A name that was sent.
    ///
    /// # Errors
    /// If it is no name.
    pub(crate) fn checked(bytes: &[u8]) -> Result<Self, Unfit> {
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(Unfit::Characters);
        }
        if bytes.len() > MAX_BYTES {
            return Err(Unfit::Length);
        }
        Ok(Self(Buffer::copy_of(bytes)))
    }

    /// Bytes that it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        // It was checked: all of it is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_of_bounded_length() {
        assert_eq!(&*Name::checked(b"a-b:c").expect("a name"), "a-b:c");
        assert_eq!(Name::checked(b"").expect("none").capacity(), 0);
        for text in [&b"two words"[..], b"line\n", b"\xff", "\u{e9}".as_bytes()] {
            assert_eq!(Name::checked(text).err(), Some(Unfit::Characters));
        }
        assert_eq!(Name::checked(&[b'x'; MAX_BYTES]).expect("a name").capacity(), MAX_BYTES);
        assert_eq!(Name::checked(&[b'x'; MAX_BYTES + 1]).err(), Some(Unfit::Length));
    }
}
