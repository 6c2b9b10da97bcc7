//! Hardened: sampled small blocks, each between guard pages of its own.
//!
//! ```text
//!  | guard | place 0: 32 KiB | guard | place 1 ...       | guard |
//!                     block--|        (accessible: the pages it lies on, while it lives)
//! ```
//!
//! A block ends where its place ends, as far as its alignment lets it, so that the
//! first byte behind it is a fault. When it is freed its pages are made inaccessible
//! and wait in a queue; the one that has waited longest is used again.
//!
//! The places are no part of any segment, so a free that finds no slab asks here; the
//! hot path does not.

use crate::config::{GUARD_QUARANTINE, GUARD_SLOTS, SMALL_MAX_BYTES};
use crate::error::{Corruption, Line};
use crate::lock::Lock;
use crate::os::fault::Wanted;
use crate::os::trace::Trace;
use crate::os::{self, Access};
use crate::pages::BlockBooks;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use core::fmt::Write as _;
use core::ptr::{self, NonNull};

/// What fills the rest of a block's pages.
const FILLER: u8 = 0xDF;

/// What became of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum State {
    /// All of the place is zero, and the state is read as this.
    #[allow(dead_code, reason = "memory of the system's is zero")]
    Unused = 0,
    Held,
    Freed,
}

/// The block in a place, or the last one there.
#[derive(Clone, Copy)]
struct Place {
    state: State,
    address: usize,
    size: usize,
    /// Bytes that the books have for it: those of its class.
    region_bytes: usize,
    /// Whether the size was entered as requested.
    counted: bool,
    allocated: Trace,
    freed: Trace,
}

struct Shared {
    /// Places free for use, in the order in which they will be: a ring.
    free: [u16; GUARD_SLOTS],
    first: usize,
    free_count: usize,
    books: BlockBooks,
    /// Bytes of the pages on which blocks lie.
    page_bytes: usize,
    /// Places that have ever had a block.
    used: usize,
}

/// The sampled blocks.
pub(crate) struct Guarded {
    shared: Lock<Shared>,
    /// Where the places begin; 0 until the first block is sampled.
    start: AtomicUsize,
    places: AtomicPtr<Place>,
}

/// Of this process.
pub(crate) static GUARDED: Guarded = Guarded {
    shared: Lock::new(Shared {
        free: [0; GUARD_SLOTS],
        first: 0,
        free_count: 0,
        books: BlockBooks::NONE,
        page_bytes: 0,
        used: 0,
    }),
    start: AtomicUsize::new(0),
    places: AtomicPtr::new(ptr::null_mut()),
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) region_bytes: usize,
    pub(crate) counted: bool,
}

fn place_bytes() -> usize {
    SMALL_MAX_BYTES.next_multiple_of(os::page_bytes())
}

fn stride() -> usize {
    place_bytes() + os::page_bytes()
}

/// The pages on which a block lies, as an address and bytes; they end with its place.
fn pages_of(end: usize, address: usize) -> (usize, usize) {
    let first = address & !(os::page_bytes() - 1);
    (first, end - first)
}

fn at(address: usize) -> NonNull<u8> {
    // The places were exposed when they were reserved.
    NonNull::new(ptr::with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling())
}

impl Guarded {
    /// A block of its own, or `None` when all places are taken or the system refuses.
    /// Calls the OS.
    #[cold]
    pub(crate) fn allocate(&self, request: Request) -> Option<NonNull<u8>> {
        let trace = Trace::here();
        let mut shared = self.shared.lock();
        let start = self.prepare(&mut shared)?;
        if shared.free_count <= GUARD_QUARANTINE {
            return None;
        }
        let index = usize::from(shared.free[shared.first]);
        let end = start + index * stride() + place_bytes();
        let address = (end - request.size) & !(request.align - 1);
        let (first, bytes) = pages_of(end, address);
        // SAFETY: pages of a free place.
        if !unsafe { os::protect(at(first), bytes, Access::All) } {
            return None;
        }
        shared.first = (shared.first + 1) % GUARD_SLOTS;
        shared.free_count -= 1;
        // At first they come in order.
        shared.used = shared.used.max(index + 1);
        shared.books.count += 1;
        shared.books.bytes += request.region_bytes;
        shared.page_bytes += bytes;
        // SAFETY: as above, accessible now.
        unsafe { at(first).write_bytes(FILLER, bytes) };
        let place = Place {
            state: State::Held,
            address,
            size: request.size,
            region_bytes: request.region_bytes,
            counted: request.counted,
            allocated: trace,
            freed: Trace::NONE,
        };
        // SAFETY: under the lock; `index` is a place's.
        unsafe { self.place(index)?.write(place) };
        Some(at(address))
    }

    /// Whether an address lies in a place, or on a guard.
    pub(crate) fn has(&self, address: usize) -> bool {
        self.find(address).is_some()
    }

    /// Takes the block at `address` back, of `size` bytes if that was counted. Aborts when
    /// it is not a block, not one of that size, or was written beside. Calls the OS.
    #[cold]
    pub(crate) fn free(&self, address: usize, size: Option<usize>) {
        let trace = Trace::here();
        let Some((index, end)) = self.find(address) else { return };
        let mut shared = self.shared.lock();
        let Some(place) = self.place(index) else { return };
        // SAFETY: under the lock.
        let it = unsafe { place.read() };
        if let Some(what) = it.objection(address, size, end) {
            // Without the lock: what runs while the program ends may allocate.
            drop(shared);
            report(what, &it, &trace);
        }
        let (first, bytes) = pages_of(end, address);
        // SAFETY: as above.
        unsafe { place.write(Place { state: State::Freed, freed: trace, ..it }) };
        // SAFETY: the place is nobody's now. Purged first: it needs no access.
        unsafe {
            os::purge(at(first), bytes);
            os::protect(at(first), bytes, Access::None);
        }
        shared.books.count -= 1;
        shared.books.bytes -= it.region_bytes;
        shared.page_bytes -= bytes;
        let last = (shared.first + shared.free_count) % GUARD_SLOTS;
        shared.free[last] = index as u16;
        shared.free_count += 1;
    }

    /// Bytes of the block at `address`; `None` when it is none.
    pub(crate) fn usable_bytes(&self, address: usize) -> Option<usize> {
        let (index, _) = self.find(address)?;
        let _shared = self.shared.lock();
        // SAFETY: under the lock.
        let it = unsafe { self.place(index)?.as_ref() };
        (it.state == State::Held && it.address == address).then_some(it.size)
    }

    /// What is in use: blocks with the bytes of their classes, and bytes of their pages.
    pub(crate) fn books(&self) -> (BlockBooks, usize) {
        let shared = self.shared.lock();
        (shared.books, shared.page_bytes)
    }

    /// The books, and the same recounted from the places.
    ///
    /// # Safety
    /// The caller holds the lock by [`Guarded::raw_lock`].
    pub(crate) unsafe fn recount_held(&self) -> (BlockBooks, BlockBooks) {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared.value_held() };
        let mut counted = BlockBooks::default();
        // SAFETY: places stay where they are once there.
        for it in (0..shared.used).filter_map(|i| Some(unsafe { self.place(i)?.as_ref() })) {
            if it.state == State::Held {
                counted.count += 1;
                counted.bytes += it.region_bytes;
            }
        }
        (shared.books, counted)
    }

    /// Bytes of address space that the places take, and of what is known about them.
    pub(crate) fn mapped_bytes(&self) -> usize {
        match self.start.load(Ordering::Relaxed) {
            0 => 0,
            _ => whole_bytes() + table_bytes(),
        }
    }

    /// Bytes of Tallow's own that are backed by memory.
    pub(crate) fn table_bytes(&self) -> usize {
        let used = self.shared.lock().used;
        (used * size_of::<Place>()).next_multiple_of(os::page_bytes())
    }

    /// For the fork handlers and the audit.
    pub(crate) fn raw_lock(&self) {
        self.shared.raw_lock();
    }

    /// # Safety
    /// The caller holds the lock by [`Guarded::raw_lock`].
    pub(crate) unsafe fn raw_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.shared.raw_unlock() }
    }

    /// Whether [`Guarded::tell`] would tell of an access. Takes no lock.
    pub(crate) fn knows(&self, address: usize) -> bool {
        let Some(place) = self.find(address).and_then(|(index, _)| self.place(index)) else {
            return false;
        };
        // SAFETY: a place; what another thread may be writing is only looked at.
        unsafe { (&raw const (*place.as_ptr()).state).read_volatile() != State::Unused }
    }

    /// Tells of an access to an inaccessible page of a place. Takes no lock: the thread
    /// may hold it. Called by the handler of the signal.
    pub(crate) fn tell(&self, address: usize, wanted: Wanted) -> bool {
        let Some((index, _)) = self.find(address) else { return false };
        let Some(place) = self.place(index) else { return false };
        // SAFETY: a place; what another thread may be writing is only printed.
        let it = unsafe { place.as_ptr().read_volatile() };
        let mut line = Line::new();
        let (what, wanted) = match it.state {
            State::Freed => ("use after free", wanted.name()),
            State::Held if address < it.address => ("access before a block", wanted.name()),
            State::Held => ("access behind a block", wanted.name()),
            State::Unused => return false,
        };
        let (offset, size) = (address.wrapping_sub(it.address) as isize, it.size);
        // A `Line` takes every write, so there is no error to look at.
        let _ = write!(
            line,
            "tallow: {what}: {wanted} of {address:#x}, byte {offset} of the block of {size} bytes at {:#x}",
            it.address
        );
        os::write_stderr(line.end().as_bytes());
        Trace::here().write("accessed");
        it.write_traces();
        true
    }

    /// The places, made by the first call; `None` when memory is out.
    fn prepare(&self, shared: &mut Shared) -> Option<usize> {
        let start = self.start.load(Ordering::Relaxed);
        if start != 0 {
            return Some(start);
        }
        let table = os::reserve_guarded(table_bytes(), os::page_bytes())?.cast::<Place>();
        let Some(whole) = os::reserve(whole_bytes(), os::page_bytes()) else {
            // SAFETY: reserved just now.
            unsafe { os::release_guarded(table.cast(), table_bytes()) };
            return None;
        };
        // SAFETY: reserved just now.
        if !unsafe { os::protect(whole, whole_bytes(), Access::None) } {
            // SAFETY: as above; nobody uses either.
            unsafe {
                os::release(whole, whole_bytes());
                os::release_guarded(table.cast(), table_bytes());
            }
            return None;
        }
        // The table is zero, which is what unused places are.
        for (i, free) in shared.free.iter_mut().enumerate() {
            *free = i as u16;
        }
        shared.free_count = GUARD_SLOTS;
        let start = whole.addr().get() + os::page_bytes();
        // Release pairs with the Acquire in `place`: the table is whole.
        self.places.store(table.as_ptr(), Ordering::Release);
        self.start.store(start, Ordering::Release);
        Some(start)
    }

    /// The place, or the guard behind it, that an address lies in, and where the place
    /// ends. The guard before the first place counts as of that one.
    fn find(&self, address: usize) -> Option<(usize, usize)> {
        // Acquire pairs with the Release in `prepare`.
        let start = self.start.load(Ordering::Acquire);
        if start == 0 {
            return None;
        }
        let offset = address.checked_sub(start - os::page_bytes())?;
        let index = offset.saturating_sub(os::page_bytes()) / stride();
        (index < GUARD_SLOTS).then(|| (index, start + index * stride() + place_bytes()))
    }

    fn place(&self, index: usize) -> Option<NonNull<Place>> {
        // Acquire pairs with the Release in `prepare`.
        let places = NonNull::new(self.places.load(Ordering::Acquire))?;
        // SAFETY: callers pass the index of a place.
        Some(unsafe { places.add(index) })
    }
}

fn whole_bytes() -> usize {
    os::page_bytes() + GUARD_SLOTS * stride()
}

fn table_bytes() -> usize {
    (GUARD_SLOTS * size_of::<Place>()).next_multiple_of(os::page_bytes())
}

impl Place {
    /// What is wrong with giving the block at `address` back, where the place ends at `end`.
    fn objection(&self, address: usize, size: Option<usize>, end: usize) -> Option<Corruption> {
        let (region_bytes, freed_bytes) = (self.region_bytes, size.unwrap_or(0));
        match self.state {
            State::Held if self.address == address => {}
            State::Freed if self.address == address => {
                return Some(Corruption::DoubleFree { address, region_bytes });
            }
            State::Held => return Some(Corruption::Interior { address, region_bytes }),
            _ => return Some(Corruption::Foreign { address, size: freed_bytes }),
        }
        if size.is_some() != self.counted || size.is_some_and(|size| size != self.size) {
            return Some(Corruption::Size { address, freed_bytes });
        }
        let untouched = |from: usize, to: usize| {
            // SAFETY: accessible pages of this place.
            (from..to).all(|byte| unsafe { at(byte).as_ptr().read() } == FILLER)
        };
        if !untouched(address + self.size, end) {
            return Some(Corruption::Overflow { address, size: self.size });
        }
        let (first, _) = pages_of(end, address);
        (!untouched(first, address)).then_some(Corruption::Underflow { address, size: self.size })
    }

    fn write_traces(&self) {
        self.allocated.write("allocated");
        if self.state == State::Freed {
            self.freed.write("freed");
        }
    }
}

/// Writes what is wrong, where the block came from, and aborts.
fn report(what: Corruption, place: &Place, trace: &Trace) -> ! {
    os::write_stderr(what.line().as_bytes());
    trace.write("freed now");
    place.write_traces();
    os::end()
}
