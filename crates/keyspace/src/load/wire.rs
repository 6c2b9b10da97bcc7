//! A client's side of the protocol: a connection that sends requests in batches and reads the
//! replies.
//!
//! A batch is written whole and its replies are then read in order, so a server that reads and
//! writes at the same time, as all of Redis's kind do, is never waited for in a circle. Replies are
//! decoded where they lie, each once; what is left of an incomplete one stays until more has come.

use super::address::{Address, Stream};
use crate::workload::MAX_VALUE_BYTES;
use anyhow::{Context, bail};
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::time::Duration;

/// How long a server may be silent. Redis itself can stall for seconds, while it swaps say.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room made for each read.
const READ_BYTES: usize = 64 * 1024;
/// No reply that is waited for is longer.
const MAX_REPLY_BYTES: usize = MAX_VALUE_BYTES + 64 * 1024;

/// A reply, borrowed from the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// `+OK` and the like.
    Simple(&'a [u8]),
    /// `-ERR ...`.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// A string.
    Bulk(&'a [u8]),
    /// Nothing there.
    Null,
    /// A list; nothing here looks into one.
    Array,
}

/// A connection.
pub(super) struct Connection {
    stream: Stream,
    address: Address,
    /// Requests not sent yet.
    output: Vec<u8>,
    /// What has come.
    input: Vec<u8>,
    /// The part of it not looked at yet.
    unread: Range<usize>,
}

impl Connection {
    /// Connects, says the password if there is one, and makes sure that this is a server of Redis's
    /// kind.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub(super) fn open(address: &Address, password: Option<&str>) -> anyhow::Result<Self> {
        let stream = address.connect(PATIENCE)?;
        let mut it = Self {
            stream,
            address: address.clone(),
            output: Vec::new(),
            input: vec![0; READ_BYTES],
            unread: 0..0,
        };
        if let Some(password) = password
            && let Answer::Error(text) = it.ask(&[b"AUTH", password.as_bytes()])?
        {
            bail!(
                "{address} refused the password: {}; check --password against the server's \
                 requirepass",
                lossy(text),
            );
        }
        match it.ask(&[b"PING"])? {
            Answer::Simple(b"PONG") => Ok(it),
            Answer::Error(text) if text.starts_with(b"NOAUTH") => {
                bail!("{address} wants a password: give it with --password")
            }
            Answer::Error(text) => bail!("{address} answered PING with {:?}", lossy(text)),
            _ => Err(not_redis(address)),
        }
    }

    /// Whether the server runs on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.stream.is_local()
    }

    /// Adds a request to the batch.
    pub(super) fn request(&mut self, args: &[&[u8]]) {
        let out = &mut self.output;
        // Writing to a vector cannot fail.
        let _ = write!(out, "*{}\r\n", args.len());
        for arg in args {
            let _ = write!(out, "${}\r\n", arg.len());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Sends the batch.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(super) fn send(&mut self) -> anyhow::Result<()> {
        let result = self.stream.write_all(&self.output);
        self.output.clear();
        result.with_context(|| lost(&self.address))
    }

    /// The next reply.
    ///
    /// # Errors
    /// If the connection is broken, the server is silent, or what it says is no reply.
    pub(super) fn answer(&mut self) -> anyhow::Result<Answer<'_>> {
        let (frame, start) = loop {
            let bytes = &self.input[self.unread.clone()];
            match decode_range(bytes) {
                Ok(Some((frame, count))) => {
                    let start = self.unread.start;
                    self.unread.start += count;
                    break (frame, start);
                }
                Ok(None) if bytes.len() <= MAX_REPLY_BYTES => self.receive()?,
                Ok(None) | Err(_) => return Err(not_redis(&self.address)),
            }
        };
        let bytes = &self.input[start..];
        Ok(match frame {
            RangeFrame::SimpleString((from, to)) => Answer::Simple(&bytes[from..to]),
            RangeFrame::Error((from, to)) => Answer::Error(&bytes[from..to]),
            RangeFrame::Integer(number) => Answer::Integer(number),
            RangeFrame::BulkString((from, to)) => Answer::Bulk(&bytes[from..to]),
            RangeFrame::Array(_) => Answer::Array,
            RangeFrame::Null => Answer::Null,
        })
    }

    /// One request and its reply.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub(super) fn ask(&mut self, args: &[&[u8]]) -> anyhow::Result<Answer<'_>> {
        self.request(args);
        self.send()?;
        self.answer()
    }

    /// The text of INFO's `section`.
    ///
    /// # Errors
    /// If the server does not tell.
    pub(super) fn info(&mut self, section: &str) -> anyhow::Result<String> {
        let address = self.address.clone();
        match self.ask(&[b"INFO", section.as_bytes()])? {
            Answer::Bulk(text) => Ok(lossy(text)),
            answer => bail!("{address} does not say INFO {section}: {}", described(&answer)),
        }
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        // What is unread goes to the front when the room behind it runs out: it is the beginning of
        // one reply, so each byte is moved once, or a few times if the reply is a long one.
        if self.input.len() - self.unread.end < READ_BYTES / 2 {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.input.len() - self.unread.end < READ_BYTES {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        loop {
            match self.stream.read(&mut self.input[self.unread.end..]) {
                Ok(0) => bail!(
                    "{} closed the connection; its log may say why (a limit of memory or of \
                     clients?)",
                    self.address
                ),
                Ok(count) => {
                    self.unread.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    bail!(
                        "no answer from {} for {} s; is it a Redis-compatible server, and alive?",
                        self.address,
                        PATIENCE.as_secs(),
                    )
                }
                Err(error) => return Err(error).with_context(|| lost(&self.address)),
            }
        }
    }
}

/// The value of a field in the text of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The same as a number.
pub(super) fn number(info: &str, name: &str) -> Option<u64> {
    field(info, name)?.parse().ok()
}

/// An answer that was not hoped for, for people.
pub(super) fn described(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Simple(text) | Answer::Error(text) => lossy(text),
        Answer::Integer(number) => format!("the number {number}"),
        Answer::Bulk(text) => format!("a string of {} bytes", text.len()),
        Answer::Null => "nothing".to_owned(),
        Answer::Array => "a list".to_owned(),
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn lost(address: &Address) -> String {
    format!("lost the connection to {address}; see the server's log")
}

fn not_redis(address: &Address) -> anyhow::Error {
    anyhow::anyhow!(
        "what listens at {address} does not speak Redis's protocol; check the port (redis-server \
         and `keyspace serve` use 6379 unless told otherwise)"
    )
}
