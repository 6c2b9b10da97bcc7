//! What all passes of this process have done.

use crate::class::{CLASS_COUNT, Class};
use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// What defragmentation has done since the process began. See
/// [`Snapshot::defrag`](crate::Snapshot::defrag); per class in
/// [`ClassStats`](crate::ClassStats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DefragStats {
    /// Passes that were ended.
    pub passes: u64,
    /// Steps of all passes, planning and ending included.
    pub steps: u64,
    /// Blocks moved.
    pub hits: u64,
    /// Blocks looked at and left where they were.
    pub misses: u64,
    /// Bytes of regions moved.
    pub moved_bytes: u64,
    /// Bytes of regions that the plans wanted moved.
    pub predicted_bytes: u64,
    /// Bytes of slabs emptied.
    pub released_bytes: u64,
    /// Nanoseconds that all steps took together.
    pub time_ns: u64,
    /// Nanoseconds of the longest step.
    pub longest_step_ns: u64,
}

/// Relaxed throughout: counts, which order nothing.
pub(crate) struct Books {
    pub(super) passes: AtomicU64,
    steps: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    moved_bytes: AtomicU64,
    pub(super) predicted_bytes: AtomicU64,
    released_bytes: AtomicU64,
    time_ns: AtomicU64,
    longest_step_ns: AtomicU64,
    /// Regions moved, and slabs emptied, by class.
    regions: [AtomicU64; CLASS_COUNT],
    slabs: [AtomicU64; CLASS_COUNT],
}

pub(crate) static BOOKS: Books = Books {
    passes: AtomicU64::new(0),
    steps: AtomicU64::new(0),
    hits: AtomicU64::new(0),
    misses: AtomicU64::new(0),
    moved_bytes: AtomicU64::new(0),
    predicted_bytes: AtomicU64::new(0),
    released_bytes: AtomicU64::new(0),
    time_ns: AtomicU64::new(0),
    longest_step_ns: AtomicU64::new(0),
    regions: [const { AtomicU64::new(0) }; CLASS_COUNT],
    slabs: [const { AtomicU64::new(0) }; CLASS_COUNT],
};

pub(super) fn add(to: &AtomicU64, n: u64) {
    to.fetch_add(n, Ordering::Relaxed);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Books {
    pub(super) fn note_step(&self, took: Duration) {
        add(&self.steps, 1);
        self.note_time(took);
        self.longest_step_ns.fetch_max(nanos(took), Ordering::Relaxed);
    }

    pub(super) fn note_time(&self, took: Duration) {
        add(&self.time_ns, nanos(took));
    }

    /// Enters regions moved.
    pub(super) fn note_moved(&self, class: Class, regions: u64) {
        if regions > 0 {
            add(&self.regions[class.index()], regions);
            add(&self.moved_bytes, regions * u64::from(class.info().region_bytes));
        }
    }

    /// Enters slabs emptied.
    pub(super) fn note_emptied(&self, class: Class, slabs: u64) {
        if slabs > 0 {
            add(&self.slabs[class.index()], slabs);
            add(&self.released_bytes, slabs * class.info().slab_bytes() as u64);
        }
    }

    pub(crate) fn stats(&self) -> DefragStats {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        DefragStats {
            passes: read(&self.passes),
            steps: read(&self.steps),
            hits: read(&self.hits),
            misses: read(&self.misses),
            moved_bytes: read(&self.moved_bytes),
            predicted_bytes: read(&self.predicted_bytes),
            released_bytes: read(&self.released_bytes),
            time_ns: read(&self.time_ns),
            longest_step_ns: read(&self.longest_step_ns),
        }
    }

    /// Regions moved and slabs emptied of a class.
    pub(crate) fn of_class(&self, class: Class) -> (u64, u64) {
        let read = |counts: &[AtomicU64]| counts[class.index()].load(Ordering::Relaxed);
        (read(&self.regions), read(&self.slabs))
    }
}
