//! A seeded stream of keys, values and operations with a cluster's figures.
//!
//! # Keys
//! Keys are born one after another and are known by their number. What follows from the number
//! alone, by hashing it, needs no memory: the key's bytes, its TTL, and whether it is a one-hit
//! wonder. So the generator knows millions of keys and stores none.
//!
//! # Popularity
//! Requests go to the youngest `window` keys. The rank drawn from a Zipf distribution is scattered
//! over the window by a hash that changes 64 times per turnover: keys become popular and are
//! forgotten again, without regard to their age.
//!
//! # A store in equilibrium
//! If writes draw TTL `T` with share `s`, then of the keys *held* at any moment a share
//! proportional to `s * T` has it (short-lived keys are soon gone), and what is left of their time
//! is uniform between 0 and `T`. [`Generator::settled_birth`] draws from exactly that, so a store
//! filled by it is at once what hours of the same traffic would make of it.

use super::{Cluster, Op};
use crate::bytes;
use crate::clock::{Expiry, Moment, TICKS_PER_SECOND};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Zipf};
use rand_pcg::Pcg64Mcg;

/// The longest value generated.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Spread of value sizes: the standard deviation of the logarithm. A tenth of the values are
/// under a third of the mean, a tenth over twice that.
const VALUE_SIGMA: f64 = 0.8;
/// No value is longer than this many means.
const VALUE_CAP_MEANS: u32 = 16;
/// No key is shorter: a number of 48 bits takes 8 characters.
const KEY_BYTES_MIN: usize = 8;
const KEY_BYTES_MAX: usize = 256;

/// The name of a generated key, without an allocation.
#[derive(Clone, Copy)]
pub struct WrittenKey {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl WrittenKey {
    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The stream.
#[derive(Clone, Debug)]
pub struct Generator {
    cluster: &'static Cluster,
    seed: u64,
    rng: Pcg64Mcg,
    values: LogNormal<f64>,
    zipf: Option<Zipf<f64>>,
    born: u64,
    window: u64,
}

impl Generator {
    /// A stream with the figures of `cluster` whose requests go to the youngest `window` keys.
    #[must_use]
    pub fn new(cluster: &'static Cluster, seed: u64, window: u64) -> Self {
        let mean = f64::from(cluster.value_bytes_mean.max(1));
        // The mean of a log-normal is exp(mu + sigma^2 / 2).
        let mu = mean.ln() - VALUE_SIGMA * VALUE_SIGMA / 2.0;
        let window = window.max(1);
        let alpha = cluster.zipf_alpha;
        Self {
            cluster,
            seed,
            rng: Pcg64Mcg::seed_from_u64(seed),
            values: LogNormal::new(mu, VALUE_SIGMA).expect("sigma is finite"),
            zipf: (alpha > 0.0)
                .then(|| Zipf::new(window as f64, alpha).expect("n >= 1, alpha > 0")),
            born: 0,
            window,
        }
    }

    /// Bytes that keys and values will take on average, for planning. Draws from a copy of the
    /// stream: the stream itself does not move.
    #[must_use]
    pub fn mean_data_bytes(&self) -> f64 {
        const DRAWS: u64 = 8192;
        let mut copy = self.clone();
        let total: usize = (0..DRAWS)
            .map(|id| {
                let key = copy.key(id).len;
                bytes::usable_bytes(key) + bytes::usable_bytes(copy.value_len())
            })
            .sum();
        total as f64 / DRAWS as f64
    }

    /// Keys born so far.
    #[must_use]
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Changes how many of the youngest keys requests go to.
    pub fn set_window(&mut self, window: u64) {
        self.window = window.max(1);
        if self.cluster.zipf_alpha > 0.0 {
            let zipf = Zipf::new(self.window as f64, self.cluster.zipf_alpha);
            self.zipf = Some(zipf.expect("n >= 1, alpha > 0"));
        }
    }

    /// The next new key.
    pub fn birth(&mut self) -> u64 {
        self.born += 1;
        self.born - 1
    }

    /// The next new key of a store in equilibrium, with the expiry it has left.
    pub fn settled_birth(&mut self, now: Moment) -> (u64, Expiry) {
        let id = self.birth();
        let held = |&(ttl, share): &(u32, f64)| share * f64::from(ttl);
        let total: f64 = self.cluster.ttls.iter().map(held).sum();
        let draw = self.rng.random::<f64>() * total;
        let ttl = pick(self.cluster.ttls, draw, |ttl| f64::from(ttl.0) * ttl.1).0;
        let left = self.rng.random_range(1..=ttl.saturating_mul(TICKS_PER_SECOND));
        (id, Expiry::at(now.after_ticks(left)))
    }

    /// The expiry of a write of key `id` at `now`. A key has the same TTL each time.
    #[must_use]
    pub fn expiry(&self, id: u64, now: Moment) -> Expiry {
        let total: f64 = self.cluster.ttls.iter().map(|ttl| ttl.1).sum();
        let draw = fraction(self.trait_of(id, 1)) * total;
        let ttl = pick(self.cluster.ttls, draw, |ttl| ttl.1).0;
        Expiry::at(now.after_ticks(ttl.saturating_mul(TICKS_PER_SECOND)))
    }

    /// The key that the next request is for.
    pub fn requested(&mut self) -> u64 {
        let rank = match &self.zipf {
            Some(zipf) => zipf.sample(&mut self.rng) as u64,
            None => self.rng.random_range(0..self.window),
        };
        let window = self.window.min(self.born).max(1);
        let fashion = self.born / (self.window / 64).max(1);
        let mut age = bytes::mix(rank ^ bytes::mix(fashion ^ self.seed)) % window;
        // Nobody comes back for a one-hit wonder; take a neighbour. Where nearly all keys are
        // wonders, give up: some request has to go somewhere.
        for _ in 0..16 {
            if !self.is_one_hit_wonder(self.born.saturating_sub(1 + age)) {
                break;
            }
            age = (age + 1) % window;
        }
        self.born.saturating_sub(1 + age)
    }

    /// Whether key `id` is asked for only once.
    #[must_use]
    pub fn is_one_hit_wonder(&self, id: u64) -> bool {
        fraction(self.trait_of(id, 2)) < self.cluster.one_hit_wonder_share
    }

    /// The next operation.
    pub fn op(&mut self) -> Op {
        let total: f64 = self.cluster.ops.iter().map(|op| op.1).sum();
        let draw = self.rng.random::<f64>() * total;
        pick(self.cluster.ops, draw, |op| op.1).0
    }

    /// The length of the next value: log-normal around the cluster's mean.
    pub fn value_len(&mut self) -> usize {
        let cap = (self.cluster.value_bytes_mean.max(1) * VALUE_CAP_MEANS) as usize;
        let len = self.values.sample(&mut self.rng).round() as usize;
        len.clamp(1, cap.min(MAX_VALUE_BYTES))
    }

    /// The name of key `id`: its number in base 64, filled up to a length within an eighth of the
    /// cluster's mean.
    #[must_use]
    pub fn key(&self, id: u64) -> WrittenKey {
        const DIGITS: &[u8; 64] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
        let mean = u64::from(self.cluster.key_bytes_mean);
        let spread = mean / 8;
        let random = self.trait_of(id, 3);
        let len = (mean - spread + random % (2 * spread + 1)) as usize;
        let len = len.clamp(KEY_BYTES_MIN, KEY_BYTES_MAX);
        let mut bytes = [0; KEY_BYTES_MAX];
        for (place, byte) in bytes[..KEY_BYTES_MIN].iter_mut().enumerate() {
            *byte = DIGITS[(id >> (6 * place)) as usize % 64];
        }
        let mut filler = random;
        for byte in &mut bytes[KEY_BYTES_MIN..len] {
            filler = filler.rotate_right(6) ^ id;
            *byte = DIGITS[filler as usize % 64];
        }
        WrittenKey { bytes, len }
    }

    /// A random number that belongs to key `id` for good.
    fn trait_of(&self, id: u64, which: u64) -> u64 {
        bytes::mix(bytes::mix(id ^ self.seed) ^ which)
    }
}

/// The item at `draw` when the items are laid end to end by `weight`.
fn pick<T: Copy>(items: &[T], mut draw: f64, weight: impl Fn(&T) -> f64) -> T {
    for item in items {
        draw -= weight(item);
        if draw < 0.0 {
            return *item;
        }
    }
    items[items.len() - 1]
}

/// A number from 0 to 1 out of 64 random bits.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::CLUSTERS;
    use std::collections::HashSet;

    fn default() -> &'static Cluster {
        "twitter-52".parse().expect("in the table")
    }

    #[test]
    fn same_seed_same_stream() {
        let stream = |seed| {
            let mut generator = Generator::new(default(), seed, 1000);
            (0..200)
                .map(|_| {
                    (
                        generator.birth(),
                        generator.op(),
                        generator.requested(),
                        generator.value_len(),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }

    #[test]
    fn means_are_those_of_every_cluster() {
        for cluster in &CLUSTERS {
            let mut generator = Generator::new(cluster, 3, 1000);
            let draws = 20_000;
            let values: usize = (0..draws).map(|_| generator.value_len()).sum();
            let mean = values as f64 / f64::from(draws);
            let wanted = f64::from(cluster.value_bytes_mean);
            // The floor of one byte lifts the mean of the tiniest values.
            assert!((mean - wanted).abs() < 0.06 * wanted + 0.5, "{}: {mean}", cluster.name());
            let keys: usize = (0..1000).map(|id| generator.key(id).as_bytes().len()).sum();
            let wanted = f64::from(cluster.key_bytes_mean);
            assert!((keys as f64 / 1000.0 - wanted).abs() < 0.05 * wanted, "{}", cluster.name());
        }
    }

    #[test]
    fn keys_are_unique() {
        let generator = Generator::new("twitter-45".parse().expect("in the table"), 3, 1000);
        let keys: HashSet<Vec<u8>> =
            (0..50_000).map(|id| generator.key(id).as_bytes().to_vec()).collect();
        assert_eq!(keys.len(), 50_000);
    }

    #[test]
    fn popular_keys_are_asked_for_more() {
        let mut generator = Generator::new(default(), 3, 10_000);
        (0..10_000).for_each(|_| _ = generator.birth());
        let mut counts = std::collections::HashMap::new();
        for _ in 0..10_000 {
            let id = generator.requested();
            assert!(id < 10_000);
            *counts.entry(id).or_insert(0) += 1;
        }
        assert!(counts.values().max() > Some(&1000), "alpha 1.2 has a clear favourite");
        assert!(counts.len() > 300, "and a long tail: {}", counts.len());
        assert!(!counts.keys().any(|id| generator.is_one_hit_wonder(*id)));
    }

    #[test]
    fn a_settled_store_holds_mostly_long_lived_keys() {
        let mut generator = Generator::new(default(), 3, 10_000);
        let now = Moment::START;
        let day = 86_400 * TICKS_PER_SECOND;
        let left = |_| generator.settled_birth(now).1.remaining_ticks(now).expect("has an expiry");
        let over_a_day = (0..10_000).map(left).filter(|ticks| *ticks > day).count();
        // 84 % have a TTL of 14 days, and 13 of 14 of those have more than a day left.
        assert!((7500..8100).contains(&over_a_day), "{over_a_day}");
    }
}
