//! The configuration: one struct of typed values, one table that names them.
//!
//! A parameter is a field of [`Config`] and a row of [`params::TABLE`]; the file, the command line,
//! CONFIG GET, SET and REWRITE all go through the row. Values are strings outside and numbers
//! inside; a row says how to get from one to the other and what is allowed.
//!
//! | module | what it does |
//! |---|---|
//! | [`params`] | the table |
//! | [`kind`] | kinds of parameters: how their text is read and written |
//! | [`file`] | redis.conf syntax: the file and `--key value` |
//! | `unused` | directives that are taken and not used |
//! | `rewrite` | the file, written anew with the values of now |

pub(crate) mod file;
pub(crate) mod kind;
pub(crate) mod params;
mod rewrite;
mod unused;

use super::db::evict::Policy;
use crate::gauge::Allocator;
use kind::{OutputLimit, Share};
use params::DEBUG_WORDS;
use std::path::PathBuf;

/// Why persistence cannot be switched on.
const NO_DISK: &str = "This server keeps nothing on disk: only \"\" or no can be set";

/// All parameters. The defaults are in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) port: i64,
    pub(crate) bind: String,
    pub(crate) unixsocket: String,
    pub(crate) unixsocketperm: u32,
    pub(crate) protected_mode: bool,
    pub(crate) requirepass: String,
    pub(crate) databases: i64,
    pub(crate) hz: i64,
    pub(crate) timeout: i64,
    pub(crate) tcp_backlog: i64,
    pub(crate) tcp_keepalive: i64,
    pub(crate) loglevel: usize,
    pub(crate) enable_debug_command: usize,
    pub(crate) save: String,
    pub(crate) appendonly: bool,
    pub(crate) http: String,

    pub(crate) maxmemory: u64,
    pub(crate) maxmemory_policy: Policy,
    pub(crate) maxmemory_samples: i64,
    pub(crate) maxmemory_eviction_tenacity: i64,
    pub(crate) maxmemory_counts: usize,
    pub(crate) lfu_log_factor: i64,
    pub(crate) lfu_decay_time: i64,

    pub(crate) maxclients: i64,
    pub(crate) maxmemory_clients: Share,
    pub(crate) client_query_buffer_limit: u64,
    pub(crate) proto_max_bulk_len: u64,
    pub(crate) client_output_buffer_limit: [OutputLimit; 3],

    pub(crate) jemalloc_bg_thread: bool,
    pub(crate) activedefrag: bool,
    pub(crate) active_defrag_ignore_bytes: u64,
    pub(crate) active_defrag_threshold_lower: i64,
    pub(crate) active_defrag_threshold_upper: i64,
    pub(crate) active_defrag_cycle_min: i64,
    pub(crate) active_defrag_cycle_max: i64,
    pub(crate) active_defrag_cycle_us: i64,
    pub(crate) active_defrag_max_scan_fields: i64,

    pub(crate) active_expire_effort: i64,
    pub(crate) lazyfree_lazy_eviction: bool,
    pub(crate) lazyfree_lazy_expire: bool,
    pub(crate) lazyfree_lazy_server_del: bool,
    pub(crate) lazyfree_lazy_user_del: bool,
    pub(crate) lazyfree_lazy_user_flush: bool,

    pub(crate) hash_max_listpack_entries: i64,
    pub(crate) hash_max_listpack_value: i64,

    /// What was set and is not used.
    pub(crate) unused: Vec<&'static str>,
    /// The file it was read from, for REWRITE.
    pub(crate) path: Option<PathBuf>,
}

impl Config {
    /// Whether only this machine may connect: there is no password, and nobody has said that there
    /// need not be one.
    pub(crate) fn is_protected(&self) -> bool {
        self.protected_mode && self.requirepass.is_empty()
    }

    /// Whether `maxmemory` is a limit on RSS.
    pub(crate) fn counts_resident(&self) -> bool {
        self.maxmemory_counts != 0
    }

    /// Whether a client, which is on this machine or is not, may call DEBUG.
    pub(crate) fn allows_debug(&self, is_local: bool) -> bool {
        match DEBUG_WORDS[self.enable_debug_command] {
            "yes" => true,
            "local" => is_local,
            _ => false,
        }
    }

    /// Whether the server can do on `allocator` what is set.
    ///
    /// # Errors
    /// If it cannot: the name of the parameter, and why.
    pub(crate) fn fits(&self, allocator: Allocator) -> Result<(), (&'static str, &'static str)> {
        match allocator {
            Allocator::System if self.activedefrag => Err((
                "activedefrag",
                "Active defragmentation cannot be enabled: it requires a server that runs on \
                 Tallow, and this one was started with --allocator system",
            )),
            // Whoever relies on this should not find out by losing data.
            _ if !self.save.is_empty() => Err(("save", NO_DISK)),
            _ if self.appendonly => Err(("appendonly", NO_DISK)),
            _ => Ok(()),
        }
    }

    /// All defaults.
    pub(crate) fn new() -> Self {
        let mut config = Self::default();
        for param in params::TABLE {
            // A default that its own row refuses is found by a test.
            let _ = param.field.set(&mut config, param.default);
        }
        config
    }
}
