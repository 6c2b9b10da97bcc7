//! Accounts as allocators.

use super::Account;
use crate::global::Tallow;
use crate::heap;
use crate::settings::Builder;
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

const DEFAULT: &Builder = &Builder::DEFAULT;

/// A block of `layout`, entered in `account`.
#[inline(always)]
fn allocate(
    account: &'static Account,
    layout: Layout,
    zeroed: bool,
) -> Result<NonNull<[u8]>, AllocError> {
    let size = layout.size();
    if size == 0 {
        return Tallow.allocate(layout);
    }
    if !account.ask::<false>(size, 1) {
        return Err(AllocError);
    }
    let block = if zeroed {
        heap::allocate_zeroed::<true>(layout, DEFAULT)
    } else {
        heap::allocate::<true>(layout, DEFAULT)
    };
    let Some(block) = NonNull::new(block) else {
        account.unask(size, 1);
        return Err(AllocError);
    };
    Ok(NonNull::slice_from_raw_parts(block, size))
}

/// Takes a block back.
///
/// # Safety
/// It was allocated in `account` with `layout`, and is used no more.
#[inline(always)]
unsafe fn deallocate(account: &'static Account, block: NonNull<u8>, layout: Layout) {
    if layout.size() > 0 {
        // SAFETY: the caller's promise.
        unsafe { heap::free(block.as_ptr(), layout) }
        account.give(layout.size(), 1);
    }
}

/// Changes a block's layout.
///
/// # Safety
/// As for [`Allocator::grow`] and [`Allocator::shrink`].
unsafe fn resize(
    account: &'static Account,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    // What becomes a block, or stops to be one, counts as one.
    let more = new.size().saturating_sub(old.size());
    let begins = u64::from(old.size() == 0 && new.size() > 0);
    if more > 0 && !account.ask::<false>(more, begins) {
        return Err(AllocError);
    }
    // SAFETY: the caller's promise.
    let resized = unsafe {
        if new.size() >= old.size() {
            Tallow.grow(block, old, new)
        } else {
            Tallow.shrink(block, old, new)
        }
    };
    match resized {
        Err(_) if more > 0 => account.unask(more, begins),
        Ok(_) if old.size() > new.size() => {
            account.give(old.size() - new.size(), u64::from(new.size() == 0));
        }
        _ => {}
    }
    resized
}

macro_rules! allocator_in {
    ($type:ty, [$($generics:tt)*], $self:ident => $account:expr) => {
        // SAFETY: blocks are Tallow's; the books beside them change nothing.
        unsafe impl<$($generics)*> Allocator for $type {
            #[inline]
            fn allocate(&$self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate($account, layout, false)
            }

            #[inline]
            fn allocate_zeroed(&$self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate($account, layout, true)
            }

            #[inline]
            unsafe fn deallocate(&$self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise.
                unsafe { deallocate($account, block, layout) }
            }

            unsafe fn grow(
                &$self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize($account, block, old, new) }
            }

            unsafe fn shrink(
                &$self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize($account, block, old, new) }
            }
        }
    };
}

allocator_in!(&'static Account, [], self => self);
allocator_in!(In<P>, [P: Purpose], self => P::account());

/// A type that names an account, so that it takes no room to say which. Made by
/// [`account!`](crate::account!).
pub trait Purpose: 'static {
    /// The account.
    fn account() -> &'static Account;
}

/// An [`Allocator`] of no size, which enters what it allocates in the account of `P`.
pub struct In<P>(PhantomData<fn() -> P>);

impl<P> In<P> {
    /// The allocator.
    pub const NEW: Self = Self(PhantomData);
}

impl<P> Clone for In<P> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for In<P> {}

impl<P> Default for In<P> {
    #[inline]
    fn default() -> Self {
        Self::NEW
    }
}

impl<P: Purpose> fmt::Debug for In<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "In({})", P::account().name())
    }
}
