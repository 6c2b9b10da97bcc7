//! How long clients wait while `maxmemory` is lowered on a full server.
//!
//! ```text
//! cargo bench -p keyspace --bench lower_limit -- [--from-mib 400] [--to-mib 100] [--rounds 3]
//! ```
//! A server is filled to its limit with values of 300 bytes. A client then asks one GET after the
//! other, and the limit is lowered; what its GETs took from then until `used_memory` is below the new
//! limit is shown beside what they took in the second before. The same for redis-server, where that
//! is installed. Policy `allkeys-lru`, `maxmemory-eviction-tenacity` 10, one connection each.

use comfy_table::{CellAlignment, Table, presets};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 300;
const SETS_AT_ONCE: usize = 1000;
/// What INFO itself takes is in `used_memory` while it is written.
const TOLERANCE_BYTES: u64 = 256 << 10;

fn main() {
    let (from, to) = (option("--from-mib", 400), option("--to-mib", 100));
    let rounds = option("--rounds", 3);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "before: p99 us", "max", "lowering: p99 us", "max", "keys", "took ms"]);
    for program in ["keyspace", "redis-server"] {
        for _ in 0..rounds {
            match Running::start(program, from) {
                Some(server) => table.add_row(server.lower(program, from, to)),
                None => table.add_row([program, "not installed"]),
            };
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("maxmemory from {from} to {to} MiB, values of {VALUE_BYTES} bytes:\n{table}");
}

/// The number that follows `name` on the command line.
fn option(name: &str, default: u64) -> u64 {
    let value = std::env::args().skip_while(|arg| arg != name).nth(1);
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {text:?}"))
    })
}

/// What the probe is in.
const BEFORE: u8 = 0;
const LOWERING: u8 = 1;
const OVER: u8 = 2;

/// A server, stopped in the end.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    fn start(program: &str, limit_mib: u64) -> Option<Self> {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut command = match program {
            "keyspace" => Command::new(env!("CARGO_BIN_EXE_keyspace")),
            _ => Command::new(program),
        };
        if program == "keyspace" {
            command.arg("serve");
        }
        let child = command
            .args(["--port", &port.to_string(), "--save", "", "--maxmemory-policy", "allkeys-lru"])
            .args(["--maxmemory", &format!("{limit_mib}mb")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let it = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "{program} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(it)
    }

    fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(("127.0.0.1", self.port)).expect("an address");
        client.get_connection().expect("a connection")
    }

    /// One row of the table.
    fn lower(&self, program: &str, from_mib: u64, to_mib: u64) -> Vec<String> {
        let mut it = self.connect();
        let keys = fill(&mut it, from_mib << 20);
        let stage = Arc::new(AtomicU8::new(BEFORE));
        let probe = {
            let (mut it, stage) = (self.connect(), Arc::clone(&stage));
            std::thread::spawn(move || probe(&mut it, keys, &stage))
        };
        std::thread::sleep(Duration::from_secs(1));
        let before = info(&mut it, "evicted_keys");
        let started = Instant::now();
        stage.store(LOWERING, Ordering::Relaxed);
        let set = ["SET", "maxmemory", &format!("{to_mib}mb")];
        let () = redis::cmd("CONFIG").arg(&set).query(&mut it).expect("OK");
        while info(&mut it, "used_memory") > (to_mib << 20) + TOLERANCE_BYTES {
            std::thread::sleep(Duration::from_millis(20));
            assert!(started.elapsed() < Duration::from_secs(120), "it does not come down");
        }
        let took = started.elapsed();
        stage.store(OVER, Ordering::Relaxed);
        let [before_us, lowering_us] = probe.join().expect("it only asks");
        let evicted = info(&mut it, "evicted_keys") - before;
        let mut row = vec![program.to_owned()];
        for mut all in [before_us, lowering_us] {
            all.sort_by(f64::total_cmp);
            let most = all.last().copied().unwrap_or_default();
            row.extend([format!("{:.0}", all[all.len() * 99 / 100]), format!("{most:.0}")]);
        }
        row.extend([evicted.to_string(), took.as_millis().to_string()]);
        row
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sets keys until some are evicted; returns how many there were.
fn fill(it: &mut redis::Connection, limit_bytes: u64) -> usize {
    let mut keys = 0;
    while info(it, "evicted_keys") == 0 {
        let mut pipe = redis::pipe();
        for key in keys..keys + SETS_AT_ONCE {
            pipe.set(format!("key:{key:012}"), [b'v'; VALUE_BYTES].as_slice()).ignore();
        }
        let () = pipe.query(it).expect("set");
        keys += SETS_AT_ONCE;
        assert!(keys as u64 * (VALUE_BYTES as u64) < 2 * limit_bytes, "nothing is evicted");
    }
    keys
}

/// Microseconds that GETs took, before and while the limit was lowered.
fn probe(it: &mut redis::Connection, keys: usize, stage: &AtomicU8) -> [Vec<f64>; 2] {
    let (mut took, mut key) = ([Vec::new(), Vec::new()], 0);
    loop {
        // A GET belongs to the stage in which it began.
        let (began, started) = (stage.load(Ordering::Relaxed), Instant::now());
        key = (key + 7919) % keys;
        let get = redis::cmd("GET").arg(format!("key:{key:012}")).query::<Option<Vec<u8>>>(it);
        assert!(get.is_ok(), "{get:?}");
        let us = started.elapsed().as_nanos() as f64 / 1000.0;
        match began {
            BEFORE => took[0].push(us),
            LOWERING => took[1].push(us),
            _ => return took,
        }
    }
}

fn info(it: &mut redis::Connection, field: &str) -> u64 {
    let text: String = redis::cmd("INFO").query(it).expect("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field}"))
}
