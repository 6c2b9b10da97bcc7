//! What the allocator says about itself and the kernel about the process, for either allocator.

use serde::Serialize;
use std::fmt;

/// The allocator that this process runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Allocator {
    /// Tallow, the one this is all about.
    Tallow,
    /// The one the system's C library brings.
    System,
}

impl fmt::Display for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tallow => "tallow",
            Self::System => "system",
        })
    }
}

/// One reading of all gauges. What an allocator does not know is 0.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Reading {
    /// Bytes that the program asked for.
    pub requested_bytes: u64,
    /// Bytes of the regions it was given.
    pub allocated_bytes: u64,
    /// Bytes of pages in slabs and large extents.
    pub active_bytes: u64,
    /// Bytes of those and of free pages that have memory behind them, by the allocator's own count.
    pub resident_bytes: u64,
    /// Bytes of freed pages that still have memory behind them.
    pub dirty_bytes: u64,
    /// Bytes of free regions in thread caches.
    pub cached_bytes: u64,
    /// Bytes of address space without memory behind it.
    pub retained_bytes: u64,
    /// The allocator's own data.
    pub metadata_bytes: u64,
    /// Slabs in use.
    pub slabs: u64,
    /// The process's memory as the kernel counts it, code and stacks and all.
    pub rss_bytes: u64,
    /// The most that was so far.
    pub peak_rss_bytes: u64,
    /// Bytes of the process that are swapped out.
    pub swap_bytes: u64,
    /// `rss_bytes / allocated_bytes`, nothing subtracted.
    pub fragmentation_ratio: f64,
}

/// How full the slabs of one size class are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassUse {
    /// Bytes of one region.
    pub region_bytes: u64,
    /// Slabs of the class.
    pub slabs: u64,
    /// Bytes of those slabs.
    pub slabs_bytes: u64,
    /// Regions that the program holds, as a share of all.
    pub utilisation: f64,
}

/// Slabs in address order, in groups of equal size, each with the share of its bytes in use.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SlabMap {
    /// Slabs in all.
    pub slabs: u64,
    /// Slabs in each group but the last.
    pub slabs_per_group: u64,
    /// Occupancy of each group, 0 to 1.
    pub occupancy: Vec<f32>,
}

/// Groups in the map of the fuller store; enough to see, few enough for a page.
const MAP_GROUPS: u64 = 1600;

impl Allocator {
    /// Reads every gauge. `store_bytes` stands in for the requested bytes of an allocator that does
    /// not count them. Does not allocate.
    #[must_use]
    pub fn read(self, store_bytes: u64) -> Reading {
        let mut reading = match self {
            Self::Tallow => read_tallow(),
            Self::System => read_system(store_bytes),
        };
        let process = tallow::process();
        reading.rss_bytes = process.rss_bytes;
        reading.peak_rss_bytes = process.peak_rss_bytes;
        reading.swap_bytes = process.swap_bytes;
        reading.fragmentation_ratio = process.fragmentation_ratio(reading.allocated_bytes);
        if self == Self::System {
            reading.resident_bytes = reading.active_bytes.min(process.rss_bytes);
        }
        reading
    }

    /// The classes that have slabs; empty where the allocator has no classes.
    #[must_use]
    pub fn classes(self) -> Vec<ClassUse> {
        if self == Self::System {
            return Vec::new();
        }
        let stats = tallow::stats();
        let used = stats.classes.iter().filter(|class| class.slabs > 0).map(|class| ClassUse {
            region_bytes: class.region_bytes,
            slabs: class.slabs,
            slabs_bytes: class.slabs * class.slab_bytes,
            utilisation: class.utilisation(),
        });
        used.collect()
    }

    /// The map of all slabs, `slabs_per_group` to a group (0: as many as make a readable map).
    #[must_use]
    pub fn slab_map(self, slabs_per_group: u64) -> SlabMap {
        if self == Self::System {
            return SlabMap::default();
        }
        // A few to spare: making room for them may itself take a slab.
        let mut views = vec![tallow::SlabView::default(); tallow::slabs(&mut []) + 64];
        let count = tallow::slabs(&mut views).min(views.len());
        group_slabs(&views[..count], slabs_per_group)
    }

    /// Gives every free page back to the kernel.
    pub fn release_free_memory(self) {
        match self {
            Self::Tallow => drop(tallow::purge()),
            Self::System => trim_system(),
        }
    }

    /// Recounts the allocator's books. Returns what it found, as a sentence.
    ///
    /// # Errors
    /// The disagreement, if there is one.
    pub fn audit(self) -> Result<String, String> {
        match self {
            Self::Tallow => match tallow::audit() {
                Ok(audit) => Ok(audit.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Self::System => Ok("the system allocator keeps no books to audit".to_owned()),
        }
    }
}

fn group_slabs(views: &[tallow::SlabView], slabs_per_group: u64) -> SlabMap {
    let slabs = views.len() as u64;
    let slabs_per_group = match slabs_per_group {
        0 => slabs.div_ceil(MAP_GROUPS).max(1),
        given => given,
    };
    let occupancy = views
        .chunks(slabs_per_group as usize)
        .map(|group| {
            let bytes = |regions: fn(&tallow::SlabView) -> u32| {
                let bytes = group
                    .iter()
                    .map(|slab| f64::from(regions(slab)) * f64::from(slab.region_bytes));
                bytes.sum::<f64>()
            };
            (bytes(|slab| slab.live) / bytes(|slab| slab.capacity).max(1.0)) as f32
        })
        .collect();
    SlabMap { slabs, slabs_per_group, occupancy }
}

fn read_tallow() -> Reading {
    let stats = tallow::stats();
    Reading {
        requested_bytes: stats.requested_bytes,
        allocated_bytes: stats.allocated_bytes,
        active_bytes: stats.active_bytes,
        resident_bytes: stats.resident_bytes,
        dirty_bytes: stats.dirty_bytes,
        cached_bytes: stats.cached_bytes,
        retained_bytes: stats.retained_bytes,
        metadata_bytes: stats.metadata_bytes,
        slabs: stats.classes.iter().map(|class| class.slabs).sum(),
        ..Reading::default()
    }
}

/// glibc: `uordblks` are bytes in use in its arenas, headers included, `hblkhd` bytes of separate
/// mappings, `arena` all that the arenas took from the system, `fordblks` what is free in them. It
/// walks every free chunk to know, which makes a fragmented run on it slow; its time says nothing
/// about how fast the allocator is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn read_system(store_bytes: u64) -> Reading {
    // SAFETY: mallinfo2 has no preconditions; it takes the allocator's locks and returns a struct.
    let info = unsafe { libc::mallinfo2() };
    Reading {
        requested_bytes: store_bytes,
        allocated_bytes: (info.uordblks + info.hblkhd) as u64,
        active_bytes: (info.arena + info.hblkhd) as u64,
        dirty_bytes: info.fordblks as u64,
        ..Reading::default()
    }
}

/// Elsewhere the system's allocator tells nothing: the store's own count has to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn read_system(store_bytes: u64) -> Reading {
    Reading { requested_bytes: store_bytes, allocated_bytes: store_bytes, ..Reading::default() }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_system() {
    // SAFETY: malloc_trim has no preconditions; it only returns free pages.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_system() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(capacity: u32, live: u32) -> tallow::SlabView {
        tallow::SlabView { region_bytes: 64, capacity, live, ..Default::default() }
    }

    #[test]
    fn groups_weigh_slabs_by_their_bytes() {
        let views = [slab(100, 100), slab(300, 0), slab(100, 50), slab(100, 50), slab(100, 25)];
        let map = group_slabs(&views, 2);
        assert_eq!(map.occupancy, [0.25, 0.5, 0.25]);
        assert_eq!((map.slabs, map.slabs_per_group), (5, 2));
        assert_eq!(group_slabs(&views, 0).slabs_per_group, 1);
        assert!(group_slabs(&[], 0).occupancy.is_empty());
    }

    #[test]
    fn the_system_says_what_it_knows() {
        let reading = Allocator::System.read(1234);
        assert_eq!(reading.requested_bytes, 1234);
        assert!(reading.allocated_bytes > 0 && reading.rss_bytes > 0);
        assert!(reading.fragmentation_ratio > 0.0);
    }
}
