//! Who listens to what: channels and patterns, in an account of their own.
//!
//! Both sides are kept: which clients listen to a channel, to send it a message; which channels a
//! client listens to, to end that when it goes. Redis's books have the lists of subscribers under
//! "everything else"; a client with a million subscriptions shows nowhere but in the total.

use super::accounts::{Block, Subscriptions, block};
use hashbrown::{HashMap, HashSet};
use std::hash::{Hash, RandomState};
use tallow::In;

type Set<T> = HashSet<T, RandomState, In<Subscriptions>>;

/// What subscriptions are to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A channel by its name.
    Channel,
    /// All channels whose names match a pattern.
    Pattern,
}

fn set<T: Eq + Hash>() -> Set<T> {
    HashSet::with_hasher_in(RandomState::new(), In::NEW)
}

/// What one client listens to.
#[derive(Debug)]
pub(crate) struct Topics {
    channels: Set<Block<Subscriptions>>,
    patterns: Set<Block<Subscriptions>>,
    name_bytes: usize,
}

impl Topics {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self { channels: set(), patterns: set(), name_bytes: 0 }
    }

    /// How many channels and patterns.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// How many of one kind.
    pub(crate) fn len(&self, kind: Kind) -> usize {
        self.of(kind).len()
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.channels.allocation_size() + self.patterns.allocation_size() + self.name_bytes
    }

    /// The names of one kind, copied: to end them one by one.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Block<Subscriptions>> {
        self.of(kind).iter().map(|name| block([name])).collect()
    }

    fn of(&self, kind: Kind) -> &Set<Block<Subscriptions>> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Set<Block<Subscriptions>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}

/// Which clients listen to each name.
#[derive(Debug)]
pub(crate) struct Listeners {
    places: HashMap<Block<Subscriptions>, Set<usize>, RandomState, In<Subscriptions>>,
}

impl Listeners {
    fn new() -> Self {
        Self { places: HashMap::with_hasher_in(RandomState::new(), In::NEW) }
    }

    /// How many names somebody listens to.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The names that somebody listens to, and who does: places of clients.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], impl Iterator<Item = usize>)> {
        self.places.iter().map(|(name, places)| (&**name, places.iter().copied()))
    }

    /// Who listens to a name.
    pub(crate) fn of(&self, name: &[u8]) -> impl ExactSizeIterator<Item = usize> + use<> {
        let places: Vec<usize> =
            self.places.get(name).map(|it| it.iter().copied().collect()).unwrap_or_default();
        places.into_iter()
    }
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Pubsub {
    /// By channel.
    pub(crate) channels: Listeners,
    /// By pattern.
    pub(crate) patterns: Listeners,
    /// Clients that listen to anything.
    pub(crate) clients: usize,
}

impl Default for Pubsub {
    fn default() -> Self {
        Self { channels: Listeners::new(), patterns: Listeners::new(), clients: 0 }
    }
}

impl Pubsub {
    /// The client at `place` listens to `name` from now on.
    pub(crate) fn add(&mut self, topics: &mut Topics, place: usize, kind: Kind, name: &[u8]) {
        let is_first = topics.count() == 0;
        if !topics.of_mut(kind).insert(block([name])) {
            return;
        }
        topics.name_bytes += name.len();
        self.clients += usize::from(is_first);
        self.of_mut(kind).places.entry(block([name])).or_insert_with(set).insert(place);
    }

    /// And no more.
    pub(crate) fn remove(&mut self, topics: &mut Topics, place: usize, kind: Kind, name: &[u8]) {
        if !topics.of_mut(kind).remove(name) {
            return;
        }
        topics.name_bytes -= name.len();
        if topics.of(kind).is_empty() {
            *topics.of_mut(kind) = set();
        }
        self.clients -= usize::from(topics.count() == 0);
        let listeners = self.of_mut(kind);
        if let Some(places) = listeners.places.get_mut(name) {
            places.remove(&place);
            if places.is_empty() {
                listeners.places.remove(name);
            }
        }
        if listeners.places.len() * 8 < listeners.places.capacity() {
            listeners.places.shrink_to_fit();
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Listeners {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}
