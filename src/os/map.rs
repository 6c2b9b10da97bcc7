//! Mappings, and the fork handlers: what every unix offers and Miri does not.

use core::ptr::NonNull;
use memmap2::MmapOptions;

/// Reserves more than is asked for where the alignment needs it, and gives the
/// ends back. The last place that is aligned is taken: Linux goes from the top down, so
/// what has been reserved before lies right behind it if it begins at such a place. (Where
/// a system goes upwards, a hole of the alignment's size stays before each.)
pub(super) fn reserve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let align = align.max(super::page_bytes());
    let slack = if align > super::mapping_align() { align } else { 0 };
    let whole = bytes.checked_add(slack)?;
    if whole > isize::MAX as usize {
        return None;
    }
    let mut map = MmapOptions::new().len(whole).no_reserve_swap().map_anon().ok()?;
    let base = map.as_mut_ptr();
    // Later accesses to segments' headers start from integers.
    let address = base.expose_provenance();
    core::mem::forget(map);
    let tail = if slack == 0 { 0 } else { (address + slack) & (align - 1) };
    let lead = slack - tail;
    // SAFETY: `tail < align == slack`, so all three parts lie in the new mapping.
    let start = unsafe { NonNull::new_unchecked(base.add(lead)) };
    for (at, part) in [(base, lead), (start.as_ptr().wrapping_add(bytes), tail)] {
        if part > 0 {
            // SAFETY: the part is page-aligned, ours, and has never been used.
            // A refusal leaves unbacked address space behind and nothing else.
            unsafe { libc::munmap(at.cast(), part) };
        }
    }
    if address.checked_add(whole)? > 1 << crate::config::LG_ADDRESS {
        // SAFETY: as above.
        unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
        return None;
    }
    Some(start)
}

pub(super) unsafe fn release(at: NonNull<u8>, bytes: usize) -> Option<()> {
    // SAFETY: the caller owns the range and has stopped using it.
    let code = unsafe { libc::munmap(at.as_ptr().cast(), bytes) };
    (code == 0).then_some(())
}

/// Has `prepare` called before each fork, `parent` and `child` after it.
pub(super) fn at_fork(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) -> bool {
    // SAFETY: three valid functions that stay loaded as long as the program.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}
