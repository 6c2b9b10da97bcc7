//! A whole churn over sockets, with `activedefrag` and without.

use crate::support::{PATIENCE, Server, wait_for};
use redis::{Connection, cmd};
use std::time::{Duration, Instant};

const KEYS: usize = 100_000;

/// How long the value of a key is: other sizes with each time that it is written.
fn value_bytes(key: usize, time: usize) -> usize {
    // Scattered over the sizes, so that neighbours differ.
    40 + (key * 7919 + time * 104_729) % 500
}

fn value(key: usize, time: usize) -> Vec<u8> {
    vec![b'a' + (key % 26) as u8; value_bytes(key, time)]
}

/// Which keys stay: a fifth, scattered.
fn stays(key: usize) -> bool {
    (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (1 << 32) / 5
}

/// A server and what it takes when it is empty.
struct Aged {
    server: Server,
    it: Connection,
    empty: (f64, f64),
    kept: usize,
}

impl Aged {
    /// A server in which a cache was loaded, written over, and lost four fifths of its keys.
    fn new(options: &[&str]) -> Self {
        let server = Server::start(options);
        let mut it = server.connect();
        let empty = figures(&server);
        for time in 0..2 {
            for first in (0..KEYS).step_by(1000) {
                let mut pipe = redis::pipe();
                for key in first..first + 1000 {
                    pipe.set(format!("key:{key}"), value(key, time)).ignore();
                }
                let () = pipe.query(&mut it).expect("set");
            }
        }
        let kept = (0..KEYS).filter(|key| stays(*key)).count();
        let aged = |it: &mut Connection| {
            let mut pipe = redis::pipe();
            for key in (0..KEYS).filter(|key| !stays(*key)) {
                pipe.pexpire(format!("key:{key}"), 1 + (key % 500) as i64).ignore();
            }
            let () = pipe.query(it).expect("they are there");
        };
        aged(&mut it);
        wait_for("they expire", || {
            cmd("DBSIZE").query::<usize>(&mut it).expect("a number") <= kept
        });
        Self { server, it, empty, kept }
    }

    /// RSS over `used_memory`, both without what an empty server takes: at this size that would hide
    /// the rest.
    fn ratio(&self) -> f64 {
        let (rss, used) = figures(&self.server);
        (rss - self.empty.0) / (used - self.empty.1)
    }

    /// Asserts that what should be there is, and nothing else.
    fn check(&mut self) {
        assert_eq!(cmd("DBSIZE").query::<usize>(&mut self.it), Ok(self.kept));
        for key in 0..KEYS {
            let wanted = stays(key).then(|| value(key, 1));
            if wanted.is_some() || key % 16 == 0 {
                let found =
                    cmd("GET").arg(format!("key:{key}")).query::<Option<Vec<u8>>>(&mut self.it);
                assert_eq!(found.expect("GET"), wanted, "{key}");
            }
        }
    }
}

/// RSS and `used_memory`.
fn figures(server: &Server) -> (f64, f64) {
    // RSS in INFO is up to 100 ms old.
    let () = cmd("MEMORY").arg("PURGE").query(&mut server.connect()).expect("OK");
    let number = |field: &str| server.info(field).parse::<f64>().expect("a number");
    (number("used_memory_rss"), number("used_memory"))
}

#[test]
fn a_churn_leaves_holes_and_active_defragmentation_closes_them() {
    let mut aged = Aged::new(&["--activedefrag", "no"]);
    let expired = aged.ratio();
    std::thread::sleep(Duration::from_secs(2));
    let unhealed = aged.ratio();
    println!("expired {expired:.2}, two seconds later {unhealed:.2}");
    // What can be given back without moving anything has been: the rest is between what stays.
    assert!(expired > 1.6 && unhealed > 1.6, "{expired} {unhealed}");
    assert_eq!(aged.server.info("active_defrag_hits"), "0");
    let settings = [
        ("activedefrag", "yes"),
        ("active-defrag-ignore-bytes", "100kb"),
        ("active-defrag-threshold-lower", "2"),
        ("active-defrag-cycle-max", "75"),
    ];
    for setting in settings {
        let () = cmd("CONFIG").arg("SET").arg(setting).query(&mut aged.it).expect("OK");
    }
    let (start, mut healed) = (Instant::now(), aged.ratio());
    while healed > 1.2 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        healed = aged.ratio();
    }
    println!("with activedefrag {healed:.2}");
    assert!(healed <= 1.2, "{healed}, not {unhealed} any more");
    assert_ne!(aged.server.info("active_defrag_hits"), "0");
    aged.check();
}

#[test]
fn it_heals_by_itself_where_it_is_told_to_from_the_start() {
    let options = ["--activedefrag", "yes", "--active-defrag-ignore-bytes", "100kb"];
    let mut aged = Aged::new(&options);
    let start = Instant::now();
    while aged.ratio() > 1.4 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    let healed = aged.ratio();
    assert!(healed <= 1.4, "{healed}");
    aged.check();
}
