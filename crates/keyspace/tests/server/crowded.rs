//! Keys and fields that are chosen by the order of a scan.

use crate::support::{Server, wait_for};
use redis::{Connection, cmd};
use std::collections::HashSet;

/// A step of SCAN, or of HSCAN in `hash`: the next cursor, and what was met.
fn step(it: &mut Connection, hash: Option<&str>, cursor: u64) -> (u64, Vec<String>) {
    let mut scan = cmd(if hash.is_some() { "HSCAN" } else { "SCAN" });
    scan.arg(hash).arg(cursor).arg("COUNT").arg(100);
    let (next, mut met): (u64, Vec<String>) = scan.query(it).expect("a step");
    if hash.is_some() {
        met = met.into_iter().step_by(2).collect();
    }
    (next, met)
}

#[test]
fn what_a_scan_has_met_can_be_deleted_until_nothing_is_left() {
    const COUNT: usize = 20_000;
    let server = Server::start(&[]);
    let mut it = server.connect();
    let mut pipe = redis::pipe();
    for i in 0..COUNT {
        pipe.set(i, "value").ignore().hset("hash", i, "value").ignore();
    }
    let () = pipe.query(&mut it).expect("set");
    for (hash, delete) in [(Some("hash"), "HDEL"), (None, "DEL")] {
        // All are met first, so that no step begins in a table that has changed since.
        let (mut met, mut cursor) = (Vec::new(), 0);
        loop {
            let (next, some) = step(&mut it, hash, cursor);
            met.extend(some);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert!(met.len() >= COUNT, "{}", met.len());
        for some in met.chunks(500) {
            let mut pipe = redis::pipe();
            for name in some {
                pipe.cmd(delete).arg(hash).arg(name).ignore();
            }
            let () = pipe.query(&mut it).expect("deleted");
        }
    }
    assert_eq!(cmd("DBSIZE").query::<usize>(&mut it), Ok(0));
}

/// The memory of crowded shards moves as that of others.
#[test]
fn crowded_hashes_are_defragmented() {
    const HASHES: usize = 16;
    const COUNT: usize = 9000;
    let options = ["--activedefrag", "no", "--active-defrag-ignore-bytes", "1"];
    let server = Server::start(&options);
    let mut it = server.connect();
    let mut crowds = Vec::new();
    for hash in (0..HASHES).map(|i| format!("hash{i}")) {
        let mut pipe = redis::pipe();
        for i in 0..COUNT {
            pipe.hset(&hash, i, "before").ignore();
        }
        let () = pipe.query(&mut it).expect("set");
        let (mut crowd, mut cursor) = (HashSet::new(), 0);
        while cursor < 1 << 29 {
            let (next, some) = step(&mut it, Some(&hash), cursor);
            crowd.extend(some);
            cursor = next;
        }
        // One field stays, so that the hash does, with its order.
        let mut pipe = redis::pipe();
        pipe.hset(&hash, "stays", "here").ignore();
        for i in 0..COUNT {
            pipe.hdel(&hash, i).ignore();
        }
        for field in &crowd {
            pipe.hset(&hash, field, format!("{hash} {field}")).ignore();
        }
        let () = pipe.query(&mut it).expect("set");
        crowds.push((hash, crowd));
    }
    for (hash, _) in crowds.iter().step_by(2) {
        let () = cmd("DEL").arg(hash).query(&mut it).expect("it was there");
    }
    for setting in [("active-defrag-threshold-lower", "1"), ("activedefrag", "yes")] {
        let () = cmd("CONFIG").arg("SET").arg(setting).query(&mut it).expect("OK");
    }
    wait_for("a pass", || server.info("active_defrag_passes") != "0");
    assert_ne!(server.info("active_defrag_hits"), "0");
    for (hash, crowd) in crowds.iter().skip(1).step_by(2) {
        assert!(crowd.len() > 1023, "{}", crowd.len());
        let count = cmd("HLEN").arg(hash).query::<usize>(&mut it).expect("a number");
        assert_eq!(count, crowd.len() + 1);
        let fields: Vec<&String> = crowd.iter().collect();
        for some in fields.chunks(500) {
            let found: Vec<String> =
                cmd("HMGET").arg(hash).arg(some).query(&mut it).expect("values");
            assert!(
                some.iter().zip(found).all(|(field, value)| value == format!("{hash} {field}"))
            );
        }
    }
}
