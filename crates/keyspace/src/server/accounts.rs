//! What the server's memory is for: one [`tallow::account!`] for each purpose.
//!
//! Redis finds out where its memory went by estimating: it walks clients once a second, samples
//! values, multiplies counts by sizes of structures. Here every block is allocated *in* an account,
//! so the books are exact at any moment and cost one addition. What is in no account
//! (listeners, the configuration, INFO's text while it is made) is the server's own; it is known by
//! difference.

use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use tallow::{Account, In, Purpose};

tallow::account!(
    /// Keys and values, the insides of hashes and lists too.
    pub(crate) Dataset = "dataset"
);
tallow::account!(
    /// The tables of the databases, from which keys are found.
    pub(crate) Tables = "tables"
);
tallow::account!(
    /// Which keys expire when.
    pub(crate) Expiry = "expiry index"
);
tallow::account!(
    /// What clients have sent and was not executed yet.
    pub(crate) Query = "client query buffers"
);
tallow::account!(
    /// Replies that clients have not taken yet.
    pub(crate) Output = "output buffers, normal"
);
tallow::account!(
    /// Messages that subscribers have not taken yet.
    pub(crate) OutputPubsub = "output buffers, pubsub"
);
tallow::account!(
    /// Channels and patterns, and who listens to them.
    pub(crate) Subscriptions = "subscriptions"
);
tallow::account!(
    /// Argument vectors of the commands being read or executed.
    pub(crate) Commands = "command state"
);

tallow::account!(
    /// What clients call themselves and their libraries.
    pub(crate) Names = "client names"
);

/// Those in which a turn of the event loop can take much. What goes into the others is not much more
/// than what a client has sent in it.
pub(crate) fn volatile() -> [&'static Account; 6] {
    [
        Dataset::account(),
        Tables::account(),
        Expiry::account(),
        Query::account(),
        Output::account(),
        OutputPubsub::account(),
    ]
}

/// What all clients take, but for the clients themselves: a few loads.
pub(crate) fn client_bytes() -> u64 {
    let accounts = [
        Query::account(),
        Output::account(),
        OutputPubsub::account(),
        Subscriptions::account(),
        Commands::account(),
        Names::account(),
    ];
    accounts.iter().map(|account| account.live_bytes()).sum()
}

/// A block of bytes of fixed length in the account `P`.
pub(crate) type Block<P> = Box<[u8], In<P>>;
/// A growing string of bytes in the account `P`.
pub(crate) type Bytes<P> = Vec<u8, In<P>>;

/// A block with these parts one after the other.
pub(crate) fn block<P: Purpose, const N: usize>(parts: [&[u8]; N]) -> Block<P> {
    let mut bytes = Vec::with_capacity_in(parts.iter().map(|part| part.len()).sum(), In::NEW);
    let mut at = 0;
    bytes.resize(bytes.capacity(), 0);
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes.into_boxed_slice()
}
