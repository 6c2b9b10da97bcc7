//! A cursor over everything that can be moved, in slices.
//!
//! Defragmentation visits every block there is, a little at a time, while commands change the data
//! in between. The cursor names a database and a place in its table; inside of a large hash or list
//! also the key and a place in there, so that a hash of a million fields takes many slices, where
//! Redis puts its key on a list for later. After the table comes the index of expiries.
//!
//! In one go are moved: the memory of one shard, a flat hash, the list of a list's chunks, and the
//! insides of hashes and lists of up to `active-defrag-max-scan-fields` elements.

use super::table::Walk;
use super::{Db, Entry, Value};
use tallow::defrag::{Mover, Relocate, Visit};

/// Where the visit goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    db: usize,
    at: Walk,
    inside: Option<Inside>,
    /// Whether the table has been visited, and the slots of the expiry indexes from here on not.
    table_done: bool,
    slots: [usize; 2],
    /// Keys of which something was moved, and others.
    pub(crate) key_hits: u64,
    pub(crate) key_misses: u64,
}

/// A large value that was left in the middle.
#[derive(Clone, Copy, Debug)]
struct Inside {
    /// The hash of its key.
    key: u64,
    at: InsideAt,
    moved: bool,
}

/// Where it was left.
#[derive(Clone, Copy, Debug, Default)]
struct InsideAt {
    fields: Walk,
    /// The number of a chunk, as [`List::relocate_chunks`](super::list::List::relocate_chunks)
    /// counts them.
    chunk: Option<u32>,
}

impl Cursor {
    /// Offers what comes from here on to `mover`, for as long as it has time.
    pub(crate) fn visit(
        &mut self,
        dbs: &mut [Db],
        max_scan_fields: usize,
        mover: &mut Mover<'_>,
    ) -> Visit {
        while let Some(db) = dbs.get_mut(self.db) {
            if !self.table_done {
                self.table_done =
                    self.finish_inside(db, mover) && self.visit_table(db, max_scan_fields, mover);
                if !self.table_done {
                    return Visit::More;
                }
            }
            if !db.relocate_expiry(&mut self.slots, mover) {
                return Visit::More;
            }
            (self.db, self.slots, self.table_done) = (self.db + 1, [0; 2], false);
        }
        Visit::Done
    }

    /// Goes on in a large value. Returns whether that is done, or the value gone.
    fn finish_inside(&mut self, db: &mut Db, mover: &mut Mover<'_>) -> bool {
        let Some(inside) = &mut self.inside else { return true };
        if let Some(value) = db.table_mut().get_by_hash_mut(inside.key).and_then(Entry::rich_mut)
            && !visit_inside(value, &mut inside.at, &mut inside.moved, mover, true)
        {
            return false;
        }
        let moved = inside.moved;
        self.inside = None;
        self.count(moved);
        true
    }

    fn visit_table(&mut self, db: &mut Db, max_scan_fields: usize, mover: &mut Mover<'_>) -> bool {
        let mut at = self.at;
        loop {
            let mut large: Option<(u64, bool)> = None;
            let hasher = db.table().hasher();
            let done = db.table_mut().relocate(&mut at, mover, |entry, mover| {
                let mut moved = relocate_shell(entry, mover);
                let effort = entry.rich_mut().map_or(0, |value| value.elements());
                if effort > max_scan_fields {
                    large = Some((hasher.hash(entry.key()), moved));
                    return false;
                }
                if let Some(value) = entry.rich_mut() {
                    visit_inside(value, &mut InsideAt::default(), &mut moved, mover, false);
                }
                self.count(moved);
                !mover.out_of_time()
            });
            self.at = at;
            let Some((key, moved)) = large else { return done };
            self.inside = Some(Inside { key, at: InsideAt::default(), moved });
            if !self.finish_inside(db, mover) {
                return false;
            }
        }
    }

    fn count(&mut self, moved: bool) {
        *(if moved { &mut self.key_hits } else { &mut self.key_misses }) += 1;
    }
}

/// Moves the blocks of an entry but for the insides of hashes and lists. Returns whether one moved.
fn relocate_shell(entry: &mut Entry, mover: &mut Mover<'_>) -> bool {
    let before = entry.addresses();
    entry.relocate(mover);
    entry.addresses() != before
}

/// Moves what is inside of a hash or list, from `at` on; until there is no time, if `in_slices`.
/// Returns whether that was all.
fn visit_inside(
    value: &mut Value,
    at: &mut InsideAt,
    moved: &mut bool,
    mover: &mut Mover<'_>,
    in_slices: bool,
) -> bool {
    match value {
        Value::String(_) => true,
        Value::Hash(hash) => hash.relocate_fields(&mut at.fields, mover, |hit, mover| {
            *moved |= hit;
            !(in_slices && mover.out_of_time())
        }),
        Value::List(list) => list.relocate_chunks(&mut at.chunk, mover, |hit, mover| {
            *moved |= hit;
            !(in_slices && mover.out_of_time())
        }),
    }
}
