//! MEMORY STATS and MEMORY MALLOC-STATS.
//!
//! STATS is Redis's map, entry by entry, with Tallow's behind it: `tallow.sum`, the lines whose sum
//! is RSS. MALLOC-STATS is for people: the same sum, and Tallow's own tables.

use super::books::Books;
use super::sample::{DbSample, Sample, human};
use crate::server::resp::Reply;
use std::fmt::Write;

/// A value of the map.
enum Value {
    Int(i64),
    Double(f64),
    Map(Vec<(String, i64)>),
}

/// Writes the map.
pub(crate) fn write(sample: &Sample, books: &Books, reply: &mut Reply) {
    let entries = entries(sample, books);
    reply.map(entries.len());
    for (name, value) in entries {
        reply.text(&name);
        match value {
            Value::Int(number) => reply.int(number),
            Value::Double(number) => reply.double(number),
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (name, number) in pairs {
                    reply.text(&name);
                    reply.int(number);
                }
            }
        }
    }
}

fn entries(sample: &Sample, books: &Books) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let int = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut add = |name: &str, value: Value| all.push((name.to_owned(), value));
    add("peak.allocated", int(sample.pulse.peak.bytes));
    add("total.allocated", int(sample.used_bytes));
    add("startup.allocated", int(sample.startup_bytes));
    // There is no replication, no cluster, no append-only file and no scripting.
    for name in ["replication.backlog", "replicas.repl.buffer", "clients.slaves"] {
        add(name, int(0));
    }
    add("clients.normal", int(sample.clients_bytes));
    for name in [
        "cluster.links",
        "cluster.slot_import",
        "cluster.slot_export",
        "aof.buffer",
        "lua.caches",
        "functions.caches",
    ] {
        add(name, int(0));
    }
    for db in &sample.dbs {
        add(&format!("db.{}", db.index), Value::Map(db_entries(db)));
    }
    add("overhead.db.hashtable.lut", int(sample.tables_bytes));
    // Tables grow shard by shard: nothing is ever being rehashed.
    add("overhead.db.hashtable.rehashing", int(0));
    add("overhead.total", int(sample.overhead_bytes()));
    add("db.dict.rehashing.count", int(0));
    add("keys.count", int(sample.keys()));
    // Of the dataset, as from Redis 7.4 on; before, overhead of tables and clients was in it.
    let bytes_per_key = sample.dataset_bytes().checked_div(sample.keys());
    add("keys.bytes-per-key", int(bytes_per_key.unwrap_or(0)));
    add("dataset.bytes", int(sample.dataset_bytes()));
    add("dataset.percentage", Value::Double(sample.dataset_percent()));
    add("peak.percentage", Value::Double(sample.peak_percent()));
    add("allocator.allocated", int(sample.pulse.allocated_bytes));
    add("allocator.active", int(sample.pulse.active_bytes));
    add("allocator.resident", int(sample.pulse.resident_bytes));
    add("allocator.muzzy", int(0));
    let ratios = sample.ratios();
    for (name, it, between) in [
        ("allocator-fragmentation", ratios.frag, "ratio"),
        ("allocator-rss", ratios.allocator_rss, "ratio"),
        ("rss-overhead", ratios.rss_overhead, "ratio"),
        ("fragmentation", ratios.fragmentation, ""),
    ] {
        let name_of_ratio =
            if between.is_empty() { name.to_owned() } else { format!("{name}.{between}") };
        add(&name_of_ratio, Value::Double(it.ratio));
        add(&format!("{name}.bytes"), Value::Int(it.bytes));
    }
    tallow_entries(sample, books, &mut add);
    all
}

fn db_entries(db: &DbSample) -> Vec<(String, i64)> {
    [("overhead.hashtable.main", db.table_bytes), ("overhead.hashtable.expires", db.expiry_bytes)]
        .map(|(name, bytes)| (name.to_owned(), bytes as i64))
        .to_vec()
}

fn tallow_entries(sample: &Sample, books: &Books, add: &mut impl FnMut(&str, Value)) {
    let int = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    add("tallow.requested", int(sample.requested_bytes));
    add("tallow.punched", int(sample.punched_bytes));
    add("tallow.evacuable", int(sample.evacuable_bytes));
    add("tallow.huge-pages", int(books.mappings.huge_page_bytes));
    add("tallow.sum", Value::Map(books.lines()));
    add("tallow.sum.total", int(books.sum_bytes()));
    add("tallow.sum.rss", int(books.rss_bytes));
}

/// The text of MALLOC-STATS.
pub(crate) fn malloc_stats(sample: &Sample, books: &Books) -> String {
    let mut text = String::new();
    if sample.is_system {
        text.push_str(
            "The program's own allocations come from the C library, which keeps no tables.\n\
             What is in accounts (keys, values, tables, buffers) is Tallow's in any case:\n\n",
        );
    }
    text.push_str("Where every byte of RSS is\n");
    for (name, bytes) in books.lines() {
        let sign = if bytes < 0 { "-" } else { "" };
        // A string takes all that is written.
        let _ = writeln!(text, "{name:<32} {sign}{:>10}", human(bytes.unsigned_abs()));
    }
    let _ = writeln!(text, "{:<32} {:>10}", "sum", human(books.sum_bytes()));
    let _ = writeln!(text, "{:<32} {:>10}", "RSS", human(books.rss_bytes));
    let huge = human(books.mappings.huge_page_bytes);
    let _ = writeln!(text, "{:<32} {huge:>10}\n", "(of it in huge pages)");
    let _ = writeln!(text, "{}\n{}", tallow::stats(), tallow::process());
    text
}
