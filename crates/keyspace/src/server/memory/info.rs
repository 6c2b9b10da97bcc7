//! INFO memory: Redis's fields with Redis's meaning, and a line for each account.

use crate::server::Server;
use crate::server::info::field;

/// Writes the section.
pub(crate) fn section(server: &mut Server, text: &mut String) {
    let (stats, process) = (tallow::stats(), tallow::process());
    field(text, "used_memory", stats.allocated_bytes);
    field(text, "used_memory_rss", process.rss_bytes);
    field(text, "used_memory_startup", server.startup_bytes);
    field(text, "allocator_allocated", stats.allocated_bytes);
    field(text, "allocator_active", stats.active_bytes);
    field(text, "allocator_resident", stats.resident_bytes);
    field(text, "maxmemory", server.config.maxmemory);
    field(
        text,
        "mem_fragmentation_ratio",
        format_args!("{:.2}", process.fragmentation_ratio(stats.allocated_bytes)),
    );
    field(text, "mem_allocator", concat!("tallow-", env!("CARGO_PKG_VERSION")));
    field(text, "lazyfree_pending_objects", server.lazyfree.pending_objects());
    field(text, "lazyfreed_objects", server.lazyfree.freed_objects());
    for account in tallow::accounts() {
        let name = account.name.replace([' ', ','], "_").replace("__", "_");
        field(text, &format!("account_{name}_bytes"), account.live_bytes);
    }
}
