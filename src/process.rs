//! Floor 9: [`process()`]: what the kernel says about this process.

use crate::os;
use crate::stats::Human;
use core::ffi::CStr;
use core::fmt;

/// Whether the kernel backs memory with transparent huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Thp {
    /// Wherever it can: RSS may be much more than what was written.
    Always,
    /// Where a program asks for it.
    Madvise,
    /// Nowhere.
    Never,
    /// The system does not say.
    Unknown,
}

/// How the kernel answers requests for more memory than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Overcommit {
    /// Refuses what is plainly too much (0).
    Heuristic,
    /// Refuses nothing (1).
    Always,
    /// Refuses what it could not back (2): forks of a large process may fail.
    Never,
    /// The system does not say.
    Unknown,
}

/// What the kernel says about this process. See [`process()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Process {
    /// Bytes of physical memory mapped by the process (RSS): heap, stacks,
    /// program and libraries.
    pub rss_bytes: u64,
    /// The highest RSS so far.
    pub peak_rss_bytes: u64,
    /// Bytes swapped out.
    pub swap_bytes: u64,
    /// RSS with shared pages divided among their users; `None` where the
    /// system does not say.
    pub pss_bytes: Option<u64>,
    /// Transparent huge pages.
    pub thp: Thp,
    /// Overcommit.
    pub overcommit: Overcommit,
}

impl Process {
    /// RSS divided by the bytes that the program holds (`allocated_bytes` of
    /// [`crate::stats()`]): what Redis calls `mem_fragmentation_ratio`.
    ///
    /// - Above 1: memory is held that no block uses: fragmentation, dirty pages,
    ///   caches, and, in a small process, the program itself.
    /// - Below 1: part of the heap is swapped out or was never touched. A service
    ///   that swaps is slow long before it is out of memory.
    ///
    /// 0 when nothing is allocated.
    pub fn fragmentation_ratio(&self, allocated_bytes: u64) -> f64 {
        if allocated_bytes == 0 { 0.0 } else { self.rss_bytes as f64 / allocated_bytes as f64 }
    }

    /// RSS divided by Tallow's own count of resident bytes
    /// (`resident_bytes` of [`crate::stats()`]): what lies outside of the heap.
    /// Below 1, pages of slabs have never been touched, or are swapped out.
    ///
    /// 0 when nothing is resident.
    pub fn overhead_ratio(&self, resident_bytes: u64) -> f64 {
        if resident_bytes == 0 { 0.0 } else { self.rss_bytes as f64 / resident_bytes as f64 }
    }
}

/// The number after `key` in a file of lines such as `VmRSS:   123 kB`, in bytes.
fn field_bytes(text: &[u8], key: &[u8]) -> Option<u64> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    let mut digits = line
        .iter()
        .skip_while(|b| !b.is_ascii_digit())
        .take_while(|b| b.is_ascii_digit())
        .peekable();
    digits.peek()?;
    digits
        .try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))?
        .checked_mul(1024)
}

/// The mode of `always [madvise] never`.
fn thp(text: &[u8]) -> Thp {
    let chosen =
        text.split(|&b| b == b'[').nth(1).and_then(|rest| rest.split(|&b| b == b']').next());
    match chosen {
        Some(b"always") => Thp::Always,
        Some(b"madvise") => Thp::Madvise,
        Some(b"never") => Thp::Never,
        _ => Thp::Unknown,
    }
}

/// What the kernel says about this process now. Reads `/proc` into the stack:
/// allocates nothing; costs some microseconds, and PSS about 0.1 ms for each GiB.
/// On systems without `/proc` the figures are 0 or unknown.
pub fn process() -> Process {
    let mut buffer = [0; 4096];
    let mut read =
        |path: &CStr, parse: &mut dyn FnMut(&[u8])| parse(os::read_file(path, &mut buffer));
    let mut out = Process {
        rss_bytes: 0,
        peak_rss_bytes: 0,
        swap_bytes: 0,
        pss_bytes: None,
        thp: Thp::Unknown,
        overcommit: Overcommit::Unknown,
    };
    read(c"/proc/self/status", &mut |text| {
        out.rss_bytes = field_bytes(text, b"VmRSS:").unwrap_or(0);
        out.peak_rss_bytes = field_bytes(text, b"VmHWM:").unwrap_or(0);
        out.swap_bytes = field_bytes(text, b"VmSwap:").unwrap_or(0);
    });
    read(c"/proc/self/smaps_rollup", &mut |text| {
        out.pss_bytes = field_bytes(text, b"Pss:");
        // Counted page by page; the line in `status` may lag behind.
        if let Some(rss) = field_bytes(text, b"Rss:") {
            out.rss_bytes = rss;
        }
    });
    out.peak_rss_bytes = out.peak_rss_bytes.max(out.rss_bytes);
    read(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut |text| out.thp = thp(text));
    read(c"/proc/sys/vm/overcommit_memory", &mut |text| {
        out.overcommit = match text.first() {
            Some(b'0') => Overcommit::Heuristic,
            Some(b'1') => Overcommit::Always,
            Some(b'2') => Overcommit::Never,
            _ => Overcommit::Unknown,
        };
    });
    out
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rss       {}", Human(self.rss_bytes))?;
        writeln!(f, "peak rss  {}", Human(self.peak_rss_bytes))?;
        writeln!(f, "swap      {}", Human(self.swap_bytes))?;
        if let Some(pss) = self.pss_bytes {
            writeln!(f, "pss       {}", Human(pss))?;
        }
        writeln!(f, "thp {:?}, overcommit {:?}", self.thp, self.overcommit)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reads_fields() {
        let text = b"Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nBad:\t kB\n";
        assert_eq!(field_bytes(text, b"VmRSS:"), Some(1024 * 1024));
        assert_eq!(field_bytes(text, b"VmHWM:"), Some(2048 * 1024));
        assert_eq!(field_bytes(text, b"Bad:"), None);
        assert_eq!(field_bytes(text, b"VmSwap:"), None);
        assert_eq!(field_bytes(b"X: 99999999999999999999 kB", b"X:"), None);
        assert_eq!(thp(b"always [madvise] never\n"), Thp::Madvise);
        assert_eq!(thp(b""), Thp::Unknown);
    }

    #[test]
    fn ratio_says_what_it_means() {
        let mut process = process();
        process.rss_bytes = 150;
        assert!((process.fragmentation_ratio(100) - 1.5).abs() < 1e-9);
        assert!(process.fragmentation_ratio(0) == 0.0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_answers() {
        let now = process();
        assert!(now.rss_bytes > 100 << 10, "{now:?}");
        assert!(now.peak_rss_bytes >= now.rss_bytes);
    }
}
