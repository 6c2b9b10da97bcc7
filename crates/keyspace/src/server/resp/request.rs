//! The request scanner: finds the arguments of one request in the bytes of a client, a packet at a
//! time, and refuses bad lengths as soon as they are seen.
//!
//! ```text
//! *3\r\n $3\r\n SET\r\n $1\r\n k\r\n $5\r\n he          <- and no more yet
//!                              ^        ^
//!                              args     at: where to go on
//! ```
//! Positions count from the start of the request, so that the bytes before it may be thrown away in
//! between. Nothing is allocated for what a length promises; only arguments that have arrived take
//! room (16 bytes each, in the account of command state).

use super::number::parse_i64;
use crate::server::accounts::Commands;
use crate::server::buffer::Buffer;
use allocator_api2::vec::Vec;
use std::ops::Index;
use tallow::In;

/// The longest line that is waited for: lengths, and whole inline commands.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The most arguments of a request.
const MAX_ARGS: i64 = i32::MAX as i64;
/// The most arguments, and the longest one, of a client that has not said its password.
const MAX_ARGS_UNKNOWN: i64 = 10;
const MAX_BULK_BYTES_UNKNOWN: i64 = 16 * 1024;
/// Room for more arguments than these is given back after the request.
const KEPT_ARGS: usize = 1024;

/// What a request may be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// `proto-max-bulk-len`.
    pub(crate) max_bulk_bytes: i64,
    /// Whether the client has said its password, if it has to.
    pub(crate) is_authenticated: bool,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// A request of so many bytes. Without arguments it is an empty one, to be skipped.
    Request(usize),
    /// Not all of it is there.
    Incomplete,
    /// No request: what to tell the client before it is cut off.
    Refused(std::string::String),
}

/// Where an argument lies: start and length.
pub(super) type Span = (usize, usize);

/// The state between two packets.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// Arguments found, from the start of the request.
    spans: Vec<Span, In<Commands>>,
    /// The words of an inline request, which the spans are then about.
    inline: Buffer<Commands>,
    /// Where to go on.
    at: usize,
    /// Arguments still to come; 0 while the head is not there.
    missing: usize,
    /// The length of the next argument, once known.
    bulk_bytes: Option<usize>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// One that has seen nothing.
    pub(crate) fn new() -> Self {
        Self {
            spans: Vec::new_in(In::NEW),
            inline: Buffer::new(),
            at: 0,
            missing: 0,
            bulk_bytes: None,
        }
    }

    /// Whether the rest of a long argument is waited for: it is worth reading much at once.
    pub(crate) fn wants_much(&self) -> bool {
        self.bulk_bytes.is_some_and(|bytes| bytes > 16 * 1024)
    }

    /// Bytes of the argument vector.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.inline.capacity()
    }

    /// Gives the room of past requests back.
    pub(crate) fn shrink(&mut self) {
        if self.spans.is_empty() {
            self.spans = Vec::new_in(In::NEW);
        }
    }

    /// The arguments, for `bytes` that the last call of [`scan`](Self::scan) found a request in.
    pub(crate) fn args<'a>(&'a self, bytes: &'a [u8]) -> Args<'a> {
        let bytes = if self.inline.is_empty() { bytes } else { &self.inline };
        Args { bytes, spans: &self.spans }
    }

    /// Begins with the next request.
    pub(crate) fn next(&mut self) {
        self.at = 0;
        self.spans.clear();
        if !self.inline.is_empty() {
            self.inline.free();
        }
        if self.spans.capacity() > KEPT_ARGS {
            self.spans = Vec::new_in(In::NEW);
        }
    }

    /// Scans `bytes`, which begin where the request began.
    pub(crate) fn scan(&mut self, bytes: &[u8], bounds: Bounds) -> Scanned {
        if self.missing == 0 && self.bulk_bytes.is_none() {
            if bytes.first().is_some_and(|first| *first != b'*') {
                return self.scan_inline(bytes);
            }
            match self.scan_head(bytes, bounds) {
                Ok(true) => {}
                Ok(false) => return Scanned::Incomplete,
                Err(text) => return Scanned::Refused(text),
            }
        }
        while self.missing > 0 {
            match self.scan_argument(bytes, bounds) {
                Ok(true) => {}
                Ok(false) => return Scanned::Incomplete,
                Err(text) => return Scanned::Refused(text),
            }
        }
        Scanned::Request(self.at)
    }

    /// `*3\r\n`. Returns whether it is all there.
    #[inline]
    fn scan_head(&mut self, bytes: &[u8], bounds: Bounds) -> Result<bool, String> {
        let (count, next) = match short_number(b'*', bytes, 0) {
            Some((count, next)) => (count as i64, next),
            None => {
                let Some((line, next)) = line_at(bytes, 0) else {
                    return if bytes.len() > MAX_LINE_BYTES {
                        Err("too big mbulk count string".to_owned())
                    } else {
                        Ok(false)
                    };
                };
                let count = parse_i64(&line[1..]).filter(|count| *count <= MAX_ARGS);
                (count.ok_or("invalid multibulk length")?, next)
            }
        };
        if !bounds.is_authenticated && count > MAX_ARGS_UNKNOWN {
            return Err("unauthenticated multibulk length".to_owned());
        }
        self.at = next;
        self.missing = usize::try_from(count).unwrap_or(0);
        Ok(true)
    }

    /// `$5\r\nhello\r\n`. Returns whether it is all there.
    #[inline]
    fn scan_argument(&mut self, bytes: &[u8], bounds: Bounds) -> Result<bool, String> {
        let length = match self.bulk_bytes {
            Some(length) => length,
            None => {
                let (length, next) = match short_number(b'$', bytes, self.at) {
                    Some(found) => found,
                    None => match line_at(bytes, self.at) {
                        Some((line, next)) => (bulk_length(line, bounds)?, next),
                        None if bytes.len() - self.at > MAX_LINE_BYTES => {
                            return Err("too big bulk count string".to_owned());
                        }
                        None => return Ok(false),
                    },
                };
                self.at = next;
                length
            }
        };
        // Both bytes behind it are taken for the line's end, as Redis does.
        if bytes.len() - self.at < length + 2 {
            self.bulk_bytes = Some(length);
            return Ok(false);
        }
        self.spans.push((self.at, length));
        self.at += length + 2;
        self.bulk_bytes = None;
        self.missing -= 1;
        Ok(true)
    }

    fn scan_inline(&mut self, bytes: &[u8]) -> Scanned {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() > MAX_LINE_BYTES {
                Scanned::Refused("too big inline request".to_owned())
            } else {
                Scanned::Incomplete
            };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        if super::inline::split(line, &mut self.inline, &mut self.spans).is_none() {
            return Scanned::Refused("unbalanced quotes in request".to_owned());
        }
        self.at = end + 1;
        Scanned::Request(self.at)
    }
}

/// The line at `at` without its end, and where the next one begins.
#[inline]
fn line_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = &bytes[at..];
    // Lengths are short: a plain loop beats a search that has to be set up.
    let end = rest.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\r')?;
    (rest.len() > end + 1).then(|| (&rest[..end], at + end + 2))
}

/// A line with a number of up to three digits after the byte `kind`, as most are; no bound on
/// lengths is less.
#[inline]
fn short_number(kind: u8, bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let digit = |byte: u8| Some(usize::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    match bytes[at..] {
        [it, ..] if it != kind => None,
        [_, a, b'\r', _, ..] => Some((digit(a)?, at + 4)),
        [_, a @ b'1'..=b'9', b, b'\r', _, ..] => Some((digit(a)? * 10 + digit(b)?, at + 5)),
        [_, a @ b'1'..=b'9', b, c, b'\r', _, ..] => {
            Some((digit(a)? * 100 + digit(b)? * 10 + digit(c)?, at + 6))
        }
        _ => None,
    }
}

#[inline]
fn bulk_length(line: &[u8], bounds: Bounds) -> Result<usize, String> {
    let [b'$', digits @ ..] = line else {
        let got = line.first().map_or('\r', |byte| char::from(*byte));
        return Err(format!("expected '$', got '{got}'"));
    };
    let length = parse_i64(digits)
        .filter(|length| (0..=bounds.max_bulk_bytes).contains(length))
        .ok_or("invalid bulk length")?;
    if !bounds.is_authenticated && length > MAX_BULK_BYTES_UNKNOWN {
        return Err("unauthenticated bulk length".to_owned());
    }
    usize::try_from(length).map_err(|_| "invalid bulk length".to_owned())
}

/// The arguments of a request, the command's name first; they stay in the buffer they came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// How many, the name included.
    pub(crate) fn len(self) -> usize {
        self.spans.len()
    }

    /// The argument at `index`, which must be there (the arity was checked).
    #[inline]
    pub(crate) fn at(self, index: usize) -> &'a [u8] {
        let (start, length) = self.spans[index];
        &self.bytes[start..start + length]
    }

    /// The argument at `index`, if there is one.
    pub(crate) fn get(self, index: usize) -> Option<&'a [u8]> {
        (index < self.len()).then(|| self.at(index))
    }

    /// The request without its first arguments.
    pub(crate) fn skip(self, count: usize) -> Self {
        Self { spans: &self.spans[count.min(self.spans.len())..], ..self }
    }

    /// All from `first` on.
    pub(crate) fn from(self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.spans[first.min(self.spans.len())..]
            .iter()
            .map(move |(start, length)| &self.bytes[*start..start + length])
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        self.at(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis_protocol::resp2::decode::decode;
    use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

    const BOUNDS: Bounds = Bounds { max_bulk_bytes: 512 << 20, is_authenticated: true };

    fn words(scanner: &Scanner, bytes: &[u8]) -> std::vec::Vec<std::vec::Vec<u8>> {
        scanner.args(bytes).from(0).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_request_in_any_pieces_is_what_another_decoder_reads() {
        let request = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n";
        let Some((OwnedFrame::Array(frames), _)) = decode(request).unwrap() else { panic!() };
        let wanted: std::vec::Vec<_> =
            frames.iter().map(|f| f.as_bytes().unwrap().to_vec()).collect();
        for cut in 0..request.len() {
            let mut scanner = Scanner::new();
            assert_eq!(scanner.scan(&request[..cut], BOUNDS), Scanned::Incomplete, "{cut}");
            assert_eq!(scanner.scan(request, BOUNDS), Scanned::Request(request.len()));
            assert_eq!(words(&scanner, request), wanted);
        }
    }

    #[test]
    fn bad_lengths_are_refused_with_the_words_of_redis() {
        for (request, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$03\r\nabc\r\n", "invalid bulk length"),
            (b"*1\r\n$003\r\nabc\r\n", "invalid bulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1\r\n$1x\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"say \"hi\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(Scanner::new().scan(request, BOUNDS), Scanned::Refused(text.to_owned()));
        }
        let stranger = Bounds { is_authenticated: false, ..BOUNDS };
        let refused = Scanner::new().scan(b"*11\r\n", stranger);
        assert_eq!(refused, Scanned::Refused("unauthenticated multibulk length".to_owned()));
    }

    #[test]
    fn inline_words() {
        let line = b"SET  key 'two words'\r\nPING\r\n";
        let mut scanner = Scanner::new();
        assert_eq!(scanner.scan(line, BOUNDS), Scanned::Request(22));
        assert_eq!(words(&scanner, line), [&b"SET"[..], b"key", b"two words"]);
        scanner.next();
        assert_eq!(scanner.scan(b"\r\n", BOUNDS), Scanned::Request(2));
        assert_eq!(scanner.args(b"\r\n").len(), 0);
    }

    #[test]
    fn promised_lengths_take_no_memory() {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.scan(b"*1000000\r\n$500000000\r\nab", BOUNDS), Scanned::Incomplete);
        assert_eq!(scanner.buffer_bytes(), 0);
    }
}
