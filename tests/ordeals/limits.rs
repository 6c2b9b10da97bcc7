//! Address space, data, mappings and cgroups that end.

use super::work::{Block, balanced, churn, in_order};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, process, ptr, thread};
use tallow::limit::{self, Limits, Measure};

fn set_limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid place.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0, "no limit can be set");
}

fn kib_of(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find(|line| line.starts_with(field)).expect("a field");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// What four threads may hold: pointers that are there before memory ends.
fn lists() -> Vec<Vec<Block>> {
    (0..4).map(|_| Vec::with_capacity(200_000)).collect()
}

/// Four threads take what there is, with `bytes` more than now; all goes back, and then all
/// can be had.
fn on_the_edge(resource: libc::__rlimit_resource_t, field: &str, bytes: u64) {
    let mut lists = lists();
    let before = tallow::stats();
    let refused = AtomicU64::new(0);
    // The limit comes when all have started, since a start needs memory of its own; they
    // wait for that, and then for the limit.
    let together = Barrier::new(lists.len() + 1);
    thread::scope(|scope| {
        for (t, list) in lists.iter_mut().enumerate() {
            let (refused, together) = (&refused, &together);
            scope.spawn(move || {
                together.wait();
                together.wait();
                for round in 0..6 {
                    // Up to the end, and then along it.
                    let mut i = 0;
                    while let Some(block) = Block::new(1000 + i % 60_000, 8, i % 3 == 0, 1) {
                        list.push(block);
                        i += 997;
                        if list.len() + 10_000 > list.capacity() {
                            break;
                        }
                    }
                    refused.fetch_add(churn(round * 4 + 1, 3000, list), Ordering::Relaxed);
                    list.truncate(list.len() / 2);
                    refused.fetch_add(churn(round * 4 + 2, 3000, list), Ordering::Relaxed);
                    if round % 2 == t as u64 % 2 {
                        tallow::purge();
                    }
                }
            });
        }
        together.wait();
        set_limit(resource, kib_of(field) * 1024 + bytes);
        together.wait();
    });
    balanced();
    let refused = refused.into_inner();
    lists.iter().flatten().for_each(Block::check);
    in_order(&tallow::stats());
    lists.iter_mut().for_each(Vec::clear);
    tallow::purge();
    balanced();
    set_limit(resource, libc::RLIM_INFINITY);
    let block = Block::new(bytes as usize * 2, 8, true, 9).expect("without a limit");
    drop((block, lists));
    tallow::purge();
    balanced();
    let now = tallow::stats();
    assert!(refused > 100, "memory hardly ended: {refused}");
    assert!(now.requested_bytes <= before.requested_bytes + 4096, "{}", now.requested_bytes);
    println!("{refused} refusals");
}

pub fn address_space_ends() {
    on_the_edge(libc::RLIMIT_AS, "VmSize", 200 << 20);
}

/// What a container without a cgroup is limited by: private memory that can be written.
pub fn data_ends() {
    on_the_edge(libc::RLIMIT_DATA, "VmData", 160 << 20);
}

/// Mappings of one page each, of two kinds in turn, so that the kernel cannot join them.
struct Fill {
    at: *mut libc::c_void,
    pages: usize,
}

const PAGE: usize = 4096;

impl Fill {
    /// Takes mappings until there are no more.
    fn all() -> Self {
        let pages = 1 << 18;
        let none = libc::PROT_NONE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a mapping of its own, wherever the system likes.
        let at = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, none, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        let mut count = 0;
        // SAFETY: every second page of our own mapping.
        while unsafe { libc::mprotect(at.byte_add((2 * count + 1) * PAGE), PAGE, libc::PROT_READ) }
            == 0
        {
            count += 1;
            assert!(2 * count < pages, "mappings have no end here");
        }
        Self { at, pages: 2 * count }
    }

    /// Gives two mappings back for each page.
    fn spare(&mut self, pages: usize) {
        for _ in 0..pages {
            self.pages -= 2;
            // SAFETY: a page of our own mapping.
            let code = unsafe {
                libc::mprotect(self.at.byte_add((self.pages + 1) * PAGE), PAGE, libc::PROT_NONE)
            };
            assert_eq!(code, 0, "joining takes no mapping");
        }
    }
}

/// Allocates, resizes, purges and frees with 0 to 20 mappings left; then without that limit.
pub fn mappings_end() {
    let mut lists = lists();
    let before = tallow::stats().requested_bytes;
    let list = &mut lists[0];
    // Something to free while there is no mapping left: middles of segments, huge blocks.
    churn(1, 20_000, list);
    list.extend((0..40).filter_map(|i| Block::new((3 << 20) + i * 4096, 8, false, 5)));
    let mut spread: Vec<Block> =
        (0..60).filter_map(|i| Block::new((1 << 20) - i, 8, true, 6)).collect();
    let (started, mut refused) = (tallow::stats(), 0);
    let mut fill = Fill::all();
    for round in 0..12 {
        fill.spare([0, 1, 0, 4, 0, 10][round % 6] / 2);
        refused += churn(100 + round as u64, 1500, list);
        for i in 0..20 {
            let size = [100, 5000, 100_000, 1 << 20, 4 << 20, 9 << 20][i % 6];
            match Block::new(size + i * 4096, 8 << (i % 14), i % 2 == 0, 7) {
                Some(block) => list.push(block),
                None => refused += 1,
            }
        }
        // Every second one: what lies between stays.
        let mut i = 0;
        spread.retain(|_| {
            i += 1;
            i % 2 == 0 || round < 4
        });
        tallow::purge();
        tallow::set_decay(Some(std::time::Duration::from_millis(round as u64 % 2)));
        balanced();
        in_order(&tallow::stats());
        list.iter().for_each(Block::check);
    }
    let failed = tallow::stats().os_calls.failed - started.os_calls.failed;
    // SAFETY: our own mapping, which nobody uses. The kernel takes it away whole.
    assert_eq!(unsafe { libc::munmap(fill.at, PAGE << 18) }, 0);
    balanced();
    spread.clear();
    list.clear();
    assert_eq!(churn(5, 20_000, list), 0, "there are mappings again");
    list.clear();
    tallow::purge();
    balanced();
    let now = tallow::stats();
    assert!(failed > 20, "mappings hardly ended: {failed}");
    // Beside the program's own blocks: up to seven segments in reserve, and a few in use.
    assert!(now.mapped_bytes - now.huge_bytes < 48 << 20, "{now}");
    assert!(
        now.requested_bytes <= before + 4096,
        "{} bytes are lost",
        now.requested_bytes - before
    );
    println!("{failed} calls refused by the kernel, {refused} blocks");
}

/// A memory cgroup for children; `None` where none can be made.
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    pub fn new(bytes: u64) -> Option<Self> {
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let folder = PathBuf::from(format!("{root}/tallow-ordeals-{}", process::id()));
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let cgroup = Self { folder };
            if fs::write(cgroup.folder.join(file), bytes.to_string()).is_ok() {
                return Some(cgroup);
            }
        }
        None
    }

    /// Runs a child inside.
    pub fn run(&self, command: &mut Command) -> io::Result<Output> {
        let file = self.folder.join("cgroup.procs");
        // SAFETY: the child only writes a file before it becomes another program.
        unsafe { command.pre_exec(move || fs::write(&file, "0")) };
        command.output()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It stays if the system still counts memory for it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Takes 20 times what the cgroup allows, a quarter of it at once at most.
fn take_much(mut most: Vec<Vec<u8>>) -> u64 {
    let mut refused = 0;
    for i in 0..4000 {
        let size = 500_000 + i % 7;
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(size).is_ok() {
            block.resize(size, i as u8);
            if most.len() < most.capacity() {
                most.push(block);
                continue;
            }
            most.swap_remove(i % 100);
        } else {
            refused += 1;
            most.truncate(most.len() / 2);
        }
    }
    refused
}

/// With a limit below that of its cgroup a process gets null, and lives.
pub fn limited_below_its_cgroup() {
    limit::set(Measure::Resident, Limits { hard_bytes: Some(64 << 20), ..Limits::NONE });
    let refused = take_much(Vec::with_capacity(1000));
    balanced();
    assert!(refused > 10, "{refused}");
    println!("{refused} refusals, none killed");
}

/// Without it the kernel ends the process: the case above could fail.
pub fn not_limited_in_its_cgroup() {
    take_much(Vec::with_capacity(1000));
}
