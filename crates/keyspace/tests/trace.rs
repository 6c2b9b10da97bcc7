//! The fuzz target of the trace reader on a stable compiler: the committed inputs, these with
//! bytes changed, and random ones made of what traces are made of.

mod corpus;

use keyspace::trace::check;

/// What traces are made of, and what they should not be.
const PIECES: &[&[u8]] = &[
    b"0,k,1,1,1,get,0\n",
    b"7,q:q:1:8WTfjZU14ee,17,213,4,add,7200\n",
    b"18446744073709551615",
    b"536870913",
    b"65536",
    b"42949671",
    b",",
    b"set",
    b"GET",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\"",
    b"-1",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
];

#[test]
fn the_committed_inputs_and_changed_ones() {
    corpus::replay("trace", 8, 500, check);
}

#[test]
fn random_inputs() {
    corpus::random(20_000, PIECES, check);
}
