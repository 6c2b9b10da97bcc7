//! The books, in glibc's forms and in Tallow's.

use core::ffi::{c_char, c_int};
use core::mem::ManuallyDrop;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, RawFd};

/// glibc's `struct mallinfo2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MallInfo2 {
    /// Bytes of address space, huge blocks excluded.
    pub arena: usize,
    /// Free regions in slabs.
    pub ordblks: usize,
    /// Regions waiting in thread caches.
    pub smblks: usize,
    /// Huge blocks.
    pub hblks: usize,
    /// Bytes of huge blocks.
    pub hblkhd: usize,
    /// Nothing.
    pub usmblks: usize,
    /// Bytes of regions waiting in thread caches.
    pub fsmblks: usize,
    /// Bytes that the program holds.
    pub uordblks: usize,
    /// Bytes backed by memory that it does not hold.
    pub fordblks: usize,
    /// Bytes that `malloc_trim` would give back for sure.
    pub keepcost: usize,
}

/// glibc's older `struct mallinfo`: the same, in numbers that are too short.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MallInfo([c_int; 10]);

/// glibc: figures.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> MallInfo2 {
    let stats = heap::stats();
    let sum = |f: fn(&heap::ClassStats) -> u64| stats.classes.iter().map(f).sum::<u64>() as usize;
    MallInfo2 {
        arena: stats.mapped_bytes.saturating_sub(stats.huge_bytes) as usize,
        ordblks: sum(|c| c.regions_free),
        smblks: sum(|c| c.regions_cached),
        hblks: stats.huge_count as usize,
        hblkhd: stats.huge_bytes as usize,
        usmblks: 0,
        fsmblks: stats.cached_bytes as usize,
        uordblks: stats.allocated_bytes as usize,
        fordblks: stats.resident_bytes.saturating_sub(stats.allocated_bytes) as usize,
        keepcost: stats.dirty_bytes as usize,
    }
}

/// glibc: the same in `int`s; what does not fit is the largest there is.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> MallInfo {
    let i = mallinfo2();
    let all = [
        i.arena, i.ordblks, i.smblks, i.hblks, i.hblkhd, i.usmblks, i.fsmblks, i.uordblks,
        i.fordblks, i.keepcost,
    ];
    MallInfo(all.map(|n| c_int::try_from(n).unwrap_or(c_int::MAX)))
}

/// Prints the statistics to stderr.
#[unsafe(no_mangle)]
pub extern "C" fn tallow_stats_print() {
    print_to(2);
}

/// Prints them to an open file.
pub(crate) fn print_to(file: RawFd) {
    let (stats, process) = (heap::stats(), heap::process());
    let text = format!("tallow: process {}\n{stats}{process}", std::process::id());
    // SAFETY: not closed here; if the program has closed it, there is an error.
    let mut out = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    // Nobody is there to be told that stderr is closed.
    let _ = out.write_all(text.as_bytes());
}

/// glibc: as `tallow_stats_print`.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    tallow_stats_print();
}

/// Writes the statistics as JSON into `out`, as much as `len` bytes hold, the last
/// of them 0, and returns the length of the whole text, as `snprintf` does.
///
/// # Safety
/// `out` has `len` bytes; it may be null if `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tallow_stats_json(out: *mut c_char, len: usize) -> usize {
    let Ok(text) = serde_json::to_string(&heap::stats()) else { return 0 };
    if let Some(room) = len.checked_sub(1) {
        let n = text.len().min(room);
        // SAFETY: the caller's promise; `n < len`.
        unsafe { out.copy_from_nonoverlapping(text.as_ptr().cast(), n) };
        // SAFETY: as above.
        unsafe { out.add(n).write(0) };
    }
    text.len()
}
