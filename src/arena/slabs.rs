//! Where a slab's pages and header come from, and where they go.

#[cfg(all(test, loom))]
pub(super) mod model;

use crate::config::{HARDENED, SEGMENT_PAGES};
use crate::error::Corruption;
use crate::meta::Meta;
use crate::os;
use crate::pages::PageHeap;
use crate::segment::{Entry, Segment};
use crate::slab::{Protocol, Slab, Tag};
use core::ptr::NonNull;

/// An owned slab with that tag, or `None` when memory is out: what is refused is asked
/// for again if `makes_room` says so.
pub(super) fn fresh<P: Protocol>(
    heap: &PageHeap,
    meta: &Meta,
    tag: Tag,
    makes_room: impl Fn() -> bool,
) -> Option<NonNull<Slab<P>>> {
    let class = tag.class()?;
    let pages = usize::from(class.info().slab_pages);
    let allocate = || heap.allocate(pages, 1);
    let again = || makes_room().then(allocate).flatten();
    let extent = allocate().or_else(again)?;
    let take = || meta.take_header(Slab::<P>::node_bytes(class));
    let again = || makes_room().then(take).flatten();
    let Some(node) = take().or_else(again) else {
        // SAFETY: the run was lent just now, and nothing uses it.
        unsafe { heap.free(extent.start, pages) };
        return None;
    };
    let address = extent.start.addr().get();
    // Before the slab can be claimed from (A1). The segment is on the map: it
    // lent the pages.
    let (segment, first) = (Segment::find(address)?, Segment::page_of(address));
    segment.set_entry(first, pages, Entry::Slab { header: node, class });
    if HARDENED {
        heap.touch_marks(class, segment, first, pages);
    }
    // SAFETY: the node has the room, the pages are ours.
    Some(unsafe { Slab::install(node, tag, extent.start.as_ptr(), P::capacity(tag)) })
}

/// Gives the pages and the header of a slab back.
///
/// # Safety
/// It is empty, and no list knows it.
pub(super) unsafe fn retire<P: Protocol>(heap: &PageHeap, meta: &Meta, slab: NonNull<Slab<P>>) {
    // SAFETY: the caller's promise: the slab is ours alone (L2).
    let it = unsafe { slab.as_ref() };
    let (Some(class), Some(start)) = (it.header().tag().class(), NonNull::new(it.start())) else {
        os::abort(Corruption::Header { address: slab.addr().get(), word: 0 });
    };
    let pages = usize::from(class.info().slab_pages);
    let first = Segment::page_of(start.addr().get());
    debug_assert!(first + pages <= SEGMENT_PAGES);
    // Before the pages can be another's (A1).
    if let Some(segment) = Segment::find(start.addr().get()) {
        segment.set_entry(first, pages, Entry::None);
    }
    // SAFETY: the run was lent for this slab, and no region of it is live.
    unsafe { heap.free(start, pages) };
    // SAFETY: the header came from `meta` with this size; only stale readers
    // of the header, which says empty, are left.
    unsafe { meta.give_header(slab.cast(), Slab::<P>::node_bytes(class)) };
}
