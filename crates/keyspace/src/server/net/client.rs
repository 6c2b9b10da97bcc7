//! A client: its connection, its buffers, and what it has said about itself.

use super::name::Name;
use super::stream::Stream;
use crate::server::accounts::Query;
use crate::server::buffer::Buffer;
use crate::server::db::UnixMs;
use crate::server::pubsub::Topics;
use crate::server::resp::{Reply, Scanner};

/// Places in [`CLIENT_CLASSES`](crate::server::config::kind::CLIENT_CLASSES).
pub(crate) const NORMAL_CLASS: usize = 0;
pub(crate) const PUBSUB_CLASS: usize = 2;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its place among the clients.
    pub(crate) place: usize,
    /// Its number: never given twice.
    pub(crate) id: u64,
    /// Its connection.
    pub(crate) stream: Stream,
    /// The peer's address.
    pub(crate) address: String,
    /// What it has sent and was not executed: the beginning of a request.
    pub(crate) query: Buffer<Query>,
    /// How far that was looked at.
    pub(crate) scanner: Scanner,
    /// What it is told, and its version of the protocol.
    pub(crate) reply: Reply,
    /// The index of its database.
    pub(crate) db: usize,
    /// Its name, from CLIENT SETNAME.
    pub(crate) name: Name,
    /// Its library, from CLIENT SETINFO.
    pub(crate) lib_name: Name,
    /// The version of that.
    pub(crate) lib_version: Name,
    /// Whether it has said the password, or need not.
    pub(crate) authenticated: bool,
    /// Whether it ever had: RESET makes it forget, and it may still be owed replies.
    pub(crate) was_authenticated: bool,
    /// Whether it is exempt from eviction (CLIENT NO-EVICT).
    pub(crate) no_evict: bool,
    /// Whether its lookups leave no trace in the keys (CLIENT NO-TOUCH).
    pub(crate) no_touch: bool,
    /// What it listens to.
    pub(crate) topics: Topics,
    /// When it came.
    pub(crate) created_ms: UnixMs,
    /// When it was last heard of.
    pub(crate) active_ms: UnixMs,
    /// Its last command, as an index into the registry.
    pub(crate) last_command: Option<usize>,
    /// Whether it is cut off once it has been told everything.
    pub(crate) closing: bool,
    /// Whether it is cut off at once.
    pub(crate) dead: bool,
    /// Whether it is on the list of those to be written to.
    pub(crate) queued: bool,
    /// Whether its socket takes no more for now.
    pub(crate) blocked_write: bool,
    /// Since when its output buffer is above the soft limit.
    pub(crate) over_soft_since: Option<UnixMs>,
}

impl Client {
    /// A client that has just come.
    pub(crate) fn new(id: u64, stream: Stream, now: UnixMs, authenticated: bool) -> Self {
        Self {
            place: 0,
            id,
            address: stream.peer(),
            stream,
            query: Buffer::new(),
            scanner: Scanner::new(),
            reply: Reply::new(),
            db: 0,
            name: Name::new(),
            lib_name: Name::new(),
            lib_version: Name::new(),
            authenticated,
            was_authenticated: authenticated,
            no_evict: false,
            no_touch: false,
            topics: Topics::new(),
            created_ms: now,
            active_ms: now,
            last_command: None,
            closing: false,
            dead: false,
            queued: false,
            blocked_write: false,
            over_soft_since: None,
        }
    }

    /// The index of its class among the limits on output buffers.
    pub(crate) fn class(&self) -> usize {
        if self.topics.count() > 0 { PUBSUB_CLASS } else { NORMAL_CLASS }
    }

    /// Bytes it takes: buffers, and itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        let names = [&self.name, &self.lib_name, &self.lib_version];
        size_of::<Self>()
            + self.query.capacity()
            + self.scanner.buffer_bytes()
            + self.reply.buffer_bytes()
            + self.topics.bytes()
            + self.address.capacity()
            + names.iter().map(|name| name.capacity()).sum::<usize>()
    }
}
