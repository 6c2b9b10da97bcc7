//! What the kernel says about this process's memory: `/proc`, read without unsafe code.
//!
//! RSS is one number; whose pages they are, only the list of mappings tells. Tallow reserves its
//! address space without reserving swap for it, which the kernel notes with each mapping (`nr`);
//! nobody else in this process does. So what is not Tallow's (the program and its libraries,
//! stacks, the C library's own little heap) is measured here and not inferred from the rest.
//! Which pages of a range are there at all, the page map says, page by page.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Resident bytes by what they belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mappings {
    /// The program, its libraries, and their data.
    pub(crate) file_bytes: u64,
    /// The main thread's stack.
    pub(crate) stack_bytes: u64,
    /// What else is neither a file's nor Tallow's: the C library's heap, other threads' stacks.
    pub(crate) other_bytes: u64,
    /// Tallow's own mappings.
    pub(crate) tallow_bytes: u64,
    /// Of those, backed by huge pages.
    pub(crate) huge_page_bytes: u64,
}

impl Mappings {
    fn of(smaps: &str) -> Self {
        let mut sum = Self::default();
        // A program's zero data lie behind its file's mapping, without a name.
        let mut file_end = 0;
        for mapping in parse(smaps) {
            let belongs_to_file = !mapping.name.is_empty() && !mapping.name.starts_with('[')
                || mapping.name.is_empty() && mapping.range.start == file_end;
            if belongs_to_file {
                file_end = mapping.range.end;
                sum.file_bytes += mapping.rss_bytes;
            } else if mapping.name == "[stack]" {
                sum.stack_bytes += mapping.rss_bytes;
            } else if mapping.name.is_empty() && mapping.is_unreserved {
                sum.tallow_bytes += mapping.rss_bytes;
                sum.huge_page_bytes += mapping.huge_page_bytes;
            } else {
                sum.other_bytes += mapping.rss_bytes;
            }
        }
        sum
    }
}

/// What one mapping's lines say.
#[derive(Debug, Default)]
struct Mapping<'a> {
    range: Range<u64>,
    name: &'a str,
    rss_bytes: u64,
    huge_page_bytes: u64,
    /// `nr`: no swap is set aside for it.
    is_unreserved: bool,
}

fn parse(smaps: &str) -> Vec<Mapping<'_>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let (head, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let Some(key) = head.strip_suffix(':') else {
            let range = head.split_once('-').and_then(|(start, end)| {
                let number = |text| u64::from_str_radix(text, 16).ok();
                Some(number(start)?..number(end)?)
            });
            if let Some(range) = range {
                // Permissions, offset, device, inode, name.
                let name = rest.split_whitespace().nth(4).unwrap_or_default();
                mappings.push(Mapping { range, name, ..Mapping::default() });
            }
            continue;
        };
        let Some(mapping) = mappings.last_mut() else { continue };
        let bytes = || {
            let digits = rest.trim().trim_end_matches("kB").trim_end();
            digits.parse::<u64>().unwrap_or(0) * 1024
        };
        match key {
            "Rss" => mapping.rss_bytes = bytes(),
            "AnonHugePages" => mapping.huge_page_bytes = bytes(),
            "VmFlags" => {
                mapping.is_unreserved = rest.split_whitespace().any(|flag| flag == "nr");
            }
            _ => {}
        }
    }
    mappings
}

/// Reads what is long, into the same memory each time: what it needs for that would otherwise be
/// part of what it measures.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    text: String,
    words: Vec<u8>,
}

impl Reader {
    /// Reads the kernel's list of mappings. It looks at every page.
    pub(crate) fn read_mappings(&mut self) {
        self.text.clear();
        // Without a list nothing is known to be outside of the heap.
        let _ = File::open("/proc/self/smaps").and_then(|mut it| it.read_to_string(&mut self.text));
    }

    /// What was read.
    pub(crate) fn mappings(&self) -> Mappings {
        Mappings::of(&self.text)
    }

    /// Bytes of these address ranges that have no memory behind them: never written, given back,
    /// or swapped out. Adjacent ranges in order are read together. `None` if the kernel does not
    /// say.
    pub(crate) fn absent_bytes(
        &mut self,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) -> Option<u64> {
        let map = File::open("/proc/self/pagemap").ok()?;
        self.words.resize(32 * 1024, 0);
        let mut absent = 0;
        let mut run: Range<u64> = 0..0;
        for range in ranges {
            if range.start == run.end {
                run.end = range.end;
                continue;
            }
            absent += absent_pages(&map, &run, &mut self.words)?;
            run = range;
        }
        absent += absent_pages(&map, &run, &mut self.words)?;
        Some(absent * page_bytes())
    }
}

fn absent_pages(map: &File, range: &Range<u64>, buffer: &mut [u8]) -> Option<u64> {
    const WORD_BYTES: u64 = 8;
    const PRESENT: u64 = 1 << 63;
    let page_bytes = page_bytes();
    let (mut page, end) = (range.start / page_bytes, range.end / page_bytes);
    let mut absent = 0;
    while page < end {
        let want = ((end - page) * WORD_BYTES).min(buffer.len() as u64) as usize;
        map.read_exact_at(&mut buffer[..want], page * WORD_BYTES).ok()?;
        let words = buffer[..want].as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        absent += words.filter(|word| word & PRESENT == 0).count() as u64;
        page += want as u64 / WORD_BYTES;
    }
    Some(absent)
}

/// RSS by the kernel's running count: what Redis reads, ten times a second. A few pages behind.
pub(crate) fn rss_bytes() -> u64 {
    // Kept open: a limit on RSS must hold when clients have taken all descriptors, too.
    static STATM: std::sync::OnceLock<Option<File>> = std::sync::OnceLock::new();
    let file = STATM.get_or_init(|| File::open("/proc/self/statm").ok());
    let mut bytes = [0; 128];
    let length = file.as_ref().and_then(|it| it.read_at(&mut bytes, 0).ok()).unwrap_or(0);
    let text = str::from_utf8(&bytes[..length]).unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page_bytes()
}

/// Bytes of a page, from what the kernel hands to every program (`AT_PAGESZ`).
fn page_bytes() -> u64 {
    const PAGE_SIZE: u64 = 6;
    static BYTES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| {
        let vector = fs::read("/proc/self/auxv").unwrap_or_default();
        let mut words = vector.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            if key == PAGE_SIZE {
                return value;
            }
        }
        4096
    })
}

/// Memory of the machine.
pub(crate) fn total_system_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Seconds of processor time in the kernel and in the program, as `times` would say.
pub(crate) fn cpu_seconds() -> (f64, f64) {
    /// What every Linux reports in, whatever it counts in (`USER_HZ`).
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may contain anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| {
        let ticks = rest.split_whitespace().nth(index).and_then(|it| it.parse::<f64>().ok());
        ticks.unwrap_or(0.0) / TICKS_PER_SECOND
    };
    (field(12), field(11))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5500-5600 r-xp 00000000 fe:00 56 /bin/a
Rss: 100 kB
VmFlags: rd ex mr
5600-5700 rw-p 00000000 00:00 0 
Rss: 12 kB
VmFlags: rd wr
5800-5900 rw-p 00000000 00:00 0                          [heap]
Rss: 4 kB
VmFlags: rd wr
7000-8000 rw-p 00000000 00:00 0 
Rss: 1000 kB
AnonHugePages: 600 kB
VmFlags: rd wr mr nr
9000-a000 rw-p 00000000 00:00 0 
Rss: 8 kB
VmFlags: rd wr
b000-c000 rw-p 00000000 00:00 0                          [stack]
Rss: 20 kB
VmFlags: rd wr gd
";

    #[test]
    fn mappings_by_owner() {
        let sum = Mappings::of(SMAPS);
        let kib = |bytes: u64| bytes / 1024;
        assert_eq!(kib(sum.file_bytes), 112);
        assert_eq!(kib(sum.stack_bytes), 20);
        assert_eq!(kib(sum.other_bytes), 12);
        assert_eq!((kib(sum.tallow_bytes), kib(sum.huge_page_bytes)), (1000, 600));
        assert_eq!(kib(sum.file_bytes + sum.stack_bytes + sum.other_bytes), 144);
        assert_eq!(Mappings::of("rubbish\n: x\nRss: 1 kB"), Mappings::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_never_written_are_absent() {
        let page_bytes = page_bytes();
        let pages: Vec<u8> = vec![1; 64 * page_bytes as usize];
        let start = (pages.as_ptr().addr() as u64).next_multiple_of(page_bytes);
        let written = start..start + 32 * page_bytes;
        assert_eq!(Reader::default().absent_bytes([written.clone()]), Some(0));
        // Nothing is ever mapped at address 0.
        let halves = [0..page_bytes, written.start..written.end];
        assert_eq!(Reader::default().absent_bytes(halves), Some(page_bytes));
        assert!(rss_bytes() > 0 && total_system_bytes() > rss_bytes());
    }
}
