//! The books: every byte of RSS is somewhere, at every stage of a churn.

use crate::support::{Server, wait_for};
use redis::{Connection, Value, cmd};
use std::collections::HashMap;

/// MEMORY STATS as numbers; maps inside as `name/entry`.
fn stats(it: &mut Connection) -> HashMap<String, f64> {
    fn add(into: &mut HashMap<String, f64>, prefix: &str, value: &Value) {
        let Value::Array(items) = value else { panic!("no map: {value:?}") };
        for pair in items.chunks(2) {
            let Value::BulkString(name) = &pair[0] else { panic!("no name: {pair:?}") };
            let name = format!("{prefix}{}", String::from_utf8_lossy(name));
            match &pair[1] {
                Value::Int(number) => drop(into.insert(name, *number as f64)),
                Value::BulkString(text) => {
                    let number = String::from_utf8_lossy(text).parse().expect("a number");
                    into.insert(name, number);
                }
                inner => add(into, &format!("{name}/"), inner),
            }
        }
    }
    let reply: Value = cmd("MEMORY").arg("STATS").query(it).expect("a map");
    let mut all = HashMap::new();
    add(&mut all, "", &reply);
    all
}

/// Asserts that the sum of all lines is RSS within 2 %, that it is the sum of the lines, and that the
/// one line that is not counted by itself has little to do with it.
fn balance(it: &mut Connection, stage: &str) -> HashMap<String, f64> {
    let all = stats(it);
    let (sum, rss) = (all["tallow.sum.total"], all["tallow.sum.rss"]);
    let lines: f64 =
        all.iter().filter(|(name, _)| name.starts_with("tallow.sum/")).map(|it| it.1).sum();
    assert_eq!(sum, lines, "{stage}");
    let off = (sum - rss) / rss;
    let elsewhere = -all["tallow.sum/absent_elsewhere"] / rss;
    println!(
        "{stage:<16} sum {sum:>10} rss {rss:>10} off {:+.2} %, absent elsewhere {:.2} %",
        off * 100.0,
        elsewhere * 100.0
    );
    assert!(off.abs() <= 0.02, "{stage}: {sum} and not {rss} ({:.1} %): {all:#?}", off * 100.0);
    assert!((0.0..=0.03).contains(&elsewhere), "{stage}: {elsewhere} {all:#?}");
    // Without what is counted apart from the heap it would not do.
    assert!(all["tallow.sum/program"] > 1e6 && all["tallow.sum/stack"] > 0.0, "{stage}");
    all
}

fn set_many(it: &mut Connection, count: usize, value_bytes: impl Fn(usize) -> usize) {
    for first in (0..count).step_by(1000) {
        let mut pipe = redis::pipe();
        for i in first..first + 1000 {
            let value = vec![b'v'; value_bytes(i)];
            pipe.set(format!("key:{i:012}"), value).ignore();
        }
        let () = pipe.query(it).expect("set");
    }
}

#[test]
fn the_sum_of_everything_is_rss_at_every_stage_of_a_churn() {
    const KEYS: usize = 60_000;
    let server = Server::start(&["--activedefrag", "no"]);
    let mut it = server.connect();
    balance(&mut it, "empty");
    set_many(&mut it, KEYS, |i| 20 + i % 200);
    let loaded = balance(&mut it, "loaded");
    assert!(loaded["tallow.sum/account.dataset"] > (KEYS * 120) as f64);
    assert!(loaded["tallow.sum/account.tables"] > (KEYS * 16) as f64);
    set_many(&mut it, KEYS, |i| 200 + i * 7 % 900);
    balance(&mut it, "overwritten");
    for i in (0..KEYS).filter(|i| i % 5 > 0) {
        let mut pipe = redis::pipe();
        let () = pipe.pexpire(format!("key:{i:012}"), 1).ignore().query(&mut it).expect("set");
    }
    let keys = |it: &mut Connection| cmd("DBSIZE").query::<usize>(it).expect("a count");
    wait_for("they expire", || keys(&mut it) <= KEYS / 5);
    let expired = balance(&mut it, "80 % expired");
    assert!(expired["tallow.sum/free_in_slabs"] > expired["tallow.sum/account.dataset"]);
    let () = cmd("MEMORY").arg("PURGE").query(&mut it).expect("OK");
    let purged = balance(&mut it, "purged");
    assert!(purged["tallow.sum.rss"] < expired["tallow.sum.rss"]);
    let settings = [
        "activedefrag",
        "yes",
        "active-defrag-ignore-bytes",
        "1mb",
        "active-defrag-cycle-min",
        "50",
    ];
    let () = cmd("CONFIG").arg("SET").arg(&settings).query(&mut it).expect("OK");
    let evacuable = |server: &Server| server.info("tallow_evacuable").parse::<f64>().expect("one");
    wait_for("it is defragmented", || {
        server.info("active_defrag_running") == "0" && evacuable(&server) < 2e6
    });
    let defragmented = balance(&mut it, "defragmented");
    assert!(defragmented["tallow.sum.rss"] < purged["tallow.sum.rss"]);
    let () = cmd("FLUSHALL").arg("SYNC").query(&mut it).expect("OK");
    balance(&mut it, "flushed");
    let () = cmd("MEMORY").arg("PURGE").query(&mut it).expect("OK");
    let flushed = balance(&mut it, "flushed, purged");
    assert_eq!(flushed["tallow.sum/account.dataset"], 0.0);
    assert_eq!(flushed["tallow.sum/account.tables"], 0.0);
}

#[test]
fn an_empty_server_is_small() {
    let server = Server::start(&[]);
    let all = stats(&mut server.connect());
    let used: f64 = server.info("used_memory").parse().expect("a number");
    assert!(used <= 1e6, "{used}");
    let rss = all["tallow.sum.rss"];
    // What was compiled without optimisation, and with its checks, is large itself.
    let program = if cfg!(debug_assertions) { all["tallow.sum/program"] } else { 0.0 };
    let limit = if cfg!(debug_assertions) { 1e6 } else { 8e6 };
    assert!(rss - program <= limit, "{rss} {program}");
}

#[test]
fn usage_of_all_keys_is_what_the_dataset_has_allocated() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let allocated = |it: &mut Connection| {
        let all = stats(it);
        // An account is listed from its first use on.
        let tables = all.get("tallow.sum/account.tables").copied().unwrap_or(0.0);
        all["total.allocated"] - tables
    };
    let before = allocated(&mut it);
    for i in 0..200 {
        let () = cmd("SET").arg(i).arg("x".repeat(i * 40)).query(&mut it).expect("OK");
        let () = cmd("RPUSH").arg("list").arg("y".repeat(i * 10)).query(&mut it).expect("OK");
        let () = cmd("HSET").arg("small").arg(&["f", "v"]).query(&mut it).expect("OK");
        let () = cmd("HSET").arg("large").arg(i).arg("z".repeat(i)).query(&mut it).expect("OK");
    }
    let () = cmd("APPEND").arg("long").arg("l".repeat(100_000)).query(&mut it).expect("OK");
    let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut it).expect("keys");
    let usage = |it: &mut Connection, key: &str| {
        cmd("MEMORY").arg(&["USAGE", key]).query::<Option<f64>>(it).expect("a number")
    };
    let sum: f64 = keys.iter().map(|key| usage(&mut it, key).expect("it is there")).sum();
    let grown = allocated(&mut it) - before;
    // Tables are requested bytes and not those of their blocks; clients' buffers come and go.
    assert!((sum - grown).abs() < 12e3, "{sum} {grown}");
    assert_eq!(usage(&mut it, "none"), None);
    let some: f64 =
        cmd("MEMORY").arg(&["USAGE", "large", "SAMPLES", "50"]).query(&mut it).expect("a number");
    let all = usage(&mut it, "large").expect("it is there");
    assert!((some / all - 1.0).abs() < 0.3, "{some} {all}");
    assert!(cmd("MEMORY").arg(&["USAGE", "large", "SAMPLES"]).query::<()>(&mut it).is_err());
    assert!(cmd("MEMORY").arg(&["USAGE", "large", "SAMPLES", "-1"]).query::<()>(&mut it).is_err());
}
