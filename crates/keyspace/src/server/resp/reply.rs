//! The reply writer: straight into the client's output buffer, in its version of the protocol.
//!
//! A handler says what it has (a map, a double, nothing); how that looks in RESP2, which has only
//! strings, integers and arrays, is decided here and nowhere else.

use super::number::Digits;
use super::out::Out;

/// The version of the protocol that a client has chosen with HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resp {
    /// What every client speaks.
    #[default]
    V2,
    /// With maps, sets, doubles, nulls and pushes of their own.
    V3,
}

/// A client's output buffer, and how to write into it.
#[derive(Debug)]
pub(crate) struct Reply {
    out: Out,
    /// How much of it has been sent.
    sent: usize,
    /// The client's version of the protocol.
    pub(crate) resp: Resp,
}

impl Reply {
    /// An empty buffer, which has no memory yet.
    pub(crate) fn new() -> Self {
        Self { out: Out::new(), sent: 0, resp: Resp::V2 }
    }

    /// What is still to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Bytes that the buffer takes.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// Notes that `bytes` were sent. A buffer that is sent is used again, unless it is larger
    /// than `keep_bytes`.
    pub(crate) fn note_sent(&mut self, bytes: usize, keep_bytes: usize) {
        self.sent += bytes;
        if self.sent == self.out.len() {
            self.out.truncate(0);
            self.sent = 0;
            if self.out.capacity() > keep_bytes {
                self.out.free();
            }
        } else if self.sent >= self.out.len() / 2 {
            // Not before half of it is sent: each byte is moved once at most.
            self.out.consume(self.sent);
            self.sent = 0;
        }
    }

    /// Puts the buffer in the account of subscribers, or back in that of the others.
    pub(crate) fn set_pubsub(&mut self, is_pubsub: bool) {
        self.out.set_pubsub(is_pubsub);
    }

    /// Lets no more than so many bytes wait; 0 for any number. Only what is added later is measured.
    pub(crate) fn set_limit(&mut self, bytes: u64) {
        self.out.set_limit(if bytes == 0 { 0 } else { bytes.saturating_add(self.sent as u64) });
    }

    /// Whether something was left out since it would have passed the limit.
    pub(crate) fn is_over(&self) -> bool {
        self.out.is_over()
    }

    /// Gives all memory back, with what is in it: nobody will take it.
    pub(crate) fn free(&mut self) {
        self.out.free();
        self.sent = 0;
    }

    /// Where the next reply will begin, for [`rewind`](Self::rewind).
    pub(crate) fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written since `mark`.
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.extend_all([&[kind], text, b"\r\n"]);
    }

    /// `+OK`.
    #[inline]
    pub(crate) fn ok(&mut self) {
        self.out.extend(b"+OK\r\n");
    }

    /// A simple string: a status of one line.
    pub(crate) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error; `text` begins with its code (`ERR`, `WRONGTYPE`). Line breaks in it, which can
    /// come from an argument that it cites, become spaces.
    pub(crate) fn error(&mut self, text: &str) {
        self.out.push(b'-');
        for part in text.split_inclusive(['\r', '\n']) {
            let clean = part.trim_end_matches(['\r', '\n']);
            self.out.extend(clean.as_bytes());
            if clean.len() < part.len() {
                self.out.push(b' ');
            }
        }
        self.out.extend(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub(crate) fn int(&mut self, number: i64) {
        self.line(b':', Digits::of(number).as_bytes());
    }

    /// An integer from a count.
    #[inline]
    pub(crate) fn count(&mut self, count: usize) {
        self.int(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A bulk string: any bytes.
    #[inline]
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        let digits = Digits::of(bytes.len() as i64);
        self.out.extend_all([b"$", digits.as_bytes(), b"\r\n", bytes, b"\r\n"]);
    }

    /// A bulk string from text.
    pub(crate) fn text(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// A bulk string with the digits of a number.
    pub(crate) fn bulk_int(&mut self, number: i64) {
        self.bulk(Digits::of(number).as_bytes());
    }

    /// Nothing, where there would be a string.
    #[inline]
    pub(crate) fn null(&mut self) {
        match self.resp {
            Resp::V2 => self.out.extend(b"$-1\r\n"),
            Resp::V3 => self.out.extend(b"_\r\n"),
        }
    }

    /// Nothing, where there would be an array.
    pub(crate) fn null_array(&mut self) {
        match self.resp {
            Resp::V2 => self.out.extend(b"*-1\r\n"),
            Resp::V3 => self.out.extend(b"_\r\n"),
        }
    }

    /// A string or nothing.
    pub(crate) fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The head of an array; `count` elements must follow.
    pub(crate) fn array(&mut self, count: usize) {
        self.line(b'*', Digits::of(count as i64).as_bytes());
    }

    /// The head of a map; `count` pairs must follow. In RESP2 an array of twice as many.
    pub(crate) fn map(&mut self, count: usize) {
        match self.resp {
            Resp::V2 => self.array(count * 2),
            Resp::V3 => self.line(b'%', Digits::of(count as i64).as_bytes()),
        }
    }

    /// The head of a set; `count` elements must follow. In RESP2 an array.
    pub(crate) fn set(&mut self, count: usize) {
        match self.resp {
            Resp::V2 => self.array(count),
            Resp::V3 => self.line(b'~', Digits::of(count as i64).as_bytes()),
        }
    }

    /// The head of a push message; `count` elements must follow. In RESP2 an array.
    pub(crate) fn push(&mut self, count: usize) {
        match self.resp {
            Resp::V2 => self.array(count),
            Resp::V3 => self.line(b'>', Digits::of(count as i64).as_bytes()),
        }
    }

    /// A floating point number; in RESP2 a string.
    pub(crate) fn double(&mut self, number: f64) {
        let text = number.to_string();
        match self.resp {
            Resp::V2 => self.text(&text),
            Resp::V3 => self.line(b',', text.as_bytes()),
        }
    }

    /// A text to be shown as it is; in RESP2 a string.
    pub(crate) fn verbatim(&mut self, text: &str) {
        match self.resp {
            Resp::V2 => self.text(text),
            Resp::V3 => {
                self.line(b'=', Digits::of(text.len() as i64 + 4).as_bytes());
                self.out.extend(b"txt:");
                self.out.extend(text.as_bytes());
                self.out.extend(b"\r\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis_protocol::resp2::{decode::decode, types::OwnedFrame};

    #[test]
    fn another_decoder_reads_what_is_written() {
        let mut reply = Reply::new();
        reply.array(4);
        reply.bulk(b"a\r\nb");
        reply.int(-7);
        reply.null();
        reply.map(1);
        reply.text("k");
        reply.double(1.5);
        let (frame, bytes) = decode(reply.unsent()).unwrap().unwrap();
        assert_eq!(bytes, reply.unsent().len());
        let pair = vec![OwnedFrame::BulkString("k".into()), OwnedFrame::BulkString("1.5".into())];
        let all = vec![
            OwnedFrame::BulkString("a\r\nb".into()),
            OwnedFrame::Integer(-7),
            OwnedFrame::Null,
            OwnedFrame::Array(pair),
        ];
        assert_eq!(frame, OwnedFrame::Array(all));
    }
}
