//! The state for Prometheus: `/metrics`, in OpenMetrics text.

use super::state::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The type that goes with the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Figure = (&'static str, &'static str, fn(&State) -> u64);

const GAUGES: &[Figure] = &[
    ("memory_used_bytes", "Allocated by the program", |s| s.memory.used_bytes),
    ("memory_requested_bytes", "Asked for by the program", |s| s.memory.requested_bytes),
    ("memory_rss_bytes", "Resident by the kernel's count", |s| s.memory.rss_bytes),
    ("memory_max_bytes", "maxmemory, 0 for none", |s| s.server.max_memory_bytes),
    ("memory_cached_bytes", "In thread caches", |s| s.memory.cached_bytes),
    ("memory_free_bytes", "In slabs, allocated to nobody", |s| s.memory.free_bytes),
    ("memory_dirty_bytes", "Free pages not given back yet", |s| s.memory.dirty_bytes),
    ("memory_metadata_bytes", "The allocator's own", |s| s.memory.metadata_bytes),
    ("memory_evacuable_bytes", "What a defrag pass would release", |s| s.memory.evacuable_bytes),
    ("keys", "Keys of all databases", |s| s.server.keys),
    ("keys_with_expiry", "Keys that expire", |s| s.server.keys_with_expiry),
    ("clients", "Connected clients", |s| s.server.clients),
];

const COUNTERS: &[Figure] = &[
    ("commands", "Commands executed", |s| s.server.commands),
    ("connections", "Connections accepted", |s| s.server.connections),
    ("expired_keys", "Keys removed at their time", |s| s.server.expired_keys),
    ("evicted_keys", "Keys given up for want of memory", |s| s.server.evicted_keys),
    ("evicted_clients", "Clients cut off for want of memory", |s| s.server.evicted_clients),
    ("keyspace_hits", "Lookups that found a key", |s| s.server.keyspace_hits),
    ("keyspace_misses", "Lookups that found none", |s| s.server.keyspace_misses),
    ("net_input_bytes", "Read from clients", |s| s.server.net_input_bytes),
    ("net_output_bytes", "Sent to clients", |s| s.server.net_output_bytes),
    ("defrag_moved_bytes", "Moved by defragmentation", |s| s.defrag.moved_bytes),
    ("defrag_released_bytes", "Emptied by defragmentation", |s| s.defrag.released_bytes),
];

/// A state on its way out.
#[derive(Debug)]
struct Out(Arc<State>);

impl Collector for Out {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        for (name, help, figure) in GAUGES {
            let gauge = ConstGauge::new(figure(&self.0) as i64);
            gauge.encode(to.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, figure) in COUNTERS {
            let counter = ConstCounter::new(figure(&self.0));
            counter.encode(to.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let kind = ConstGauge::new(0i64);
        let mut all = to.encode_descriptor(
            "account_live_bytes",
            "Requested bytes by purpose",
            None,
            kind.metric_type(),
        )?;
        let server = [("server", self.0.memory.server_bytes)];
        let accounts = self.0.accounts.iter().map(|it| (it.name, it.live_bytes));
        for (name, bytes) in accounts.chain(server) {
            let label = [("account", name)];
            ConstGauge::new(bytes as i64).encode(all.encode_family(&label)?)?;
        }
        Ok(())
    }
}

/// The text.
pub(super) fn text(state: Arc<State>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("keyspace");
    registry.register_collector(Box::new(Out(state)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}
