//! The inline form of a request: words on a line, for people with telnet and for scripts.
//!
//! Words are separated by spaces. Parts of one can stand in quotes: in double ones `\n`, `\r`, `\t`,
//! `\b`, `\a` and `\x41` mean bytes, and a backslash makes any other character mean itself; in
//! single ones only `\'` is special. After a closing quote the word must end.

use super::request::Span;
use crate::server::accounts::Commands;
use crate::server::buffer::Buffer;
use allocator_api2::vec::Vec;
use tallow::In;

/// Splits a line: the words' bytes go to `words`, and where each lies there to `spans`. `None` if a
/// quote is not closed, or text follows one directly.
pub(super) fn split(
    line: &[u8],
    words: &mut Buffer<Commands>,
    spans: &mut Vec<Span, In<Commands>>,
) -> Option<()> {
    // A zero byte ends it, as C's strings end.
    let mut rest = line.split(|byte| *byte == 0).next().unwrap_or_default();
    loop {
        while let [first, after @ ..] = rest
            && is_space(*first)
        {
            rest = after;
        }
        if rest.is_empty() {
            return Some(());
        }
        let start = words.len();
        rest = word(rest, words)?;
        spans.push((start, words.len() - start));
    }
}

/// Reads the word that `rest` begins with; returns what is behind it.
fn word<'a>(mut rest: &'a [u8], to: &mut Buffer<Commands>) -> Option<&'a [u8]> {
    while let Some((first, after)) = rest.split_first() {
        match first {
            b' ' | b'\n' | b'\r' | b'\t' => return Some(after),
            b'"' | b'\'' => {
                let rest = quoted(after, *first, to)?;
                return rest.first().is_none_or(|next| is_space(*next)).then_some(rest);
            }
            byte => to.push(*byte),
        }
        rest = after;
    }
    Some(rest)
}

/// Reads up to the closing quote; returns what is behind it.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, to: &mut Buffer<Commands>) -> Option<&'a [u8]> {
    loop {
        let (byte, length) = match rest {
            [] => return None,
            [first, rest @ ..] if *first == quote => return Some(rest),
            [b'\\', escaped @ ..] => match unescape(escaped, quote) {
                Some((byte, length)) => (byte, 1 + length),
                None => (b'\\', 1),
            },
            [first, ..] => (*first, 1),
        };
        to.push(byte);
        rest = &rest[length..];
    }
}

/// What the escape means that `text`, behind its backslash, begins with, and how long it is there.
fn unescape(text: &[u8], quote: u8) -> Option<(u8, usize)> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    match (quote, text) {
        (b'\'', [b'\'', ..]) => Some((b'\'', 1)),
        (b'\'', _) => None,
        (_, [b'x', high, low, ..]) if hex(*high).is_some() && hex(*low).is_some() => {
            Some(((hex(*high)? * 16 + hex(*low)?) as u8, 3))
        }
        (_, [b'n', ..]) => Some((b'\n', 1)),
        (_, [b'r', ..]) => Some((b'\r', 1)),
        (_, [b't', ..]) => Some((b'\t', 1)),
        (_, [b'b', ..]) => Some((8, 1)),
        (_, [b'a', ..]) => Some((7, 1)),
        (_, [other, ..]) => Some((*other, 1)),
        (_, []) => None,
    }
}

/// What C calls a space; Rust leaves the vertical tab out.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Option<std::vec::Vec<std::vec::Vec<u8>>> {
        let (mut words, mut spans) = (Buffer::new(), Vec::new_in(In::NEW));
        split(line, &mut words, &mut spans)?;
        Some(spans.iter().map(|(start, length)| words[*start..start + length].to_vec()).collect())
    }

    #[test]
    fn words_quotes_and_escapes() {
        assert_eq!(words(b"  SET\tk  v ").unwrap(), [&b"SET"[..], b"k", b"v"]);
        assert_eq!(words(b"\"\" '' a\"b c\"").unwrap(), [&b""[..], b"", b"ab c"]);
        assert_eq!(words(br#""\x41\n\q\"\xzz""#).unwrap(), [b"A\nq\"xzz"]);
        assert_eq!(words(br"'it\'s \n'").unwrap(), [br"it's \n"]);
        assert_eq!(words(b"one\0two").unwrap(), [b"one"]);
        for line in [&b"\"a"[..], b"'a", b"\"a\"b", b"\"\\", b"'\\'"] {
            assert_eq!(words(line), None);
        }
    }
}
