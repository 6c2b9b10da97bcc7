//! INFO: sections of lines `name:value`.
//!
//! To add a section: a function that writes its lines, and a row in [`SECTIONS`].

use super::Server;
use super::commands::connection::REDIS_VERSION;
use super::memory;
use std::fmt::Write;

/// A section.
struct Section {
    /// Its name in lower case.
    name: &'static str,
    /// Its title.
    title: &'static str,
    /// Whether it is told to those who name none.
    is_default: bool,
    /// Writes its lines, each with `\r\n` at its end.
    write: fn(&mut Server, &mut String),
}

/// All of them, in order.
const SECTIONS: &[Section] = &[
    Section { name: "server", title: "Server", is_default: true, write: server },
    Section { name: "clients", title: "Clients", is_default: true, write: clients },
    Section { name: "memory", title: "Memory", is_default: true, write: memory::info::section },
    Section { name: "persistence", title: "Persistence", is_default: true, write: persistence },
    Section { name: "stats", title: "Stats", is_default: true, write: stats },
    Section { name: "replication", title: "Replication", is_default: true, write: replication },
    Section { name: "cpu", title: "CPU", is_default: true, write: cpu },
    Section {
        name: "commandstats",
        title: "Commandstats",
        is_default: false,
        write: command_stats,
    },
    Section { name: "errorstats", title: "Errorstats", is_default: true, write: error_stats },
    Section { name: "cluster", title: "Cluster", is_default: true, write: cluster },
    Section { name: "keyspace", title: "Keyspace", is_default: true, write: keyspace },
];

/// The sections named, or the usual ones.
pub(crate) fn text(server: &mut Server, names: &[String]) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let is_wanted = match names {
            [] => section.is_default,
            names => names.iter().any(|name| match name.as_str() {
                "all" | "everything" => true,
                "default" => section.is_default,
                name => name == section.name,
            }),
        };
        if is_wanted {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            line(&mut text, format_args!("# {}", section.title));
            (section.write)(server, &mut text);
        }
    }
    text
}

/// One line.
pub(crate) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes all that is written.
    let _ = write!(text, "{line}\r\n");
}

/// One line `name:value`.
pub(crate) fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    line(text, format_args!("{name}:{value}"));
}

fn server(server: &mut Server, text: &mut String) {
    let up = server.started.elapsed().as_secs();
    field(text, "redis_version", REDIS_VERSION);
    field(text, "redis_mode", "standalone");
    field(text, "server_name", "tallow-keyspace");
    field(text, "keyspace_version", env!("CARGO_PKG_VERSION"));
    field(text, "os", std::env::consts::OS);
    field(text, "arch_bits", usize::BITS);
    field(text, "process_id", std::process::id());
    field(text, "run_id", &server.run_id);
    field(text, "tcp_port", server.port);
    field(text, "server_time_usec", server.clock.now_ms * 1000);
    field(text, "uptime_in_seconds", up);
    field(text, "uptime_in_days", up / 86_400);
    field(text, "hz", server.config.hz);
    let path = server.config.path.as_ref().map(|path| path.display().to_string());
    field(text, "config_file", path.unwrap_or_default());
}

fn clients(server: &mut Server, text: &mut String) {
    field(text, "connected_clients", server.clients.len());
    field(text, "cluster_connections", 0);
    field(text, "maxclients", server.config.maxclients);
    // Also of those to whom nothing has happened lately.
    for (_, client) in server.clients.iter() {
        server.recent_max.note(client, server.clock.now_ms);
    }
    let [largest_query, largest_output] = server.recent_max.largest(server.clock.now_ms);
    field(text, "client_recent_max_input_buffer", largest_query);
    field(text, "client_recent_max_output_buffer", largest_output);
    for name in ["blocked_clients", "tracking_clients", "clients_in_timeout_table"] {
        field(text, name, 0);
    }
    field(text, "pubsub_clients", server.pubsub.clients);
}

fn stats(server: &mut Server, text: &mut String) {
    let it = server.counters;
    field(text, "total_connections_received", it.connections_received);
    field(text, "total_commands_processed", it.commands_processed);
    let [ops, input, output] = server.pulse.rates.per_second();
    field(text, "instantaneous_ops_per_sec", ops.round());
    field(text, "total_net_input_bytes", it.net_input_bytes);
    field(text, "total_net_output_bytes", it.net_output_bytes);
    field(text, "instantaneous_input_kbps", format_args!("{:.2}", input / 1024.0));
    field(text, "instantaneous_output_kbps", format_args!("{:.2}", output / 1024.0));
    field(text, "rejected_connections", it.rejected_connections);
    field(text, "expired_keys", server.dbs.iter().map(|db| db.expired_keys).sum::<u64>());
    server.expire_cycle.write_fields(text);
    field(text, "evicted_keys", it.evicted_keys);
    field(text, "evicted_clients", it.evicted_clients);
    let (total, current) = server.maxmemory.exceeded_ms(server.clock.now_ms);
    field(text, "total_eviction_exceeded_time", total);
    field(text, "current_eviction_exceeded_time", current);
    field(text, "eviction_most_keys_per_turn", server.maxmemory.most_in_turn());
    let lookups = server.lookups();
    field(text, "keyspace_hits", lookups.hits);
    field(text, "keyspace_misses", lookups.misses);
    field(text, "pubsub_channels", server.pubsub.channels.len());
    field(text, "pubsub_patterns", server.pubsub.patterns.len());
    field(text, "total_error_replies", it.error_replies);
    field(text, "client_query_buffer_limit_disconnections", it.query_buffer_disconnections);
    field(text, "client_output_buffer_limit_disconnections", it.output_buffer_disconnections);
    server.defrag.write_fields(text);
}

/// Nothing is kept on disk. Clients ask whether data are still being loaded.
fn persistence(_: &mut Server, text: &mut String) {
    for name in ["loading", "rdb_bgsave_in_progress", "aof_enabled", "aof_rewrite_in_progress"] {
        field(text, name, 0);
    }
}

/// There is one server. Clients ask whether it takes writes.
fn replication(_: &mut Server, text: &mut String) {
    field(text, "role", "master");
    field(text, "connected_slaves", 0);
}

fn cpu(_: &mut Server, text: &mut String) {
    let (kernel, user) = memory::kernel::cpu_seconds();
    field(text, "used_cpu_sys", format_args!("{kernel:.6}"));
    field(text, "used_cpu_user", format_args!("{user:.6}"));
}

fn command_stats(server: &mut Server, text: &mut String) {
    for (name, stats) in server.commands.iter().filter(|(_, it)| it.calls + it.rejected > 0) {
        let usec = stats.nanos / 1000;
        let per_call = stats.nanos as f64 / 1000.0 / stats.calls.max(1) as f64;
        line(
            text,
            format_args!(
                "cmdstat_{name}:calls={},usec={usec},usec_per_call={per_call:.2},\
                 rejected_calls={},failed_calls={}",
                stats.calls, stats.rejected, stats.failed
            ),
        );
    }
}

/// Error replies by their codes.
fn error_stats(server: &mut Server, text: &mut String) {
    for (code, count) in &server.errors {
        line(text, format_args!("errorstat_{code}:count={count}"));
    }
}

/// Clients ask before they follow redirections.
fn cluster(_: &mut Server, text: &mut String) {
    field(text, "cluster_enabled", 0);
}

/// Keys that the mean of the times to live is taken of.
const TTL_SAMPLES: i64 = 32;

fn keyspace(server: &mut Server, text: &mut String) {
    let (now, mut seed) = (server.clock.now_ms, server.random());
    for (i, db) in server.dbs.iter().enumerate().filter(|(_, db)| db.len() > 0) {
        let (keys, expires) = (db.len(), db.with_expiry());
        let mut left_ms = || {
            let entry = db.random_expiring(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 16
            });
            let at = entry.and_then(|entry| entry.expires_at());
            at.map_or(0, |at| (at - now).max(0))
        };
        // In 128 bits: a time to live may be as long as 64 can say.
        let sum = (0..TTL_SAMPLES).map(|_| i128::from(left_ms())).sum::<i128>();
        let mean_ms = sum / i128::from(TTL_SAMPLES);
        line(text, format_args!("db{i}:keys={keys},expires={expires},avg_ttl={mean_ms}"));
    }
}
