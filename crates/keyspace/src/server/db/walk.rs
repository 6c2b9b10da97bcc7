//! A cursor over everything that can be moved, in slices.
//!
//! Defragmentation visits every block there is, a little at a time, while commands change the data
//! in between. The cursor names a database and a place in its table.

use super::Db;
use super::table::Walk;
use tallow::defrag::{Mover, Relocate, Visit};

/// Entries visited between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 16;

/// Where the visit goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    db: usize,
    at: Walk,
}

impl Cursor {
    /// Offers the entries from here on to `mover`, for as long as it has time.
    pub(crate) fn visit(&mut self, dbs: &mut [Db], mover: &mut Mover<'_>) -> Visit {
        while let Some(db) = dbs.get_mut(self.db) {
            let mut visited = 0;
            let done = db.table_mut().walk(&mut self.at, |entry| {
                entry.relocate(mover);
                visited += 1;
                visited % ENTRIES_PER_LOOK != 0 || !mover.out_of_time()
            });
            if !done {
                return Visit::More;
            }
            self.db += 1;
        }
        Visit::Done
    }
}
