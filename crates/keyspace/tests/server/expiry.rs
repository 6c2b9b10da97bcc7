//! Expiry under a steady churn, and flushing: what waits for nobody, by counts.

use crate::support::{PATIENCE, Server, wait_for};
use redis::{Connection, cmd};
use std::time::{Duration, Instant};

/// Keys that are live at any moment, and how long each lives.
const LIVE: u64 = 20_000;
const TTL_MS: u64 = 10_000;

/// Stores keys `from..to`; those before `LIVE` are as old as if they had come one by one.
fn store(it: &mut Connection, from: u64, to: u64) {
    if from == to {
        return;
    }
    let mut pipe = redis::pipe();
    for i in from..to {
        let ttl = if i < LIVE { 1000 + TTL_MS * i / LIVE } else { TTL_MS };
        pipe.cmd("SET").arg(i).arg("value").arg("PX").arg(ttl).ignore();
    }
    let () = pipe.query(it).expect("OK");
}

/// Keys in memory, and how many of them are dead. Both are asked for at once, so they are answered
/// in one turn of the loop; KEYS leaves out what has expired. A turn begins with what is asked and
/// ends with work that waits: two before that, so that a server that the machine has kept waiting
/// has been through one.
fn dead(it: &mut Connection) -> (usize, usize) {
    (0..2).for_each(|_| _ = cmd("PING").query::<String>(it).expect("PONG"));
    let (all, live): (usize, Vec<String>) =
        redis::pipe().cmd("DBSIZE").cmd("KEYS").arg("*").query(it).expect("both");
    (all, all.saturating_sub(live.len()))
}

/// Keys come as fast as others expire, for so long. Returns the mean share of dead ones, in percent.
fn churn(it: &mut Connection, number: &mut u64, time: Duration) -> f64 {
    let (start, first, mut next_look) = (Instant::now(), *number, Duration::ZERO);
    let (mut sum, mut looks) = (0.0, 0);
    while start.elapsed() < time {
        let until = first + start.elapsed().as_millis() as u64 * LIVE / TTL_MS;
        store(it, *number, until.max(*number));
        *number = until.max(*number);
        if start.elapsed() >= next_look {
            let (all, dead) = dead(it);
            (sum, looks) = (sum + dead as f64 * 100.0 / all as f64, looks + 1);
            next_look = start.elapsed() + Duration::from_millis(50);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    sum / f64::from(looks)
}

#[test]
fn hardly_any_dead_key_holds_memory() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut it = server.connect();
    (0..LIVE / 1000).for_each(|i| store(&mut it, i * 1000, (i + 1) * 1000));
    let stale = || server.info("expired_stale_perc").parse::<f64>().expect("a number");
    let mut number = LIVE;
    // The first of them begin to expire in this time.
    churn(&mut it, &mut number, Duration::from_millis(1500));
    let mean = churn(&mut it, &mut number, Duration::from_secs(4));
    let expired: u64 = server.info("expired_keys").parse().expect("a number");
    println!("{expired} keys have expired; {mean:.2} % were dead, INFO says {:.2} %", stale());
    assert!(expired > 3000, "{expired}");
    assert!(mean <= 1.0, "{mean} % of the keys in memory are dead");
    assert!(stale() <= 1.0, "{}", stale());
    // Nobody removes them any more: both figures must tell.
    let () = cmd("DEBUG").arg(&["SET-ACTIVE-EXPIRE", "0"]).query(&mut it).expect("OK");
    let start = Instant::now();
    let mut mean = churn(&mut it, &mut number, Duration::from_secs(3));
    // INFO's is a running mean over ticks, which may be few.
    while stale() <= 5.0 && start.elapsed() < PATIENCE {
        mean = churn(&mut it, &mut number, Duration::from_secs(1));
    }
    println!("without active expiry {mean:.2} % were dead, INFO says {:.2} %", stale());
    assert!(mean > 5.0 && stale() > 5.0, "{mean} {}", stale());
    let (_, dead) = dead(&mut it);
    let () = cmd("DEBUG").arg(&["SET-ACTIVE-EXPIRE", "1"]).query(&mut it).expect("OK");
    wait_for("they go", || self::dead(&mut it).1 * 20 <= dead);
}

#[test]
fn few_huge_keys_are_flushed_in_the_background() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let mut sent = 0;
    for flush in [&["FLUSHALL", "ASYNC"][..], &["FLUSHDB", "ASYNC"], &["FLUSHALL", "SYNC"]] {
        for key in ["a", "b"] {
            for first in (0..20_000).step_by(1000) {
                let mut hset = cmd("HSET");
                hset.arg(key);
                (first..first + 1000).for_each(|i| _ = hset.arg(i).arg("value"));
                let () = hset.query(&mut it).expect("1000");
            }
        }
        let () = cmd(flush[0]).arg(&flush[1..]).query(&mut it).expect("OK");
        sent += if flush[1] == "ASYNC" { 2 } else { 0 };
        assert_eq!(cmd("DBSIZE").query::<usize>(&mut it), Ok(0));
        wait_for("they are freed", || server.info("lazyfree_pending_objects") == "0");
        assert_eq!(server.info("lazyfreed_objects"), sent.to_string(), "{flush:?}");
    }
}
