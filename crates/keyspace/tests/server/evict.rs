//! `maxmemory`: what goes, what stays, and that nobody waits.

use crate::support::{PATIENCE, Server, wait_for};
use redis::{Commands, Connection, RedisResult};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Each use is counted, and no minute that ends meanwhile takes one off.
const LFU_WITHOUT_CHANCE: [&str; 4] = ["--lfu-log-factor", "0", "--lfu-decay-time", "0"];

fn server(policy: &str, limit: &str, more: &[&str]) -> Server {
    let options = ["--maxmemory", limit, "--maxmemory-policy", policy, "--maxmemory-samples", "10"];
    Server::start(&[&options[..], more].concat())
}

/// Stores keys `from..to` of a kilobyte each, one after the other.
fn fill(connection: &mut Connection, name: &str, from: u32, to: u32) -> RedisResult<()> {
    for i in from..to {
        connection.set::<_, _, ()>(format!("{name}{i}"), vec![b'x'; 1000])?;
    }
    Ok(())
}

fn count(connection: &mut Connection, name: &str, from: u32, to: u32) -> usize {
    (from..to).filter(|i| connection.exists(format!("{name}{i}")).expect("EXISTS")).count()
}

fn used(server: &Server) -> u64 {
    server.info("used_memory").parse().expect("a number")
}

#[test]
fn noeviction_refuses_writes_and_loses_nothing() {
    let server = server("noeviction", "4mb", &[]);
    let mut connection = server.connect();
    let error = fill(&mut connection, "key", 0, 10_000).expect_err("it is full at some point");
    assert_eq!(error.code(), Some("OOM"), "{error}");
    assert!(server.info("errorstat_OOM").starts_with("count="));
    assert_eq!(error.detail(), Some("command not allowed when used memory > 'maxmemory'."));
    let keys: u32 = redis::cmd("DBSIZE").query(&mut connection).expect("DBSIZE");
    assert!((2000..4000).contains(&keys), "{keys}");
    assert_eq!(count(&mut connection, "key", 0, keys), keys as usize);
    // Reading and deleting are allowed, and make room.
    let gone: u32 =
        connection.del((0..100).map(|i| format!("key{i}")).collect::<Vec<_>>()).unwrap();
    assert_eq!(gone, 100);
    fill(&mut connection, "new", 0, 50).expect("there is room again");
    assert_eq!(server.info("evicted_keys"), "0");
    // More room at run time.
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("8mb").query(&mut connection).unwrap();
    fill(&mut connection, "more", 0, 2000).expect("twice the room");
    assert!(used(&server) <= 8 * MIB);
}

#[test]
fn every_policy_keeps_the_limit_and_the_right_keys() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        let server = server(policy, "6mb", &[]);
        let mut connection = server.connect();
        let volatile = policy.starts_with("volatile");
        fill(&mut connection, "stay", 0, 500).expect("room for those");
        let mut evicted = 0;
        for i in 0..10_000u32 {
            let key = format!("go{i}");
            let value = vec![b'x'; 1000];
            if volatile {
                connection.set_ex::<_, _, ()>(key, value, 10_000).expect("room is made");
            } else {
                connection.set::<_, _, ()>(key, value).expect("room is made");
            }
            // Those are in use.
            let _: Option<Vec<u8>> = connection.get(format!("stay{}", i % 500)).expect("GET");
            if i % 1000 == 999 {
                // INFO's own text is in it.
                assert!(used(&server) <= 6 * MIB + (16 << 10), "{policy}: {}", used(&server));
                let now: u64 = server.info("evicted_keys").parse().expect("a number");
                assert!(now >= evicted, "{policy}");
                evicted = now;
            }
        }
        assert!(evicted > 4000, "{policy}: {evicted}");
        let stayed = count(&mut connection, "stay", 0, 500);
        match policy {
            // Those read in the same second as the others were written are no better; on a slow
            // machine there are more seconds, and all of them may stay.
            "allkeys-lru" => {}
            "allkeys-random" => assert!(stayed < 500, "{policy}: {stayed}"),
            "allkeys-lfu" => assert!(stayed > 450, "{policy}: {stayed}"),
            _ => assert_eq!(stayed, 500, "{policy}"),
        }
    }
}

#[test]
fn lru_gives_up_what_was_not_used_for_longest() {
    let server = server("allkeys-lru", "6mb", &[]);
    let mut connection = server.connect();
    fill(&mut connection, "old", 0, 2000).expect("room");
    // The clock has seconds, and may be a tick behind.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(count(&mut connection, "old", 0, 1000), 1000);
    let _: Vec<Option<Vec<u8>>> =
        connection.mget((0..1000).map(|i| format!("old{i}")).collect::<Vec<_>>()).unwrap();
    let idle: i64 =
        redis::cmd("OBJECT").arg("IDLETIME").arg("old1500").query(&mut connection).unwrap();
    assert!((2..600).contains(&idle), "{idle}");
    let error = redis::cmd("OBJECT").arg("FREQ").arg("old1").query::<i64>(&mut connection);
    assert!(
        error
            .expect_err("no frequency")
            .to_string()
            .contains("LFU maxmemory policy is not selected")
    );
    // So many that not all that were not used for longest are gone: what is given up then depends on
    // how many seconds this takes.
    let mut new = 0;
    while server.info("evicted_keys").parse::<u64>().expect("a number") < 700 {
        assert!(new < 10_000, "nothing is given up");
        fill(&mut connection, "new", new, new + 100).expect("room is made");
        new += 100;
    }
    let (used_lately, not) =
        (count(&mut connection, "old", 0, 1000), count(&mut connection, "old", 1000, 2000));
    println!(
        "{used_lately} of 1000 that were used lately are left, and {not} of 1000 that were not"
    );
    assert!(used_lately > 930 && not < 500, "{used_lately} {not}");
}

#[test]
fn lfu_gives_up_what_was_used_least() {
    let server = server("allkeys-lfu", "6mb", &LFU_WITHOUT_CHANCE);
    let mut connection = server.connect();
    fill(&mut connection, "key", 0, 2000).expect("room");
    for _ in 0..5 {
        let _: Vec<Option<Vec<u8>>> =
            connection.mget((0..1000).map(|i| format!("key{i}")).collect::<Vec<_>>()).unwrap();
    }
    let freq: i64 = redis::cmd("OBJECT").arg("FREQ").arg("key1").query(&mut connection).unwrap();
    assert_eq!(freq, 10, "5 to begin with, and one a read");
    fill(&mut connection, "new", 0, 8000).expect("room is made");
    let (often, seldom) =
        (count(&mut connection, "key", 0, 1000), count(&mut connection, "key", 1000, 2000));
    assert!(often > 950 && seldom < 700, "{often} {seldom}");
}

#[test]
fn lookups_of_whoever_touches_nothing_leave_no_trace() {
    let server = server("allkeys-lfu", "6mb", &LFU_WITHOUT_CHANCE);
    let mut it = server.connect();
    let () = redis::cmd("MSET").arg(&["a", "1", "b", "2"]).query(&mut it).expect("OK");
    let () = redis::cmd("CLIENT").arg(&["NO-TOUCH", "on"]).query(&mut it).expect("OK");
    let freq = |it: &mut Connection| {
        redis::cmd("OBJECT").arg(&["FREQ", "a"]).query::<i64>(it).expect("a number")
    };
    for _ in 0..10 {
        let _: String = it.get("a").expect("GET");
    }
    assert_eq!(freq(&mut it), 5);
    // That is what TOUCH is for.
    let _: u32 = redis::cmd("TOUCH").arg("a").query(&mut it).expect("a count");
    assert_eq!(freq(&mut it), 6);
    let () = redis::cmd("CLIENT").arg(&["NO-TOUCH", "off"]).query(&mut it).expect("OK");
    let _: String = it.get("a").expect("GET");
    assert_eq!(freq(&mut it), 7);
    assert!(redis::cmd("CLIENT").arg(&["NO-TOUCH", "x"]).query::<()>(&mut it).is_err());
}

#[test]
fn overwriting_a_value_keeps_how_often_its_key_was_used() {
    let server = server("allkeys-lfu", "6mb", &LFU_WITHOUT_CHANCE);
    let mut connection = server.connect();
    for _ in 0..20 {
        connection.set::<_, _, ()>("key", "value").expect("SET");
    }
    let freq: i64 = redis::cmd("OBJECT").arg("FREQ").arg("key").query(&mut connection).unwrap();
    assert_eq!(freq, 5 + 19);
}

#[test]
fn a_neighbour_that_sends_much_at_once_does_not_stretch_the_slices() {
    let server = server("allkeys-random", "100mb", &["--maxmemory-eviction-tenacity", "10"]);
    let mut connection = server.connect();
    for i in 0..500 {
        let mut pipe = redis::pipe();
        for j in 0..200 {
            pipe.set(format!("key{i}:{j}"), vec![b'x'; 300]).ignore();
        }
        pipe.query::<()>(&mut connection).expect("SET");
    }
    let evicted = || server.info("evicted_keys").parse::<u64>().expect("a number");
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("8mb").query(&mut connection).unwrap();
    // Each of these is asked for room; in one turn of the loop there is time for one slice, and two
    // keys a command beyond that.
    let mut pings = redis::pipe();
    for _ in 0..200 {
        pings.cmd("PING").ignore();
    }
    let mut longest = Duration::ZERO;
    while used(&server) > 9 * MIB {
        let asked = Instant::now();
        pings.query::<()>(&mut connection).expect("PING");
        longest = longest.max(asked.elapsed());
    }
    let most: u64 = server.info("eviction_most_keys_per_turn").parse().expect("a number");
    println!("200 pings at once took {longest:?} at most, {most} keys went in a turn at most");
    assert!((1..10_000).contains(&most), "{most}");
    assert!(evicted() > 50_000, "{}", evicted());
}

#[test]
fn entries_larger_than_those_that_make_way_for_them_do_not_pass_the_limit() {
    const LIMIT: u64 = 32 * MIB;
    let server = server("allkeys-random", "32mb", &[]);
    let mut connection = server.connect();
    let evicted = || server.info("evicted_keys").parse::<u64>().expect("a number");
    for i in 0.. {
        let mut pipe = redis::pipe();
        (0..1000).for_each(|j| _ = pipe.set(format!("small{i}:{j}"), vec![b'x'; 80]).ignore());
        pipe.query::<()>(&mut connection).expect("SET");
        if evicted() > 0 {
            break;
        }
    }
    let small: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("DBSIZE");
    assert!(small > 100_000, "{small}");
    // All at once, so that a turn of the loop has as much to execute as it can.
    std::thread::scope(|scope| {
        for i in 0..50 {
            let mut connection = server.connect();
            scope.spawn(move || {
                let mut pipe = redis::pipe();
                let value = vec![b'x'; 10_000];
                (0..80).for_each(|j| _ = pipe.set(format!("large{i}:{j}"), &value[..]).ignore());
                pipe.query::<()>(&mut connection).expect("room is made");
            });
        }
    });
    let peak: u64 = server.info("used_memory_peak").parse().expect("a number");
    println!("{} bytes above the limit at most", peak.saturating_sub(LIMIT));
    // The credit is half a mebibyte; what clients have sent and are told is no more than three.
    assert!(peak < LIMIT + 4 * MIB, "{peak}");
    assert!(evicted() > small / 2, "{} of {small}", evicted());
    wait_for("the limit is kept", || used(&server) <= LIMIT);
}

#[test]
fn no_more_large_values_go_than_have_to() {
    let server = server("allkeys-random", "1gb", &["--lazyfree-lazy-eviction", "yes"]);
    let mut connection = server.connect();
    for i in 0..8 {
        let mut pipe = redis::pipe();
        for j in 0..50 {
            let fields: Vec<(String, Vec<u8>)> =
                (0..1000).map(|k| (format!("field{j}:{k}"), vec![b'x'; 100])).collect();
            pipe.hset_multiple(format!("hash{i}"), &fields).ignore();
        }
        pipe.query::<()>(&mut connection).expect("HSET");
    }
    let before = used(&server);
    assert!(before > 40 * MIB, "{before}");
    let set = |limit: u64| {
        let set = ["SET", "maxmemory", &limit.to_string()];
        redis::cmd("CONFIG").arg(&set).query::<()>(&mut server.connect()).expect("OK");
    };
    let evicted = || server.info("evicted_keys").parse::<u64>().expect("a number");
    // Less than one of them.
    set(before - MIB);
    wait_for("one is freed", || used(&server) < before - 2 * MIB);
    wait_for("all is freed", || server.info("lazyfree_pending_objects") == "0");
    assert_eq!((evicted(), server.info("lazyfreed_objects")), (1, "1".to_owned()));
    // Half of all.
    set(before / 2);
    wait_for("the limit is kept", || used(&server) <= before / 2);
    wait_for("all is freed", || server.info("lazyfree_pending_objects") == "0");
    assert!((4..=6).contains(&evicted()), "{}", evicted());
    assert!(used(&server) > before / 4, "{}", used(&server));
}

#[test]
fn nothing_is_given_up_without_a_limit() {
    let server = server("noeviction", "100mb", &[]);
    let mut connection = server.connect();
    fill(&mut connection, "key", 0, 2000).expect("room");
    // In either order; each is followed at once, and with each tick.
    for (parameter, value) in [
        ("maxmemory", "0"),
        ("maxmemory-policy", "allkeys-random"),
        ("maxmemory", "100mb"),
        ("maxmemory", "0"),
        ("maxmemory-counts", "resident"),
    ] {
        let set = ["SET", parameter, value];
        let () = redis::cmd("CONFIG").arg(&set).query(&mut connection).expect("OK");
        std::thread::sleep(Duration::from_millis(250));
        let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("DBSIZE");
        assert_eq!(keys, 2000, "{parameter} {value}");
    }
}

#[test]
fn volatile_ttl_gives_up_what_expires_first_and_refuses_when_nothing_is_left() {
    let server = server("volatile-ttl", "6mb", &[]);
    let mut connection = server.connect();
    for i in 0..2000u64 {
        connection
            .set_ex::<_, _, ()>(format!("key{i}"), vec![b'x'; 1000], 10_000 + i * 10)
            .unwrap();
    }
    fill(&mut connection, "stay", 0, 4200).expect("room is made");
    let (soon, late) =
        (count(&mut connection, "key", 0, 500), count(&mut connection, "key", 1500, 2000));
    assert!(soon < 250 && late > 450, "{soon} {late}");
    // At last only keys that do not expire are left.
    let error = fill(&mut connection, "stay", 4200, 9000).expect_err("nothing may go");
    assert_eq!(error.code(), Some("OOM"));
    assert_eq!(count(&mut connection, "key", 0, 2000), 0);
    assert_eq!(count(&mut connection, "stay", 0, 4200), 4200);
    assert!(server.info("current_eviction_exceeded_time").parse::<u64>().is_ok());
}

#[test]
fn a_lowered_limit_is_reached_in_slices_while_clients_are_served() {
    let server = server("allkeys-random", "200mb", &[]);
    let mut connection = server.connect();
    for i in 0..1000 {
        let mut pipe = redis::pipe();
        for j in 0..200 {
            pipe.set(format!("key{i}:{j}"), vec![b'x'; 300]).ignore();
        }
        pipe.query::<()>(&mut connection).expect("SET");
    }
    let before = used(&server);
    assert!(before > 60 * MIB);
    // What is asked in the same breath is answered when a slice is over, and most is still there.
    let (pong, left): (String, u64) = redis::pipe()
        .cmd("CONFIG")
        .arg(&["SET", "maxmemory", "10mb"])
        .ignore()
        .cmd("PING")
        .cmd("DBSIZE")
        .query(&mut connection)
        .expect("all three");
    assert!(pong == "PONG" && left > 100_000, "{left}");
    let start = Instant::now();
    while used(&server) > 10 * MIB {
        assert!(start.elapsed() < PATIENCE, "{} are used", used(&server));
        for _ in 0..20 {
            redis::cmd("PING").query::<String>(&mut connection).expect("PING");
        }
    }
    let number = |field: &str| server.info(field).parse::<u64>().expect("a number");
    let (evicted, most) = (number("evicted_keys"), number("eviction_most_keys_per_turn"));
    println!("{evicted} keys went, {most} in a turn of the loop at most");
    // Whatever the machine does: a turn takes a slice, half a millisecond, and no machine gives so
    // many keys up in that. In each turn whoever asks is answered.
    assert!(evicted > 100_000 && (1..10_000).contains(&most), "{most} of {evicted}");
    assert_eq!(server.info("current_eviction_exceeded_time"), "0");
    assert_ne!(server.info("total_eviction_exceeded_time"), "0");
    redis::cmd("CONFIG").arg("RESETSTAT").query::<()>(&mut connection).expect("RESETSTAT");
    assert_eq!(server.info("eviction_most_keys_per_turn"), "0");
    assert_eq!(server.info("total_eviction_exceeded_time"), "0");
}

#[test]
fn what_the_kernel_counts_can_be_limited() {
    let server = server("allkeys-lru", "60mb", &["--maxmemory-counts", "resident"]);
    let mut connection = server.connect();
    let rss = || server.info("used_memory_rss").parse::<u64>().expect("a number");
    for i in 0..1000 {
        let mut pipe = redis::pipe();
        for j in 0..200 {
            pipe.set(format!("key{i}:{j}"), vec![b'x'; 500]).ignore();
        }
        pipe.query::<()>(&mut connection).expect("room is made");
    }
    assert!(server.info("evicted_keys").parse::<u64>().expect("a number") > 50_000);
    let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("DBSIZE");
    // Without defragmentation more must go than a compact heap would lose.
    assert!(keys > 10_000, "{keys}");
    // RSS is looked at ten times a second.
    wait_for("no more is resident than was allowed", || rss() <= 62 * MIB);
}
