//! The fuzz target of the request scanner on a stable compiler: the committed inputs, these with
//! bytes changed, and random ones made of what requests are made of.

mod corpus;

use keyspace::server::check_requests;

/// What requests are made of, and what they should not be.
const PIECES: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*-1\r\n",
    b"*01\r\n",
    b"$1\r\na\r\n",
    b"$0\r\n\r\n",
    b"$4\r\nPING\r\n",
    b"$99999999\r\n",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\"",
    b"'",
    b"\\x41",
    b"\0",
    b"PING\r\n",
    b"$",
    b"*2147483647\r\n",
    b"*2147483648\r\n",
    b"abc",
];

#[test]
fn the_committed_inputs_and_changed_ones() {
    corpus::replay("requests", 8, 200, check_requests);
}

#[test]
fn random_inputs() {
    corpus::random(5000, PIECES, check_requests);
}
