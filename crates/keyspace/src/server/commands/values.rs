//! Lookups with a kind: what the commands on strings, hashes and lists have in common.

use super::{Ctx, Fail};
use crate::server::db::hash::{FlatLimits, Hash};
use crate::server::db::list::List;
use crate::server::db::{Clock, Db, Entry, Value, ValueRef};

/// A kind of value with an inside.
pub(crate) trait Kind: Sized {
    /// The value as this kind.
    fn of(value: ValueRef<'_>) -> Option<&Self>;
    /// The same, to be changed.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// A new, empty one.
    fn empty() -> Value;
    /// Elements.
    fn len(&self) -> usize;
}

impl Kind for Hash {
    fn of(value: ValueRef<'_>) -> Option<&Self> {
        if let ValueRef::Hash(hash) = value { Some(hash) } else { None }
    }
    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Hash(hash) = value { Some(hash) } else { None }
    }
    fn empty() -> Value {
        Value::Hash(Self::new())
    }
    fn len(&self) -> usize {
        Self::len(self)
    }
}

impl Kind for List {
    fn of(value: ValueRef<'_>) -> Option<&Self> {
        if let ValueRef::List(list) = value { Some(list) } else { None }
    }
    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::List(list) = value { Some(list) } else { None }
    }
    fn empty() -> Value {
        Value::List(Self::new())
    }
    fn len(&self) -> usize {
        Self::len(self)
    }
}

/// The hash or list of an entry that was looked up, to be read.
pub(crate) fn of<'d, K: Kind + 'd>(entry: Option<&'d mut Entry>) -> Result<Option<&'d K>, Fail> {
    match entry {
        None => Ok(None),
        Some(entry) => K::of(entry.value()).map(Some).ok_or(Fail::WRONG_TYPE),
    }
}

/// The hash or list of a key, for a command that reads.
pub(crate) fn read<'d, K: Kind + 'd>(
    db: &'d mut Db,
    key: &[u8],
    clock: Clock,
) -> Result<Option<&'d K>, Fail> {
    of(db.read(key, clock))
}

/// The hash or list of a key, to be changed. Whoever may leave it empty calls
/// [`remove_if_empty`] afterwards (D2).
pub(crate) fn change<'d, K: Kind + 'd>(
    db: &'d mut Db,
    key: &[u8],
    clock: Clock,
) -> Result<Option<&'d mut K>, Fail> {
    db.lookup(key, clock).map(of_mut).transpose()
}

/// The same, made if it is not there. Something must be put in (D2).
pub(crate) fn change_or_make<'d, K: Kind + 'd>(
    db: &'d mut Db,
    key: &[u8],
    clock: Clock,
) -> Result<&'d mut K, Fail> {
    if db.lookup(key, clock).is_none() {
        db.insert(Entry::rich(key, K::empty(), None), clock);
    }
    of_mut(db.peek(key, clock).ok_or(Fail::NO_KEY)?)
}

fn of_mut<K: Kind>(entry: &mut Entry) -> Result<&mut K, Fail> {
    entry.rich_mut().and_then(K::of_mut).ok_or(Fail::WRONG_TYPE)
}

/// Removes the key if its hash or list is empty.
pub(crate) fn remove_if_empty<K: Kind>(db: &mut Db, key: &[u8], clock: Clock) {
    let is_empty =
        db.peek(key, clock).and_then(|it| K::of(it.value())).is_some_and(|it| it.len() == 0);
    if is_empty {
        db.remove(key);
    }
}

impl Ctx<'_> {
    /// Up to where hashes are flat.
    pub(crate) fn flat_limits(&self) -> FlatLimits {
        FlatLimits {
            entries: self.server.config.hash_max_listpack_entries as usize,
            value_bytes: self.server.config.hash_max_listpack_value as usize,
        }
    }
}
