//! How much memory is used now, for little: between two exact figures the accounts tell.
//!
//! Redis adds to a counter with each allocation and reads `used_memory` when it likes. Tallow keeps
//! no such sum; the exact figure is one over all size classes and threads, a microsecond or two: too
//! much for each command, and nothing [once a millisecond](Meter::is_fresh). In between, what has
//! come since is known from the accounts, which cost some loads each:
//!
//! - [`about_bytes`](Meter::about_bytes): by how much [those that can](accounts::volatile) have grown,
//!   as requested. It lacks the rounding up to size classes.
//! - [`most_bytes`](Meter::most_bytes): the same and more waste than there can be: of each block that
//!   was allocated since a quarter of what was asked for (a size class wastes up to a fifth of its
//!   blocks) and 15 bytes (small ones are 16 apart). All blocks count, not only those by which the
//!   accounts have grown: a string of 64 bytes that makes way for one of 65 takes 16 more.

use crate::gauge::Allocator;
use crate::server::accounts;
use crate::server::db::UnixMs;

/// An exact figure, and what the accounts said at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    exact_bytes: u64,
    at_ms: UnixMs,
    live_bytes: u64,
    asked_bytes: u64,
    allocations: u64,
}

impl Meter {
    /// `used_memory` was so much just now.
    pub(crate) fn at(exact_bytes: u64, now: UnixMs) -> Self {
        let mut it = Self { exact_bytes, at_ms: now, ..Self::default() };
        for account in accounts::volatile() {
            let stats = account.stats();
            it.live_bytes += stats.live_bytes;
            it.asked_bytes += stats.asked_bytes;
            it.allocations += stats.allocations;
        }
        it
    }

    /// Whether the exact figure is of this millisecond. Where the program's own allocations come
    /// from the C library it takes longer to ask for it: there it is of the last tick.
    #[inline]
    pub(crate) fn is_fresh(&self, allocator: Allocator, now: UnixMs) -> bool {
        match allocator {
            Allocator::Tallow => self.at_ms == now,
            Allocator::System => (0..super::pulse::EVERY_MS).contains(&(now - self.at_ms)),
        }
    }

    /// About what is used now.
    #[inline]
    pub(crate) fn about_bytes(&self) -> u64 {
        let live: u64 = accounts::volatile().iter().map(|account| account.live_bytes()).sum();
        (self.exact_bytes + live).saturating_sub(self.live_bytes)
    }

    /// What is used now at most.
    pub(crate) fn most_bytes(&self) -> u64 {
        let now = Self::at(self.exact_bytes, self.at_ms);
        let asked = now.asked_bytes.saturating_sub(self.asked_bytes);
        let allocations = now.allocations.saturating_sub(self.allocations);
        (self.exact_bytes + now.live_bytes).saturating_sub(self.live_bytes)
            + asked / 4
            + allocations * 15
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::server::accounts::{Block, Dataset, Output, block};
    use std::process::Command;

    /// Whether no other test runs in this process: accounts are the process's, and others use them. If
    /// not, `test` of `module` has been run in a process of its own, and all was well.
    pub(crate) fn is_alone(module: &str, test: &str) -> bool {
        const ALONE: &str = "KEYSPACE_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        // In the names of tests there is no crate.
        let (_, module) = module.split_once("::").expect("a module of the crate");
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .expect("it starts");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        false
    }

    /// What the program itself may use of accounts meanwhile.
    const NOISE_BYTES: u64 = 64 << 10;

    #[test]
    fn most_is_not_passed_by_small_blocks_nor_by_those_that_take_the_place_of_others() {
        const COUNT: usize = 1 << 20;
        const NAME: &str =
            "most_is_not_passed_by_small_blocks_nor_by_those_that_take_the_place_of_others";
        if !is_alone(module_path!(), NAME) {
            return;
        }
        let region = |bytes: usize| bytes.next_multiple_of(16) as u64 * COUNT as u64;
        let meter = Meter::at(1000, 0);
        let mut blocks: Vec<Block<Dataset>> = (0..COUNT).map(|_| block([&[0; 17]])).collect();
        let (about, most) = (meter.about_bytes(), meter.most_bytes());
        assert!(about.abs_diff(17 * COUNT as u64) < NOISE_BYTES, "{about}");
        assert!(most + NOISE_BYTES >= region(17), "{most}");
        blocks.iter_mut().for_each(|it| *it = block([&[0; 32]]));
        let meter = Meter::at(1000, 0);
        blocks.iter_mut().for_each(|it| *it = block([&[0; 33]]));
        let most = meter.most_bytes();
        assert!(most + NOISE_BYTES >= region(33) - region(32), "{most}");
    }

    #[test]
    fn what_comes_and_goes_is_in_it() {
        if !is_alone(module_path!(), "what_comes_and_goes_is_in_it") {
            return;
        }
        let meter = Meter::at(0, 0);
        let replies = block::<Output, 1>([&[0; 64 << 20]]);
        assert!(meter.about_bytes() > (64 << 20) - NOISE_BYTES);
        drop(replies);
        assert!(meter.about_bytes() < NOISE_BYTES);
    }
}
