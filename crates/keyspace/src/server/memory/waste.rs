//! What is lost to rounding up, by size class: found out by looking at some keys.
//!
//! The allocator knows what was asked for as one sum, and of each class how many blocks are live; how
//! much of them was asked for it does not know by class. The class with the most bytes need not be
//! the one that wastes: its blocks may be full. So up to [`KEYS`] keys are drawn at random (all, if
//! there are no more), and of each the blocks are looked at that it consists of, up to
//! [`BLOCKS_OF_A_KIND`] of each kind. That is a sample: what it says is said to be about.

use super::usage::Sizes;
use crate::server::Server;
use crate::server::db::{Db, Entry, ValueRef};

/// So many keys are looked at.
const KEYS: u64 = 1000;
/// Fields of a hash, chunks of a list.
const BLOCKS_OF_A_KIND: usize = 64;

/// What blocks of a size class hold, about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ClassWaste {
    /// Bytes of a block,
    pub(crate) region_bytes: u64,
    /// how many of keys and values there are,
    pub(crate) blocks: f64,
    /// and bytes that were asked for in all of them.
    pub(crate) asked_bytes: f64,
}

impl ClassWaste {
    /// Bytes beyond what was asked for.
    pub(crate) fn lost_bytes(&self) -> f64 {
        self.blocks * self.region_bytes as f64 - self.asked_bytes
    }
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Waste {
    /// Keys that were looked at.
    pub(crate) keys: u64,
    /// By size class, as many as Tallow has.
    pub(crate) classes: Vec<ClassWaste>,
}

impl Waste {
    /// Looks at some keys of all databases.
    pub(crate) fn look(server: &mut Server, stats: &tallow::Snapshot) -> Self {
        let sizes = Sizes::of(stats);
        let new = |class: &tallow::ClassStats| ClassWaste {
            region_bytes: class.region_bytes,
            ..ClassWaste::default()
        };
        let mut it = Self { keys: 0, classes: stats.classes.iter().map(new).collect() };
        let all: u64 = server.dbs.iter().map(|db| db.len() as u64).sum();
        if all <= KEYS {
            let entries = server.dbs.iter().flat_map(|db| db.table().iter());
            entries.for_each(|entry| it.add(entry, &sizes, 1.0));
        } else {
            let numbers: Vec<[u64; 2]> =
                (0..KEYS).map(|_| [(); 2].map(|()| server.random())).collect();
            for [number, mut state] in numbers {
                let db = db_of(&server.dbs, number % all);
                let entry = db.table().random(|| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state >> 16
                });
                if let Some(entry) = entry {
                    it.add(entry, &sizes, all as f64 / KEYS as f64);
                }
            }
        }
        it
    }

    /// The class that wastes most.
    pub(crate) fn worst(&self) -> Option<&ClassWaste> {
        self.classes.iter().max_by(|one, other| one.lost_bytes().total_cmp(&other.lost_bytes()))
    }

    /// Adds an entry that stands for `weight` of its kind.
    fn add(&mut self, entry: &Entry, sizes: &Sizes, weight: f64) {
        self.keys += 1;
        let mut add = |blocks: &mut dyn Iterator<Item = usize>, count: usize| {
            let weight = weight * (count as f64 / BLOCKS_OF_A_KIND as f64).max(1.0);
            for bytes in blocks.take(BLOCKS_OF_A_KIND) {
                // Whole pages are no class.
                if let Some(class) = sizes.class_of(bytes) {
                    self.classes[class].blocks += weight;
                    self.classes[class].asked_bytes += weight * bytes as f64;
                }
            }
        };
        add(&mut entry.own_blocks(), 1);
        match entry.value() {
            ValueRef::String(_) | ValueRef::Int(_) => {}
            ValueRef::List(list) => add(&mut list.own_blocks(), list.block_count()),
            ValueRef::Hash(hash) => {
                let fields = if hash.is_flat() { 0 } else { hash.len() };
                add(&mut hash.own_blocks(), hash.block_count() - fields);
                add(&mut hash.field_blocks(), fields);
            }
        }
    }
}

/// The database of the key with this number, counted over all databases.
fn db_of(dbs: &[Db], mut number: u64) -> &Db {
    let is_here = |db: &&Db| {
        let keys = db.len() as u64;
        let here = number < keys;
        number = number.saturating_sub(keys);
        here
    };
    dbs.iter().find(is_here).unwrap_or(&dbs[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gauge::Allocator;
    use crate::server::config::Config;
    use crate::server::db::Clock;
    use crate::server::db::hash::{FlatLimits, Hash};
    use crate::server::db::{Entry, Value};

    /// A header of 16 bytes, a key of five, and so much that it makes `bytes`.
    fn string(number: usize, bytes: usize) -> Entry {
        let value = vec![b'v'; bytes - 16 - 5];
        Entry::string(format!("{number:05}").as_bytes(), &value, None)
    }

    #[test]
    fn the_class_that_wastes_is_found_beside_one_that_is_larger() {
        for keys in [500, 20_000] {
            let mut server = Server::new(Config::new(), Allocator::Tallow);
            for i in 0..keys {
                // Most bytes are in full blocks of 2 KiB, in another database.
                server.dbs[0].insert(string(i, 129), Clock::default());
                server.dbs[7].insert(string(i, 2048), Clock::default());
            }
            let waste = Waste::look(&mut server, &tallow::stats());
            assert_eq!(waste.keys, KEYS.min(2 * keys as u64));
            let worst = waste.worst().expect("there are classes");
            assert_eq!(worst.region_bytes, 160);
            let lost = worst.lost_bytes() / (keys * 31) as f64;
            assert!((0.85..=1.15).contains(&lost), "{lost} of what is lost");
        }
    }

    #[test]
    fn a_few_fields_stand_for_all() {
        let mut server = Server::new(Config::new(), Allocator::Tallow);
        let limits = FlatLimits { entries: 0, value_bytes: 0 };
        let mut hash = Hash::new();
        // Four bytes of length, five of a field, and 24: 33 in a block of 48.
        for i in 0..10_000 {
            hash.set(format!("{i:05}").as_bytes(), &[b'v'; 24], limits);
        }
        server.dbs[3].insert(Entry::rich(b"hash", Value::Hash(hash), None), Clock::default());
        let waste = Waste::look(&mut server, &tallow::stats());
        let worst = waste.worst().expect("there are classes");
        assert_eq!(worst.region_bytes, 48);
        assert!((9_900.0..=10_100.0).contains(&worst.blocks), "{worst:?}");
        assert!((149e3..=153e3).contains(&worst.lost_bytes()), "{worst:?}");
    }
}
