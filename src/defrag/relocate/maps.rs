//! Maps, sets and lists: contents in place where their library lets them be
//! reached; otherwise the collection is taken apart and put together again.
//!
//! A collection is visited whole: [`Mover::out_of_time`] cannot stop inside. A
//! store of millions is better kept in many small tables, or in one that can be
//! visited by index.

use super::Relocate;
use crate::defrag::Mover;
use core::hash::{BuildHasher, Hash};
use core::mem::needs_drop;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList};

/// A collection that is rebuilt from its elements.
pub(super) trait Rebuild {
    type Element: Relocate;

    fn elements(&self) -> usize;
    /// Elements that it has room for; 0 where there is no such thing.
    fn capacity(&self) -> usize {
        0
    }
    /// Whether the memory of the collection itself should move.
    fn should_move(&self, mover: &Mover<'_>) -> bool;
    /// Moves all elements out, in order; `moves` when the memory that held them
    /// is to be given up too.
    fn take(&mut self, into: &mut Vec<Self::Element>, moves: bool);
    /// Makes room for so many elements in the empty collection, if that can be had.
    fn reserve(&mut self, _capacity: usize) {}
    /// Puts them back into it.
    fn put(&mut self, elements: Vec<Self::Element>);
}

/// Puts the elements back, whether their visit returns or panics.
struct PutBack<'a, C: Rebuild> {
    collection: &'a mut C,
    elements: Vec<C::Element>,
    capacity: usize,
}

impl<C: Rebuild> Drop for PutBack<'_, C> {
    fn drop(&mut self) {
        self.collection.reserve(self.capacity);
        self.collection.put(core::mem::take(&mut self.elements));
    }
}

/// Rebuilds a collection if it should move, or if only so its elements can be
/// reached. Returns whether its elements have been visited.
pub(super) fn rebuild<C: Rebuild>(it: &mut C, hidden: bool, mover: &mut Mover<'_>) -> bool {
    let moves = it.should_move(mover);
    if it.elements() == 0 || !mover.active() || !(moves || hidden) {
        return false;
    }
    let mut elements = Vec::new();
    if elements.try_reserve_exact(it.elements()).is_err() {
        return false;
    }
    let capacity = it.capacity();
    it.take(&mut elements, moves);
    let mut back = PutBack { collection: it, elements, capacity };
    if moves {
        mover.send_freed();
    }
    back.elements.as_mut_slice().iter_mut().for_each(|element| element.relocate(mover));
    true
}

/// Hash maps and sets. A table lies in one block, so one element tells its slab.
macro_rules! hash_tables {
    ($(#[$meta:meta])* $map:ty, $set:ty) => {
        impl<K: Eq + Hash + Relocate, V: Relocate, S: BuildHasher> Rebuild for $map {
            type Element = (K, V);

            fn elements(&self) -> usize {
                self.len()
            }
            fn capacity(&self) -> usize {
                Self::capacity(self)
            }
            fn should_move(&self, mover: &Mover<'_>) -> bool {
                self.iter().next().is_some_and(|(k, v)| mover.should_move(k) || mover.should_move(v))
            }
            fn take(&mut self, into: &mut Vec<(K, V)>, moves: bool) {
                into.extend(self.drain());
                if moves {
                    self.shrink_to_fit();
                }
            }
            fn reserve(&mut self, capacity: usize) {
                // What it does not get now it gets as it grows.
                let _ = self.try_reserve(capacity);
            }
            fn put(&mut self, elements: Vec<(K, V)>) {
                self.extend(elements);
            }
        }

        /// Keys, values and table. The values in place; the map is taken apart, and
        /// every key hashed anew, when its table should move or its keys own memory. Its
        /// capacity stays. Should hashing panic then, elements are dropped; should memory
        /// for a list of the elements be out, keys and table stay; should it be out for
        /// the new table, the old one being gone, the program ends as with any insertion.
        $(#[$meta])*
        impl<K: Eq + Hash + Relocate, V: Relocate, S: BuildHasher> Relocate for $map {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                if !rebuild(self, needs_drop::<K>(), mover) && needs_drop::<V>() {
                    self.values_mut().for_each(|value| value.relocate(mover));
                }
            }
        }

        impl<K: Eq + Hash + Relocate, S: BuildHasher> Rebuild for $set {
            type Element = K;

            fn elements(&self) -> usize {
                self.len()
            }
            fn capacity(&self) -> usize {
                Self::capacity(self)
            }
            fn should_move(&self, mover: &Mover<'_>) -> bool {
                self.iter().next().is_some_and(|k| mover.should_move(k))
            }
            fn take(&mut self, into: &mut Vec<K>, moves: bool) {
                into.extend(self.drain());
                if moves {
                    self.shrink_to_fit();
                }
            }
            fn reserve(&mut self, capacity: usize) {
                // What it does not get now it gets as it grows.
                let _ = self.try_reserve(capacity);
            }
            fn put(&mut self, elements: Vec<K>) {
                self.extend(elements);
            }
        }

        /// Elements and table, as of a map's keys.
        $(#[$meta])*
        impl<K: Eq + Hash + Relocate, S: BuildHasher> Relocate for $set {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                rebuild(self, needs_drop::<K>(), mover);
            }
        }
    };
}
#[cfg(feature = "hashbrown")]
pub(super) use hash_tables;

hash_tables!(HashMap<K, V, S>, HashSet<K, S>);

impl<K: Ord + Relocate, V: Relocate> Rebuild for BTreeMap<K, V> {
    type Element = (K, V);

    fn elements(&self) -> usize {
        self.len()
    }
    fn should_move(&self, mover: &Mover<'_>) -> bool {
        self.iter().any(|(k, v)| mover.should_move(k) || mover.should_move(v))
    }
    fn take(&mut self, into: &mut Vec<(K, V)>, _: bool) {
        into.extend(core::mem::take(self));
    }
    fn put(&mut self, elements: Vec<(K, V)>) {
        *self = elements.into_iter().collect();
    }
}

/// Keys, values and nodes. The values in place; the map is taken apart, and built
/// anew in order with a comparison for each key, when a node should move or its
/// keys own memory. Should a comparison panic then, elements are dropped.
impl<K: Ord + Relocate, V: Relocate> Relocate for BTreeMap<K, V> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if !rebuild(self, needs_drop::<K>(), mover) && needs_drop::<V>() {
            self.values_mut().for_each(|value| value.relocate(mover));
        }
    }
}

impl<K: Ord + Relocate> Rebuild for BTreeSet<K> {
    type Element = K;

    fn elements(&self) -> usize {
        self.len()
    }
    fn should_move(&self, mover: &Mover<'_>) -> bool {
        self.iter().any(|k| mover.should_move(k))
    }
    fn take(&mut self, into: &mut Vec<K>, _: bool) {
        into.extend(core::mem::take(self));
    }
    fn put(&mut self, elements: Vec<K>) {
        *self = elements.into_iter().collect();
    }
}

/// Elements and nodes, as of a map's keys.
impl<K: Ord + Relocate> Relocate for BTreeSet<K> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        rebuild(self, needs_drop::<K>(), mover);
    }
}

impl<T: Relocate> Rebuild for LinkedList<T> {
    type Element = T;

    fn elements(&self) -> usize {
        self.len()
    }
    fn should_move(&self, mover: &Mover<'_>) -> bool {
        self.iter().any(|item| mover.should_move(item))
    }
    fn take(&mut self, into: &mut Vec<T>, _: bool) {
        into.extend(core::mem::take(self));
    }
    fn put(&mut self, elements: Vec<T>) {
        self.extend(elements);
    }
}

/// Elements and nodes: built anew when a node should move.
impl<T: Relocate> Relocate for LinkedList<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if !rebuild(self, false, mover) {
            self.iter_mut().for_each(|item| item.relocate(mover));
        }
    }
}
