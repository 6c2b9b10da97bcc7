//! How often an entry is used, in 24 bits: a counter that grows ever more slowly, and decays.
//!
//! ```text
//!   | minutes 16 | counter 8 |
//! ```
//! Redis's scheme (2016): a use raises the counter with a probability of 1 in
//! `(counter - 5) * lfu-log-factor + 1`, so that 255 stands for about a million uses with the
//! factor 10; each `lfu-decay-time` minutes without a look take one off. A new entry begins with 5,
//! or it would be the first to go. (Morris, "Counting large numbers of events in small registers",
//! 1978.)

/// What a new entry begins with.
const START: u8 = 5;

/// The time and the parameters that counters go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lfu {
    /// Of unix time; wraps after 45 days.
    pub(crate) minutes: u16,
    /// `lfu-log-factor`.
    pub(crate) log_factor: u32,
    /// `lfu-decay-time`, in minutes; 0: counters do not decay.
    pub(crate) decay_minutes: u32,
}

impl Lfu {
    /// The bits of a new entry.
    pub(crate) fn fresh(self) -> u32 {
        self.bits(START)
    }

    /// The bits of an entry that is used now; `draw` is a random number.
    pub(crate) fn used(self, bits: u32, draw: u64) -> u32 {
        let counter = self.counter(bits);
        let above = u64::from(counter.saturating_sub(START));
        // As if a number from 0 to 1 was drawn and were below the probability.
        let raise = draw.is_multiple_of(above * u64::from(self.log_factor) + 1);
        self.bits(if raise { counter.saturating_add(1) } else { counter })
    }

    /// The counter in the bits, as far as it has decayed.
    pub(crate) fn counter(self, bits: u32) -> u8 {
        let (since, counter) = ((bits >> 8) as u16, bits as u8);
        let minutes = u32::from(self.minutes.wrapping_sub(since));
        let steps = minutes.checked_div(self.decay_minutes).unwrap_or(0);
        counter.saturating_sub(u8::try_from(steps).unwrap_or(u8::MAX))
    }

    fn bits(self, counter: u8) -> u32 {
        u32::from(self.minutes) << 8 | u32::from(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn at(minutes: u16, log_factor: u32) -> Lfu {
        Lfu { minutes, log_factor, decay_minutes: 1 }
    }

    /// The table in redis.conf: the counter after so many hits, for several factors.
    #[test]
    fn counters_grow_as_redis_documents() {
        for (factor, hits, from, to) in [
            (0, 1000, 255, 255),
            (1, 1000, 40, 60),
            (10, 1000, 13, 24),
            (10, 100_000, 120, 165),
            (100, 100_000, 40, 60),
        ] {
            let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
            let lfu = at(3, factor);
            let bits = (0..hits).fold(lfu.fresh(), |bits, _| lfu.used(bits, rng.random()));
            let counter = lfu.counter(bits);
            assert!((from..=to).contains(&counter), "{factor} {hits}: {counter}");
        }
    }

    #[test]
    fn counters_decay_also_when_the_minutes_wrap() {
        let bits = at(u16::MAX - 1, 10).bits(100);
        assert_eq!(at(u16::MAX - 1, 10).counter(bits), 100);
        assert_eq!(at(8, 10).counter(bits), 90);
        assert_eq!(at(1000, 10).counter(bits), 0);
        let still = Lfu { decay_minutes: 0, ..at(1000, 10) };
        assert_eq!(still.counter(bits), 100);
    }
}
