//! Floor 0: the numbers that the design turns on, with the reason for each.

use static_assertions::const_assert;

/// The granule of the page heap, in bytes. Where the OS page is larger (16 or
/// 64 KiB on some aarch64 systems) page runs are rounded to the OS page, which
/// is read at run time.
pub const PAGE_BYTES: usize = 4096;
/// The OS page is taken to be at least this large. `--cfg tallow_page_64k` tests
/// on a system with small pages what happens on one with large ones.
#[cfg(not(tallow_page_64k))]
pub const LEAST_OS_PAGE_BYTES: usize = PAGE_BYTES;
/// As above.
#[cfg(tallow_page_64k)]
pub const LEAST_OS_PAGE_BYTES: usize = 64 << 10;
/// log2 of [`PAGE_BYTES`].
pub const LG_PAGE: u32 = 12;

/// A segment: the unit of address space that the page heap cuts up, and the
/// alignment by which an address finds its segment's header.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Pages in a segment, the header's pages included.
pub const SEGMENT_PAGES: usize = SEGMENT_BYTES / PAGE_BYTES;

/// Segments reserved at a time. One system call for 32 MiB of address space;
/// nothing of it is backed by memory until it is written.
pub const RESERVE_SEGMENTS: usize = 8;

/// The most segments that the page heap keeps in its table (2 TiB).
pub const MAX_SEGMENTS: usize = 1 << 19;

/// Address bits that the segment map covers: what Linux gives to programs on
/// x86-64 and aarch64 unless they ask for more by a hint, which Tallow never does.
#[cfg(not(miri))]
pub const LG_ADDRESS: u32 = 48;
/// As above; Miri gives low addresses, and looks at the whole map with each access.
#[cfg(miri)]
pub const LG_ADDRESS: u32 = 36;

/// Largest size, in bytes, that is served from slabs.
pub const SMALL_MAX_BYTES: usize = 32 << 10;
/// Largest size, in bytes, that is served from a segment; above it a block is
/// huge, with a mapping of its own. A quarter of a segment, so that three fit
/// beside the header.
pub const LARGE_MAX_BYTES: usize = 1 << 20;

/// Arenas at most. A process starts with one and is given more only when
/// threads are seen to get in each other's way.
pub const MAX_ARENAS: usize = 4;

/// Bytes that one magazine may hold, where the class lets it.
pub const MAGAZINE_BYTES: usize = 64 << 10;
/// Items that one magazine may hold at most.
#[cfg(not(loom))]
pub const MAGAZINE_MAX: usize = 4096;
/// As above, in a model.
#[cfg(loom)]
pub const MAGAZINE_MAX: usize = 4;
/// Items that every class may hold, however large its regions.
pub const MAGAZINE_MIN: usize = 1;
/// Frees of a thread that has never allocated which do not give it a cache.
pub const EARLY_FREES: u32 = 16;
/// Items that a magazine starts with at most; their number doubles with use.
#[cfg(not(loom))]
pub const MAGAZINE_START: usize = 8;
/// As above, in a model.
#[cfg(loom)]
pub const MAGAZINE_START: usize = 2;
/// Items of each class that lie close together at first, so that a thread that
/// hardly allocates touches few pages.
#[cfg(not(loom))]
pub const MAGAZINE_FEW: usize = 16;
/// As above, in a model.
#[cfg(loom)]
pub const MAGAZINE_FEW: usize = 2;
/// Bytes that each magazine of a thread may hold at first,
pub const MAGAZINE_START_BYTES: usize = 1024;
/// and how many more for each time that the thread has taken a slow path: one that
/// hardly allocates keeps little, one that does has earned it all within some
/// milliseconds.
pub const MAGAZINE_EARNED_BYTES: usize = 16;

/// A thread that only frees regions of a class uses one in so many places of its magazine, and
/// sends all of them back at once: half as many as go from a whole one. Others' blocks
/// would be cold when they get back to those who allocate them.
pub const ONE_WAY_PART: usize = 4;

/// Slow-path entries of a thread between two looks at the clock.
pub const TICK_EVERY: u32 = 256;

/// Large and huge blocks of a thread between two looks at the clock.
pub const BLOCK_TICK_EVERY: u32 = 16;

/// Time after which a freed extent has gone back to the OS, in milliseconds.
pub const DECAY_MS: u64 = 10_000;

/// Accounts with tallies for each thread; those declared beyond are exact as well,
/// but share a counter between threads.
#[cfg(not(loom))]
pub const MAX_ACCOUNTS: usize = 64;
/// As above, in a model.
#[cfg(loom)]
pub const MAX_ACCOUNTS: usize = 2;

/// Bytes that processors hand to each other at once.
pub const CACHE_LINE_BYTES: usize = 64;

/// Bytes that the kernel may back by one huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Whether misuse is caught where it happens (feature `hardened`). Every branch on it
/// is decided by the compiler: without the feature nothing of it is left.
pub const HARDENED: bool = cfg!(feature = "hardened");
/// Of so many small blocks, one lies between guard pages, if nothing else is set.
pub const GUARD_ONE_IN: u32 = 16_384;
/// Places between guard pages: 36 MiB of address space, and of the mappings that Linux
/// allows a process (65 530) at most 1 in 30. Memory is taken by what lies in them.
pub const GUARD_SLOTS: usize = 1024;
/// Places that at least stay inaccessible after their block was freed, before the oldest
/// is used again.
pub const GUARD_QUARANTINE: usize = 64;
/// Freed large blocks that wait, inaccessible, before they are lent again: so many,
pub const LARGE_WAITING: usize = 64;
/// and so many bytes of them.
pub const LARGE_WAITING_BYTES: usize = 4 << 20;
/// Bytes of a free region that are filled and looked at, from its start on.
pub const POISON_BYTES: usize = 64;
/// log2 of the bytes that have a mark of their own: regions are multiples of that.
pub const LG_GRANULE: u32 = 4;
/// Regions whose order is mixed at once: enough that a neighbour is a guess, and few
/// enough that they stay in the processor's cache.
pub const SHUFFLE_WINDOW: usize = 16;
/// Bytes that so many regions may take, if their order is mixed.
pub const SHUFFLE_BYTES: usize = 1 << 10;
/// Which region behind the one that is handed out is fetched meanwhile: the next one, or one
/// further on where the order is mixed.
pub const FETCHED_AHEAD: usize = if HARDENED { 8 } else { 1 };

const_assert!(GUARD_QUARANTINE < GUARD_SLOTS);
const_assert!(POISON_BYTES.is_multiple_of(1 << LG_GRANULE));
const_assert!(1usize << LG_PAGE == PAGE_BYTES);
const_assert!(SEGMENT_BYTES.is_multiple_of(HUGE_PAGE_BYTES));
const_assert!(SEGMENT_BYTES.is_power_of_two());
const_assert!(SMALL_MAX_BYTES < LARGE_MAX_BYTES);
const_assert!(LARGE_MAX_BYTES * 3 < SEGMENT_BYTES);
const_assert!(MAGAZINE_START <= MAGAZINE_MAX);
