//! The rules that need to know what only the allocator knows, or ask the kernel.

use super::MUCH_BYTES;
use crate::server::memory::sample::{Sample, human};
use tallow::{ClassStats, Overcommit, Process, Thp};

/// Swapped out: less is what was not used since the start.
const SWAP_BYTES: u64 = 1 << 20;
/// What a pass of defragmentation must gain, as a share of what is allocated.
const GAIN_SHARE: f64 = 0.05;
/// Below this share of live regions, a size class is wasteful.
const CLASS_USE: f64 = 0.8;
/// Rounding up to size classes, as a share of what is allocated.
const WASTE_SHARE: f64 = 0.05;
/// A class is named if so much of the waste is its.
const NAMED_SHARE: f64 = 0.1;
/// So many size classes are told of.
const MOST_CLASSES: usize = 3;
/// Buffers as a share of what is used.
const BUFFERS_SHARE: f64 = 0.2;
/// Tables and expiry index by keys and values.
const TABLES_SHARE: f64 = 0.5;
/// What precedes a key in its block.
const HEADER_BYTES: u64 = 16;

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Part of the process is on the disk.
pub(super) fn swap(_: &Sample, process: &Process) -> Option<String> {
    (process.swap_bytes > SWAP_BYTES).then(|| {
        format!(
            "{} of this process are swapped out, so some requests wait for the disk. Give the \
             machine more memory, or lower maxmemory.",
            human(process.swap_bytes)
        )
    })
}

/// What a pass would gain.
pub(super) fn defragmentation(sample: &Sample, _: &Process) -> Option<String> {
    let gain = sample.evacuable_bytes;
    let is_worth_it = gain > MUCH_BYTES && share(gain, sample.allocated_bytes) > GAIN_SHARE;
    is_worth_it.then(|| {
        let net = gain.saturating_sub(sample.punched_bytes.min(gain));
        format!(
            "a pass would empty {} of slabs; {} of their pages are punched out already, so RSS \
             would fall by about {}. Set activedefrag to yes, and active-defrag-ignore-bytes below \
             that.",
            human(gain),
            human(gain - net),
            human(net)
        )
    })
}

/// The size classes with the most free memory, of those that are badly used.
pub(super) fn class(sample: &Sample, _: &Process) -> Option<String> {
    let free = |class: &ClassStats| class.regions_free * class.region_bytes;
    let is_bad = |class: &&ClassStats| free(class) > MUCH_BYTES && class.utilisation() < CLASS_USE;
    let mut bad: Vec<&ClassStats> = sample.classes.iter().filter(is_bad).collect();
    bad.sort_unstable_by_key(|class| std::cmp::Reverse(free(class)));
    let told: Vec<String> = bad.iter().take(MOST_CLASSES).map(|it| badly_used(it)).collect();
    (!bad.is_empty()).then(|| {
        let others = match bad.len() - told.len() {
            0 => String::new(),
            count => format!(" {count} more are below {:.0} %.", CLASS_USE * 100.0),
        };
        format!(
            "{}.{others} Many values of such a size were removed or have changed their size.",
            told.join("; ")
        )
    })
}

fn badly_used(class: &ClassStats) -> String {
    format!(
        "blocks of {} bytes: {} live in {} slabs, which are {:.0} % in use; {} are free between \
         them, of which a pass of defragmentation would give back {}",
        class.region_bytes,
        class.regions_live,
        class.slabs,
        class.utilisation() * 100.0,
        human(class.regions_free * class.region_bytes),
        human(class.evacuable_bytes())
    )
}

/// Requests are much smaller than their size classes: says which sizes would fit. How much is lost
/// is known exactly; in which blocks, from the keys that were looked at.
pub(super) fn alignment(sample: &Sample, _: &Process) -> Option<String> {
    let lost = sample.waste_bytes();
    if lost <= MUCH_BYTES || share(lost, sample.allocated_bytes) <= WASTE_SHARE {
        return None;
    }
    let mut text = format!(
        "{} ({:.1} % of what is allocated) are lost to rounding up to size classes. ",
        human(lost),
        share(lost, sample.allocated_bytes) * 100.0,
    );
    let looked_at = sample.waste.keys;
    match sample.waste.worst().filter(|it| it.lost_bytes() >= lost as f64 * NAMED_SHARE) {
        Some(worst) => text.push_str(&format!(
            "By {looked_at} keys that were looked at, most is lost in blocks of {} bytes, in which \
             {:.0} are used on average: about {} in all. {}",
            worst.region_bytes,
            worst.asked_bytes / worst.blocks,
            human(worst.lost_bytes() as u64),
            better_sizes(sample, worst.region_bytes)
        )),
        None => text.push_str(&format!(
            "By {looked_at} keys that were looked at, it is in no single class of keys and values: \
             see the accounts in MEMORY MALLOC-STATS for what else there is."
        )),
    }
    Some(text)
}

/// Which strings fill a block, and which fit into the next smaller one: a header, the key, the value.
fn better_sizes(sample: &Sample, region_bytes: u64) -> String {
    let fits = region_bytes.saturating_sub(HEADER_BYTES);
    let mut text =
        format!("A string whose key and value are together {fits} bytes fills one to its end");
    let smaller = sample.classes.iter().map(|class| class.region_bytes);
    let smaller = smaller.filter(|bytes| (HEADER_BYTES + 1..region_bytes).contains(bytes)).max();
    if let Some(bytes) = smaller {
        let fits = bytes - HEADER_BYTES;
        text.push_str(&format!(", and one of {fits} bytes or less takes {bytes}"));
    }
    text + "."
}

fn account(sample: &Sample, wanted: impl Fn(&str) -> bool) -> u64 {
    sample.accounts.iter().filter(|(name, _)| wanted(name)).map(|(_, bytes)| bytes).sum()
}

/// Clients' buffers take much of the memory.
pub(super) fn buffers(sample: &Sample, _: &Process) -> Option<String> {
    let bytes = account(sample, |name| name.contains("buffers"));
    let is_much = bytes > MUCH_BYTES && share(bytes, sample.used_bytes) > BUFFERS_SHARE;
    is_much.then(|| {
        format!(
            "clients' buffers take {}, {:.0} % of what is used: somebody sends very long requests \
             or does not read the replies. CLIENT LIST shows who; client-query-buffer-limit and \
             client-output-buffer-limit set bounds.",
            human(bytes),
            share(bytes, sample.used_bytes) * 100.0
        )
    })
}

/// What leads to the keys takes much by the keys and values themselves.
pub(super) fn tables(sample: &Sample, _: &Process) -> Option<String> {
    let tables = sample.tables_bytes + sample.expiry_bytes;
    let dataset = account(sample, |name| name == "dataset");
    let is_much = tables > MUCH_BYTES && share(tables, dataset) > TABLES_SHARE;
    is_much.then(|| {
        format!(
            "tables and expiry index take {} for {} of keys and values ({} keys). Values this \
             small are cheaper together, as fields of hashes of up to hash-max-listpack-entries.",
            human(tables),
            human(dataset),
            sample.keys()
        )
    })
}

/// The kernel hands out huge pages unasked.
pub(super) fn huge_pages(_: &Sample, process: &Process) -> Option<String> {
    (process.thp == Thp::Always).then(|| {
        "the kernel backs memory with huge pages wherever it can, so that a page that was given \
         back may return with its neighbours. Write madvise to \
         /sys/kernel/mm/transparent_hugepage/enabled."
            .to_owned()
    })
}

/// The kernel counts address space against a limit.
pub(super) fn overcommit(_: &Sample, process: &Process) -> Option<String> {
    (process.overcommit == Overcommit::Never).then(|| {
        "vm.overcommit_memory is 2: address space counts as memory, and allocations may fail \
         while memory is free. Set it to 0 or 1."
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;
    use crate::server::memory::waste::{ClassWaste, Waste};

    fn sample() -> Sample {
        Sample { used_bytes: 200 << 20, allocated_bytes: 200 << 20, ..Sample::default() }
    }

    fn class_of(region_bytes: u64, live: u64, free: u64) -> ClassStats {
        let mut class = ClassStats::default();
        class.region_bytes = region_bytes;
        class.regions_live = live;
        class.regions_free = free;
        class.allocated_bytes = region_bytes * live;
        class.slabs = 1000;
        class.slab_bytes = region_bytes * (live + free) / 1000;
        class
    }

    #[test]
    fn swapping() {
        let mut process = healthy();
        process.swap_bytes = SWAP_BYTES;
        assert_eq!(swap(&sample(), &process), None);
        process.swap_bytes += 1;
        assert!(swap(&sample(), &process).is_some());
    }

    #[test]
    fn what_a_pass_would_gain() {
        let with = |gain, allocated| Sample {
            evacuable_bytes: gain,
            allocated_bytes: allocated,
            punched_bytes: 4 << 20,
            ..Sample::default()
        };
        assert_eq!(defragmentation(&with(MUCH_BYTES, 0), &healthy()), None);
        assert_eq!(defragmentation(&with(20 << 20, 400 << 20), &healthy()), None);
        let text = defragmentation(&with(20 << 20, 399 << 20), &healthy()).unwrap();
        assert!(text.contains("20.00M of slabs") && text.contains("about 16.00M"), "{text}");
        assert!(defragmentation(&with(MUCH_BYTES + 1, 0), &healthy()).is_some());
    }

    #[test]
    fn the_worst_class_is_named() {
        let mut sample = sample();
        // 79 % and 80 % in use.
        sample.classes = vec![class_of(64, 1, 0), class_of(1024, 79_000, 21_000)];
        let text = class(&sample, &healthy()).unwrap();
        assert!(text.contains("of 1024 bytes: 79000 live") && text.contains("79 %"), "{text}");
        sample.classes[1] = class_of(1024, 80_000, 20_000);
        assert_eq!(class(&sample, &healthy()), None);
        // 10 MiB free, and one region more.
        sample.classes[1] = class_of(1024, 10_000, 10_240);
        assert_eq!(class(&sample, &healthy()), None);
        sample.classes[1] = class_of(1024, 10_000, 10_241);
        assert!(class(&sample, &healthy()).is_some());
        // Of several, three, the worst first.
        sample.classes = (1..=5).map(|i| class_of(i * 1024, 10_000, 20_000)).collect();
        let text = class(&sample, &healthy()).unwrap();
        let places = ["of 5120", "of 4096", "of 3072", " 2 more"].map(|it| text.find(it));
        assert!(places.is_sorted() && places[0].is_some(), "{text}");
        assert!(!text.contains("of 2048"), "{text}");
    }

    #[test]
    fn a_better_size_is_computed_from_the_classes() {
        let mut sample = sample();
        // Most is allocated in blocks that are full.
        sample.classes = vec![class_of(128, 10, 0), class_of(160, 1 << 20, 0)];
        sample.classes.push(class_of(2048, 1 << 20, 0));
        sample.allocated_bytes = 300 << 20;
        sample.requested_bytes = 285 << 20;
        let waste = |region_bytes, asked: f64| ClassWaste {
            region_bytes,
            blocks: f64::from(1 << 20),
            asked_bytes: f64::from(1 << 20) * asked,
        };
        sample.waste = Waste { keys: 1000, classes: vec![waste(160, 145.0), waste(2048, 2047.0)] };
        assert_eq!(alignment(&sample, &healthy()), None);
        sample.requested_bytes -= 1;
        let text = alignment(&sample, &healthy()).unwrap();
        assert!(text.contains("lost in blocks of 160 bytes, in which 145"), "{text}");
        assert!(text.contains("1000 keys") && text.contains("about 15.00M"), "{text}");
        assert!(text.contains("together 144 bytes"), "{text}");
        assert!(text.contains("one of 112 bytes or less takes 128"), "{text}");
        // It is elsewhere.
        sample.waste.classes = vec![waste(160, 159.0), waste(2048, 2047.0)];
        let text = alignment(&sample, &healthy()).unwrap();
        assert!(text.contains("no single class"), "{text}");
        // Much of little is little.
        (sample.allocated_bytes, sample.requested_bytes) = (20 << 20, 10 << 20);
        assert_eq!(alignment(&sample, &healthy()), None);
    }

    #[test]
    fn accounts_out_of_proportion() {
        let mut sample = sample();
        sample.accounts = vec![("client query buffers", 40 << 20), ("dataset", 100 << 20)];
        assert_eq!(buffers(&sample, &healthy()), None);
        sample.accounts[0].1 += 1;
        assert!(buffers(&sample, &healthy()).is_some());
        sample.used_bytes = 0;
        sample.accounts[0].1 = MUCH_BYTES;
        assert_eq!(buffers(&sample, &healthy()), None);
        (sample.tables_bytes, sample.expiry_bytes) = (40 << 20, 10 << 20);
        assert_eq!(tables(&sample, &healthy()), None);
        sample.tables_bytes += 1;
        assert!(tables(&sample, &healthy()).is_some());
        (sample.tables_bytes, sample.expiry_bytes, sample.accounts[1].1) = (MUCH_BYTES, 0, 1);
        assert_eq!(tables(&sample, &healthy()), None);
    }

    #[test]
    fn settings_of_the_kernel() {
        let mut process = healthy();
        assert_eq!(huge_pages(&sample(), &process), None);
        assert_eq!(overcommit(&sample(), &process), None);
        process.overcommit = Overcommit::Heuristic;
        assert_eq!(overcommit(&sample(), &process), None);
        (process.thp, process.overcommit) = (Thp::Always, Overcommit::Never);
        assert!(huge_pages(&sample(), &process).is_some());
        assert!(overcommit(&sample(), &process).is_some());
    }
}
