//! The table of all parameters.
//!
//! To add one: a field in [`Config`](super::Config), a row here. If something must happen when it changes, name a
//! function in `changed`.

use super::kind::Field;
use crate::server::Server;
use crate::server::maxmemory;
use crate::server::memory::background;

/// A parameter.
pub(crate) struct Param {
    /// Its name in redis.conf.
    pub(crate) name: &'static str,
    /// Its default, as text.
    pub(crate) default: &'static str,
    /// Whether CONFIG SET may change it.
    pub(crate) mutable: bool,
    /// Where it is kept, and what it may be.
    pub(crate) field: Field,
    /// What to do when CONFIG SET has changed it.
    pub(crate) changed: Option<fn(&mut Server)>,
}

impl Param {
    /// The parameter of a name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|param| param.name.eq_ignore_ascii_case(name))
    }

    const fn fixed(name: &'static str, default: &'static str, field: Field) -> Self {
        Self { name, default, mutable: false, field, changed: None }
    }

    const fn new(name: &'static str, default: &'static str, field: Field) -> Self {
        Self { name, default, mutable: true, field, changed: None }
    }

    const fn then(self, changed: fn(&mut Server)) -> Self {
        Self { changed: Some(changed), ..self }
    }
}

use Field::{Bool, Bytes, Int, Octal, OutputLimits, Policy, Share, Text, Word};

/// All of them.
pub(crate) static TABLE: &[Param] = &[
    // The network.
    Param::fixed("port", "6379", Int(|c| &mut c.port, 0, 65535)),
    Param::fixed("bind", "127.0.0.1", Text(|c| &mut c.bind)),
    Param::fixed("unixsocket", "", Text(|c| &mut c.unixsocket)),
    Param::fixed("unixsocketperm", "0", Octal(|c| &mut c.unixsocketperm)),
    Param::new("protected-mode", "yes", Bool(|c| &mut c.protected_mode)),
    Param::new("requirepass", "", Text(|c| &mut c.requirepass)),
    Param::fixed("tcp-backlog", "511", Int(|c| &mut c.tcp_backlog, 0, i32::MAX as i64)),
    Param::new("tcp-keepalive", "300", Int(|c| &mut c.tcp_keepalive, 0, i32::MAX as i64)),
    Param::new("timeout", "0", Int(|c| &mut c.timeout, 0, i32::MAX as i64)),
    Param::fixed("http", "", Text(|c| &mut c.http)),
    // The server.
    Param::fixed("databases", "16", Int(|c| &mut c.databases, 1, 1024)),
    Param::new("hz", "10", Int(|c| &mut c.hz, 1, 500)),
    Param::new("loglevel", "notice", Word(|c| &mut c.loglevel, LOG_LEVELS))
        .then(Server::set_log_level),
    Param::fixed("enable-debug-command", "no", Word(|c| &mut c.enable_debug_command, DEBUG_WORDS)),
    // Nothing is kept on disk, and nothing else can be set (`Config::fits`); clients ask.
    Param::new("save", "", Text(|c| &mut c.save)),
    Param::new("appendonly", "no", Bool(|c| &mut c.appendonly)),
    // maxmemory.
    Param::new("maxmemory", "0", Bytes(|c| &mut c.maxmemory, 0, u64::MAX)).then(maxmemory::changed),
    Param::new("maxmemory-policy", "noeviction", Policy(|c| &mut c.maxmemory_policy))
        .then(maxmemory::changed),
    Param::new("maxmemory-samples", "5", Int(|c| &mut c.maxmemory_samples, 1, 64)),
    Param::new(
        "maxmemory-eviction-tenacity",
        "10",
        Int(|c| &mut c.maxmemory_eviction_tenacity, 0, 100),
    ),
    Param::new(
        "maxmemory-counts",
        "used",
        Word(|c| &mut c.maxmemory_counts, &["used", "resident"]),
    )
    .then(maxmemory::changed),
    Param::new("lfu-log-factor", "10", Int(|c| &mut c.lfu_log_factor, 0, i32::MAX as i64)),
    Param::new("lfu-decay-time", "1", Int(|c| &mut c.lfu_decay_time, 0, i32::MAX as i64)),
    // Clients.
    Param::new("maxclients", "10000", Int(|c| &mut c.maxclients, 1, u32::MAX as i64)),
    Param::new("maxmemory-clients", "0", Share(|c| &mut c.maxmemory_clients)),
    Param::new(
        "client-query-buffer-limit",
        "1gb",
        Bytes(|c| &mut c.client_query_buffer_limit, 1 << 20, u64::MAX),
    ),
    // Hashes and lists keep the lengths of what is in them in 32 bits.
    Param::new(
        "proto-max-bulk-len",
        "512mb",
        Bytes(|c| &mut c.proto_max_bulk_len, 1 << 20, u32::MAX as u64),
    ),
    Param::new(
        "client-output-buffer-limit",
        "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60",
        OutputLimits(|c| &mut c.client_output_buffer_limit),
    ),
    // Active defragmentation.
    Param::new("jemalloc-bg-thread", "yes", Bool(|c| &mut c.jemalloc_bg_thread))
        .then(background::follow_config),
    Param::new("activedefrag", "no", Bool(|c| &mut c.activedefrag)),
    Param::new(
        "active-defrag-ignore-bytes",
        "100mb",
        Bytes(|c| &mut c.active_defrag_ignore_bytes, 1, u64::MAX),
    ),
    Param::new(
        "active-defrag-threshold-lower",
        "10",
        Int(|c| &mut c.active_defrag_threshold_lower, 0, 1000),
    ),
    Param::new(
        "active-defrag-threshold-upper",
        "100",
        Int(|c| &mut c.active_defrag_threshold_upper, 0, 1000),
    ),
    Param::new("active-defrag-cycle-min", "1", Int(|c| &mut c.active_defrag_cycle_min, 1, 99)),
    Param::new("active-defrag-cycle-max", "25", Int(|c| &mut c.active_defrag_cycle_max, 1, 99)),
    Param::new("active-defrag-cycle-us", "500", Int(|c| &mut c.active_defrag_cycle_us, 0, 100_000)),
    Param::new(
        "active-defrag-max-scan-fields",
        "1000",
        Int(|c| &mut c.active_defrag_max_scan_fields, 1, i64::MAX),
    ),
    // Expiry and freeing: in the background unless told otherwise, as in Valkey 8; Redis 7 says no.
    Param::new("active-expire-effort", "1", Int(|c| &mut c.active_expire_effort, 1, 10)),
    Param::new("lazyfree-lazy-eviction", "yes", Bool(|c| &mut c.lazyfree_lazy_eviction)),
    Param::new("lazyfree-lazy-expire", "yes", Bool(|c| &mut c.lazyfree_lazy_expire)),
    Param::new("lazyfree-lazy-server-del", "yes", Bool(|c| &mut c.lazyfree_lazy_server_del)),
    Param::new("lazyfree-lazy-user-del", "yes", Bool(|c| &mut c.lazyfree_lazy_user_del)),
    Param::new("lazyfree-lazy-user-flush", "yes", Bool(|c| &mut c.lazyfree_lazy_user_flush)),
    // Values.
    Param::new(
        "hash-max-listpack-entries",
        "128",
        Int(|c| &mut c.hash_max_listpack_entries, 0, i64::MAX),
    ),
    Param::new(
        "hash-max-listpack-value",
        "64",
        Int(|c| &mut c.hash_max_listpack_value, 0, i64::MAX),
    ),
];

/// A line for each of them, with its default and whether CONFIG SET can change it.
pub(crate) fn overview() -> String {
    let mut text =
        "Parameters, as in redis.conf; (start) marks those that CONFIG SET cannot change:\n"
            .to_owned();
    for param in TABLE {
        let default = if param.default.is_empty() { "\"\"" } else { param.default };
        let when = if param.mutable { "" } else { " (start)" };
        text.push_str(&format!("  --{} {default}{when}\n", param.name));
    }
    text
}

/// The words of `enable-debug-command`.
pub(crate) const DEBUG_WORDS: &[&str] = &["no", "yes", "local"];

/// The words of `loglevel`.
pub(crate) const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning", "nothing"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;

    #[test]
    fn every_default_can_be_set_and_had_back() {
        let mut config = Config::new();
        for param in TABLE {
            let text = param.field.get(&mut config);
            assert_eq!(param.field.set(&mut config, &text), Ok(()), "{}", param.name);
            assert_eq!(param.field.set(&mut config, param.default), Ok(()), "{}", param.name);
            assert_eq!(param.field.get(&mut config), text, "{}", param.name);
        }
    }
}
