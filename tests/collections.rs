//! Collections heal whole: contents, keys, tables and nodes.
//!
//! Many small collections are made, nine in ten are dropped, and the rest is
//! relocated. What a pass has promised must be released: anything that stayed
//! behind, a key or a node, would pin a slab.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tallow::defrag::{Options, Pass, Relocate};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// The books are those of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const COUNT: usize = 60_000;
/// What the test runner itself may pin, a slab of this class and that.
const PINNED_BYTES: u64 = 1 << 20;
const ELEMENTS: u32 = 6;

fn key(id: usize, i: u32) -> String {
    format!("collection {id}, element {i}")
}

fn value(id: usize, i: u32) -> Vec<u8> {
    vec![id as u8 ^ i as u8; 20 + (id + i as usize) % 60]
}

/// Makes many, drops most, relocates the rest: they are what they were, and what
/// was promised is released.
fn heals<C: Relocate + PartialEq + Debug>(make: impl Fn(usize) -> C) {
    let _alone = alone();
    let mut list: Vec<Option<C>> = (0..COUNT).map(|id| Some(make(id))).collect();
    for (id, item) in list.iter_mut().enumerate() {
        if id % 10 != 3 {
            *item = None;
        }
    }
    let mut pass = Pass::begin(Options::default());
    let promised = pass.predicted().released_bytes;
    let mut mover = pass.step(Duration::MAX);
    list.iter_mut().for_each(|item| item.relocate(&mut mover));
    drop(mover);
    let outcome = pass.finish();
    assert!(promised > 2 * PINNED_BYTES, "nothing to heal: {promised}");
    let released = outcome.released_bytes + PINNED_BYTES;
    assert!(released >= promised / 10 * 9, "{outcome:?} of {promised}");
    for (id, item) in list.iter().enumerate() {
        match item {
            Some(item) => assert_eq!(*item, make(id), "collection {id} has changed"),
            None => assert_ne!(id % 10, 3),
        }
    }
    drop(list);
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

#[test]
fn hash_maps_with_keys_that_own_memory() {
    heals(|id| (0..ELEMENTS).map(|i| (key(id, i), value(id, i))).collect::<HashMap<_, _>>());
}

#[test]
fn hash_maps_with_plain_keys() {
    heals(|id| (0..ELEMENTS).map(|i| (i, value(id, i))).collect::<HashMap<_, _>>());
}

#[test]
fn hash_maps_of_nothing_but_plain_data() {
    heals(|id| (0..ELEMENTS).map(|i| (i, id)).collect::<HashMap<_, _>>());
}

/// Moving changes addresses and nothing else: what was reserved stays so.
#[test]
fn capacity_stays() {
    let _alone = alone();
    let make = |id: usize| {
        let mut map = HashMap::with_capacity(200);
        map.extend((0..ELEMENTS).map(|i| (u64::from(i), id)));
        map
    };
    let mut maps: Vec<_> = (0..20_000).map(|id| Some(make(id))).collect();
    maps.iter_mut().enumerate().for_each(|(id, map)| {
        if id % 10 != 3 {
            *map = None;
        }
    });
    let table = |map: &HashMap<u64, usize>| map.get(&0).map(std::ptr::from_ref);
    let before: Vec<_> = maps.iter().flatten().map(|map| (map.capacity(), table(map))).collect();
    let mut pass = Pass::begin(Options::default());
    let mut mover = pass.step(Duration::MAX);
    maps.iter_mut().for_each(|map| map.relocate(&mut mover));
    drop(mover);
    let mut moved = 0;
    for (map, &(capacity, was_at)) in maps.iter().flatten().zip(&before) {
        assert_eq!((map.len(), map.capacity()), (ELEMENTS as usize, capacity));
        moved += usize::from(table(map) != was_at);
    }
    assert!(moved > 1000, "{moved} of {} tables", before.len());
    pass.finish();
}

#[test]
fn hash_sets() {
    heals(|id| (0..ELEMENTS).map(|i| key(id, i)).collect::<HashSet<_>>());
    heals(|id| (0..ELEMENTS).map(|i| i + id as u32).collect::<HashSet<_>>());
}

#[test]
fn ordered_maps_and_sets() {
    heals(|id| (0..ELEMENTS * 4).map(|i| (key(id, i), value(id, i))).collect::<BTreeMap<_, _>>());
    heals(|id| (0..ELEMENTS * 4).map(|i| (i, value(id, i))).collect::<BTreeMap<_, _>>());
    heals(|id| (0..ELEMENTS).map(|i| i + id as u32).collect::<BTreeSet<_>>());
}

#[test]
fn lists() {
    heals(|id| (0..ELEMENTS).map(|i| value(id, i)).collect::<LinkedList<_>>());
    heals(|id| (0..ELEMENTS).map(|i| u64::from(i) + id as u64).collect::<LinkedList<_>>());
}

#[test]
fn maps_of_maps() {
    heals(|id| {
        (0..3).map(|i| (key(id, i), HashMap::from([(i, value(id, i))]))).collect::<BTreeMap<_, _>>()
    });
}

/// Panics when it is visited as often as the fuse says.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Clone)]
struct Bomb(Box<u32>);

static FUSE: Mutex<u32> = Mutex::new(u32::MAX);

impl Relocate for Bomb {
    fn relocate(&mut self, mover: &mut tallow::defrag::Mover<'_>) {
        let mut fuse = FUSE.lock().unwrap_or_else(PoisonError::into_inner);
        *fuse = fuse.wrapping_sub(1);
        let out = *fuse == 0;
        drop(fuse);
        assert!(!out, "the fuse is out");
        self.0.relocate(mover);
    }
}

#[test]
fn a_panic_in_the_middle_loses_no_element() {
    let _alone = alone();
    type All = (HashMap<Bomb, Bomb>, BTreeMap<Bomb, Bomb>, HashSet<Bomb>, BTreeSet<Bomb>);
    let bomb = |i| Bomb(Box::new(i));
    let make = || -> All {
        let pairs = || (0..50).map(|i| (bomb(i), bomb(i + 1000)));
        (
            pairs().collect(),
            pairs().collect(),
            (0..50).map(bomb).collect(),
            (0..50).map(bomb).collect(),
        )
    };
    for fuse in [1, 2, 50, 99, 100, 101, 150, 200, 201, 240, 250, 290, 300] {
        let mut all = make();
        *FUSE.lock().unwrap_or_else(PoisonError::into_inner) = fuse;
        let visit = std::panic::AssertUnwindSafe(|| {
            let mut pass = Pass::begin(Options::default());
            let mut mover = pass.step(Duration::MAX);
            all.relocate(&mut mover);
        });
        let result = std::panic::catch_unwind(visit);
        *FUSE.lock().unwrap_or_else(PoisonError::into_inner) = u32::MAX;
        assert!(result.is_err(), "300 visits and no panic at {fuse}");
        assert_eq!(all, make(), "after a panic at visit {fuse}");
    }
}

#[cfg(feature = "hashbrown")]
mod of_hashbrown {
    use super::*;
    use hashbrown::{HashMap, HashSet};
    use std::hash::RandomState;

    #[test]
    fn maps_and_sets() {
        heals(|id| {
            let pairs = (0..ELEMENTS).map(|i| (key(id, i), value(id, i)));
            pairs.collect::<HashMap<_, _, RandomState>>()
        });
        heals(|id| (0..ELEMENTS).map(|i| key(id, i)).collect::<HashSet<_, RandomState>>());
    }
}

#[cfg(feature = "indexmap")]
mod of_indexmap {
    use super::*;
    use indexmap::{IndexMap, IndexSet};
    use std::hash::RandomState;

    #[test]
    fn maps_and_sets_keep_their_order() {
        heals(|id| {
            let pairs = (0..ELEMENTS).rev().map(|i| (key(id, i), value(id, i)));
            pairs.collect::<IndexMap<_, _, RandomState>>()
        });
        heals(|id| (0..ELEMENTS).rev().map(|i| key(id, i)).collect::<IndexSet<_, RandomState>>());
        let (mut map, pass) = (IndexMap::<_, _, RandomState>::default(), Pass::begin);
        map.extend((0..9).rev().map(|i| (key(0, i), i)));
        map.relocate(&mut pass(Options::default()).step(Duration::MAX));
        assert!(map.values().rev().copied().eq(0..9));
    }
}

#[cfg(feature = "smallvec")]
#[test]
fn small_vectors() {
    use smallvec::SmallVec;
    heals(|id| (0..ELEMENTS).map(|i| value(id, i)).collect::<SmallVec<[_; 2]>>());
    heals(|id| (0..ELEMENTS).map(|i| value(id, i)).collect::<SmallVec<[_; 16]>>());
}

#[cfg(feature = "bytes")]
#[test]
fn byte_buffers() {
    use bytes::{Bytes, BytesMut};
    heals(|id| Bytes::from(value(id, 3)));
    heals(|id| BytesMut::from(&value(id, 3)[..]));
    // A shared one stays shared.
    let one = Bytes::from(value(1, 1));
    let mut other = one.clone();
    other.relocate(&mut Pass::begin(Options::default()).step(Duration::MAX));
    assert_eq!(one.as_ptr(), other.as_ptr());
}
