//! Atomics of memory that begins as zeros, which are none of loom's: of a segment's page
//! map, of the segment map, of marks. A model says which of them loom is to watch, before
//! it starts threads; all others are plain.

use crate::sync::{AtomicU64 as Watched, Ordering};
use core::ptr;
use std::cell::{Cell, RefCell};

/// What of the orderings of watched words is weakened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weak {
    Nothing,
    /// The releases of stores,
    Stores,
    /// or the acquires of loads.
    Loads,
}

// Of the thread that runs a model; loom's threads are coroutines on it.
thread_local! {
    static WORDS: RefCell<Vec<(usize, &'static Watched)>> = const { RefCell::new(Vec::new()) };
    static WEAK: Cell<Weak> = const { Cell::new(Weak::Nothing) };
}

/// Begins an execution: nothing is watched.
pub(super) fn begin() {
    WORDS.with(|it| it.borrow_mut().clear());
    WEAK.with(|it| it.set(Weak::Nothing));
}

/// Has the orderings of watched words weakened in this execution.
pub(crate) fn weaken(what: Weak) {
    WEAK.with(|it| it.set(what));
}

fn watch(address: usize, first: u64) {
    // Of this execution, as is all that loom makes.
    let word: &'static Watched = Box::leak(Box::new(Watched::new(first)));
    WORDS.with(|it| it.borrow_mut().push((address, word)));
}

fn watched(address: usize) -> Option<&'static Watched> {
    WORDS.with(|it| it.borrow().iter().find(|(at, _)| *at == address).map(|(_, word)| *word))
}

fn load_order(order: Ordering) -> Ordering {
    if WEAK.with(Cell::get) == Weak::Loads { Ordering::Relaxed } else { order }
}

fn store_order(order: Ordering) -> Ordering {
    if WEAK.with(Cell::get) == Weak::Stores { Ordering::Relaxed } else { order }
}

macro_rules! words {
    ($($name:ident: $number:ty),*) => {$(
        /// A word that may be watched.
        #[repr(transparent)]
        pub(crate) struct $name(core::sync::atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $number) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }

            /// Has loom watch it, from the value `first` on.
            pub(crate) fn watch(&self, first: $number) {
                watch(ptr::from_ref(self).addr(), first as u64);
            }

            fn watched(&self) -> Option<&'static Watched> {
                watched(ptr::from_ref(self).addr())
            }

            pub(crate) fn load(&self, order: Ordering) -> $number {
                match self.watched() {
                    Some(word) => word.load(load_order(order)) as $number,
                    None => self.0.load(order),
                }
            }

            pub(crate) fn store(&self, value: $number, order: Ordering) {
                match self.watched() {
                    Some(word) => word.store(value as u64, store_order(order)),
                    None => self.0.store(value, order),
                }
            }

            // Read-modify-writes are stores here: none of them acquires.

            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                match self.watched() {
                    Some(word) => word.swap(value as u64, store_order(order)) as $number,
                    None => self.0.swap(value, order),
                }
            }

            pub(crate) fn fetch_or(&self, bits: $number, order: Ordering) -> $number {
                match self.watched() {
                    Some(word) => word.fetch_or(bits as u64, store_order(order)) as $number,
                    None => self.0.fetch_or(bits, order),
                }
            }

            pub(crate) fn fetch_and(&self, bits: $number, order: Ordering) -> $number {
                match self.watched() {
                    Some(word) => word.fetch_and(bits as u64, store_order(order)) as $number,
                    None => self.0.fetch_and(bits, order),
                }
            }
        }
    )*};
}

words!(AtomicU8: u8, AtomicU64: u64, AtomicUsize: usize);
