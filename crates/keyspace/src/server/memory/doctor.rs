//! MEMORY DOCTOR: what is wrong with the memory, and what to do about it.
//!
//! Each rule is a function of the figures: it says nothing, or a sentence with numbers and an
//! advice. [`redis`] has the rules that Redis has, with its thresholds; [`own`] those that need to
//! know more than Redis can: which size class wastes what, what a pass of defragmentation would gain
//! before it is run, which size of value would fit better.

mod own;
mod redis;

use super::sample::Sample;
use tallow::Process;

/// Below this there is nothing to be said.
const EMPTY_BYTES: u64 = 5 << 20;
/// What is worth an advice.
const MUCH_BYTES: u64 = 10 << 20;

/// A rule: its title, and what it finds.
type Rule = (&'static str, fn(&Sample, &Process) -> Option<String>);

/// All rules, the most telling first.
const RULES: &[Rule] = &[
    ("Swap", own::swap),
    ("Peak memory", redis::peak),
    ("High total RSS", redis::fragmentation),
    ("High allocator fragmentation", redis::allocator_fragmentation),
    ("Defragmentation", own::defragmentation),
    ("Wasteful size class", own::class),
    ("Align your data", own::alignment),
    ("High allocator RSS overhead", redis::allocator_rss),
    ("High process RSS overhead", redis::rss_overhead),
    ("Big client buffers", redis::clients),
    ("Buffers out of proportion", own::buffers),
    ("Tables out of proportion", own::tables),
    ("Transparent huge pages", own::huge_pages),
    ("Overcommit", own::overcommit),
];

/// The text.
pub(crate) fn report(sample: &Sample, process: &Process) -> String {
    if sample.used_bytes < EMPTY_BYTES {
        return "This instance is empty or uses very little memory: come back when it has been \
                filled.\n"
            .to_owned();
    }
    let findings: Vec<String> = RULES
        .iter()
        .filter_map(|(title, rule)| Some(format!(" * {title}: {}\n", rule(sample, process)?)))
        .collect();
    match findings.is_empty() {
        true => "There is nothing wrong with the memory of this instance.\n".to_owned(),
        false => format!("This instance's memory could be better:\n\n{}", findings.join("\n")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the kernel says of a machine without faults.
    pub(crate) fn healthy() -> Process {
        let mut process = tallow::process();
        process.swap_bytes = 0;
        process.thp = tallow::Thp::Madvise;
        process.overcommit = tallow::Overcommit::Always;
        process
    }

    #[test]
    fn little_is_not_judged_and_health_is_said() {
        let mut sample = Sample { used_bytes: EMPTY_BYTES - 1, ..Sample::default() };
        assert!(report(&sample, &healthy()).contains("empty"));
        sample.used_bytes = EMPTY_BYTES;
        sample.pulse.peak.bytes = EMPTY_BYTES;
        assert!(report(&sample, &healthy()).contains("nothing wrong"));
        sample.pulse.peak.bytes = EMPTY_BYTES * 2;
        let text = report(&sample, &healthy());
        assert!(text.contains(" * Peak memory: ") && text.lines().count() == 3, "{text}");
    }
}
