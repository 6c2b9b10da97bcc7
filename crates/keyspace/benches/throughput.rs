//! Throughput and memory per key of `keyspace serve` beside the installed redis-server.
//!
//! ```text
//! cargo bench -p keyspace --bench throughput -- [--rounds 3] [--requests 100000] [--keys 200000]
//! ```
//! Both servers run at the same time on ports of their own, and redis-benchmark goes to one after
//! the other in each round, so that whatever else the machine does meets both; the table has the
//! medians of the rounds. Then fresh servers are given keys of 16 bytes with values of 64 bytes and
//! a TTL, and `used_memory` of INFO is divided by their number.

use comfy_table::{CellAlignment, Table, presets};
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TESTS: &str = "ping,set,get,incr,hset,lpush,rpop,lrange_100,mset";
const DEPTHS: [u32; 2] = [1, 16];
const TTL_SECONDS: u64 = 3600;

/// Requests per second by test and depth, one for each round; the test's place keeps the order.
type Rates = BTreeMap<(u32, usize, String), Vec<f64>>;

fn main() {
    let rounds = option("--rounds", 3);
    let requests = option("--requests", 100_000);
    let keys = option("--keys", 200_000);
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: redis-server and redis-benchmark are not installed");
        return;
    }
    throughput(rounds, requests);
    println!("\nused_memory per key, 16-byte keys, 64-byte values, TTL, {keys} keys:");
    for kind in [Kind::Keyspace, Kind::Redis] {
        println!("  {:<13} {:.1} bytes", kind.name(), bytes_per_key(kind, keys));
    }
}

/// The number that follows `name` on the command line.
fn option(name: &str, default: u64) -> u64 {
    let value = std::env::args().skip_while(|arg| arg != name).nth(1);
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {text:?}"))
    })
}

fn throughput(rounds: u64, requests: u64) {
    let servers = [Running::start(Kind::Keyspace), Running::start(Kind::Redis)];
    let mut rates = [Rates::new(), Rates::new()];
    for _ in 0..rounds {
        for depth in DEPTHS {
            for (server, rates) in servers.iter().zip(&mut rates) {
                server.benchmark(depth, requests, rates);
            }
        }
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["test", "-P", "keyspace /s", "redis-server /s", "ratio"]);
    let [ours, theirs] = &mut rates;
    for ((depth, place, test), rounds) in ours {
        let Some(others) = theirs.get_mut(&(*depth, *place, test.clone())) else { continue };
        let (our, their) = (median(rounds), median(others));
        table.add_row([
            test.clone(),
            depth.to_string(),
            format!("{our:.0}"),
            format!("{their:.0}"),
            format!("{:.2}", our / their),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("Medians of {rounds} rounds of {requests} requests, 50 connections:\n{table}");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bytes_per_key(kind: Kind, keys: u64) -> f64 {
    let server = Running::start(kind);
    let client = redis::Client::open(("127.0.0.1", server.port)).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let mut used = || {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut connection).expect("INFO");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|number| number.parse::<f64>().ok()).expect("used_memory")
    };
    let before = used();
    let mut writer = client.get_connection().expect("a connection");
    for first in (0..keys).step_by(1000) {
        let mut pipeline = redis::pipe();
        for number in first..keys.min(first + 1000) {
            let key = format!("key:{number:012}");
            pipeline.set_ex(key, [b'v'; 64].as_slice(), TTL_SECONDS).ignore();
        }
        pipeline.query::<()>(&mut writer).expect("the keys are set");
    }
    drop(writer);
    (used() - before) / keys as f64
}

#[derive(Clone, Copy)]
enum Kind {
    Keyspace,
    Redis,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Keyspace => "keyspace",
            Self::Redis => "redis-server",
        }
    }
}

/// A server, stopped in the end.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    fn start(kind: Kind) -> Self {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut command = match kind {
            Kind::Keyspace => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_keyspace"));
                command.arg("serve");
                command
            }
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--save", "", "--appendonly", "no"]);
                command
            }
        };
        command.args(["--port", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the server starts");
        let it = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "{} does not start", kind.name());
            std::thread::sleep(Duration::from_millis(20));
        }
        it
    }

    /// Runs redis-benchmark and adds what it says.
    fn benchmark(&self, depth: u32, requests: u64, rates: &mut Rates) {
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.port.to_string(), "-t", TESTS, "--csv"])
            .args(["-n", &requests.to_string(), "-P", &depth.to_string()])
            .output()
            .expect("redis-benchmark runs");
        let text = String::from_utf8_lossy(&output.stdout);
        for (place, line) in text.lines().skip(1).enumerate() {
            let mut fields = line.split("\",\"").map(|field| field.trim_matches('"'));
            let (Some(test), Some(rate)) = (fields.next(), fields.next()) else { continue };
            let rate = rate.parse().unwrap_or_else(|_| panic!("no rate in {line:?}"));
            rates.entry((depth, place, test.to_owned())).or_default().push(rate);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
