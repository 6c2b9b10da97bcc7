//! A server that Redis clients talk to, and that knows where each of its bytes is.
//!
//! It is a demo of memory: few commands, each complete, over data whose every block is in an account
//! of `tallow`. What a Redis user watches (used memory, RSS, buffers, limits, expiry, eviction,
//! healing) behaves as there; where the allocator knows more, the answers have fields of their own.
//!
//! One thread runs everything, as in Redis: no locks, commands are atomic by nature. Work that would
//! hold it up is cut into slices (tables, expiry, eviction, defragmentation) or done elsewhere
//! (`db::lazyfree`).
//!
//! | module | what it does |
//! |---|---|
//! | `accounts`, `buffer` | what memory is for; growing bytes in an account |
//! | `config` | redis.conf and CONFIG: one table of parameters |
//! | `resp` | the protocol: requests in, replies out |
//! | `db` | the data |
//! | `pubsub` | who listens to what |
//! | `commands` | the commands: one table, one file per family |
//! | `net` | sockets, clients, the event loop and its timer |
//! | `info`, `memory` | what INFO and MEMORY say |
//! | `http` | the page to look at |

pub(crate) mod accounts;
pub(crate) mod buffer;
pub(crate) mod commands;
pub(crate) mod config;
pub(crate) mod db;
pub(crate) mod http;
pub(crate) mod info;
pub(crate) mod maxmemory;
pub(crate) mod memory;
pub(crate) mod net;
pub(crate) mod pubsub;
pub(crate) mod resp;
pub(crate) mod state;

/// Compares ways to know which keys have expired; for the benchmark.
pub use db::trial as expiry_trial;
/// Checks the request scanner on any input; for the fuzzer.
pub use resp::requests as check_requests;
pub(crate) use state::Server;

use crate::gauge::Allocator;
use anyhow::Context;
use config::Config;
use std::path::PathBuf;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the program's own allocations come from.
    pub allocator: Allocator,
    /// A file in redis.conf syntax, read first.
    pub config: Option<PathBuf>,
    /// Parameters as `--name value`, over what the file says.
    pub parameters: Vec<String>,
}

/// What can be configured, for people: a line for each parameter, with its default.
pub fn parameters() -> String {
    config::params::overview()
}

/// Serves until it is told to stop: by SIGTERM, SIGINT or SHUTDOWN.
///
/// # Errors
/// If the configuration is wrong, or an address cannot be listened on.
pub fn serve(options: &Options) -> anyhow::Result<()> {
    let mut config = Config::new();
    if let Some(path) = &options.config {
        config.read_file(path)?;
    }
    config.read_words(&options.parameters).context("on the command line")?;
    net::event_loop::run(config, options.allocator)
}
