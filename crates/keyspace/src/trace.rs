//! Reads traces in the public format of Twitter's cache traces: CSV without a header,
//!
//! ```text
//! timestamp, anonymized key, key bytes, value bytes, client id, operation, ttl
//! 0,q:q:1:8WTfjZU14ee,17,213,4,add,7200
//! ```
//!
//! A trace comes from outside, so nothing in it is believed: each field is checked, each length is
//! bounded before anything is allocated for it, and an error names the line and the column.

mod check;

pub use check::check;

use crate::workload::Op;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The columns, in order.
const COLUMNS: [&str; 7] =
    ["timestamp", "anonymized key", "key bytes", "value bytes", "client id", "operation", "ttl"];
const TIMESTAMP: usize = 0;
const KEY: usize = 1;
const KEY_BYTES: usize = 2;
const VALUE_BYTES: usize = 3;
const OPERATION: usize = 5;
const TTL: usize = 6;

/// The longest key accepted.
pub const MAX_KEY_BYTES: u64 = 64 << 10;
/// The longest value accepted: Redis's own limit for a string.
pub const MAX_VALUE_BYTES: u64 = 512 << 20;
/// The latest timestamp and longest TTL accepted, in seconds: 13 years, what the clock can hold.
pub const MAX_SECONDS: u64 = (u32::MAX / crate::clock::TICKS_PER_SECOND) as u64 - 1;
/// The longest line accepted, with its end.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Bytes read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// One line of a trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The line it stands on, from 1.
    pub line: u64,
    /// Seconds since the trace's first line; never less than on the line before.
    pub at_seconds: u64,
    /// The key as the trace names it.
    pub key: &'a str,
    /// The length of the real key, at most [`MAX_KEY_BYTES`].
    pub key_bytes: usize,
    /// The length of the value, at most [`MAX_VALUE_BYTES`].
    pub value_bytes: usize,
    /// What was done.
    pub op: Op,
    /// The TTL of a write; 0 for none.
    pub ttl_seconds: u32,
}

/// What is wrong with a trace, and where.
#[derive(Debug)]
pub struct TraceError {
    line: u64,
    column: Option<usize>,
    problem: String,
}

impl TraceError {
    /// A problem with the value on a line that is well formed.
    #[must_use]
    pub fn value_too_large(request: &Request<'_>, limit: String) -> Self {
        let problem = format!("a value of {} bytes is more than {limit}", request.value_bytes);
        Self { line: request.line, column: Some(VALUE_BYTES), problem }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = self.column {
            write!(f, ", column {} ({})", column + 1, COLUMNS[column])?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace line by line.
pub struct TraceReader<R> {
    source: BufReader<R>,
    /// The line at hand, and its number.
    text: Vec<u8>,
    line: u64,
    first_timestamp: Option<u64>,
    at_seconds: u64,
}

impl TraceReader<File> {
    /// Opens a trace file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }
}

impl<R: Read> TraceReader<R> {
    /// Reads a trace from `source`.
    pub fn new(source: R) -> Self {
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { source, text: Vec::new(), line: 0, first_timestamp: None, at_seconds: 0 }
    }

    /// Goes to the next line that is not empty; `false` at the end.
    fn next_line(&mut self) -> Result<bool, TraceError> {
        loop {
            self.line += 1;
            self.text.clear();
            let mut bounded = (&mut self.source).take(MAX_LINE_BYTES + 1);
            let read = bounded.read_until(b'\n', &mut self.text);
            let problem = match read {
                Ok(0) => return Ok(false),
                Ok(len) if len as u64 > MAX_LINE_BYTES => {
                    "a line is longer than 1 MiB; is this a trace?".to_owned()
                }
                Ok(_) => {
                    if !self.fields().is_empty() {
                        return Ok(true);
                    }
                    continue;
                }
                Err(error) => error.to_string(),
            };
            return Err(TraceError { line: self.line, column: None, problem });
        }
    }

    /// The line without its end, and without the mark that some editors put before a text.
    fn fields(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match text.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.line == 1 => rest,
            _ => text,
        }
    }

    /// The next request; `None` at the end.
    ///
    /// # Errors
    /// A [`TraceError`] for a line that is not in the format, or that cannot be read.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, TraceError> {
        if !self.next_line()? {
            return Ok(None);
        }
        let line = self.line;
        let timestamp = Fields::split(line, self.fields())?.number(TIMESTAMP, u64::MAX)?;
        let first = *self.first_timestamp.get_or_insert(timestamp);
        // Lines of different servers may be a little out of order; the clock does not go back.
        let at_seconds = timestamp.saturating_sub(first).max(self.at_seconds);
        if at_seconds > MAX_SECONDS {
            let problem = format!("{at_seconds} s after the first line is more than 13 years");
            return Err(TraceError { line, column: Some(TIMESTAMP), problem });
        }
        self.at_seconds = at_seconds;
        let fields = Fields::split(line, self.fields())?;
        for column in 0..COLUMNS.len() {
            fields.text(column)?;
        }
        let name = fields.text(OPERATION)?;
        let Some(op) = Op::named(name) else {
            let known = Op::ALL.map(|(_, name)| name).join(", ");
            return fields.wrong(OPERATION, format!("\"{name}\" is none of {known}"));
        };
        let key = fields.text(KEY)?;
        if key.is_empty() {
            return fields.wrong(KEY, "the key is empty".to_owned());
        }
        Ok(Some(Request {
            line,
            at_seconds,
            key,
            key_bytes: fields.number(KEY_BYTES, MAX_KEY_BYTES)? as usize,
            value_bytes: fields.number(VALUE_BYTES, MAX_VALUE_BYTES)? as usize,
            op,
            ttl_seconds: fields.number(TTL, MAX_SECONDS)? as u32,
        }))
    }
}

/// The fields of one line. No quotes in this format: a stray one is a part of its field.
struct Fields<'a> {
    line: u64,
    list: [&'a [u8]; COLUMNS.len()],
}

impl<'a> Fields<'a> {
    fn split(line: u64, text: &'a [u8]) -> Result<Self, TraceError> {
        let (mut list, mut found) = ([&[][..]; COLUMNS.len()], 0);
        for field in text.split(|byte| *byte == b',') {
            if let Some(place) = list.get_mut(found) {
                *place = field;
            }
            found += 1;
        }
        let fields = Self { line, list };
        if found < COLUMNS.len() {
            return fields.wrong(found, format!("missing; the line has {found} of 7 columns"));
        }
        if found > COLUMNS.len() {
            let problem = format!("{found} columns where there should be 7");
            return Err(TraceError { line, column: None, problem });
        }
        Ok(fields)
    }

    fn wrong<T>(&self, column: usize, problem: String) -> Result<T, TraceError> {
        Err(TraceError { line: self.line, column: Some(column), problem })
    }

    fn text(&self, column: usize) -> Result<&'a str, TraceError> {
        match std::str::from_utf8(self.list[column]) {
            Ok(text) => Ok(text.trim()),
            Err(error) => {
                let at = error.valid_up_to() + 1;
                self.wrong(column, format!("not UTF-8 (byte {at} of the field)"))
            }
        }
    }

    fn number(&self, column: usize, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.wrong(column, format!("{text:?} is not a whole number"));
        }
        match text.parse() {
            Ok(number) if number <= max => Ok(number),
            _ => self.wrong(column, format!("{text} is too large, the most is {max}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &[u8]) -> String {
        let mut reader = TraceReader::new(text);
        loop {
            match reader.next_request() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no error in {:?}", String::from_utf8_lossy(text)),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_good_trace() {
        let text = "100,abc,17,213,4,add,7200\n\n101,\"q,17,213,4,get,0\r\n99,abc,17,0,4,delete,0";
        let text = text.replace("\"q", "q\"");
        let mut reader = TraceReader::new(text.as_bytes());
        let first = reader.next_request().expect("good").expect("there");
        assert_eq!(
            first,
            Request {
                line: 1,
                at_seconds: 0,
                key: "abc",
                key_bytes: 17,
                value_bytes: 213,
                op: Op::Add,
                ttl_seconds: 7200
            }
        );
        let second = reader.next_request().expect("good").expect("there");
        assert_eq!((second.key, second.at_seconds), ("q\"", 1));
        let third = reader.next_request().expect("good").expect("there");
        assert_eq!((third.op, third.at_seconds), (Op::Delete, 1), "time does not go back");
        assert_eq!(reader.next_request().expect("good"), None);
    }

    #[test]
    fn errors_name_line_and_column() {
        let good = "0,k,1,1,1,get,0\n";
        for (line, expected) in [
            ("0,k,1,1", "line 2, column 5 (client id): missing; the line has 4 of 7 columns"),
            ("0,k,1,1,1,get,0,9", "line 2: 8 columns where there should be 7"),
            ("x,k,1,1,1,get,0", "line 2, column 1 (timestamp): \"x\" is not a whole number"),
            ("0,k,-1,1,1,get,0", "line 2, column 3 (key bytes): \"-1\" is not a whole number"),
            ("0,k,1,1.5,1,get,0", "line 2, column 4 (value bytes): \"1.5\" is not a whole number"),
            ("0,k,1,,1,get,0", "line 2, column 4 (value bytes): \"\" is not a whole number"),
            ("0,k,1,1,1,GET,0", "line 2, column 6 (operation): \"GET\" is none of get, gets"),
            ("0,,1,1,1,get,0", "line 2, column 2 (anonymized key): the key is empty"),
            (
                "0,k,1,536870913,1,get,0",
                "line 2, column 4 (value bytes): 536870913 is too large, the most is 536870912",
            ),
            (
                "0,k,1,99999999999999999999999,1,get,0",
                "line 2, column 4 (value bytes): 99999999999999999999999 is too large",
            ),
            ("0,k,1,1,1,set,18446744073709551615", "line 2, column 7 (ttl): 18446744073709551615"),
            ("0,k,70000,1,1,set,0", "line 2, column 3 (key bytes): 70000 is too large"),
            ("999999999999,k,1,1,1,set,0", "line 2, column 1 (timestamp): 999999999999 s after"),
        ] {
            let error = error_of(format!("{good}{line}\n").as_bytes());
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_not_text_is_named_too() {
        let error = error_of(b"0,k\xff,1,1,1,get,0\n");
        assert_eq!(error, "line 1, column 2 (anonymized key): not UTF-8 (byte 2 of the field)");
        let error = error_of(b"0,k,1,1,\xff,get,0\n");
        assert!(error.starts_with("line 1, column 5 (client id): not UTF-8"), "{error}");
    }

    #[test]
    fn empty_lines_count() {
        let error = error_of(b"\n\r\n0,k,1,1,1,get,0\n\n\nx,k,1,1,1,get,0\n");
        assert!(error.starts_with("line 6, column 1"), "{error}");
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let endless = io::repeat(b'x').take(1 << 40);
        let error = TraceReader::new(endless).next_request().expect_err("never ends").to_string();
        assert!(error.contains("longer than 1 MiB"), "{error}");
    }
}
