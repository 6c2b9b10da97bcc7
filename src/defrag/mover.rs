//! The mover: copies blocks out of slabs that are being emptied.

use super::books::{BOOKS, add};
use super::pass::{Outcome, PURGE_AT_ONCE};
use crate::arena::CENTRAL;
use crate::class::{self, CLASS_COUNT, Class};
use crate::config::HARDENED;
use crate::heap::harden;
use crate::segment::{Entry, Segment};
use crate::slab::{Slab, State};
use crate::thread::{Cache, with_cache};
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use std::time::{Duration, Instant};

/// Regions of each class that a step keeps ready, and puts back at its end.
const READY: usize = 16;
/// Regions that are returned together.
const GOING: usize = 32;
/// One part in so many of a step's time is for giving back what was emptied.
const PURGE_SHARE: u32 = 4;
/// Blocks looked at between two looks at the clock.
const CLOCK_EVERY: u32 = 32;

/// Regions on their way: taken but not used yet, left but not returned yet.
/// They bypass the thread's magazines, which would hand them out at random.
#[derive(Debug)]
pub(super) struct Desk {
    ready: [[*mut u8; READY]; CLASS_COUNT],
    ready_count: [u8; CLASS_COUNT],
    going: [*mut u8; GOING],
    going_count: usize,
    going_class: Option<Class>,
    /// Regions moved in this step.
    moved: [u32; CLASS_COUNT],
}

// SAFETY: the regions belong to the desk, wherever it is.
unsafe impl Send for Desk {}
// SAFETY: a shared desk gives no access to them.
unsafe impl Sync for Desk {}

impl Desk {
    pub(super) const fn new() -> Self {
        Self {
            ready: [[ptr::null_mut(); READY]; CLASS_COUNT],
            ready_count: [0; CLASS_COUNT],
            going: [ptr::null_mut(); GOING],
            going_count: 0,
            going_class: None,
            moved: [0; CLASS_COUNT],
        }
    }

    /// A region in one of the fullest slabs, of that arena if it has one; `None`
    /// when memory is out.
    fn take(&mut self, class: Class, arena: usize) -> Option<NonNull<u8>> {
        let ready = &mut self.ready[class.index()];
        let count = &mut self.ready_count[class.index()];
        if *count == 0 {
            // The lowest comes out last: turned round below.
            let mut n = 0;
            with_cache(|cache| {
                cache.with_shared(|shared, _| {
                    let want = READY as u32;
                    let got = CENTRAL.claim_dense(arena, class, want, &mut |row| {
                        for region in row.regions() {
                            ready[n] = region;
                            n += 1;
                        }
                    });
                    shared.claimed[class.index()] += i64::from(got);
                });
            });
            ready[..n].reverse();
            if HARDENED {
                ready[..n].iter().for_each(|&region| harden::hold(region, class));
            }
            *count = n as u8;
        }
        let n = usize::from(*count).checked_sub(1)?;
        *count -= 1;
        NonNull::new(ready[n])
    }

    /// Sends a region back to its slab, with others of its class.
    fn put(&mut self, class: Class, region: *mut u8) {
        if self.going_count == GOING || self.going_class != Some(class) {
            self.send();
        }
        self.going_class = Some(class);
        self.going[self.going_count] = region;
        self.going_count += 1;
    }

    fn send(&mut self) {
        if let Some(class) = self.going_class {
            if HARDENED {
                let regions = &self.going[..self.going_count];
                regions.iter().for_each(|&region| harden::let_go(region, class));
            }
            give_back(class, &self.going[..self.going_count]);
        }
        self.going_count = 0;
    }

    /// Leaves nothing on the desk.
    pub(super) fn clear(&mut self) {
        self.send();
        for class in Class::all() {
            let n = usize::from(core::mem::take(&mut self.ready_count[class.index()]));
            if HARDENED {
                let regions = &self.ready[class.index()][..n];
                regions.iter().for_each(|&region| harden::let_go(region, class));
            }
            give_back(class, &self.ready[class.index()][..n]);
        }
    }
}

/// The slab of a block of `class` at `address`, if it is one of Tallow's.
fn slab_of(class: Class, address: usize) -> Option<NonNull<Slab>> {
    CENTRAL.place(class, address).ok()
}

fn give_back(class: Class, regions: &[*mut u8]) {
    if !regions.is_empty() {
        with_cache(|cache| {
            cache.with_shared(|shared, _| {
                CENTRAL.give_back(class, regions);
                shared.claimed[class.index()] -= regions.len() as i64;
            });
        });
    }
}

/// Moves blocks during one step of a pass. See [`super::Pass::step`].
#[derive(Debug)]
pub struct Mover<'a> {
    desk: &'a mut Desk,
    outcome: &'a mut Outcome,
    /// More dirty pages than this are the pass's own; `None` when it is idle.
    dirty_pages: Option<usize>,
    started: Instant,
    /// When moving ends, and when purging ends.
    deadline: Instant,
    end: Instant,
    /// Hits and misses when the step began.
    before: (u64, u64),
    looks: u32,
    late: bool,
}

impl<'a> Mover<'a> {
    pub(super) fn new(
        desk: &'a mut Desk,
        outcome: &'a mut Outcome,
        dirty_pages: Option<usize>,
        budget: Duration,
    ) -> Self {
        let started = Instant::now();
        // A budget beyond the end of time is no budget.
        let after =
            |budget| started.checked_add(budget).unwrap_or(started + Duration::from_secs(1 << 30));
        let (deadline, end) = (after(budget - budget / PURGE_SHARE), after(budget));
        let before = (outcome.hits, outcome.misses);
        if dirty_pages.is_some() {
            // What was freed since the last step, before it is used again: a block in
            // a slab that is being emptied, behind the program's cursor, would pin it.
            with_cache(Cache::empty_own);
        }
        Self { desk, outcome, dirty_pages, started, deadline, end, before, looks: 0, late: false }
    }

    /// Whether the pass does anything.
    #[inline]
    pub(super) fn active(&self) -> bool {
        self.dirty_pages.is_some()
    }

    /// Whether the step's time is over. Looks at the clock now and then only;
    /// cheap enough to ask after every object.
    #[inline]
    pub fn out_of_time(&mut self) -> bool {
        if !self.late && self.looks >= CLOCK_EVERY {
            self.looks = 0;
            self.late = Instant::now() >= self.deadline;
        }
        self.looks += 1;
        self.late
    }

    /// Whether a value lies in a slab that is being emptied. Some loads; `false`
    /// for values outside of Tallow's memory, and for those without a size.
    #[inline]
    pub fn should_move<T: ?Sized>(&self, value: &T) -> bool {
        if size_of_val(value) == 0 {
            return false;
        }
        // SAFETY: a reference keeps the memory that it leads to from going away.
        unsafe { self.is_evacuating(ptr::from_ref(value).addr()) }
    }

    /// Whether the byte at `address` lies in a slab that is being emptied.
    ///
    /// # Safety
    /// If it lies in a segment of Tallow's, then in a block that is not freed
    /// meanwhile: that keeps the segment's header in place.
    #[inline]
    unsafe fn is_evacuating(&self, address: usize) -> bool {
        match Segment::entry_of(address) {
            Entry::Slab { header, .. } => {
                // SAFETY: headers are never unmapped (meta, M1).
                let slab = unsafe { header.cast::<Slab>().as_ref() };
                self.active() && slab.header().state() == State::Evacuating
            }
            Entry::None | Entry::Large { .. } | Entry::Freed { .. } => false,
        }
    }

    /// Sees to it that a block of `bytes` bytes that is allocated next does not come
    /// from where this thread has just freed one that should move.
    #[cfg_attr(not(feature = "bytes"), allow(dead_code, reason = "that is who copies"))]
    pub(super) fn clear_way(&mut self, bytes: usize) {
        let Some(class) = class::of_layout(bytes, 1) else { return };
        while let Some(region) = with_cache(|cache| {
            // SAFETY: a region in the cache keeps its segment in place.
            cache.take_newest(class, |region| unsafe { self.is_evacuating(region.addr()) })
        }) {
            if HARDENED {
                harden::hold(region, class);
            }
            self.desk.put(class, region);
        }
    }

    /// Hands back what this thread has freed, so that it is not handed out again:
    /// before memory is allocated in the place of memory that should move.
    pub(super) fn send_freed(&mut self) {
        self.desk.send();
        with_cache(Cache::empty_own);
    }

    /// Moves a block if it should move: returns its new address, with the first
    /// `layout.size()` bytes, and the rest of its region, copied. The old block is gone then; forget its
    /// address. `None` leaves everything as it was.
    ///
    /// For owners that keep raw pointers; all others use
    /// [`Relocate`](super::Relocate).
    ///
    /// # Safety
    /// - The block was allocated by Tallow with this layout, as the whole of an
    ///   allocation, and nothing refers to it but the caller.
    /// - The global allocator keeps nothing of its own inside the block.
    #[inline]
    pub unsafe fn move_raw(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        self.looks += 1;
        // SAFETY: the block is the caller's, by his promise.
        if !unsafe { self.is_evacuating(block.addr().get()) } {
            self.outcome.misses += 1;
            return None;
        }
        self.move_block(block, layout)
    }

    fn move_block(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        let class = class::of_layout(layout.size(), layout.align())?;
        // A slab of another class, or the inside of a region: not a block with
        // that layout. Somebody wraps the allocator; leave it alone.
        let slab = slab_of(class, block.addr().get())?;
        // SAFETY: headers are never unmapped (meta, M1).
        let arena = unsafe { slab.as_ref() }.header().tag().arena();
        let to = self.desk.take(class, arena)?;
        let region_bytes = class.info().region_bytes as usize;
        // SAFETY: both are regions of this class, and distinct: the new one was
        // free.
        unsafe { ptr::copy_nonoverlapping(block.as_ptr(), to.as_ptr(), region_bytes) };
        if HARDENED {
            harden::moved(block.as_ptr(), to.as_ptr());
        }
        self.desk.put(class, block.as_ptr());
        self.outcome.hits += 1;
        self.outcome.moved_bytes += region_bytes as u64;
        self.desk.moved[class.index()] += 1;
        self.looks += CLOCK_EVERY / 8;
        Some(to)
    }
}

impl Drop for Mover<'_> {
    fn drop(&mut self) {
        self.desk.clear();
        if let Some(dirty_pages) = self.dirty_pages {
            // What is left when the time is over waits for the next step.
            while CENTRAL.pages.purge_down_to(dirty_pages, PURGE_AT_ONCE) > 0
                && Instant::now() < self.end
            {}
        }
        let (hits, misses) =
            (self.outcome.hits - self.before.0, self.outcome.misses - self.before.1);
        add(&BOOKS.hits, hits);
        add(&BOOKS.misses, misses);
        for class in Class::all().filter(|_| hits > 0) {
            let regions = core::mem::take(&mut self.desk.moved[class.index()]);
            BOOKS.note_moved(class, regions.into());
        }
        self.outcome.note_step(self.started.elapsed());
    }
}
