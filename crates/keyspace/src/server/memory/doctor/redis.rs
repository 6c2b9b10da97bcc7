//! The rules that Redis has, with its thresholds.

use super::MUCH_BYTES;
use crate::server::memory::sample::{Ratio, Sample, human};
use tallow::Process;

/// The peak by what is used now.
const PEAK_RATIO: f64 = 1.5;
/// RSS by what is used.
const FRAGMENTATION_RATIO: f64 = 1.4;
/// The other ratios.
const RATIO: f64 = 1.1;
/// Buffers of a client, on average.
const CLIENT_BYTES: u64 = 200 * 1024;

fn is_high(it: Ratio, ratio: f64) -> bool {
    it.ratio > ratio && it.bytes > MUCH_BYTES as i64
}

fn bytes(it: Ratio) -> String {
    human(it.bytes.max(0) as u64)
}

/// Much less is used than was once.
pub(super) fn peak(sample: &Sample, _: &Process) -> Option<String> {
    let ratio = sample.pulse.peak.bytes as f64 / sample.used_bytes.max(1) as f64;
    (ratio > PEAK_RATIO).then(|| {
        format!(
            "at its peak this instance used {ratio:.1} times what it uses now. Free pages go back \
             to the system by themselves within 10 seconds; what stays lies between live blocks. \
             If mem_fragmentation_ratio ({:.2}) is high too, set activedefrag to yes.",
            sample.ratios().fragmentation.ratio
        )
    })
}

/// RSS is much more than what is used.
pub(super) fn fragmentation(sample: &Sample, _: &Process) -> Option<String> {
    let it = sample.ratios().fragmentation;
    is_high(it, FRAGMENTATION_RATIO).then(|| {
        format!(
            "RSS is {:.2} times used_memory, {} more. The sum in MEMORY MALLOC-STATS says where it \
             is; the other advice here, what to do about it.",
            it.ratio,
            bytes(it)
        )
    })
}

/// Free regions between live ones.
pub(super) fn allocator_fragmentation(sample: &Sample, _: &Process) -> Option<String> {
    let it = sample.ratios().frag;
    is_high(it, RATIO).then(|| {
        format!(
            "{} are free in slabs between live blocks ({:.2} times what is allocated). New blocks \
             of the same sizes will fill them; set activedefrag to yes to have them emptied.",
            bytes(it),
            it.ratio
        )
    })
}

/// Free pages that were not given back.
pub(super) fn allocator_rss(sample: &Sample, _: &Process) -> Option<String> {
    let it = sample.ratios().allocator_rss;
    is_high(it, RATIO).then(|| {
        format!(
            "{} are free pages, or the allocator's own. They go back to the system by themselves \
             within 10 seconds; MEMORY PURGE gives them back now.",
            bytes(it)
        )
    })
}

/// RSS that is not the allocator's.
pub(super) fn rss_overhead(sample: &Sample, _: &Process) -> Option<String> {
    let it = sample.ratios().rss_overhead;
    is_high(it, RATIO).then(|| {
        format!(
            "{} of RSS are not the allocator's: see the lines program, stack and other in MEMORY \
             MALLOC-STATS.",
            bytes(it)
        )
    })
}

/// Clients' buffers are large.
pub(super) fn clients(sample: &Sample, _: &Process) -> Option<String> {
    let mean = sample.clients_bytes / sample.clients.max(1);
    (sample.clients > 0 && mean > CLIENT_BYTES).then(|| {
        format!(
            "a client takes {} on average. CLIENT LIST shows which (tot-mem); \
             client-output-buffer-limit and maxmemory-clients set bounds.",
            human(mean)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;

    /// What a rule finds in a sample made by `make`.
    fn finds(
        rule: fn(&Sample, &Process) -> Option<String>,
        make: impl FnOnce(&mut Sample),
    ) -> bool {
        let mut sample = Sample { used_bytes: 100 << 20, ..Sample::default() };
        sample.pulse.used_bytes = 100 << 20;
        sample.pulse.allocated_bytes = 100 << 20;
        make(&mut sample);
        rule(&sample, &healthy()).is_some()
    }

    #[test]
    fn peaks() {
        assert!(!finds(peak, |it| it.pulse.peak.bytes = 150 << 20));
        assert!(finds(peak, |it| it.pulse.peak.bytes = (150 << 20) + 1));
    }

    #[test]
    fn high_rss() {
        assert!(!finds(fragmentation, |it| it.pulse.rss_bytes = 140 << 20));
        assert!(finds(fragmentation, |it| it.pulse.rss_bytes = (140 << 20) + 1));
        // A high ratio of little is nothing.
        let little = |rss: u64| {
            move |it: &mut Sample| (it.pulse.used_bytes, it.pulse.rss_bytes) = (10 << 20, rss)
        };
        assert!(!finds(fragmentation, little(20 << 20)));
        assert!(finds(fragmentation, little((20 << 20) + 1)));
    }

    #[test]
    fn free_regions() {
        assert!(!finds(allocator_fragmentation, |it| it.pulse.free_bytes = 10 << 20));
        assert!(finds(allocator_fragmentation, |it| it.pulse.free_bytes = (10 << 20) + 10));
        assert!(!finds(allocator_fragmentation, |it| {
            (it.pulse.free_bytes, it.pulse.allocated_bytes) = (20 << 20, 200 << 20);
        }));
    }

    #[test]
    fn free_pages() {
        let with = |resident: u64| {
            move |it: &mut Sample| {
                (it.pulse.active_bytes, it.pulse.resident_bytes) = (100 << 20, resident);
            }
        };
        assert!(!finds(allocator_rss, with(110 << 20)));
        assert!(finds(allocator_rss, with((110 << 20) + 10)));
    }

    #[test]
    fn what_is_not_the_allocators() {
        let with = |rss: u64| {
            move |it: &mut Sample| {
                (it.pulse.resident_bytes, it.pulse.rss_bytes) = (100 << 20, rss);
            }
        };
        assert!(!finds(rss_overhead, with(110 << 20)));
        assert!(finds(rss_overhead, with((110 << 20) + 10)));
    }

    #[test]
    fn large_clients() {
        let with = |clients: u64, bytes: u64| {
            move |it: &mut Sample| (it.clients, it.clients_bytes) = (clients, bytes)
        };
        assert!(!finds(clients, with(2, 2 * CLIENT_BYTES)));
        assert!(finds(clients, with(2, 2 * CLIENT_BYTES + 2)));
        assert!(!finds(clients, with(0, 1 << 30)));
    }
}
