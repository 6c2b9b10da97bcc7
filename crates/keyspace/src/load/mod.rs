//! `keyspace load`: drives any Redis-compatible server through the phases of
//! `churn`(crate::churn), over the wire.
//!
//! | phase | what happens | what to see |
//! |---|---|---|
//! | *loaded* | keys are set until so many are held, then requests, expiries and new keys for 1.25 mean TTLs | memory is as large as the data |
//! | *expired* | the TTLs left are compressed so that the wanted share of the keys runs out within seconds, for real; the others are made to stay | the data shrink, the process does not |
//! | *healed* | active defragmentation is switched on where the server has one, beside a light load of GETs and SETs | the process shrinks too, or not |
//!
//! # What is done by whom
//! The driver keeps the virtual clock of the workload and books of every key (`books`): it works
//! out each request before it is sent, so the same seed sends the same requests in the same order to
//! every server, and fragmentation is what these make of it. Expiry itself is the server's: a key
//! whose time is over on the virtual clock is told so with a `PEXPIRE` of a millisecond, and what
//! lazy and active expiry make of that is the server's business. In *expired* the remaining times of
//! all keys that are to go are mapped onto a few seconds, in their order.
//!
//! While requests flow, a connection of its own asks for keys at a fixed pace and notes how long the
//! answers take (`probe`), and another reads INFO at fixed intervals (`monitor`). At the end
//! every key that must be there is read and compared with what its hash says it holds.
//!
//! # Requests
//! The clusters' operations are memcached's. `get gets set add delete append` have their like here;
//! `replace cas prepend incr decr` change a value where it is: `SET key value XX KEEPTTL`, of the
//! length that the operation would have made it. A `get` for what has run out is followed by a
//! `SET`, as a look-aside cache would do. TTLs are written with `PX`, an hour at least, so that the
//! virtual clock and not the server's decides while the load is built up.

mod address;
mod books;
mod drive;
mod expire;
mod heal;
mod lanes;
mod monitor;
mod outcome;
mod probe;
mod requests;
mod wire;

pub use address::Address;
pub use outcome::{Healing, Outcome, PhaseEnd, Point, RssSource, Server};

use crate::churn::Phase;
use crate::workload::Cluster;
use std::fmt;
use std::time::Duration;

/// What is done about active defragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ActiveDefrag {
    /// Off while the load is built up and expires, on for the healing.
    Yes,
    /// Off throughout.
    No,
    /// As the server has it.
    Keep,
}

impl fmt::Display for ActiveDefrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Keep => "keep",
        })
    }
}

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server.
    pub address: Address,
    /// Its password.
    pub password: Option<String>,
    /// The cluster whose figures the requests follow.
    pub cluster: &'static Cluster,
    /// Keys at the peak.
    pub keys: u64,
    /// Share of them that is to expire, 0 to 1.
    pub expire_share: f64,
    /// Seed of every random choice.
    pub seed: u64,
    /// Connections that the load comes over.
    pub connections: usize,
    /// Requests sent on each before the replies are read.
    pub pipeline: usize,
    /// Over how long the TTLs run out.
    pub expire: Duration,
    /// How long the server has to heal.
    pub heal: Duration,
    /// What is done about active defragmentation.
    pub activedefrag: ActiveDefrag,
    /// Whether an instance that holds keys is emptied first; else that is an error.
    pub flush: bool,
}

/// Runs the phases; `progress` is told how much of each is done, 0 to 1, and `None` at its end.
///
/// # Errors
/// If the server cannot be reached or refuses something, or does not hold in the end what it must.
pub fn run(
    config: &Config,
    progress: &mut dyn FnMut(Phase, Option<f64>),
) -> anyhow::Result<Outcome> {
    drive::Driver::start(config, progress)?.run()
}
