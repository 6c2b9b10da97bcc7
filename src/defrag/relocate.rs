//! [`Relocate`]: how a program's own types are visited.

mod accounts;
mod foreign;
mod maps;

use super::Mover;
use crate::sync::of_programs::*;
use core::alloc::Layout;
use core::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use core::cmp::Reverse;
use core::num::*;
use core::ptr::{self, NonNull};
use std::borrow::Cow;
use std::collections::{BinaryHeap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// Data whose heap blocks may be moved.
///
/// Implement it by visiting the fields that own memory:
///
/// ```
/// use tallow::defrag::{Mover, Relocate};
///
/// struct Entry {
///     key: Box<str>,
///     value: Vec<u8>,
///     hits: u32,
/// }
///
/// impl Relocate for Entry {
///     fn relocate(&mut self, mover: &mut Mover<'_>) {
///         self.key.relocate(mover);
///         self.value.relocate(mover);
///     }
/// }
/// ```
///
/// Collections do not visit elements that need not be dropped, for these own nothing. A
/// type that owns memory by a raw pointer and leaves it to somebody else to free it is
/// reached by its owner, not by the collection that it lies in.
///
/// Moving changes addresses and nothing else. An implementation that panics
/// leaves every object valid: what was moved is moved, the rest is where it was.
pub trait Relocate {
    /// Moves what should move of this value's heap blocks, and of those they own.
    fn relocate(&mut self, mover: &mut Mover<'_>);
}

/// Types that own no memory.
macro_rules! owns_nothing {
    ($($type:ty)*) => { $(
        impl Relocate for $type {
            #[inline]
            fn relocate(&mut self, _: &mut Mover<'_>) {}
        }
    )* };
}
owns_nothing!(() bool char f32 f64 i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);
owns_nothing!(NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128 NonZeroIsize);
owns_nothing!(NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128 NonZeroUsize);
owns_nothing!(AtomicBool AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize);
owns_nothing!(AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize);
owns_nothing!(core::cmp::Ordering core::alloc::Layout);
owns_nothing!(std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr);
owns_nothing!(std::net::SocketAddr std::net::SocketAddrV4 std::net::SocketAddrV6);
owns_nothing!(core::time::Duration std::time::Instant std::time::SystemTime);

impl<T: ?Sized> Relocate for &T {
    fn relocate(&mut self, _: &mut Mover<'_>) {}
}

impl<T: ?Sized> Relocate for core::marker::PhantomData<T> {
    fn relocate(&mut self, _: &mut Mover<'_>) {}
}

/// Moves the block behind a box; `cast` makes a fat or thin pointer of the new
/// address.
fn move_box<T: ?Sized>(
    it: &mut Box<T>,
    mover: &mut Mover<'_>,
    cast: impl Fn(*mut u8, *mut T) -> *mut T,
) {
    let layout = Layout::for_value(&**it);
    if layout.size() == 0 {
        return;
    }
    let old: *mut T = &raw mut **it;
    let Some(at) = NonNull::new(old.cast::<u8>()) else { return };
    // SAFETY: a box is a whole block with the layout of its value, and `&mut`
    // says that nobody else looks at it.
    if let Some(to) = unsafe { mover.move_raw(at, layout) } {
        // SAFETY: the bytes of the value are there, and the box at `it` is not
        // dropped: its block is gone.
        unsafe { ptr::write(it, Box::from_raw(cast(to.as_ptr(), old))) };
    }
}

impl<T: Relocate> Relocate for Box<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_box(self, mover, |to, _| to.cast());
        (**self).relocate(mover);
    }
}

impl<T: Relocate> Relocate for Box<[T]> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_box(self, mover, |to, old| ptr::slice_from_raw_parts_mut(to.cast(), old.len()));
        (**self).relocate(mover);
    }
}

impl Relocate for Box<str> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_box(self, mover, |to, old| {
            let bytes = old as *mut [u8];
            ptr::slice_from_raw_parts_mut(to, bytes.len()) as *mut str
        });
    }
}

/// Moves the buffer of a vector.
fn move_vec<T>(it: &mut Vec<T>, mover: &mut Mover<'_>) {
    let (len, capacity) = (it.len(), it.capacity());
    let Ok(layout) = Layout::array::<T>(capacity) else { return };
    if layout.size() == 0 {
        return;
    }
    let Some(at) = NonNull::new(it.as_mut_ptr().cast::<u8>()) else { return };
    // SAFETY: the buffer is a whole block of `capacity` elements, and `&mut`
    // says that nobody else looks at it.
    if let Some(to) = unsafe { mover.move_raw(at, layout) } {
        // SAFETY: the elements are there; the vector at `it` is not dropped: its
        // buffer is gone.
        unsafe { ptr::write(it, Vec::from_raw_parts(to.as_ptr().cast(), len, capacity)) };
    }
}

impl<T: Relocate> Relocate for Vec<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_vec(self, mover);
        self.as_mut_slice().relocate(mover);
    }
}

impl Relocate for String {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        // SAFETY: the bytes stay the same, wherever they lie.
        move_vec(unsafe { self.as_mut_vec() }, mover);
    }
}

impl Relocate for OsString {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        let mut bytes = core::mem::take(self).into_encoded_bytes();
        move_vec(&mut bytes, mover);
        // SAFETY: the bytes of an `OsString`, wherever they lie.
        *self = unsafe { OsString::from_encoded_bytes_unchecked(bytes) };
    }
}

impl Relocate for Box<OsStr> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        // As long as its buffer, before and after: nothing is reallocated.
        let mut string = core::mem::take(self).into_os_string();
        string.relocate(mover);
        *self = string.into_boxed_os_str();
    }
}

impl Relocate for PathBuf {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.as_mut_os_string().relocate(mover);
    }
}

impl<T: Relocate> Relocate for VecDeque<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        // The buffer's start is not to be had; any element tells its slab. So an
        // empty buffer stays where it is.
        if self.front().is_some_and(|first| mover.should_move(first)) {
            let mut buffer = Vec::from(core::mem::take(self));
            move_vec(&mut buffer, mover);
            *self = VecDeque::from(buffer);
        }
        let (front, back) = self.as_mut_slices();
        front.relocate(mover);
        back.relocate(mover);
    }
}

/// The buffer and the elements. A heap of `std` gives no access to its elements
/// in place, so it is taken apart and built anew with some comparisons for each
/// of them; its order stays. Should `T::cmp` panic then, the elements are dropped,
/// as in `BinaryHeap::from`.
impl<T: Relocate + Ord> Relocate for BinaryHeap<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        /// Puts the elements back, whether their visit returns or panics.
        struct PutBack<'a, T: Ord> {
            heap: &'a mut BinaryHeap<T>,
            elements: Vec<T>,
        }
        impl<T: Ord> Drop for PutBack<'_, T> {
            fn drop(&mut self) {
                *self.heap = BinaryHeap::from(core::mem::take(&mut self.elements));
            }
        }
        // The largest is the first of the buffer.
        let moves = self.peek().is_none_or(|first| mover.should_move(first));
        if moves || core::mem::needs_drop::<T>() {
            let elements = core::mem::take(self).into_vec();
            PutBack { heap: self, elements }.elements.relocate(mover);
        }
    }
}

impl<T: Relocate> Relocate for [T] {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        // Elements that own nothing need no visit.
        if core::mem::needs_drop::<T>() {
            self.iter_mut().for_each(|item| item.relocate(mover));
        }
    }
}

impl<T: Relocate, const N: usize> Relocate for [T; N] {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.as_mut_slice().relocate(mover);
    }
}

impl<T: Relocate> Relocate for Option<T> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if let Some(it) = self {
            it.relocate(mover);
        }
    }
}

impl<T: Relocate, E: Relocate> Relocate for Result<T, E> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            Ok(it) => it.relocate(mover),
            Err(it) => it.relocate(mover),
        }
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Relocate),*> Relocate for ($($name,)*) {
            #[allow(non_snake_case, reason = "one name for type and value")]
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                let ($($name,)*) = self;
                $($name.relocate(mover);)*
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

/// What is owned; borrowed data stay where they are.
impl<B: ToOwned<Owned: Relocate> + ?Sized> Relocate for Cow<'_, B> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        if let Cow::Owned(it) = self {
            it.relocate(mover);
        }
    }
}

/// Types around one value.
macro_rules! by_field {
    ($($wrapper:ident)*) => { $(
        impl<T: Relocate> Relocate for $wrapper<T> {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                self.0.relocate(mover);
            }
        }
    )* };
}
by_field!(Reverse Wrapping Saturating);

/// Cells that are set once.
macro_rules! by_once {
    ($($cell:ident)*) => { $(
        impl<T: Relocate> Relocate for $cell<T> {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                if let Some(it) = self.get_mut() {
                    it.relocate(mover);
                }
            }
        }
    )* };
}
by_once!(OnceCell OnceLock);

macro_rules! by_unique {
    ($($pointer:ident)*) => { $(
        /// What is inside, when nobody shares it: no other pointer, nor a weak one.
        /// The block itself stays where it is: it holds counters beside the value,
        /// in a layout that `std` keeps to itself.
        impl<T: Relocate + ?Sized> Relocate for $pointer<T> {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                if let Some(it) = $pointer::get_mut(self) {
                    it.relocate(mover);
                }
            }
        }
    )* };
}
by_unique!(Rc Arc);

/// Cells give exclusive access to what is inside.
macro_rules! by_get_mut {
    ($($cell:ident)*) => { $(
        impl<T: Relocate> Relocate for $cell<T> {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                self.get_mut().relocate(mover);
            }
        }
    )* };
}
by_get_mut!(Cell RefCell UnsafeCell);

/// A poisoned lock is visited too: moving does not look at the value.
macro_rules! by_lock {
    ($($lock:ident)*) => { $(
        impl<T: Relocate> Relocate for $lock<T> {
            fn relocate(&mut self, mover: &mut Mover<'_>) {
                self.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).relocate(mover);
            }
        }
    )* };
}
by_lock!(Mutex RwLock);
