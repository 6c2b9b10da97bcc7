//! MEMORY USAGE: what a key and its value take.
//!
//! Redis measures a value's skeleton and some of its elements (five, unless told otherwise) and
//! multiplies. Here every block is counted with the size of its class, so the answers for all keys
//! add up to what the dataset has allocated; a test holds them to that. What the key costs in the
//! tables that lead to it is not in it: those are accounts of their own.
//!
//! A hash of a million fields takes some milliseconds to count; `SAMPLES n` looks at `n` of its
//! fields, as in Redis.

use crate::server::db::{Entry, ValueRef};

/// The size of the block for each request.
pub(crate) struct Sizes {
    regions: Vec<u64>,
}

impl Sizes {
    /// Those of Tallow.
    pub(crate) fn of(stats: &tallow::Snapshot) -> Self {
        Self { regions: stats.classes.iter().map(|class| class.region_bytes).collect() }
    }

    /// The place of the size class of a request; none for nothing, and above all of them.
    pub(super) fn class_of(&self, bytes: usize) -> Option<usize> {
        let place = self.regions.partition_point(|region| *region < bytes as u64);
        (bytes > 0 && place < self.regions.len()).then_some(place)
    }

    /// The size of the block for a request: that of its class, or whole pages.
    fn usable(&self, bytes: usize) -> u64 {
        match self.class_of(bytes) {
            Some(class) => self.regions[class],
            None => bytes.next_multiple_of(tallow::config::PAGE_BYTES) as u64,
        }
    }

    /// Bytes of an entry's blocks. Looks at `samples` fields of a hash, at all for 0.
    pub(crate) fn entry_bytes(&self, entry: &Entry, samples: usize) -> u64 {
        let sum = |blocks: &mut dyn Iterator<Item = usize>| {
            blocks.map(|bytes| self.usable(bytes)).sum::<u64>()
        };
        let shell = sum(&mut entry.own_blocks());
        shell
            + match entry.value() {
                ValueRef::String(_) | ValueRef::Int(_) => 0,
                ValueRef::List(list) => sum(&mut list.own_blocks()),
                ValueRef::Hash(hash) => {
                    let own = sum(&mut hash.own_blocks());
                    if samples == 0 || samples >= hash.len() {
                        own + sum(&mut hash.field_blocks())
                    } else {
                        let some = sum(&mut hash.field_blocks().take(samples));
                        own + some * hash.len() as u64 / samples as u64
                    }
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_the_size_of_its_block() {
        let sizes = Sizes::of(&tallow::stats());
        for bytes in (0..40_000).step_by(37).chain([0, 1, 8, 16, 32 << 10, (32 << 10) + 1]) {
            let block = crate::server::accounts::block::<crate::server::accounts::Dataset, 1>([
                &vec![0; bytes],
            ]);
            let usable = tallow::raw::usable_bytes(block.as_ptr());
            if bytes > 0 {
                assert_eq!(usable, Some(sizes.usable(bytes) as usize), "{bytes}");
            }
        }
        assert_eq!(sizes.usable(0), 0);
    }
}
