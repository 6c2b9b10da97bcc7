//! The door of the loom models, in place of all of `os`: address space is real, but
//! nothing else leaves the process, and purging tells the model.

use super::space;
use crate::config::PAGE_BYTES;
use crate::error::Corruption;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};
use core::ffi::{CStr, c_void};
use core::ptr::NonNull;
use memmap2::{MmapMut, MmapOptions};
use std::cell::{Cell, RefCell};

loom::lazy_static! {
    /// Where all sleepers sleep, whatever they wait for.
    static ref SLEEPERS: (loom::sync::Mutex<()>, loom::sync::Condvar) =
        (loom::sync::Mutex::new(()), loom::sync::Condvar::new());
}

// Of the thread that runs a model; loom's threads are coroutines on it.
thread_local! {
    static RESERVED: RefCell<Vec<MmapMut>> = const { RefCell::new(Vec::new()) };
    static CHILD: RefCell<Option<loom::thread::ThreadId>> = const { RefCell::new(None) };
    static BARRIERS: Cell<bool> = const { Cell::new(true) };
    static ON_PURGE: RefCell<Option<Box<dyn Fn(usize, usize)>>> = const { RefCell::new(None) };
}

/// Begins an execution: what the one before has reserved goes.
pub(super) fn begin() {
    space::begin();
    CHILD.with(|it| *it.borrow_mut() = None);
    RESERVED.with(|it| it.borrow_mut().clear());
}

/// The calling thread is the only one of a forked child from now on.
///
/// No other order is tried from here on, so nothing comes between the child's steps.
/// What the other threads do afterwards is none of the child's: it must be ignored.
/// What they have written before is there, as the kernel copies it: the caller sees to
/// that by [`renew`].
pub(crate) fn fork() {
    loom::stop_exploring();
    CHILD.with(|it| *it.borrow_mut() = Some(loom::thread::current().id()));
}

/// Makes the newest value of a pointer the one that the calling thread sees.
pub(crate) fn renew<T>(it: &AtomicPtr<T>) {
    // A read-modify-write finds it.
    let _ = it.fetch_update(Ordering::Relaxed, Ordering::Relaxed, Some);
}

/// Whether the calling thread is that of a child.
fn is_child() -> bool {
    CHILD.with(|it| it.borrow().is_some_and(|child| child == loom::thread::current().id()))
}

/// Lets the other threads come to their end.
pub(crate) fn end_child() {
    wake_all();
}

/// Whether there is a child, and the calling thread is not in it.
pub(crate) fn is_left_behind() -> bool {
    CHILD.with(|it| it.borrow().is_some_and(|child| child != loom::thread::current().id()))
}

/// Has `f(address, bytes)` called where the system would take memory back.
pub(crate) fn on_purge(f: impl Fn(usize, usize) + 'static) {
    ON_PURGE.with(|it| *it.borrow_mut() = Some(Box::new(f)));
}

/// Has [`barrier_everywhere`] say that it was one, and do nothing.
pub(crate) fn without_barriers() {
    BARRIERS.with(|it| it.set(false));
}

/// As in the shipped door, of which the kernel keeps this promise: a waiter sleeps only
/// while the word is what it saw, and whoever wakes after a change finds it.
pub(crate) fn wait(word: &AtomicU32, seen: u32) {
    let (lock, sleepers) = &*SLEEPERS;
    let guard = lock.lock().unwrap();
    if word.load(Ordering::Relaxed) == seen {
        drop(sleepers.wait(guard).unwrap());
    }
}

/// Nothing ends in a model.
pub(crate) fn is_ending() -> bool {
    false
}

pub(crate) fn before_waiting() {}

pub(crate) fn nap() {
    loom::thread::yield_now();
}

pub(crate) fn wake_one(_: &AtomicU32) {
    // In a child there is nobody to wake.
    if !is_child() {
        wake_all();
    }
}

fn wake_all() {
    let (lock, sleepers) = &*SLEEPERS;
    drop(lock.lock().unwrap());
    // More may wake than must: a waiter looks again.
    sleepers.notify_all();
}

pub(crate) fn barrier_everywhere() -> bool {
    if BARRIERS.with(Cell::get) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
    true
}

pub(crate) fn expect_barriers() {}

pub(crate) fn page_bytes() -> usize {
    PAGE_BYTES
}

/// Real memory, which stays until the execution ends.
pub(crate) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let mut map = MmapOptions::new().len(bytes + align).no_reserve_swap().map_anon().ok()?;
    let base = map.as_mut_ptr();
    let address = base.expose_provenance();
    RESERVED.with(|it| it.borrow_mut().push(map));
    NonNull::new(base.wrapping_add(address.next_multiple_of(align) - address))
}

/// Not hardened: without guards. In the small address space, if there is one and it
/// fits.
pub(crate) fn reserve_guarded(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if space::serves(bytes) { space::map(bytes) } else { reserve(bytes, align) }
}

/// What may be done with memory.
pub(crate) enum Access {
    None,
    All,
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn protect(_: NonNull<u8>, _: usize, _: Access) -> bool {
    true
}

pub(crate) fn seed() -> u64 {
    1
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn release(at: NonNull<u8>, bytes: usize) -> bool {
    if space::serves(bytes) {
        space::unmap(at, bytes);
        return true;
    }
    // SAFETY: the caller's promise, which is more than is needed.
    unsafe { purge(at, bytes) }
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn release_guarded(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { release(at, bytes) }
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn remap(at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
    space::remap(at, old, new)
}

pub(crate) const REMAPS: bool = true;

/// What came of [`extend`].
pub(crate) enum Extended {
    InPlace,
    NoRoom,
}

/// Blocks of models are too small for huge pages, which alone need it.
///
/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn extend(_: NonNull<u8>, _: usize, _: usize) -> Option<Extended> {
    None
}

/// As above; and hardened.
///
/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn remap_onto(
    _: NonNull<u8>,
    _: usize,
    _: NonNull<u8>,
    _: usize,
) -> Option<NonNull<u8>> {
    None
}

pub(crate) fn aligns_mappings_to(align: usize) -> bool {
    align <= PAGE_BYTES
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn purge(at: NonNull<u8>, bytes: usize) -> bool {
    ON_PURGE.with(|it| it.borrow().as_ref().map(|f| f(at.addr().get(), bytes)));
    true
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn advise_huge_pages(_: NonNull<u8>, _: usize, _: bool) -> bool {
    false
}

/// # Safety
/// As in the shipped door.
pub(crate) unsafe fn populate(_: NonNull<u8>, _: usize) -> bool {
    false
}

pub(crate) fn now_ms() -> u64 {
    1
}

/// A thread of a model ends its caching itself.
pub(crate) fn arm_exit_hook(_: unsafe extern "C" fn(*mut c_void), _: NonNull<c_void>) -> bool {
    true
}

pub(crate) fn environment(_: &CStr) -> Option<&'static [u8]> {
    None
}

pub(crate) fn write_stderr(bytes: &[u8]) {
    eprint!("{}", String::from_utf8_lossy(bytes));
}

pub(crate) fn abort(what: Corruption) -> ! {
    panic!("aborts: {what}")
}
