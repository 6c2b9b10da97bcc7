//! Publish and subscribe: messages to whoever listens.
//!
//! A message is copied into the output buffer of each subscriber, which is where the memory goes
//! when one of them is slow; those buffers are a class of their own for limits and books.

use super::CommandSpec;
use crate::server::Server;
use crate::server::net::client::Client;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[];

/// Ends all subscriptions of a client: it has said RESET, or is gone.
pub(crate) fn leave_all(_server: &mut Server, _client: &mut Client) {}
