//! The protocol: RESP2 and RESP3, and the inline form for people with telnet.
//!
//! Requests come through a [`Scanner`](request::Scanner) of the server's own, which can stop at any
//! byte and go on there, checks every length before it believes it, and delivers the arguments as
//! ranges of the buffer they arrived in. Replies go through [`Reply`](reply::Reply), which writes
//! straight into the client's output buffer. A general decoder would parse an incomplete request
//! anew with each packet and build a tree of frames for it; `redis-protocol` serves the tests, as
//! an independent opinion on both directions.

mod check;
pub(crate) mod inline;
pub(crate) mod long_double;
pub(crate) mod number;
mod out;
pub(crate) mod reply;
pub(crate) mod request;

pub use check::requests;
pub(crate) use reply::{Reply, Resp};
pub(crate) use request::{Args, Scanner};
