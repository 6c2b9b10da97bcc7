//! Boxes and vectors of `allocator_api2` whose memory is Tallow's: in an account, or
//! plainly.

use super::Relocate;
use crate::account::{Account, In, Purpose};
use crate::defrag::Mover;
use crate::global::Tallow;
use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Allocators whose blocks are Tallow's as they are, so that one may take the place
/// of another.
pub(super) trait Ours: Allocator {}
impl Ours for Tallow {}
impl Ours for &'static Account {}
impl<P: Purpose> Ours for In<P> {}

/// Moves the block behind a box; `cast` makes a fat or thin pointer of the new
/// address.
fn move_box<T: ?Sized, A: Ours>(
    it: &mut Box<T, A>,
    mover: &mut Mover<'_>,
    cast: impl Fn(*mut u8, *mut T) -> *mut T,
) {
    let layout = Layout::for_value(&**it);
    if layout.size() == 0 {
        return;
    }
    let old: *mut T = &raw mut **it;
    let Some(at) = NonNull::new(old.cast::<u8>()) else { return };
    // SAFETY: a box is a whole block of Tallow's with the layout of its value, and
    // `&mut` says that nobody else looks at it.
    if let Some(to) = unsafe { mover.move_raw(at, layout) } {
        // SAFETY: the box at `it` is not dropped, since what is read is forgotten or
        // written back.
        let (_, allocator) = Box::into_raw_with_allocator(unsafe { ptr::read(it) });
        // SAFETY: the bytes of the value are there, in a block that the allocator may
        // free; the box at `it` is not dropped: its block is gone.
        unsafe { ptr::write(it, Box::from_raw_in(cast(to.as_ptr(), old), allocator)) };
    }
}

#[allow(private_bounds, reason = "sealed: an allocator that wraps another may add to its blocks")]
impl<T: Relocate, A: Ours> Relocate for Box<T, A> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_box(self, mover, |to, _| to.cast());
        (**self).relocate(mover);
    }
}

#[allow(private_bounds, reason = "as above")]
impl<T: Relocate, A: Ours> Relocate for Box<[T], A> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        move_box(self, mover, |to, old| ptr::slice_from_raw_parts_mut(to.cast(), old.len()));
        (**self).relocate(mover);
    }
}

#[allow(private_bounds, reason = "as above")]
impl<T: Relocate, A: Ours> Relocate for Vec<T, A> {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        let capacity = self.capacity();
        if let (Ok(layout), Some(at)) =
            (Layout::array::<T>(capacity), NonNull::new(self.as_mut_ptr().cast::<u8>()))
            && layout.size() > 0
        {
            // SAFETY: the buffer is a whole block of `capacity` elements, and `&mut`
            // says that nobody else looks at it.
            if let Some(to) = unsafe { mover.move_raw(at, layout) } {
                // SAFETY: the vector at `it` is not dropped: it is taken apart.
                let (_, len, _, allocator) = unsafe { ptr::read(self) }.into_raw_parts_with_alloc();
                let to = to.as_ptr().cast();
                // SAFETY: the elements are there, in a block that the allocator may free.
                let moved = unsafe { Vec::from_raw_parts_in(to, len, capacity, allocator) };
                // SAFETY: not dropped: its buffer is gone.
                unsafe { ptr::write(self, moved) };
            }
        }
        self.as_mut_slice().relocate(mover);
    }
}
