//! What must hold for the request scanner whatever it is sent: for the fuzzer, and for a test that
//! replays its inputs.

use super::request::{Bounds, Scanned, Scanner};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

/// Lines longer than any input are another matter: whether one is too long can be seen earlier or
/// later.
const MOST_BYTES: usize = 60_000;
/// The scanner's memory for each byte that it was sent: two bytes of a line are a word, for which
/// there is a range of 16 bytes, in room that doubles.
const MEMORY_FACTOR: usize = 20;
const MEMORY_BYTES: usize = 512;
const BOUNDS: Bounds = Bounds { max_bulk_bytes: 1 << 20, is_authenticated: true };

type Words = Vec<Vec<u8>>;

/// Scans `data` whole, in pieces, and as arguments of a valid request.
///
/// # Panics
/// If anything is wrong.
pub fn requests(data: &[u8]) {
    if data.len() > MOST_BYTES {
        return;
    }
    let whole = scan_in_pieces(data, |_| data.len());
    assert_eq!(whole, scan_in_pieces(data, |_| 1), "byte by byte");
    let cut = |at: usize| 1 + usize::from(data[at % data.len()]) % 7;
    assert_eq!(whole, scan_in_pieces(data, cut), "in pieces");
    valid(data);
}

/// All requests in `data`, which comes in pieces, and what the scanner refused in the end.
fn scan_in_pieces(data: &[u8], piece: impl Fn(usize) -> usize) -> (Vec<Words>, Option<String>) {
    let (mut scanner, mut found) = (Scanner::new(), Vec::new());
    let (mut start, mut received) = (0, 0);
    while received < data.len() {
        received = data.len().min(received + piece(received));
        while start < received {
            let bytes = &data[start..received];
            let scanned = scanner.scan(bytes, BOUNDS);
            let most = received * MEMORY_FACTOR + MEMORY_BYTES;
            assert!(scanner.buffer_bytes() <= most, "{} of {most}", scanner.buffer_bytes());
            match scanned {
                Scanned::Incomplete => break,
                Scanned::Refused(text) => return (found, Some(text)),
                Scanned::Request(count) => {
                    assert!(0 < count && count <= bytes.len(), "{count} of {}", bytes.len());
                    let words: Words = scanner.args(bytes).from(0).map(<[u8]>::to_vec).collect();
                    agree(&bytes[..count], &words);
                    found.push(words);
                    start += count;
                    scanner.next();
                }
            }
        }
    }
    (found, None)
}

/// A request in its one canonical form.
fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Asserts that another decoder finds the same, if the request is in canonical form.
fn agree(request: &[u8], words: &[Vec<u8>]) {
    if words.is_empty() || encode(words) != request {
        return;
    }
    let Ok(Some((OwnedFrame::Array(frames), count))) = decode(request) else {
        panic!("another decoder refuses {request:?}");
    };
    let others: Vec<&[u8]> = frames.iter().filter_map(Resp2Frame::as_bytes).collect();
    assert_eq!((others, count), (words.iter().map(Vec::as_slice).collect(), request.len()));
}

/// Cuts the input into arguments and asserts that a request of them is found as it is.
fn valid(data: &[u8]) {
    let words: Words = data.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    let request = encode(&words);
    let found = scan_in_pieces(&request, |_| request.len());
    assert_eq!(found, (vec![words], None), "a valid request");
}
