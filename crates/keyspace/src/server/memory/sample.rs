//! All figures of memory in plain numbers, for INFO, MEMORY STATS and MEMORY DOCTOR.
//!
//! What Redis calls overhead is all that is not keys and values: what the server took at its start,
//! its clients, and the tables from which keys are found. Redis adds up estimates of those (clients
//! once a second, dictionaries by counts of buckets); here they are sums of accounts.

use super::books;
use super::pulse::Pulse;
use super::waste::Waste;
use crate::gauge::Allocator;
use crate::server::Server;
use crate::server::accounts::{Expiry, Tables, client_bytes};
use crate::server::net::client::Client;
use tallow::{ClassStats, Purpose};

/// What a key costs beside its bytes and its place in a table: the header of its block.
const KEY_HEADER_BYTES: u64 = 16;

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Whether the program's own allocations come from the C library.
    pub(crate) is_system: bool,
    /// `used_memory`: bytes of the blocks that the program holds.
    pub(crate) used_bytes: u64,
    /// What was read every 100 ms.
    pub(crate) pulse: Pulse,
    /// `used_memory` when the server was ready.
    pub(crate) startup_bytes: u64,
    /// All databases that have keys.
    pub(crate) dbs: Vec<DbSample>,
    /// Tables of all databases.
    pub(crate) tables_bytes: u64,
    /// Expiry indexes.
    pub(crate) expiry_bytes: u64,
    /// Connected clients.
    pub(crate) clients: u64,
    /// Their buffers and themselves.
    pub(crate) clients_bytes: u64,

    /// Tallow's figures; see [`tallow::Snapshot`].
    pub(crate) requested_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) dirty_bytes: u64,
    pub(crate) metadata_bytes: u64,
    pub(crate) retained_bytes: u64,
    pub(crate) punched_bytes: u64,
    pub(crate) evacuable_bytes: u64,
    pub(crate) large_bytes: u64,
    pub(crate) huge_bytes: u64,
    /// By size class.
    pub(crate) classes: Vec<ClassStats>,
    /// Which of these waste what, if it was looked for.
    pub(crate) waste: Waste,
    /// Requested bytes of each account.
    pub(crate) accounts: Vec<(&'static str, u64)>,
}

/// A database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DbSample {
    /// Its number.
    pub(crate) index: usize,
    /// Keys.
    pub(crate) keys: u64,
    /// Bytes of its table.
    pub(crate) table_bytes: u64,
    /// Its part of the expiry indexes, by keys.
    pub(crate) expiry_bytes: u64,
}

impl Sample {
    /// Of now. Some microseconds, and some more for large tables.
    pub(crate) fn now(server: &mut Server) -> Self {
        let stats = tallow::stats();
        let used_bytes = match server.allocator {
            Allocator::Tallow => stats.allocated_bytes,
            Allocator::System => super::pulse::used_bytes(server.allocator),
        };
        server.pulse.note_used(used_bytes, server.clock.now_ms);
        let live = |account: &'static tallow::Account| account.stats().live_bytes;
        let clients = server.clients.len() as u64;
        let clients_bytes = client_bytes() + clients * size_of::<Client>() as u64;
        let expiry_bytes = live(Expiry::account());
        let expires: u64 = server.dbs.iter().map(|db| db.with_expiry() as u64).sum();
        let dbs = server.dbs.iter().enumerate().filter(|(_, db)| db.len() > 0);
        let dbs = dbs.map(|(index, db)| DbSample {
            index,
            keys: db.len() as u64,
            table_bytes: db.table().table_bytes() as u64,
            expiry_bytes: expiry_bytes * db.with_expiry() as u64 / expires.max(1),
        });
        Self {
            is_system: server.allocator == Allocator::System,
            used_bytes,
            pulse: server.pulse,
            startup_bytes: server.startup_bytes,
            dbs: dbs.collect(),
            tables_bytes: live(Tables::account()),
            expiry_bytes,
            clients,
            clients_bytes,
            requested_bytes: stats.requested_bytes,
            allocated_bytes: stats.allocated_bytes,
            cached_bytes: stats.cached_bytes,
            dirty_bytes: stats.dirty_bytes,
            metadata_bytes: stats.metadata_bytes,
            retained_bytes: stats.retained_bytes,
            punched_bytes: stats.punched_bytes,
            evacuable_bytes: stats.evacuable_bytes(),
            large_bytes: stats.large_bytes,
            huge_bytes: stats.huge_bytes,
            classes: stats.classes.to_vec(),
            waste: Waste::default(),
            accounts: books::accounts(&stats.accounts),
        }
    }

    /// Keys of all databases.
    pub(crate) fn keys(&self) -> u64 {
        self.dbs.iter().map(|db| db.keys).sum()
    }

    /// All but keys and values.
    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.startup_bytes
            + self.clients_bytes
            + self.tables_bytes
            + self.expiry_bytes
            + self.keys() * KEY_HEADER_BYTES
    }

    /// Keys and values.
    pub(crate) fn dataset_bytes(&self) -> u64 {
        self.used_bytes.saturating_sub(self.overhead_bytes())
    }

    /// Those as a share of what is used beyond the start, in percent.
    pub(crate) fn dataset_percent(&self) -> f64 {
        let net = self.used_bytes.saturating_sub(self.startup_bytes).max(1);
        (self.dataset_bytes() as f64 * 100.0 / net as f64).min(100.0)
    }

    /// `used_memory` as a share of its peak, in percent.
    pub(crate) fn peak_percent(&self) -> f64 {
        self.used_bytes as f64 * 100.0 / self.pulse.peak.bytes.max(1) as f64
    }

    /// Allocated beyond what was requested.
    pub(crate) fn waste_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.requested_bytes)
    }

    /// Redis's ratios, each with its difference in bytes.
    pub(crate) fn ratios(&self) -> Ratios {
        let pulse = &self.pulse;
        let ratio = |a: u64, b: u64| Ratio {
            ratio: if b == 0 { 0.0 } else { a as f64 / b as f64 },
            bytes: a as i64 - b as i64,
        };
        Ratios {
            frag: Ratio {
                ratio: 1.0 + pulse.free_bytes as f64 / pulse.allocated_bytes.max(1) as f64,
                bytes: pulse.free_bytes as i64,
            },
            allocator_rss: ratio(pulse.resident_bytes, pulse.active_bytes),
            rss_overhead: ratio(pulse.rss_bytes, pulse.resident_bytes),
            fragmentation: ratio(pulse.rss_bytes, pulse.used_bytes),
        }
    }
}

/// A ratio and the difference of the same two numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ratio {
    /// The ratio.
    pub(crate) ratio: f64,
    /// The difference.
    pub(crate) bytes: i64,
}

/// What Redis divides by what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ratios {
    /// Free regions in slabs: 1 + free / allocated.
    pub(crate) frag: Ratio,
    /// Resident by active: free pages that were not given back.
    pub(crate) allocator_rss: Ratio,
    /// RSS by resident: what is not the allocator's. Below 1: pages that were never written.
    pub(crate) rss_overhead: Ratio,
    /// RSS by used: the one that people look at.
    pub(crate) fragmentation: Ratio,
}

/// Bytes as Redis writes them for people: `1.50M`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let texts = [1023, 1024, 1536 << 10, 5 << 30].map(human);
        assert_eq!(texts, ["1023B", "1.00K", "1.50M", "5.00G"]);
    }

    #[test]
    fn overhead_and_dataset_make_up_used() {
        let sample = Sample {
            used_bytes: 10_000,
            startup_bytes: 1000,
            clients_bytes: 500,
            tables_bytes: 300,
            expiry_bytes: 40,
            dbs: vec![DbSample { keys: 10, ..DbSample::default() }],
            ..Sample::default()
        };
        assert_eq!(sample.overhead_bytes(), 2000);
        assert_eq!(sample.overhead_bytes() + sample.dataset_bytes(), 10_000);
        assert!((sample.dataset_percent() - 8000.0 / 90.0).abs() < 1e-9);
        // More overhead than is used: estimates overlap on an empty server.
        let empty = Sample { used_bytes: 10, startup_bytes: 20, ..Sample::default() };
        assert_eq!((empty.dataset_bytes(), empty.dataset_percent()), (0, 0.0));
    }
}
