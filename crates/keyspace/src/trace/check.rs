//! What must hold for the reader whatever a trace consists of: for the fuzzer, and for a test that
//! replays its inputs.

use super::{MAX_KEY_BYTES, MAX_SECONDS, MAX_VALUE_BYTES, TraceReader};
use crate::workload::Op;
use std::io::Read;

/// A line longer than the reader takes is another matter: the second reader knows no such bound.
const MOST_BYTES: usize = 1 << 20;

/// A request with nothing borrowed, and the line of the first error.
#[derive(Debug, PartialEq, Eq)]
struct Owned {
    line: u64,
    at_seconds: u64,
    key: String,
    numbers: [u64; 3],
    op: Op,
}
type Found = (Vec<Owned>, Option<u64>);

/// Reads `data` whole and byte by byte, and as a second reader does that has it all at hand.
///
/// # Panics
/// If anything is wrong.
pub fn check(data: &[u8]) {
    if data.len() > MOST_BYTES {
        return;
    }
    let whole = read(data);
    assert_eq!(whole, read(Bytewise(data)), "byte by byte");
    assert_eq!(whole, read_plainly(data), "by the other reader");
}

fn read(source: impl Read) -> Found {
    let (mut reader, mut found) = (TraceReader::new(source), Vec::new());
    loop {
        match reader.next_request() {
            Ok(None) => return (found, None),
            Err(error) => {
                assert!(error.to_string().len() < 1 << 21, "an error without an end");
                return (found, Some(error.line));
            }
            Ok(Some(it)) => {
                assert!(it.key_bytes as u64 <= MAX_KEY_BYTES, "{it:?}");
                assert!(it.value_bytes as u64 <= MAX_VALUE_BYTES, "{it:?}");
                assert!(it.at_seconds <= MAX_SECONDS, "{it:?}");
                found.push(Owned {
                    line: it.line,
                    at_seconds: it.at_seconds,
                    key: it.key.to_owned(),
                    numbers: [it.key_bytes as u64, it.value_bytes as u64, it.ttl_seconds.into()],
                    op: it.op,
                });
            }
        }
        if let [.., before, last] = &found[..] {
            assert!(before.line <= last.line && before.at_seconds <= last.at_seconds);
        }
    }
}

/// The format, written down a second time.
fn read_plainly(data: &[u8]) -> Found {
    let (mut found, mut first, mut now) = (Vec::new(), None, 0);
    // A mark before the text is no field's.
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    for (line, text) in (1..).zip(data.split(|&b| b == b'\n')) {
        let text = if let [rest @ .., b'\r'] = text { rest } else { text };
        if text.is_empty() {
            continue;
        }
        match parse(text, &mut first, &mut now) {
            Some((key, numbers, op)) => {
                found.push(Owned { line, at_seconds: now, key, numbers, op });
            }
            None => return (found, Some(line)),
        }
    }
    (found, None)
}

fn parse(text: &[u8], first: &mut Option<u64>, now: &mut u64) -> Option<(String, [u64; 3], Op)> {
    let fields: Option<Vec<&str>> =
        text.split(|&b| b == b',').map(|field| str::from_utf8(field).ok()).collect();
    let fields: Vec<&str> = fields?.into_iter().map(str::trim).collect();
    let [timestamp, key, key_bytes, value_bytes, _client, op, ttl] = fields[..] else {
        return None;
    };
    let number = |text: &str, most: u64| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n <= most)
    };
    let timestamp = number(timestamp, u64::MAX)?;
    *now = timestamp.saturating_sub(*first.get_or_insert(timestamp)).max(*now);
    let op = Op::ALL.iter().find(|(_, name)| *name == op)?.0;
    let numbers = [
        number(key_bytes, MAX_KEY_BYTES)?,
        number(value_bytes, MAX_VALUE_BYTES)?,
        number(ttl, MAX_SECONDS)?,
    ];
    (*now <= MAX_SECONDS && !key.is_empty()).then(|| (key.to_owned(), numbers, op))
}

/// Gives one byte at a time.
struct Bytewise<'a>(&'a [u8]);

impl Read for Bytewise<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.len().min(buffer.len()).min(1);
        let (now, rest) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = rest;
        Ok(n)
    }
}
