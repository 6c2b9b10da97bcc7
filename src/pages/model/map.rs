//! Loom models of the segment map: segments come and go while other threads look.
//!
//! The word of the map is watched. A lock stands for the kernel's: whoever maps a place
//! again has seen that it was unmapped.

use super::super::PageHeap;
use super::{MOST, World};
use crate::config::SEGMENT_BYTES;
use crate::model::os::{self, on_purge};
use crate::model::words::{Weak, weaken};
use crate::model::{model, side_by_side, twin};
use crate::segment::Segment;
use loom::cell::UnsafeCell;
use loom::sync::Mutex;

/// What the kernel knows of a place, and what its owner has written there: a header, or
/// something of his own.
struct Place {
    mapped: Mutex<bool>,
    bytes: UnsafeCell<u32>,
}

// SAFETY: the cell is what loom watches.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

impl Place {
    fn new(mapped: bool) -> &'static Self {
        Box::leak(Box::new(Self { mapped: Mutex::new(mapped), bytes: UnsafeCell::new(0) }))
    }

    fn write(&self) {
        // SAFETY: loom checks that nobody else is at it.
        self.bytes.with_mut(|it| unsafe { *it += 1 });
    }

    fn read(&self) {
        // SAFETY: as above.
        self.bytes.with(|it| unsafe { *it });
    }
}

/// A segment is put on the map while another thread, which has no memory of it, looks
/// for its address: it finds nothing, or a whole header (S1).
fn install_against_look(weak: Weak, install: impl FnOnce(&PageHeap, &Place, usize) + 'static) {
    let world = World::new();
    let first = world.take(MOST);
    let base = (first.at.addr().get() & !(SEGMENT_BYTES - 1)) + SEGMENT_BYTES;
    Segment::watch(base, false);
    weaken(weak);
    let place = Place::new(true);
    let looks = move || {
        if let Some(segment) = Segment::find(base) {
            place.read();
            assert_eq!(segment.slot, 1, "a segment is found without its header");
        }
    };
    side_by_side(move || install(&world.heap, place, base), looks);
}

/// Another segment is needed. The write stands for that of its header, in a place that
/// loom does not watch.
fn grow(heap: &PageHeap, place: &Place, base: usize) {
    place.write();
    let extent = heap.allocate(MOST, 1).expect("memory");
    assert_eq!(extent.start.addr().get() & !(SEGMENT_BYTES - 1), base);
}

/// A segment goes back to the system; another thread gets its addresses for something
/// else, and asks whose they are.
fn release_against_next_mapping(release: impl FnOnce(&World) + 'static) {
    let world = World::new();
    let (_first, second) = (world.take(MOST), world.take(MOST));
    let base = second.at.addr().get() & !(SEGMENT_BYTES - 1);
    world.give(second);
    Segment::watch(base, true);
    let place = Place::new(true);
    place.write();
    on_purge(move |_, bytes| {
        if bytes == SEGMENT_BYTES {
            place.write();
            *place.mapped.lock().unwrap() = false;
        }
    });
    let maps = move || {
        if !*place.mapped.lock().unwrap() {
            place.write();
            assert!(Segment::find(base).is_none(), "what is not Tallow's is on the map");
        }
    };
    side_by_side(move || release(world), maps);
    assert!(!*place.mapped.lock().unwrap() && Segment::find(base).is_none());
}

fn purge(world: &World) {
    world.heap.purge_all();
}

#[test]
fn segment_install_and_look() {
    model("segment: put on the map against a look", || install_against_look(Weak::Nothing, grow));
}

#[test]
fn segment_release_and_next_mapping() {
    let name = "segment: given back against the next owner of its place";
    model(name, || release_against_next_mapping(purge));
}

#[test]
fn twin_of_install_relaxed() {
    twin("segment: put on the map relaxed", "Causality violation", || {
        install_against_look(Weak::Stores, grow);
    });
}

#[test]
fn twin_of_look_relaxed() {
    twin("segment: looked up relaxed", "Causality violation", || {
        install_against_look(Weak::Loads, grow);
    });
}

/// The segment is on the map at once, its header comes later.
#[test]
fn twin_of_install_before_the_header() {
    twin("segment: on the map before its header", "Causality violation", || {
        install_against_look(Weak::Nothing, |heap, place, base| {
            Segment::put_on_map(base);
            grow(heap, place, base);
        });
    });
}

/// The addresses go to the system before the segment is off the map.
#[test]
fn twin_of_release_that_is_off_the_map_late() {
    let expected = "what is not Tallow's is on the map";
    twin("segment: off the map when it is gone", expected, || {
        release_against_next_mapping(|world| {
            let state = world.heap.state.lock();
            let segment = state.segment(1).expect("a second one");
            // SAFETY: nothing in it is used; that it is on the map is the twin's fault.
            unsafe { os::release(segment.base(), SEGMENT_BYTES) };
            segment.uninstall();
            // SAFETY: it has a place in the table.
            unsafe { *state.segments.add(1) = core::ptr::null_mut() };
        });
    });
}
