//! What the allocator's correctness rests on, and what looks after it.
//!
//! Three things are argued here: why each atomic access is ordered strongly enough,
//! what of the code is `unsafe`, and what the invariants are. What runs against them,
//! with its figures, follows at the end, and what nothing looks at.
//!
//! # Invariants
//!
//! They are numbered, and stand at the head of the modules that keep them:
//!
//! | | module | about |
//! |---|---|---|
//! | C1 to C3 | `class` | alignment of regions, waste of slabs, from an offset to a region |
//! | M1, M2 | `meta` | headers are never unmapped, and keep their first word |
//! | S1 to S3 | `segment` | what the map, the page map and the page sets say |
//! | P1 to P3 | `pages` | each page is in one state, and the books equal the sets |
//! | L1 to L4 | `slab` | the count is never below the missing bits; retired once; listed once; punched pages are free |
//! | B1, B2 | `arena::bin` | each slab is where its state says |
//! | A1, A2 | `arena` | page-map entries outlive regions; books equal counts |
//! | K1, K2 | `slab::marks` | hardened: which regions the program holds, what free ones are filled with |
//! | T1 to T5 | `thread` | who moves the bounds of a magazine; recall; order of the books |
//! | Y1 to Y3 | `thread::tally` | who writes a tally, and what a look in between may find |
//!
//! [`audit`](crate::audit()) recounts what can be counted: P1 to P3, L1 at rest, B1 and B2,
//! A1 and A2, and L4. The tests call it after every step.
//!
//! # Memory model
//!
//! Every atomic type comes from `sync`, the one file that may name them; under loom they
//! are loom's. `SeqCst` is not used on any access. These are all of them, by what they
//! guard.
//!
//! ## Locks
//! The lock's word is taken with `Acquire` (compare-and-swap, and the swap of a waiter)
//! and let go of with `Release`: what one holder wrote happens before the next holder's
//! reads. The look before an attempt is `Relaxed`, since the attempt decides. Whatever is
//! said below to be *under a lock* is ordered by this and may be `Relaxed`, or no atomic.
//!
//! ## From an address to a slab
//! - Segment map: a bit is set with `fetch_or(Release)` after the header is written, and
//!   read with `Acquire` (S1). It is cleared with `Relaxed`: nobody holds memory of that
//!   segment any more, so nobody asks for it; a wrong pointer that does may find either.
//!   Whoever is given the same addresses for something else is so by the kernel, under its
//!   lock, after they were unmapped, which follows the clearing: he finds it cleared.
//! - Page-map entries: stored with `Release` after the slab's node is chosen, loaded with
//!   `Acquire`. A caller who frees a region was handed it after the entry was stored (A1),
//!   so the order comes to him with the region, too.
//!
//! ## Slabs
//! - *Bits of free regions.* Returning is `fetch_or(Release)`, taking `fetch_and(Acquire)`:
//!   what the last owner wrote happens before the next owner's first access. Bits are
//!   changed by read-modify-write only, so a chain of them carries each `Release` on to
//!   all later takers. The look before taking is `Relaxed`: the bits that the operation
//!   returns count, not those that were seen. Looks of audits, surveys and punching are
//!   `Relaxed`: a count at rest, or a guess.
//! - *Header word.* Claiming is a compare-and-swap with `Acquire`, which pairs with the
//!   `Release` of the return that made the room: the bits are back before the count falls,
//!   so who raised it finds them (L1). Lowering is `fetch_sub(AcqRel)`: `Release` for that
//!   pairing; `Acquire` so that the thread that reaches 0 sees all returns before it (L2),
//!   and what the owners wrote, before the pages go. State changes are `AcqRel`, being the
//!   other half of both. A new slab's word is stored with `Release`, and `Acquire` loads
//!   see its fields; the load before that store is `Relaxed`, of a node that is ours.
//! - *Stale readers.* A thread that was about to claim may look at the header of a slab
//!   that was retired, and used again meanwhile. It reads the word, finds another tag,
//!   state or generation, and touches nothing else; M1 and M2 keep the word a word. The
//!   header's other fields are cells, so that the reference it holds promises nothing.
//! - *Alone.* In a process that has never had a second thread, bits and count are a
//!   `Relaxed` load and store each. Starting a thread orders all of it before that
//!   thread's first step; afterwards this is never done again.
//! - *Punched pages.* The note is set with `Relaxed` between the claim of all regions on
//!   the page and their return, whose `Release` publishes it; who takes one of them with
//!   `Acquire` sees it, and strikes it out with `Relaxed`, owning a region on that page
//!   (L4).
//! - *Hint* of where to search: `Relaxed`, a guess.
//!
//! ## Bins
//! The owned slab's address is stored with `Release` under the bin's lock, loaded with
//! `Acquire` without: the slab is whole when it is seen. The counts read it with `Relaxed`
//! under the lock. Everything else of a bin is under its lock.
//!
//! ## Thread caches
//! - Bounds and items of magazines are `Relaxed`. Their own thread alone moves `cur` and
//!   writes items (T1). Others write `base` and `end` and read `cur`, under the record's
//!   lock; what they read without having stopped the thread is used as a count only.
//! - *Recall* (T3) is the one place where order comes from the system and not from an
//!   atomic: `membarrier` makes every running thread pass a full barrier, and the hot path
//!   keeps its operations apart by compiler fences. After it, an item below the top one was
//!   written before the barrier and is not touched by an operation on its way. The
//!   language's model does not know `membarrier`; it stands for a `SeqCst` fence in each
//!   thread at that moment. Where it is not to be had, nobody takes items out of another
//!   thread's magazine: each hands back its own.
//! - *Sums of bytes, stage, early frees, pointers to record and tallies, the mark of being
//!   in a callback:* `Relaxed`, of their own thread. Others read the sums: each alone is
//!   right, both together within what is on its way (T5).
//! - *A record's count of blocks, and the look whether a cache was recalled, of its own thread:*
//!   `Relaxed`. What is recalled is found out again under the record's lock; a look that comes
//!   too early is made again with the next block.
//! - *List of records:* published with `Release`, walked with `Acquire`; `next` is written
//!   before and never again (T4), so `Relaxed`. The free list, the count and the room for
//!   more items are under locks: `Relaxed`. A record's tallies are published with `Release`
//!   and read with `Acquire`, since others add them up.
//! - *Generation of forks:* `Relaxed`; a child has one thread when it changes.
//!
//! ## Accounts
//! - What is fresh in a tally, and what has been told, are single words that one thread
//!   writes. The hot path is `Relaxed`. When fresh becomes told, both stores are `Release`
//!   and those who add up load with `Acquire`, in the order of Y2: so a look in between may
//!   count requests twice or miss returns, never the reverse. Over all threads, all returns
//!   are read before any request (Y3); of the counters that threads without tallies share,
//!   returns are added with `Release` and loaded with `Acquire` for that.
//! - The list of accounts: `Release` and `Acquire`, links `Relaxed`, as for records; here
//!   by compare-and-swap, and a chain of those keeps every `Release`. An account's place
//!   and whether it is listed: `Relaxed`; who does not see the place yet uses the shared
//!   counters, which are sums as well.
//! - Told bytes, peak, limits, hits and refusals: `Relaxed`, numbers of their own.
//!
//! ## Limits
//! The ceiling and how often limits were set are one word. It is changed by
//! compare-and-swap (`AcqRel`) after the limits are stored, and loaded with `Acquire` before
//! they are read to set it anew, which then fails if they have been changed meanwhile: so
//! that swap is `Relaxed`. Comparing with it is `Relaxed`: a number that is a moment late.
//! The limits themselves and the counts are `Relaxed`. Bytes that are permitted and not
//! booked yet are one word, of the process and of each account, with the count of how often
//! some were entered. It is read before the books and changed by compare-and-swap after them
//! (`Relaxed`); what leaves it does so with `Release`, after it was booked, and the read is
//! `Acquire` (E2); who would fit without it waits for it to leave (E3). A forked child begins
//! with none. The callback is a pointer, stored with
//! `Release`, loaded with `Acquire`.
//!
//! ## The hardened mode
//! - *Marks.* A region's mark is written by who has the region: when it is handed out, by the
//!   thread that took it out of its cache; when it comes back, by who frees it. One owner's
//!   writes happen before the next one's by the way that the region goes (a magazine of the
//!   same thread, or its bit, returned with `Release` and taken with `Acquire`), so the mark's
//!   accesses are `Relaxed`. Two threads that free one block at the same moment are no owners
//!   both: the mark is swapped, and one of them gets what is not held. In a process that has
//!   one thread the swap is a load and a store. A mark of memory that nobody holds may be read
//!   by whoever frees a wrong pointer; it is a byte of a mapped header.
//! - *Sampled blocks.* Where they lie, and their table, are stored with `Release` once, under
//!   the lock of the table, and loaded with `Acquire` without it by who asks whether an address
//!   is one of theirs; under it `Relaxed`. The table's places are under the lock, but for
//!   the handler of `SIGSEGV`, which reads them without: a report of a program that ends.
//! - *Large blocks that wait* are in the page map, by entries that are stored with `Release`
//!   and loaded with `Acquire`; the handler reads no more than those. The rest is under the
//!   lock of large blocks.
//! - *Handler.* The teller is stored with `Release`, loaded with `Acquire`. Whether the handler
//!   is in place, the calls before, and which thread tells: `Relaxed`, by swap, addition and
//!   compare-and-swap, each a decision of its own.
//! - *A thread's random numbers, and allocations until its next sample:* `Relaxed`, of their
//!   own thread.
//!
//! ## The rest
//! - Settings: `Relaxed`, each a value of its own; any of them is right at any time.
//! - Number of arenas and contention: `Relaxed`; any number ever stored will do.
//! - Books of punched pages, of calls to the system, of defragmentation: `Relaxed` sums.
//! - Blocks of a process that ends: a list, put in front with `Release`, walked with
//!   `Acquire`, never taken from.
//! - The page size and the number of processors: `Relaxed`; all threads compute the same,
//!   or nearly so.
//! - The key of thread ends: made once, published by a compare-and-swap (`AcqRel`), loaded
//!   with `Acquire`.
//! - Whose pass of defragmentation runs: a swap with `Acquire` to begin, a store with
//!   `Release` to end.
//! - Whether the janitor is to end: `Relaxed`; it is started, or woken, after the store.
//! - Whether fork handlers are set: `Relaxed`, a flag of its own.
//!
//! # What is not covered
//!
//! - No proof: models are of small geometry, tests and fuzzing of what they came upon.
//! - No tool knows `membarrier`. Loom's models of recall take it for the fences that it
//!   stands for; Miri and ThreadSanitizer run without it. That the kernel's barrier does
//!   what those fences do is taken from its manual, and from
//!   `purges_under_load_neither_lose_nor_double_a_block`.
//! - Fork, `mremap`, `madvise` and their races are tested natively; in models, stand-ins
//!   take their place.
//! - `stats()` and the limits of the process sum threads one after the other, each under its
//!   lock: of blocks that go from one thread to another meanwhile, the request may be missed
//!   and the return counted. Accounts do not miss any (Y3).
//! - All of it has run on x86-64. Orderings that this processor gives for nothing are
//!   checked by loom, for what has a model, and by Miri's weak memory.
//! - AddressSanitizer and memcheck see the memory of Tallow as mapped, and no borders in
//!   it: a program that writes past its block is found by the tests' patterns, if at all.
//! - Hardened, the marks have loom models, the tests of `.ci/run` that run with the feature,
//!   twenty minutes of fuzzing, and the attacks below. What it does not find is listed with
//!   those.
//! - Corruption is told of, and the process aborted, with the lock held under which it was
//!   found. From there on what no cache has is a mapping of its own, and nothing is taken
//!   back, so that a handler of `SIGABRT` may allocate; where it would wait for a lock all
//!   the same (for statistics, say) the process ends without it.
//! - A thread of a C program that allocates for the first time in the very last round of
//!   its destructors of thread-specific data: nobody tells Tallow of its end.
//! - A fork while another thread gives an address range of huge blocks back: in the child
//!   that range stays mapped, 4 MiB for a tick of the clock, and is in no book.
//! - A program with undefined behaviour of its own: what is found out by chance is said in
//!   the crate's documentation, and no more than that.
//!
#![doc = include_str!("../docs/checks.md")]
#![doc = include_str!("../docs/attacks.md")]
#![doc = include_str!("../docs/loom.md")]
#![doc = include_str!("../docs/sanitizers.md")]
#![doc = include_str!("../docs/unsafe.md")]
