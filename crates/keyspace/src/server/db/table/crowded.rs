//! Tests with keys that are chosen by the order of a scan, next to a set.

use super::*;
use crate::server::db::hash::{FlatLimits, Hash};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::HashSet;

tallow::account!(Crowded = "crowded table test");

/// A key of eight bytes, and nothing else.
#[derive(Debug, PartialEq)]
struct Number([u8; 8]);

impl Number {
    fn value(&self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

impl Keyed for Number {
    fn key(&self) -> &[u8] {
        &self.0
    }
}

/// A table, and a set that should have the same in it.
struct Both {
    table: Table<Number, Crowded>,
    set: HashSet<u64>,
    most_in_a_shard: usize,
}

impl Both {
    fn new(seed: u64) -> Self {
        let table = Table::new(Secret::of_seed(seed));
        Self { table, set: HashSet::new(), most_in_a_shard: 0 }
    }

    fn with(seed: u64, count: u64) -> Self {
        let mut it = Self::new(seed);
        (0..count).for_each(|number| it.insert(number));
        it
    }

    fn insert(&mut self, number: u64) {
        let old = self.table.insert(Number(number.to_le_bytes()));
        assert_eq!(old.is_none(), self.set.insert(number), "{number}");
    }

    fn remove(&mut self, number: u64) {
        let old = self.table.remove(&number.to_le_bytes());
        assert_eq!(old.is_some(), self.set.remove(&number), "{number}");
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<Number, Crowded>> {
        self.table.shards.iter().map(|it| &it.0)
    }

    fn check(&mut self) {
        self.table.check();
        assert_eq!(self.table.len(), self.set.len());
        for number in &self.set {
            assert_eq!(self.table.get(&number.to_le_bytes()).map(Number::value), Some(*number));
        }
        let most = self.shards().map(Shard::len).max().unwrap_or(0);
        self.most_in_a_shard = self.most_in_a_shard.max(most);
    }

    /// All of it up to a cursor, in the order of a scan by so many.
    fn scanned(&self, count: usize, until: u64) -> std::vec::Vec<u64> {
        let (mut all, mut cursor) = (std::vec::Vec::new(), 0);
        loop {
            cursor = self.table.scan(cursor, count, |it| all.push(it.value()));
            if cursor == 0 || cursor >= until {
                return all;
            }
        }
    }

    /// Numbers, from a random one on, whose places have the same low bits.
    fn of_one_shard(&self, bits: u32, rng: &mut Pcg64Mcg) -> impl Iterator<Item = u64> + use<> {
        let (hasher, mask) = (self.table.hasher, (1 << bits) - 1);
        let wanted: u32 = rng.random::<u32>() & mask;
        let from = u64::from(rng.random::<u32>());
        (from..).filter(move |it| place_of(hasher.hash(&it.to_le_bytes())) & mask == wanted)
    }
}

/// Removes everything in the order of a scan. Returns how many entries one shard had at most.
fn empty_in_scan_order(seed: u64, count: u64) -> usize {
    let mut it = Both::with(seed, count);
    let order = it.scanned(1000, u64::MAX);
    assert_eq!(order.len() as u64, count);
    for (number, left) in order.into_iter().zip((0..count).rev()) {
        it.remove(number);
        if left % (count / 8) == 0 || left.is_power_of_two() {
            it.check();
            // An entry has 8 bytes; its slots, and its part of the list of shards, about as much each.
            let bytes = it.table.table_bytes() as u64;
            assert!(bytes <= left * 64 + 1024, "{bytes} for {left}");
        }
    }
    it.most_in_a_shard
}

#[test]
fn tables_empty_in_the_order_of_a_scan() {
    for count in [500, 3000, 16_000, 20_000, 100_000] {
        for seed in 0..2 {
            empty_in_scan_order(seed, count);
        }
    }
}

#[test]
fn a_million_goes_in_the_order_of_a_scan() {
    let most = empty_in_scan_order(1, 1_000_000);
    // The root of eight million is 2828.
    assert!((1024..4000).contains(&most), "{most}");
}

/// As those do who delete with what a scan has found before it goes on.
#[test]
fn what_stays_is_met_once_while_all_else_is_deleted_as_it_is_met() {
    for (seed, count, one_in, step) in [(1, 20_000, 16, 10), (2, 100_000, 500, 100)] {
        let mut it = Both::with(seed, count);
        let (mut stayed, mut cursor) = (HashSet::new(), 0);
        loop {
            let mut met = std::vec::Vec::new();
            cursor = it.table.scan(cursor, step, |it| met.push(it.value()));
            for number in met {
                if number % one_in == 0 {
                    assert!(stayed.insert(number), "{number} twice");
                } else {
                    it.remove(number);
                }
            }
            if cursor == 0 {
                break;
            }
        }
        it.check();
        assert_eq!(stayed, it.set);
    }
}

#[test]
fn keys_that_a_scan_met_early_go_into_one_shard() {
    let mut it = Both::with(1, 9000);
    let chosen = it.scanned(100, 1 << 29);
    (0..9000).for_each(|number| it.remove(number));
    assert_eq!(it.table.table_bytes(), 0);
    for number in &chosen {
        it.insert(*number);
    }
    it.check();
    assert!(it.most_in_a_shard > 1023, "{} of {}", it.most_in_a_shard, chosen.len());
    for (i, number) in chosen.iter().enumerate() {
        it.remove(*number);
        if i % 100 == 0 {
            it.check();
        }
    }
    assert_eq!(it.table.table_bytes(), 0);
}

#[test]
fn a_crowded_shard_is_used_as_any_other() {
    const CROWD: usize = 10_000;
    let (mut it, mut rng) = (Both::new(1), Pcg64Mcg::seed_from_u64(1));
    let crowd: std::vec::Vec<u64> = it.of_one_shard(6, &mut rng).take(CROWD).collect();
    crowd.iter().for_each(|number| it.insert(*number));
    it.check();
    assert!(it.most_in_a_shard == CROWD && it.shards().any(Shard::is_wide));
    // Again, and others.
    crowd.iter().step_by(7).for_each(|number| it.insert(*number));
    assert!((0..CROWD as u64).all(|number| it.table.get(&(number << 40).to_le_bytes()).is_none()));
    let drawn = it.table.random(|| rng.random()).map(Number::value);
    assert!(drawn.is_some_and(|number| it.set.contains(&number)));

    // Others come meanwhile, so that shards are split: some part of the crowd stays where it was.
    let (mut scanned, mut walked) = (HashSet::new(), HashSet::new());
    let (mut cursor, mut at, mut others) = (0, Walk::default(), 1 << 50);
    loop {
        cursor = it.table.scan(cursor, 100, |it| {
            assert!(it.value() >> 50 == 1 || scanned.insert(it.value()), "{} twice", it.value());
        });
        (others..others + 100).for_each(|number| it.insert(number));
        others += 100;
        if cursor == 0 {
            break;
        }
    }
    let mut is_walked = false;
    while !is_walked {
        let mut count = 0;
        is_walked = it.table.walk(&mut at, |it| {
            walked.insert(it.value());
            count += 1;
            count < 100
        });
        (others..others + 10).for_each(|number| it.insert(number));
        others += 10;
    }
    it.check();
    for number in &crowd {
        assert!(scanned.contains(number) && walked.contains(number), "{number}");
    }

    // In an order that has nothing to do with the hashes.
    let mut all: std::vec::Vec<u64> = it.set.iter().copied().collect();
    all.sort_unstable_by_key(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for (i, number) in all.iter().enumerate() {
        it.remove(*number);
        if i % 1000 == 0 {
            it.check();
        }
        let left = all.len() - i - 1;
        assert!(left > 500 || !it.shards().any(Shard::is_wide), "{left}");
    }
    assert_eq!(it.table.table_bytes(), 0);
}

/// Where most shards are empty a step of a scan ends before it has met anything.
#[test]
fn empty_shards_are_passed_in_steps() {
    let mut it = Both::with(1, 400_000);
    for number in it.scanned(1000, u64::MAX).into_iter().take(385_000) {
        it.remove(number);
    }
    it.check();
    let empty = it.shards().filter(|it| it.len() == 0).count();
    assert!(empty > EMPTY_A_STEP, "{empty}");
    let mut met = 0;
    assert_ne!(it.table.scan(0, 10, |_| met += 1), 0);
    assert_eq!(met, 0);
    assert_eq!(it.scanned(10, u64::MAX).len(), 15_000);
    let visited = it.table.walk(&mut Walk::default(), |_| {
        met += 1;
        true
    });
    assert!(visited && met == 15_000, "{met}");
}

#[test]
fn as_a_set_would_whatever_a_scan_is_used_for() {
    for seed in 0..4 {
        let (mut it, mut rng) = (Both::new(seed), Pcg64Mcg::seed_from_u64(seed));
        let mut most = 0;
        for step in 0..100 {
            println!("seed {seed}, step {step}, {} there", it.set.len());
            let some = rng.random_range(0..=it.set.len());
            match rng.random_range(0..6) {
                // Anything new.
                0 | 1 if it.set.len() < 20_000 => {
                    let from = rng.random::<u64>() >> 1;
                    (from..from + rng.random_range(1..5000)).for_each(|number| it.insert(number));
                }
                // New ones in one shard, or some.
                2 if it.set.len() < 20_000 => {
                    let bits = rng.random_range(3..8);
                    let new = it.of_one_shard(bits, &mut rng);
                    let new: std::vec::Vec<u64> = new.take(rng.random_range(1..3000)).collect();
                    new.into_iter().for_each(|number| it.insert(number));
                }
                // The first of a scan go, or the last.
                3 => {
                    let all = it.scanned(1000, u64::MAX);
                    all[..some].iter().for_each(|number| it.remove(*number));
                }
                4 => {
                    let all = it.scanned(1000, u64::MAX);
                    all[some..].iter().rev().for_each(|number| it.remove(*number));
                }
                // All but those of one shard, or some.
                _ => {
                    let (bits, hasher) = (rng.random_range(1..7), it.table.hasher);
                    let wanted = rng.random::<u32>();
                    let place = |it: &u64| place_of(hasher.hash(&it.to_le_bytes()));
                    let goes = |it: &u64| (place(it) ^ wanted) & ((1 << bits) - 1) != 0;
                    let all = it.scanned(1000, u64::MAX);
                    all.iter().filter(|it| goes(it)).for_each(|number| it.remove(*number));
                }
            }
            it.check();
            let mut all = it.scanned(rng.random_range(1..500), u64::MAX);
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), it.set.len());
            most = most.max(it.most_in_a_shard);
        }
        assert!(most > 1023, "{most}: no shard was crowded");
    }
}

/// HSCAN and HDEL.
#[test]
fn a_hash_empties_in_the_order_of_its_scan() {
    let limits = FlatLimits { entries: 128, value_bytes: 64 };
    let (mut hash, mut left) = (Hash::new(), HashSet::new());
    for i in 0..20_000u32 {
        hash.set(&i.to_le_bytes(), &i.to_be_bytes(), limits);
        left.insert(i);
    }
    let mut cursor = 0;
    loop {
        let mut met = std::vec::Vec::new();
        cursor = hash.scan(cursor, 100, |field, _| met.push(field.to_vec()));
        for field in met {
            assert!(hash.remove(&field));
            left.remove(&u32::from_le_bytes(field[..].try_into().expect("four bytes")));
        }
        assert_eq!(hash.len(), left.len());
        let is_there = |i: &u32| hash.get(&i.to_le_bytes()) == Some(&i.to_be_bytes());
        assert!(left.iter().all(is_there));
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(hash.len(), 0);
}
