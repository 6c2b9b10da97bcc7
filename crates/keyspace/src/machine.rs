//! How much memory this machine can still give.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that a new program can take without swapping: what the kernel calls available, or what is
/// left under the tightest control group, if that is less. `None` where the system does not say.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_headroom(&text, Path::new("/sys/fs/cgroup")));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// `MemAvailable` out of `/proc/meminfo`.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is left under the limits of the groups named in `/proc/self/cgroup` and of their parents.
fn group_headroom(cgroup: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // Version 2 has one tree and no controllers named; version 1 a tree for memory.
        let (tree, limit, usage) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max", "memory.current")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            let headroom = headroom_of(&tree.join(&group), limit, usage);
            least = match (least, headroom) {
                (Some(least), Some(here)) => Some(u64::min(least, here)),
                (least, here) => least.or(here),
            };
            if !group.pop() {
                break;
            }
        }
    }
    least
}

fn headroom_of(group: &Path, limit: &str, usage: &str) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    // Cached files count as usage but make room when asked.
    let reclaimable = fs::read_to_string(group.join("memory.stat")).ok().and_then(|stat| {
        let line = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
        line.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
        assert_eq!(mem_available("MemAvailable: much kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "300\n");
        write("a/memory.stat", "anon 1\ninactive_file 100\n");
        assert_eq!(group_headroom("0::/a/b\n", root.path()), Some(800));
        assert_eq!(group_headroom("0::/\n", root.path()), None);
        write("memory/c/memory.limit_in_bytes", "500");
        write("memory/c/memory.usage_in_bytes", "600");
        assert_eq!(group_headroom("3:cpu:/c\n2:memory:/c\n", root.path()), Some(0));
    }
}
