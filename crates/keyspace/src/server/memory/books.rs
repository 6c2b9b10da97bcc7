//! The sum: where every byte of RSS is.
//!
//! ```text
//!   accounts           what the server's data and buffers asked for, by purpose
//! + server             what it asked for without an account: by difference from requested
//! + waste              allocated - requested: requests rounded up to size classes
//! + cached             regions waiting in thread caches
//! + free in slabs      regions that nobody holds
//! + tails              what of slabs and large blocks is no region: rounding up to pages
//! + dirty              free pages that the system has not been given back
//! + metadata           Tallow's own
//! - absent in slabs    pages of slabs with no memory behind them: punched, never written, swapped
//! - absent elsewhere   dirty pages and metadata that Tallow must take for backed, and are not
//! + non-heap           program, libraries, stacks: by the kernel's list of mappings
//! = RSS                within 2 %, a test says so
//! ```
//! Redis compares RSS with what its allocator counts and calls the difference fragmentation, or
//! overhead. Here each line is counted by whoever knows it, and the sum is checked against the
//! kernel's. The absent pages of slabs are looked up one by one. One line is not counted by itself:
//! dirty pages without memory (what a slab that goes back had punched out, or never written) and
//! unwritten metadata (the part of a thread's record that its few blocks never reach) are on no
//! list, so the kernel's count for Tallow's mappings says how much of what Tallow holds outside of
//! slabs can be there at all. It can take up no more than dirty pages and metadata together; and what
//! it does take up, a mistake in another line with it, is held below 3 % by the same test, at each
//! stage of a churn.

use super::kernel::{self, Mappings};
use tallow::{AccountStats, SlabView, Snapshot};

/// Everything, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// RSS, counted page by page.
    pub(crate) rss_bytes: u64,
    /// Requested bytes of each account.
    pub(crate) accounts: Vec<(&'static str, u64)>,
    /// Requested without an account.
    pub(crate) server_bytes: u64,
    /// Allocated beyond what was requested.
    pub(crate) waste_bytes: u64,
    /// In thread caches.
    pub(crate) cached_bytes: u64,
    /// Free regions of slabs.
    pub(crate) free_bytes: u64,
    /// Pages beyond what is allocated on them.
    pub(crate) tail_bytes: u64,
    /// Free pages.
    pub(crate) dirty_bytes: u64,
    /// Tallow's own.
    pub(crate) metadata_bytes: u64,
    /// Pages of slabs without memory behind them.
    pub(crate) absent_bytes: u64,
    /// Dirty pages and metadata without memory behind them.
    pub(crate) absent_elsewhere_bytes: u64,
    /// What is not Tallow's, and how much of Tallow's is in huge pages.
    pub(crate) mappings: Mappings,
}

impl Books {
    /// Takes stock. Asks the kernel about every page: some milliseconds for each GiB.
    pub(crate) fn now() -> Self {
        // Whatever has to be allocated for this is, before the figures are taken: so everything is
        // done twice.
        let mut slabs = vec![SlabView::default(); tallow::slabs(&mut []) + 64];
        let mut stats = Box::new(tallow::stats());
        let mut reader = kernel::Reader::default();
        let (mut rss_bytes, mut absent) = (0, None);
        for _ in 0..2 {
            let count = tallow::slabs(&mut slabs).min(slabs.len());
            *stats = tallow::stats();
            rss_bytes = tallow::process().rss_bytes;
            absent = reader.absent_bytes(slabs[..count].iter().map(|slab| {
                let start = slab.start_address as u64;
                start..start + stats.classes[usize::from(slab.class)].slab_bytes
            }));
            reader.read_mappings();
        }
        let mappings = reader.mappings();
        let mut books = Self::of(&stats);
        books.rss_bytes = rss_bytes;
        books.absent_bytes = absent.unwrap_or(stats.punched_bytes);
        books.mappings = mappings;
        let in_slabs: u64 = stats.classes.iter().map(|class| class.slabs * class.slab_bytes).sum();
        let outside =
            stats.active_bytes + stats.punched_bytes + stats.dirty_bytes + stats.metadata_bytes
                - in_slabs.min(stats.active_bytes + stats.punched_bytes);
        let there = (mappings.tallow_bytes + books.absent_bytes).saturating_sub(in_slabs);
        books.absent_elsewhere_bytes =
            outside.saturating_sub(there).min(stats.dirty_bytes + stats.metadata_bytes);
        books
    }

    /// The allocator's part of them.
    pub(crate) fn of(stats: &Snapshot) -> Self {
        let accounts = accounts(&stats.accounts);
        let in_accounts: u64 = accounts.iter().map(|(_, bytes)| bytes).sum();
        let free = stats.classes.iter().map(|class| class.regions_free * class.region_bytes).sum();
        let on_pages = stats.allocated_bytes + stats.cached_bytes + free;
        Self {
            rss_bytes: 0,
            accounts,
            server_bytes: stats.requested_bytes.saturating_sub(in_accounts),
            waste_bytes: stats.allocated_bytes.saturating_sub(stats.requested_bytes),
            cached_bytes: stats.cached_bytes,
            free_bytes: free,
            tail_bytes: (stats.active_bytes + stats.punched_bytes).saturating_sub(on_pages),
            dirty_bytes: stats.dirty_bytes,
            metadata_bytes: stats.metadata_bytes,
            absent_bytes: stats.punched_bytes,
            absent_elsewhere_bytes: 0,
            mappings: Mappings::default(),
        }
    }

    /// All lines with their names, in order; those to be subtracted are negative.
    pub(crate) fn lines(&self) -> Vec<(String, i64)> {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut lines: Vec<(String, i64)> = self
            .accounts
            .iter()
            .map(|(name, bytes)| (format!("account.{}", word(name)), signed(*bytes)))
            .collect();
        let rest = [
            ("account.server", signed(self.server_bytes)),
            ("waste", signed(self.waste_bytes)),
            ("cached", signed(self.cached_bytes)),
            ("free_in_slabs", signed(self.free_bytes)),
            ("tails", signed(self.tail_bytes)),
            ("dirty", signed(self.dirty_bytes)),
            ("metadata", signed(self.metadata_bytes)),
            ("absent_in_slabs", -signed(self.absent_bytes)),
            ("absent_elsewhere", -signed(self.absent_elsewhere_bytes)),
            ("program", signed(self.mappings.file_bytes)),
            ("stack", signed(self.mappings.stack_bytes)),
            ("other", signed(self.mappings.other_bytes)),
        ];
        lines.extend(rest.map(|(name, bytes)| (name.to_owned(), bytes)));
        lines
    }

    /// What it all comes to: RSS, if the books are right.
    pub(crate) fn sum_bytes(&self) -> u64 {
        self.lines().iter().map(|(_, bytes)| bytes).sum::<i64>().max(0) as u64
    }
}

/// The accounts that have been used, by name.
pub(crate) fn accounts(stats: &[AccountStats]) -> Vec<(&'static str, u64)> {
    let mut accounts: Vec<_> = stats.iter().map(|it| (it.name, it.live_bytes)).collect();
    accounts.sort_unstable();
    accounts
}

/// An account's name as one word of a field's name.
pub(crate) fn word(name: &str) -> String {
    let words: Vec<&str> = name.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_lines_make_up_active_and_more() {
        // While other tests allocate, the figures are not all of one moment: one will be quiet.
        let start = Instant::now();
        let is_balanced = || {
            let stats = tallow::stats();
            let resident = stats.active_bytes + stats.dirty_bytes + stats.metadata_bytes;
            Books::of(&stats).sum_bytes() == resident
        };
        while !is_balanced() {
            let late = start.elapsed() > Duration::from_secs(120);
            assert!(!late, "{:#?}", Books::of(&tallow::stats()));
        }
        assert_eq!(word("output buffers, normal"), "output_buffers_normal");
    }
}
