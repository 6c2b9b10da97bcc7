//! Eviction: which keys to give up when `maxmemory` is passed.
//!
//! [`Policy`] names the eight ways to choose, of which the configuration holds one. Keys are drawn
//! by [`Table::random`](super::table::Table::random); what is known of an entry's use are the 24
//! bits of [`Entry::access`](super::Entry::access).

/// How a key is chosen, and among which ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    /// None: writes fail instead.
    #[default]
    NoEviction,
    /// The least recently used.
    AllkeysLru,
    /// The least frequently used.
    AllkeysLfu,
    /// Any.
    AllkeysRandom,
    /// The least recently used of those that expire.
    VolatileLru,
    /// The least frequently used of those that expire.
    VolatileLfu,
    /// Any of those that expire.
    VolatileRandom,
    /// The one that expires first.
    VolatileTtl,
}

impl Policy {
    /// The names in the configuration.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("volatile-lru", Self::VolatileLru),
        ("volatile-lfu", Self::VolatileLfu),
        ("volatile-random", Self::VolatileRandom),
        ("volatile-ttl", Self::VolatileTtl),
        ("allkeys-lru", Self::AllkeysLru),
        ("allkeys-lfu", Self::AllkeysLfu),
        ("allkeys-random", Self::AllkeysRandom),
        ("noeviction", Self::NoEviction),
    ];

    /// Whether the access bits hold a counter instead of a time.
    pub(crate) fn is_lfu(self) -> bool {
        matches!(self, Self::AllkeysLfu | Self::VolatileLfu)
    }
}
