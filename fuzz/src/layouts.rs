//! Sizes and alignments, those that cannot be had among them.

use super::EDGE;
use super::block::Block;
use super::{Input, TALLOW, balanced, same_as};
use allocator_api2::alloc::Allocator;
use std::alloc::Layout;
use std::ptr::NonNull;

/// Copying more than that takes too long.
const MOST_COPIED: usize = 8 << 20;

/// The bytes as a list of layouts, sizes up to the end of the address space
/// and impossible ones among them: null, or right.
///
/// # Panics
/// When anything is wrong.
pub fn layouts(data: &[u8]) {
    let before = tallow::stats();
    let mut input = Input(data);
    while !input.0.is_empty() {
        let bits = input.byte() % 64;
        let low = input.number(2);
        let size = (1usize << bits).wrapping_add(low).wrapping_sub(1 << 15);
        let align = 1usize << (input.byte() % 64);
        let Ok(layout) = Layout::from_size_align(size, align) else { continue };
        if size > 0 {
            by_global_alloc(layout, &mut input);
        }
        by_allocator(layout, &mut input);
        same_as(&before);
    }
    balanced();
}

fn by_global_alloc(layout: Layout, input: &mut Input<'_>) {
    let Some(mut block) = Block::new(layout, input.byte().is_multiple_of(2), 3) else {
        assert!(layout.size() > 1 << 30 || layout.align() > 1 << 30, "{layout:?} was refused");
        return;
    };
    let size = input.size();
    if layout.size().min(size) <= MOST_COPIED {
        block.resize(size);
    }
    block.free();
}

/// Also for blocks of no size, and with a change of the alignment.
fn by_allocator(old: Layout, input: &mut Input<'_>) {
    let Ok(block) = TALLOW.allocate(old) else { return };
    assert!(block.len() >= old.size() && block.addr().get() % old.align() == 0);
    let block: NonNull<u8> = block.cast();
    let size = input.size() - 1;
    let Ok(new) = Layout::from_size_align(size, input.align()) else { unreachable!() };
    let grow = size >= old.size();
    let head = old.size().min(size).min(EDGE);
    if old.size().min(size) > MOST_COPIED {
        // SAFETY: the block has this layout, and is used no more.
        unsafe { TALLOW.deallocate(block, old) };
        return;
    }
    // SAFETY: the first `head` bytes lie in the block.
    unsafe { block.as_ptr().write_bytes(0xC3, head) };
    let zeroed = grow && size.is_multiple_of(2);
    // SAFETY: the block has the old layout, and the new size is as `grow` says.
    let moved = unsafe {
        match (grow, zeroed) {
            (true, true) => TALLOW.grow_zeroed(block, old, new),
            (true, false) => TALLOW.grow(block, old, new),
            (false, _) => TALLOW.shrink(block, old, new),
        }
    };
    let moved = moved.expect("little memory");
    assert!(moved.len() >= size && moved.addr().get() % new.align() == 0, "{old:?} to {new:?}");
    // SAFETY: the block has `size` bytes; those read were written or copied.
    let kept = unsafe { std::slice::from_raw_parts(moved.cast::<u8>().as_ptr(), head) };
    assert!(kept.iter().all(|&b| b == 0xC3), "{old:?} to {new:?} lost its contents");
    if zeroed {
        let from = old.size();
        // SAFETY: as above; what is behind the old bytes was zeroed.
        let rest = unsafe {
            std::slice::from_raw_parts(moved.cast::<u8>().as_ptr().add(from), size - from)
        };
        assert!(rest.iter().all(|&b| b == 0), "{old:?} to {new:?} is not zero");
    }
    // SAFETY: the block has the new layout, and is used no more.
    unsafe { TALLOW.deallocate(moved.cast(), new) };
}
