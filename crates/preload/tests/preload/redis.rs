//! A Redis server under its own benchmark.

use crate::support::{Kind, PATIENCE, folder, installed, of_each_kind, preloaded};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

of_each_kind! { redis }

/// A client that knows as much of the protocol as is needed here.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(socket: &Path) -> Self {
        let until = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    return Self(BufReader::new(stream));
                }
                Err(error) => assert!(Instant::now() < until, "the server is not there: {error}"),
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, command: &str) {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("a command is sent");
    }

    /// The reply to a command: a line, or the text that the line announces.
    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        let Some(len) = line.strip_prefix('$') else { return line.trim_end().into() };
        let mut text = vec![0; len.trim_end().parse::<usize>().expect("a length") + 2];
        self.0.read_exact(&mut text).expect("as long as it said");
        String::from_utf8(text).expect("text").trim_end().into()
    }
}

fn redis(kind: Kind) {
    if !installed("redis-server") || !installed("redis-benchmark") {
        return;
    }
    // A port that is free now may be somebody else's before the server has it.
    let folder = folder();
    let path = folder.path().join("redis.sock");
    let socket = path.to_str().expect("a path of text");
    let server = preloaded(kind, "redis-server")
        .args(["--port", "0", "--unixsocket", socket])
        .args(["--save", "", "--appendonly", "no", "--dir", "/"])
        .start();
    let mut client = Client::connect(&path);
    assert_eq!(client.ask("PING"), "+PONG");

    let commands = "ping,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,lrange_100,mset";
    let benchmark = preloaded(kind, "redis-benchmark")
        .args(["-s", socket, "-r", "10000", "-d", "100", "-P", "8", "-q"])
        .args(["-n", &kind.part_of(20_000).to_string()])
        .args(["-t", commands])
        .run()
        .ok();
    let results = benchmark.stdout.matches("requests per second").count();
    assert!(results >= commands.split(',').count(), "{}", benchmark.told());
    assert!(!benchmark.stdout.contains("Error"), "{}", benchmark.told());

    for i in 0..2000 {
        let value = format!("{i}-").repeat(i % 300 + 1);
        assert_eq!(client.ask(&format!("SET mine:{i} {value}")), "+OK");
    }
    for i in 0..2000 {
        let value = format!("{i}-").repeat(i % 300 + 1);
        assert_eq!(client.ask(&format!("GET mine:{i}")), value);
    }
    let info = client.ask("INFO memory");
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    assert!(field("used_memory") > 1 << 20, "{info}");
    assert_eq!(client.ask("FLUSHALL SYNC"), "+OK");
    client.send("SHUTDOWN NOSAVE");
    let run = server.end().ok();
    assert!(run.stdout.contains("bye bye"), "{}", run.told());
}
