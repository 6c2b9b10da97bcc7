//! Types of other crates, each behind the feature of its crate's name.

#![cfg_attr(
    not(any(
        feature = "bytes",
        feature = "hashbrown",
        feature = "indexmap",
        feature = "smallvec"
    )),
    allow(unused_imports, reason = "nothing is asked for")
)]

use super::Relocate;
use crate::defrag::Mover;

/// A buffer that nobody shares, copied. One that is shared stays: a copy would add
/// to it.
#[cfg(feature = "bytes")]
impl Relocate for bytes::Bytes {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if self.first().is_some_and(|first| mover.should_move(first)) && self.is_unique() {
            mover.clear_way(self.len());
            *self = Self::copy_from_slice(self);
        }
    }
}

/// The buffer, copied with its capacity.
#[cfg(feature = "bytes")]
impl Relocate for bytes::BytesMut {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if self.first().is_some_and(|first| mover.should_move(first)) {
            mover.clear_way(self.capacity());
            let mut moved = Self::with_capacity(self.capacity());
            moved.extend_from_slice(self);
            *self = moved;
        }
    }
}

/// The buffer, if there is one, and the elements.
#[cfg(feature = "smallvec")]
impl<A: smallvec::Array<Item: Relocate>> Relocate for smallvec::SmallVec<A> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if self.spilled() {
            // Taken out of its case and put back: no copy but the mover's.
            let mut buffer = core::mem::take(self).into_vec();
            super::move_vec(&mut buffer, mover);
            *self = Self::from_vec(buffer);
        }
        self.as_mut_slice().relocate(mover);
    }
}

#[cfg(feature = "hashbrown")]
mod hashbrown {
    use super::super::maps::{Rebuild, hash_tables, rebuild};
    use super::{Mover, Relocate};
    use allocator_api2::alloc::Allocator;
    use core::hash::{BuildHasher, Hash};
    use core::mem::needs_drop;

    hash_tables!(::hashbrown::HashMap<K, V, S>, ::hashbrown::HashSet<K, S>);

    /// The elements. The table itself stays: to move it takes the hash function,
    /// which it does not know.
    impl<T: Relocate, A: Allocator> Relocate for ::hashbrown::HashTable<T, A> {
        fn relocate(&mut self, mover: &mut Mover<'_>) {
            self.iter_mut().for_each(|item| item.relocate(mover));
        }
    }
}

#[cfg(feature = "indexmap")]
mod indexmap {
    use super::super::maps::{Rebuild, rebuild};
    use super::{Mover, Relocate};
    use ::indexmap::map::MutableKeys;
    use ::indexmap::set::MutableValues;
    use ::indexmap::{IndexMap, IndexSet};
    use core::hash::{BuildHasher, Hash};

    impl<K: Eq + Hash + Relocate, V: Relocate, S: BuildHasher> Rebuild for IndexMap<K, V, S> {
        type Element = (K, V);

        fn elements(&self) -> usize {
            self.len()
        }
        fn capacity(&self) -> usize {
            Self::capacity(self)
        }
        fn should_move(&self, mover: &Mover<'_>) -> bool {
            self.first().is_some_and(|(k, v)| mover.should_move(k) || mover.should_move(v))
        }
        fn take(&mut self, into: &mut Vec<(K, V)>, _: bool) {
            into.extend(self.drain(..));
            self.shrink_to_fit();
        }
        fn reserve(&mut self, capacity: usize) {
            // As of the maps of `std`.
            let _ = self.try_reserve(capacity);
        }
        fn put(&mut self, elements: Vec<(K, V)>) {
            self.extend(elements);
        }
    }

    /// Keys and values in place; the map is built anew, in order, with its capacity, when
    /// its entries should move. Then every key is hashed.
    impl<K: Eq + Hash + Relocate, V: Relocate, S: BuildHasher> Relocate for IndexMap<K, V, S> {
        fn relocate(&mut self, mover: &mut Mover<'_>) {
            if rebuild(self, false, mover) {
                return;
            }
            for i in 0..self.len() {
                // Moving changes no hash.
                if let Some((key, value)) = self.get_index_mut2(i) {
                    key.relocate(mover);
                    value.relocate(mover);
                }
            }
        }
    }

    impl<K: Eq + Hash + Relocate, S: BuildHasher> Rebuild for IndexSet<K, S> {
        type Element = K;

        fn elements(&self) -> usize {
            self.len()
        }
        fn capacity(&self) -> usize {
            Self::capacity(self)
        }
        fn should_move(&self, mover: &Mover<'_>) -> bool {
            self.first().is_some_and(|k| mover.should_move(k))
        }
        fn take(&mut self, into: &mut Vec<K>, _: bool) {
            into.extend(self.drain(..));
            self.shrink_to_fit();
        }
        fn reserve(&mut self, capacity: usize) {
            // As of the maps of `std`.
            let _ = self.try_reserve(capacity);
        }
        fn put(&mut self, elements: Vec<K>) {
            self.extend(elements);
        }
    }

    /// Elements in place; built anew, in order, when its entries should move.
    impl<K: Eq + Hash + Relocate, S: BuildHasher> Relocate for IndexSet<K, S> {
        fn relocate(&mut self, mover: &mut Mover<'_>) {
            if rebuild(self, false, mover) {
                return;
            }
            for i in 0..self.len() {
                if let Some(item) = self.get_index_mut2(i) {
                    item.relocate(mover);
                }
            }
        }
    }
}
