//! Everything that the page shows, for one moment: `/api/state`, and `/metrics` in other words.

use super::heat::{self, Row};
use super::link::Facts;
use serde::Serialize;

/// The state.
#[derive(Debug, Serialize)]
pub(super) struct State {
    pub(super) version: &'static str,
    pub(super) server: Facts,
    pub(super) memory: Memory,
    pub(super) defrag: Defrag,
    /// Live bytes of each account.
    pub(super) accounts: Vec<Account>,
    pub(super) heat: Vec<Row>,
}

/// Where the memory is. Stacked: accounts, `server`, `waste`, `cached`, `free`, `dirty`, `metadata`.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) used_bytes: u64,
    pub(super) requested_bytes: u64,
    pub(super) rss_bytes: u64,
    pub(super) peak_rss_bytes: u64,
    pub(super) resident_bytes: u64,
    /// RSS / used.
    pub(super) fragmentation_ratio: f64,
    /// Requested without an account; this page's thread is in it.
    pub(super) server_bytes: u64,
    /// Allocated beyond what was requested.
    pub(super) waste_bytes: u64,
    pub(super) cached_bytes: u64,
    /// In slabs and runs, but allocated to nobody.
    pub(super) free_bytes: u64,
    pub(super) dirty_bytes: u64,
    pub(super) metadata_bytes: u64,
    pub(super) punched_bytes: u64,
    /// What a pass of defragmentation would release.
    pub(super) evacuable_bytes: u64,
}

/// What defragmentation has done since the start.
#[derive(Debug, Serialize)]
pub(super) struct Defrag {
    pub(super) passes: u64,
    pub(super) moved: u64,
    pub(super) moved_bytes: u64,
    pub(super) released_bytes: u64,
    /// Together with the uptime: the share of one processor that it takes.
    pub(super) time_ns: u64,
    pub(super) longest_step_ns: u64,
}

/// An account.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    pub(super) name: &'static str,
    pub(super) live_bytes: u64,
    pub(super) live_count: u64,
    pub(super) peak_bytes: u64,
}

impl State {
    /// Now, with what the event loop has said.
    pub(super) fn now(server: Facts) -> Self {
        let (stats, process) = (tallow::stats(), tallow::process());
        let account = |it: tallow::AccountStats| Account {
            name: it.name,
            live_bytes: it.live_bytes,
            live_count: it.live_count,
            peak_bytes: it.peak_bytes,
        };
        let accounts: Vec<_> = tallow::accounts().map(account).collect();
        let in_accounts: u64 = accounts.iter().map(|it| it.live_bytes).sum();
        let taken_bytes = stats.allocated_bytes + stats.cached_bytes;
        let memory = Memory {
            used_bytes: stats.allocated_bytes,
            requested_bytes: stats.requested_bytes,
            rss_bytes: process.rss_bytes,
            peak_rss_bytes: process.peak_rss_bytes,
            resident_bytes: stats.resident_bytes,
            fragmentation_ratio: process.fragmentation_ratio(stats.allocated_bytes),
            server_bytes: stats.requested_bytes.saturating_sub(in_accounts),
            waste_bytes: stats.allocated_bytes.saturating_sub(stats.requested_bytes),
            cached_bytes: stats.cached_bytes,
            free_bytes: stats.active_bytes.saturating_sub(taken_bytes),
            dirty_bytes: stats.dirty_bytes,
            metadata_bytes: stats.metadata_bytes,
            punched_bytes: stats.punched_bytes,
            evacuable_bytes: stats.evacuable_bytes(),
        };
        let defrag = Defrag {
            passes: stats.defrag.passes,
            moved: stats.defrag.hits,
            moved_bytes: stats.defrag.moved_bytes,
            released_bytes: stats.defrag.released_bytes,
            time_ns: stats.defrag.time_ns,
            longest_step_ns: stats.defrag.longest_step_ns,
        };
        let version = env!("CARGO_PKG_VERSION");
        Self { version, server, memory, defrag, accounts, heat: heat::now() }
    }
}
