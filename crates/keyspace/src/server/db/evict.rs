//! Eviction: which keys to give up when `maxmemory` is passed.
//!
//! Nobody keeps a list of keys by their last use: that would cost two pointers a key and a change
//! with each read. As in Redis, some keys are drawn at random, and the best of those are kept in a
//! [`Pool`] from one eviction to the next: with five draws and sixteen places that comes close to
//! what a list would choose. What is known of an entry's use are the 24 bits of
//! [`Entry::access`]: seconds, or a counter ([`lfu`](super::lfu)).
//!
//! Keys that expire are drawn from the expiry index, which knows where they are.

use super::{Clock, Entry};

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

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Idle,
    Rarity,
    Ttl,
    Any,
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
        self.order() == Order::Rarity
    }

    /// Whether only keys that expire are given up.
    pub(crate) fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }

    /// Whether one key is as good as another.
    pub(crate) fn is_random(self) -> bool {
        self.order() == Order::Any
    }

    fn order(self) -> Order {
        match self {
            Self::AllkeysLru | Self::VolatileLru => Order::Idle,
            Self::AllkeysLfu | Self::VolatileLfu => Order::Rarity,
            Self::VolatileTtl => Order::Ttl,
            Self::AllkeysRandom | Self::VolatileRandom | Self::NoEviction => Order::Any,
        }
    }

    /// How good it would be to give an entry up: more is better.
    pub(crate) fn score(self, entry: &Entry, clock: Clock) -> u64 {
        match self.order() {
            Order::Idle => u64::from(idle_seconds(entry, clock)),
            Order::Rarity => {
                u64::from(u8::MAX - clock.lfu.map_or(0, |lfu| lfu.counter(entry.access())))
            }
            Order::Ttl => (i64::MAX - entry.expires_at().unwrap_or(i64::MAX)) as u64,
            Order::Any => 0,
        }
    }
}

/// Seconds since an entry was used, where its access bits hold that.
pub(crate) fn idle_seconds(entry: &Entry, clock: Clock) -> u32 {
    clock.access.wrapping_sub(entry.access()) & 0x00ff_ffff
}

/// Candidates that are kept from one eviction to the next.
const POOL_SIZE: usize = 16;

/// A key that may be given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    score: u64,
    /// Its database.
    pub(crate) db: usize,
    /// The key.
    pub(crate) key: Box<[u8]>,
}

impl Candidate {
    /// One that was not compared with others.
    pub(crate) fn any(db: usize, key: &[u8]) -> Self {
        Self { score: 0, db, key: key.into() }
    }
}

/// The best candidates so far.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// By score, the best one last.
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Takes a key in, if it is better than one that is here, or there is room.
    pub(crate) fn offer(&mut self, score: u64, db: usize, key: &[u8]) {
        let all = &mut self.candidates;
        let is_full = all.len() == POOL_SIZE;
        if (is_full && all[0].score >= score) || all.iter().any(|it| it.db == db && *it.key == *key)
        {
            return;
        }
        if is_full {
            all.remove(0);
        }
        let at = all.partition_point(|it| it.score < score);
        all.insert(at, Candidate { score, db, key: key.into() });
    }

    /// Takes the best one out.
    pub(crate) fn best(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }

    /// Forgets all of them: what they were judged by has changed.
    pub(crate) fn clear(&mut self) {
        self.candidates.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_best_once_each() {
        let mut pool = Pool::default();
        for score in (0..40).chain(0..40) {
            pool.offer(score * 7 % 40, 0, format!("{}", score * 7 % 40).as_bytes());
        }
        for wanted in (24..40).rev() {
            assert_eq!(&*pool.best().expect("sixteen").key, wanted.to_string().as_bytes());
        }
        assert_eq!(pool.best(), None);
    }

    #[test]
    fn scores_follow_the_policy() {
        let lfu = super::super::lfu::Lfu { minutes: 9, log_factor: 10, decay_minutes: 1 };
        let clock = Clock { access: 100, lfu: Some(lfu), ..Clock::default() };
        let (mut a, mut b) = (Entry::string(b"a", b"x", Some(50)), Entry::string(b"b", b"x", None));
        a.set_access(90);
        b.set_access(40);
        let better =
            |policy: Policy, a: &Entry, b: &Entry| policy.score(a, clock) > policy.score(b, clock);
        assert!(better(Policy::AllkeysLru, &b, &a));
        assert!(better(Policy::VolatileTtl, &a, &b));
        a.set_access(9 << 8 | 3);
        b.set_access(9 << 8 | 200);
        assert!(better(Policy::VolatileLfu, &a, &b));
        // Used after the clock was read: that wraps.
        a.set_access(0x00ff_ffff);
        assert_eq!(idle_seconds(&a, clock), 101);
    }
}
