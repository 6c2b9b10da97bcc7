//! INFO memory: Redis's fields with Redis's meaning, and Tallow's own.
//!
//! Fields of what is not there (scripts, replication, the append-only file) are 0, as they are in a
//! Redis that does not use it: clients look for them. `allocator_*` and what is made of RSS are
//! those of the last reading ([`pulse`](super::pulse)); `used_memory` and Tallow's own are of now.

use super::books::word;
use super::kernel;
use super::sample::{Ratio, Sample, human};
use crate::server::Server;
use crate::server::info::field;

/// What CONFIG and INFO call the allocator.
pub(crate) fn allocator_name(sample: &Sample) -> &'static str {
    match sample.is_system {
        true => concat!("libc+tallow-", env!("CARGO_PKG_VERSION")),
        false => concat!("tallow-", env!("CARGO_PKG_VERSION")),
    }
}

/// Writes the section.
pub(crate) fn section(server: &mut Server, text: &mut String) {
    let sample = Sample::now(server);
    used(&sample, text);
    allocator(&sample, text);
    absent_parts(server, text);
    ratios(&sample, text);
    clients_and_rest(server, &sample, text);
    tallow(&sample, text);
}

fn both(text: &mut String, name: &str, bytes: u64) {
    field(text, name, bytes);
    field(text, &format!("{name}_human"), human(bytes));
}

fn used(sample: &Sample, text: &mut String) {
    both(text, "used_memory", sample.used_bytes);
    both(text, "used_memory_rss", sample.pulse.rss_bytes);
    both(text, "used_memory_peak", sample.pulse.peak.bytes);
    field(text, "used_memory_peak_time", sample.pulse.peak.at_ms / 1000);
    field(text, "used_memory_peak_perc", format_args!("{:.2}%", sample.peak_percent()));
    field(text, "used_memory_overhead", sample.overhead_bytes());
    field(text, "used_memory_startup", sample.startup_bytes);
    field(text, "used_memory_dataset", sample.dataset_bytes());
    field(text, "used_memory_dataset_perc", format_args!("{:.2}%", sample.dataset_percent()));
}

fn allocator(sample: &Sample, text: &mut String) {
    field(text, "allocator_allocated", sample.pulse.allocated_bytes);
    field(text, "allocator_active", sample.pulse.active_bytes);
    field(text, "allocator_resident", sample.pulse.resident_bytes);
    // Pages that the system may take when it needs them: Tallow gives them back for good.
    field(text, "allocator_muzzy", 0);
    both(text, "total_system_memory", kernel::total_system_bytes());
}

/// Scripts and functions, and the limit.
fn absent_parts(server: &mut Server, text: &mut String) {
    for name in ["used_memory_lua", "used_memory_vm_eval"] {
        field(text, name, 0);
    }
    field(text, "used_memory_lua_human", human(0));
    for name in [
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "used_memory_vm_functions",
    ] {
        field(text, name, 0);
    }
    both(text, "used_memory_vm_total", 0);
    field(text, "used_memory_functions", 0);
    both(text, "used_memory_scripts", 0);
    both(text, "maxmemory", server.config.maxmemory);
    let policy = crate::server::config::params::Param::find("maxmemory-policy");
    let policy = policy.map(|param| param.field.get(&mut server.config));
    field(text, "maxmemory_policy", policy.unwrap_or_default());
}

fn ratios(sample: &Sample, text: &mut String) {
    let all = sample.ratios();
    let mut pair = |name: &str, it: Ratio| {
        field(text, &format!("{name}_ratio"), format_args!("{:.2}", it.ratio));
        field(text, &format!("{name}_bytes"), it.bytes);
    };
    pair("allocator_frag", all.frag);
    pair("allocator_rss", all.allocator_rss);
    pair("rss_overhead", all.rss_overhead);
    pair("mem_fragmentation", all.fragmentation);
}

fn clients_and_rest(server: &Server, sample: &Sample, text: &mut String) {
    for name in [
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_replicas_repl_buffer",
        "mem_clients_slaves",
    ] {
        field(text, name, 0);
    }
    field(text, "mem_clients_normal", sample.clients_bytes);
    for name in [
        "mem_cluster_links",
        "mem_cluster_slot_import",
        "mem_cluster_slot_export",
        "mem_aof_buffer",
    ] {
        field(text, name, 0);
    }
    field(text, "mem_allocator", allocator_name(sample));
    // Tables grow shard by shard: there is never a second one.
    field(text, "mem_overhead_db_hashtable_rehashing", 0);
    field(text, "active_defrag_running", server.defrag.running_percent());
    field(text, "lazyfree_pending_objects", server.lazyfree.pending_objects());
    field(text, "lazyfreed_objects", server.lazyfree.freed_objects());
}

/// What only Tallow knows. The whole sum is in MEMORY STATS and MALLOC-STATS.
fn tallow(sample: &Sample, text: &mut String) {
    for (name, bytes) in [
        ("tallow_requested", sample.requested_bytes),
        ("tallow_allocated", sample.allocated_bytes),
        ("tallow_waste", sample.waste_bytes()),
        ("tallow_cached", sample.cached_bytes),
        ("tallow_dirty", sample.dirty_bytes),
        ("tallow_metadata", sample.metadata_bytes),
        ("tallow_punched", sample.punched_bytes),
        ("tallow_evacuable", sample.evacuable_bytes),
        ("tallow_retained", sample.retained_bytes),
        ("tallow_large", sample.large_bytes),
        ("tallow_huge", sample.huge_bytes),
    ] {
        field(text, name, bytes);
    }
    let mut server_bytes = sample.requested_bytes;
    for (name, bytes) in &sample.accounts {
        field(text, &format!("tallow_account_{}", word(name)), bytes);
        server_bytes = server_bytes.saturating_sub(*bytes);
    }
    field(text, "tallow_account_server", server_bytes);
}
