//! Hashes of keys that nobody can foresee.
//!
//! Whoever knows the hash function can choose keys that all fall into one shard, and SCAN shows its
//! callers half of each hash. So it is SipHash-1-3 with a key from the system, a function that gives
//! its key away to nobody; Redis takes SipHash-1-2. The standard library's hasher is the same
//! function made for pieces; keys are hashed in one go, for three fifths of
//! the instructions.
//!
//! That keeps others from computing which keys fall into one shard, not from looking them up: a scan
//! shows the half that names the shard. The table has to bear [crowded shards](super::table). The
//! other half, by which an entry is found in its shard, nobody is shown.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, RandomState};

/// A hash function of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret(u64, u64);

impl Secret {
    /// One like no other.
    pub(crate) fn new() -> Self {
        // The standard library has its seeds from the system.
        let random = RandomState::new();
        Self(random.hash_one(0), random.hash_one(1))
    }

    /// One that is the same in every run.
    #[cfg(test)]
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self(seed, !seed)
    }

    /// The hash of a key.
    #[inline]
    pub(crate) fn hash(self, key: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.0, self.1).hash(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_different_and_the_same_every_time() {
        let (one, other) = (Secret::new(), Secret::new());
        for key in [&b""[..], b"a", b"key:12345", &[7; 100]] {
            assert_eq!(one.hash(key), one.hash(key));
            assert_ne!(one.hash(key), other.hash(key));
        }
    }

    /// All 64 bits are used: for the shard, the slot and the tag.
    #[test]
    fn every_bit_is_as_often_one_as_zero() {
        let secret = Secret::new();
        let mut ones = [0u32; 64];
        for number in 0..10_000u32 {
            let hash = secret.hash(format!("key:{number:012}").as_bytes());
            (0..64).for_each(|bit| ones[bit] += (hash >> bit & 1) as u32);
        }
        // Five standard deviations are 250.
        assert!(ones.iter().all(|count| count.abs_diff(5000) < 300), "{ones:?}");
    }
}
