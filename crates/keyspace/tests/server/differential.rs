//! The same commands to this server and to the installed redis-server: their replies must be the
//! same, byte for byte.
//!
//! A grammar over all families draws commands from a seed, with arguments that are often at an
//! edge, often of the wrong kind, on keys that often hold something else. Where Redis promises no
//! order, replies are sorted first; times that pass are compared up to the time that passed.
//!
//! Not drawn: RANDOMKEY (only whether there is a key is compared), what describes the server
//! (INFO, COMMAND, CONFIG, CLIENT, MEMORY, OBJECT, DEBUG), which differs on purpose.

use crate::redis_server::{Peer, RedisServer, Reply};
use crate::support::Server;
use std::time::{Duration, Instant};

/// Small limits, so that hashes are often converted.
const OPTIONS: [&str; 4] = ["--hash-max-listpack-entries", "6", "--hash-max-listpack-value", "12"];
/// What theirs is started with anyway.
const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

/// A seeded source of arguments.
struct Draw(u64);

impl Draw {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The commands, each with the kinds of its arguments.
const GRAMMAR: &str = include_str!("grammar.txt");

const KEYS: &[&str] = &["a", "b", "c", "list", "list2", "hash", "hash2", "n", "{x}y", ""];
const STRINGS: &[&str] = &[
    "",
    "a",
    "b",
    "hello",
    "10",
    "-5",
    "007",
    "3.0",
    "1e3",
    " 1",
    "1 ",
    "9223372036854775807",
    "9223372036854775808",
    "nan",
    "inf",
    "-inf",
    "0.1",
    "two words",
    "a\r\nb",
    "\u{0}\u{1}\u{7f}",
    "ünïcode",
    "a string that is longer than those which Redis keeps in one block with its object",
];
const FIELDS: &[&str] =
    &["f", "g", "1", "", "field", "a field longer than the limit", "h", "i", "j", "k"];
const INTS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "7",
    "100",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "4611686018427387904",
    "abc",
    "",
    "1.5",
    "+1",
    "01",
    " 1",
    "536870912",
    "99999999999",
];
const DECIMALS: &[&str] = &[
    "0",
    "1",
    "-1.5",
    "0.1",
    "0.2",
    "1e10",
    "3.0e-5",
    "1e-18",
    "1e17",
    "0x10",
    "12345678901234567890.123456789",
    "abc",
    "",
    "nan",
    "inf",
    " 1",
    "1e400",
    "1e5000",
    "-0.1",
    "1.",
    ".5",
    "0x1.8p1",
];
const PATTERNS: &[&str] =
    &["*", "?", "list*", "[a-c]", "[^a]", "h?sh*", "\\a", "*2", "", "[a", "{x}*", "[b-a]", "**a"];
const TIMES: &[&str] = &["99999999999", "9999999999999", "4611686018427387904"];

/// Commands on one hash and one list that become large.
const DEEP: &str = include_str!("deep.txt");

/// One command drawn from the grammar.
fn draw(draw: &mut Draw, grammar: &[&str]) -> Vec<Vec<u8>> {
    let mut args = Vec::new();
    let mut line = draw.one(grammar);
    if draw.below(300) == 0 {
        line = "FLUSHALL";
    }
    let mut rest = line;
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('[') {
            None => rest.split_once(' ').unwrap_or((rest, "")),
            Some(choices) => {
                let (choices, tail) = choices.split_once(']').expect("a closed bracket");
                let choices: Vec<&str> = choices.split('|').collect();
                let chosen = draw.below(choices.len() * 2);
                for word in choices.get(chosen).iter().flat_map(|choice| choice.split(' ')) {
                    args.push(argument(draw, word));
                }
                rest = tail.trim_start();
                continue;
            }
        };
        let (kind, count) = match word.strip_suffix('*') {
            Some(kind) if kind.len() == 1 => (kind, 1 + draw.below(3)),
            _ => (word, 1),
        };
        args.extend((0..count).map(|_| argument(draw, kind)));
        rest = tail;
    }
    if draw.below(4) == 0 {
        args[0].make_ascii_lowercase();
    }
    args
}

fn argument(draw: &mut Draw, kind: &str) -> Vec<u8> {
    let text = match kind {
        "k" => draw.one(KEYS),
        "s" => draw.one(STRINGS),
        "f" => draw.one(FIELDS),
        "i" => draw.one(INTS),
        "c" => draw.one(&["0", "1", "2", "3", "-1", "-2", "-3", "5", "10"]),
        "d" => draw.one(DECIMALS),
        // Long enough not to pass meanwhile.
        "t" => draw.one(&[
            "10000000",
            "20000000",
            "30000000",
            "0",
            "-1",
            "abc",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775",
        ]),
        "T" => draw.one(TIMES),
        "p" => draw.one(PATTERNS),
        "b" => draw.one(&["0", "0", "0", "1", "2", "15", "16", "-1", "abc", "4294967296"]),
        "x" => return (draw.below(800) as i64 - 200).to_string().into_bytes(),
        "w" => return draw.below(300).to_string().into_bytes(),
        "l" => {
            // Few contents, so that some are met again; most are short.
            let length = [1, 3, 40, 254, 255, 300, 9000][draw.below(7).min(draw.below(7))];
            return vec![b'a' + draw.below(2) as u8; length];
        }
        word => word,
    };
    text.as_bytes().to_vec()
}

/// What of a reply is compared.
fn comparable(args: &[Vec<u8>], reply: Reply) -> Reply {
    let name = String::from_utf8_lossy(&args[0]).to_uppercase();
    match (name.as_str(), reply) {
        ("KEYS" | "HKEYS" | "HVALS", Reply::Many(kind, mut all)) => {
            all.sort();
            Reply::Many(kind, all)
        }
        ("HGETALL", Reply::Many(kind, all)) => Reply::Many(kind, sorted_pairs(&all)),
        ("HSCAN" | "SCAN", Reply::Many(kind, mut all)) => {
            if let Some(Reply::Many(_, found)) = all.get_mut(1) {
                if name == "SCAN" {
                    found.sort();
                } else {
                    *found = sorted_pairs(found);
                }
            }
            Reply::Many(kind, all)
        }
        ("RANDOMKEY", Reply::Bulk(_)) => Reply::Bulk("some key".to_owned()),
        (_, reply) => reply,
    }
}

fn sorted_pairs(all: &[Reply]) -> Vec<Reply> {
    let mut pairs: Vec<&[Reply]> = all.chunks(2).collect();
    pairs.sort();
    pairs.concat()
}

/// Whether two replies are the same; a time is, if it is nearly: what one server is asked, the other
/// is `apart` later at most.
fn same(args: &[Vec<u8>], ours: &Reply, theirs: &Reply, apart: Duration) -> bool {
    let name = String::from_utf8_lossy(&args[0]).to_uppercase();
    let tolerance = match name.as_str() {
        "TTL" | "EXPIRETIME" => 1 + apart.as_secs(),
        "PTTL" | "PEXPIRETIME" => 500 + apart.as_millis() as u64,
        _ => 0,
    };
    let number = |reply: &Reply| match reply {
        Reply::Line(line) => line.strip_prefix(':').and_then(|digits| digits.parse::<i64>().ok()),
        _ => None,
    };
    match (number(ours), number(theirs)) {
        (Some(a), Some(b)) if a > 0 && b > 0 => a.abs_diff(b) <= tolerance,
        _ => ours == theirs,
    }
}

/// What INFO says of lookups so far.
fn hits_and_misses(peer: &mut Peer) -> [u64; 2] {
    let text = format!("{:?}", peer.ask_raw(b"INFO stats\r\n"));
    ["keyspace_hits:", "keyspace_misses:"].map(|name| {
        let rest = text.split_once(name).expect("the field is there").1;
        let digits = rest.split(|it: char| !it.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).expect("a number")
    })
}

fn show(args: &[Vec<u8>]) -> String {
    args.iter().map(|arg| format!("\"{}\"", arg.escape_ascii())).collect::<Vec<_>>().join(" ")
}

/// Both servers, and a connection to each.
struct Both {
    server: Server,
    redis: RedisServer,
    ours: Peer,
    theirs: Peer,
    differences: Vec<String>,
    /// The longest time from before one was asked something until after the other was.
    apart: Duration,
    /// Whether each reply is to be shown (`KEYSPACE_SHOW_REPLIES`): to see what was compared.
    shows: bool,
}

impl Both {
    /// `None` without a redis-server.
    fn start() -> Option<Self> {
        Self::start_with(&OPTIONS)
    }

    fn start_with(options: &[&str]) -> Option<Self> {
        let redis = RedisServer::start(options)?;
        let server = Server::start(&[options, &DEBUG].concat());
        let (ours, theirs) = (Peer::of(server.port), redis.connect());
        let shows = std::env::var_os("KEYSPACE_SHOW_REPLIES").is_some();
        let (differences, apart) = (Vec::new(), Duration::ZERO);
        Some(Self { server, redis, ours, theirs, differences, apart, shows })
    }

    /// All keys with their values.
    fn ask_for_everything(&mut self) {
        for key in KEYS {
            for name in ["TYPE", "GET", "STRLEN", "HGETALL", "LRANGE", "TTL"] {
                let mut args = vec![name.as_bytes().to_vec(), key.as_bytes().to_vec()];
                if name == "LRANGE" {
                    args.extend([b"0".to_vec(), b"-1".to_vec()]);
                }
                self.ask(&args);
            }
        }
    }

    fn ask(&mut self, args: &[Vec<u8>]) {
        let start = Instant::now();
        let ours = comparable(args, self.ours.ask(args));
        let theirs = comparable(args, self.theirs.ask(args));
        self.apart = self.apart.max(start.elapsed());
        self.compare(args, &ours, &theirs, &show(args));
    }

    /// The same, and what was counted meanwhile as hits and misses of keys must be the same, too.
    fn ask_counted(&mut self, args: &[Vec<u8>]) {
        let before = [&mut self.ours, &mut self.theirs].map(hits_and_misses);
        self.ask(args);
        let after = [&mut self.ours, &mut self.theirs].map(hits_and_misses);
        let [ours, theirs] = [0, 1].map(|i| {
            let [hits, misses] = [0, 1].map(|at| after[i][at] - before[i][at]);
            Reply::Line(format!("{hits} hits, {misses} misses"))
        });
        self.compare(args, &ours, &theirs, &show(args));
    }

    fn ask_line(&mut self, line: &str) {
        let request = format!("{line}\r\n");
        let args: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let start = Instant::now();
        let ours = comparable(&args, self.ours.ask_raw(request.as_bytes()));
        let theirs = comparable(&args, self.theirs.ask_raw(request.as_bytes()));
        self.apart = self.apart.max(start.elapsed());
        self.compare(&args, &ours, &theirs, line);
        if format!("{theirs:?}").contains("Protocol error") {
            // That was the end of the connection.
            (self.ours, self.theirs) = (Peer::of(self.server.port), self.redis.connect());
        }
    }

    fn compare(&mut self, args: &[Vec<u8>], ours: &Reply, theirs: &Reply, shown: &str) {
        if self.shows {
            eprintln!("{shown}\n    {theirs:?}");
        }
        if !same(args, ours, theirs, self.apart) {
            self.differences.push(format!("{shown}\n    ours   {ours:?}\n    theirs {theirs:?}"));
        }
    }

    fn finish(&self) {
        let shown = self.differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.differences.is_empty(), "{} differences:\n{shown}", self.differences.len());
    }
}

fn run(seed: u64, commands: usize, grammar: &[&str], version: Option<&str>) {
    let Some(mut both) = Both::start() else { return };
    if let Some(version) = version {
        let hello = [b"HELLO".to_vec(), version.as_bytes().to_vec()];
        both.ours.ask(&hello);
        both.theirs.ask(&hello);
    }
    let mut source = Draw(seed);
    for i in 0..commands {
        let args = draw(&mut source, grammar);
        if args[0].eq_ignore_ascii_case(b"DBSIZE") {
            // Those with a time in the past are counted until somebody meets them.
            let words = std::iter::once("EXISTS").chain(KEYS.iter().copied());
            both.ask(&words.map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        }
        both.ask_counted(&args);
        if i % 100 == 0 {
            both.ask_for_everything();
        }
        if both.differences.len() > 40 {
            break;
        }
    }
    both.finish();
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn random_commands_in_resp2() {
    for seed in 1..=4 {
        run(seed, 4000, &lines(GRAMMAR), None);
    }
}

#[test]
fn random_commands_in_resp3() {
    run(5, 4000, &lines(GRAMMAR), Some("3"));
}

#[test]
fn large_values() {
    for seed in 6..=8 {
        run(seed, 3000, &lines(DEEP), None);
    }
}

/// What has expired is not there, whatever asks for it first. Nobody else removes it meanwhile.
#[test]
fn expired_keys() {
    let Some(mut both) = Both::start() else { return };
    both.ask_line("DEBUG SET-ACTIVE-EXPIRE 0");
    let commands = lines(EXPIRED);
    for (i, _) in commands.iter().enumerate() {
        both.ask_line(&format!("SET string{i} 5 PX 20"));
        both.ask_line(&format!("HSET hash{i} f 5"));
        both.ask_line(&format!("PEXPIRE hash{i} 20"));
        both.ask_line(&format!("RPUSH list{i} 5 6"));
        both.ask_line(&format!("PEXPIRE list{i} 20"));
    }
    std::thread::sleep(Duration::from_millis(50));
    both.ask_line("DBSIZE");
    for (i, command) in commands.iter().enumerate() {
        both.ask_line(&command.replace('#', &i.to_string()));
    }
    both.ask_line("KEYS string*");
    both.ask_line("SCAN 0 COUNT 10000");
    both.finish();
}

/// What is stored with a time in the past is there, until somebody asks for it.
#[test]
fn keys_that_have_expired_when_they_are_stored() {
    let Some(mut both) = Both::start() else { return };
    both.ask_line("DEBUG SET-ACTIVE-EXPIRE 0");
    for time in ["PXAT 1", "EXAT 1", "PXAT 1 GET"] {
        both.ask_line(&format!("SET past v {time}"));
        both.ask_line("DBSIZE");
        both.ask_line("GET past");
        both.ask_line("DBSIZE");
    }
    both.ask_line("SET past v");
    both.ask_line("GETEX past PXAT 1");
    both.ask_line("DBSIZE");
    both.finish();
}

/// Commands on keys that have expired, whose names end in `#`.
const EXPIRED: &str = include_str!("expired.txt");

/// How often a key was used, where no chance is in it: what counts as use, and what keeps the count.
#[test]
fn counters_of_use() {
    // Minutes that end meanwhile count for nothing.
    let policy = ["--maxmemory-policy", "allkeys-lfu"];
    let options = [policy, ["--lfu-log-factor", "0"], ["--lfu-decay-time", "0"]].concat();
    let Some(mut both) = Both::start_with(&options) else { return };
    for line in lines(LFU) {
        both.ask_line(line);
        for key in ["a", "b", "c"] {
            both.ask_line(&format!("OBJECT FREQ {key}"));
        }
    }
    both.finish();
}

/// Commands on the keys `a`, `b` and `c`.
const LFU: &str = include_str!("lfu.txt");

/// Cases that a random walk seldom meets, as a person with telnet types them.
const EDGES: &str = include_str!("edges.txt");

#[test]
fn edge_cases() {
    let Some(mut both) = Both::start() else { return };
    for line in lines(EDGES) {
        both.ask_line(line);
    }
    both.finish();
}
