use super::*;
use crate::bytes::value_for;
use std::collections::HashMap;

fn value(key: &[u8], len: usize) -> Box<[u8]> {
    value_for(bytes::hash(key), len)
}

fn later(ticks: u32) -> Moment {
    Moment::START.after_ticks(ticks)
}

#[test]
fn set_get_update_delete() {
    let mut store = Store::with_expected_keys(10);
    let now = Moment::START;
    store.set(b"a", value(b"a", 10), Expiry::NEVER);
    assert_eq!(store.get(b"a", now).map(<[u8]>::len), Some(10));
    assert!(!store.add(b"a", value(b"a", 3), Expiry::NEVER, now));
    assert!(store.update(b"a", now, |hash, old| bytes::appended(hash, old, 7)));
    assert_eq!(store.get(b"a", now).map(<[u8]>::len), Some(17));
    assert_eq!(store.requested_bytes(), 18);
    assert_eq!(store.data_bytes(), 16 + 32);
    assert!(store.delete(b"a"));
    assert!(!store.delete(b"a"));
    assert!(!store.update(b"a", now, |_, old| old));
    assert_eq!((store.keys(), store.requested_bytes(), store.data_bytes()), (0, 0, 0));
    assert_eq!(store.verify(), Ok(0));
}

#[test]
fn an_update_keeps_the_expiry_and_a_set_does_not() {
    let mut store = Store::with_expected_keys(10);
    store.set(b"a", value(b"a", 10), Expiry::at(later(10)));
    store.update(b"a", later(5), |hash, _| value_for(hash, 99));
    assert!(store.get(b"a", later(9)).is_some());
    assert!(store.get(b"a", later(10)).is_none(), "lazily expired");
    assert_eq!((store.keys(), store.expired_keys()), (0, 1));
    store.set(b"a", value(b"a", 10), Expiry::at(later(20)));
    store.set(b"a", value(b"a", 10), Expiry::NEVER);
    assert!(store.get(b"a", later(1000)).is_some());
}

#[test]
fn the_cycle_removes_all_but_a_tenth_of_the_stale_keys() {
    let mut store = Store::with_expected_keys(20_000);
    for number in 0..20_000_u32 {
        let key = number.to_le_bytes();
        let expiry = if number % 5 == 0 { Expiry::NEVER } else { Expiry::at(later(number % 100)) };
        store.set(&key, value(&key, 20), expiry);
    }
    let before = store.keys();
    let report = store.expire_cycle(later(99), u32::MAX, 0);
    assert_eq!(before - store.keys(), report.expired);
    assert!(report.expired > 12_000, "{report:?}");
    assert!(store.keys() < 20_000 / 5 + 16_000 / 8, "{} left", store.keys());
    assert!(store.verify().is_ok());
    // Nothing left to do: one loop finds that out.
    assert!(store.expire_cycle(later(99), u32::MAX, 0).loops <= 3);
}

#[test]
fn the_cycle_stops_at_its_bounds() {
    let mut store = Store::with_expected_keys(5000);
    for number in 0..5000_u32 {
        store.set(&number.to_le_bytes(), value(&number.to_le_bytes(), 20), Expiry::at(later(1)));
    }
    assert_eq!(store.expire_cycle(later(1), 3, 0).loops, 3);
    let floor = store.data_bytes() / 2;
    store.expire_cycle(later(1), u32::MAX, floor);
    assert!(store.data_bytes() <= floor);
    assert!(store.data_bytes() > floor - 21 * 48, "stops within one loop of the floor");
}

#[test]
fn tables_shrink_in_steps_after_expiry() {
    let mut store = Store::with_expected_keys(36_000);
    for number in 0..36_000_u32 {
        store.set(&number.to_le_bytes(), value(&number.to_le_bytes(), 8), Expiry::NEVER);
    }
    let before = store.table_bytes();
    for number in 0..32_000_u32 {
        store.delete(&number.to_le_bytes());
    }
    let (mut cursor, mut steps) = (Cursor::default(), 1);
    while !store.shrink_tables(&mut cursor, || true) {
        steps += 1;
    }
    assert_eq!(steps, store.shard_count() + 1, "one shard a step, then the end");
    assert!(store.table_bytes() * 4 <= before, "{} of {before}", store.table_bytes());
    assert_eq!(store.verify(), Ok(4000));
}

#[test]
fn eviction_takes_the_key_that_expires_first() {
    let mut store = Store::with_expected_keys(1);
    assert!(!store.evict([1, 2, 3, 4, 5], Moment::START));
    store.set(b"never", value(b"never", 1), Expiry::NEVER);
    store.set(b"late", value(b"late", 1), Expiry::at(later(100)));
    let buckets = 4_u64;
    assert!(store.evict([0, 1 % buckets, 2 % buckets, 3 % buckets, 0], Moment::START));
    assert!(store.get(b"never", Moment::START).is_some());
    assert!(store.get(b"late", Moment::START).is_none());
}

#[test]
fn damage_is_found() {
    let mut store = Store::with_expected_keys(10);
    store.set(b"a", Box::from(*b"not the pattern"), Expiry::NEVER);
    let error = store.verify().expect_err("damaged");
    assert!(error.contains("\"a\""), "{error}");
}

/// The store against a plain map, over a long random history.
#[test]
fn it_agrees_with_a_map() {
    let mut store = Store::with_expected_keys(300);
    let mut model: HashMap<Vec<u8>, (usize, u32)> = HashMap::new();
    let mut random = 7;
    for step in 0..40_000_u32 {
        random = bytes::mix(random);
        let now = step / 40;
        let key = (random % 500).to_le_bytes().to_vec();
        let len = (random >> 20) as usize % 400;
        let expire_at = now + 1 + (random >> 40) as u32 % 300;
        let live = model.get(&key).is_some_and(|&(_, at)| at > now);
        match random >> 60 {
            0..=5 => {
                store.set(&key, value(&key, len), Expiry::at(later(expire_at)));
                model.insert(key, (len, expire_at));
            }
            6..=7 => {
                let added =
                    store.add(&key, value(&key, len), Expiry::at(later(expire_at)), later(now));
                assert_eq!(added, !live);
                if added {
                    model.insert(key, (len, expire_at));
                }
            }
            8..=10 => {
                let there = store.update(&key, later(now), |hash, _| value_for(hash, len));
                assert_eq!(there, live);
                model.entry(key).and_modify(|held| held.0 = len);
            }
            11 => {
                store.delete(&key);
                model.remove(&key);
            }
            12 => drop(store.expire_cycle(later(now), 10, 0)),
            _ => {
                let held = store.get(&key, later(now)).map(<[u8]>::len);
                assert_eq!(held, live.then(|| model[&key].0), "step {step}");
            }
        }
    }
    assert!(store.verify().is_ok());
}
