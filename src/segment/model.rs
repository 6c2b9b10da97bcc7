//! What models do with the segment map and page maps: have loom watch words of theirs.

use super::{HEADER_ENTRIES, Segment, map_bit};
use crate::sync::Ordering;

impl Segment {
    /// Has the word of the map watched that has the bit of the segment at an address.
    pub(crate) fn watch(address: usize, is_installed: bool) {
        let (word, bit) = map_bit(address).expect("an address");
        // Other bits, and this one, may be what earlier executions have left.
        let seen = word.load(Ordering::Relaxed);
        word.watch(if is_installed { seen | bit } else { seen & !bit });
    }

    /// Has the page map's entry of an address watched.
    pub(crate) fn watch_entry(address: usize) {
        let segment = Self::find(address).expect("a segment");
        let cell = &segment.entries[Self::page_of(address) - HEADER_ENTRIES];
        cell.watch(cell.load(Ordering::Relaxed));
    }

    /// Sets a segment's bit alone.
    pub(crate) fn put_on_map(base: usize) {
        let (word, bit) = map_bit(base).expect("an address");
        word.fetch_or(bit, Ordering::Release);
    }
}
