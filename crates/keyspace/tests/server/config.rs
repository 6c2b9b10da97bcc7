//! CONFIG and the command line: what can be set, what is refused, and what then happens.

use crate::support::{Raw, Server, outer_address};
use rlimit::Resource;
use std::fs;
use std::io::Read;

#[test]
fn lengths_have_a_bound_that_can_be_counted_with() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for bytes in ["4294967296", "9223372036854775808", "18446744073709551615", "1048575"] {
        raw.ask(
            &format!("CONFIG SET proto-max-bulk-len {bytes}"),
            "-ERR CONFIG SET failed (possibly related to argument 'proto-max-bulk-len') - argument \
             must be between 1048576 and 4294967295 inclusive\r\n",
        );
    }
    raw.ask("CONFIG SET proto-max-bulk-len 4294967295", "+OK\r\n");
    raw.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
    raw.expect(b"+OK\r\n");
    raw.send(b"*1\r\n$4294967296\r\n");
    raw.expect(b"-ERR Protocol error: invalid bulk length\r\n");
}

/// Lets the server open so many descriptors more, and no others: below the limit there are so many
/// gaps.
fn let_open(server: &Server, more: usize) {
    let folder = format!("/proc/{}/fd", server.id());
    let open: Vec<u64> = fs::read_dir(folder)
        .expect("its descriptors")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse().ok())
        .collect();
    let gaps = (0..).filter(|it| !open.contains(it));
    let most = gaps.take(more + 1).last().expect("there is no end to them");
    limit(server, most);
}

fn limit(server: &Server, descriptors: u64) {
    let id = i32::try_from(server.id()).expect("a process");
    let mut old = (0, 0);
    rlimit::prlimit(id, Resource::NOFILE, None, Some((&mut old.0, &mut old.1))).expect("a limit");
    rlimit::prlimit(id, Resource::NOFILE, Some((descriptors, old.1)), None).expect("it is lower");
}

#[test]
fn whoever_waits_for_a_descriptor_is_accepted_once_there_is_one() {
    let server = Server::start(&[]);
    let mut it = server.raw();
    it.ask("PING", "+PONG\r\n");
    let_open(&server, 1);
    let mut last = server.raw();
    last.ask("PING", "+PONG\r\n");
    // It is connected, but not accepted; and nobody connects after it.
    let mut waiting = server.raw();
    waiting.send(b"PING\r\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    it.ask("PING", "+PONG\r\n");
    drop(last);
    waiting.expect(b"+PONG\r\n");
}

#[test]
fn memory_is_read_without_a_free_descriptor() {
    let server = Server::start(&[]);
    let mut it = server.raw();
    it.ask("PING", "+PONG\r\n");
    let_open(&server, 0);
    it.ask("MEMORY PURGE", "+OK\r\n");
    assert!(info(&mut it, "memory", "used_memory_rss").parse::<u64>().expect("bytes") > 1 << 20);
}

/// The value of a field of a section of INFO, by this connection.
fn info(it: &mut Raw, section: &str, field: &str) -> String {
    let text = it.text(&format!("INFO {section}"));
    let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
}

#[test]
fn as_many_clients_as_there_are_descriptors_for() {
    let server = Server::start(&["--maxclients", "100"]);
    let mut it = server.raw();
    let id = i32::try_from(server.id()).expect("a process");
    rlimit::prlimit(id, Resource::NOFILE, Some((200, 200)), None).expect("it is lower");
    it.ask(
        "CONFIG SET maxclients 1000",
        "-ERR CONFIG SET failed (possibly related to argument 'maxclients') - the system has no \
         descriptors for so many: try 168\r\n",
    );
    it.ask("CONFIG GET maxclients", "*2\r\n$10\r\nmaxclients\r\n$3\r\n100\r\n");
    it.ask("CONFIG SET maxclients 168", "+OK\r\n");
    it.ask("CONFIG SET maxclients 2", "+OK\r\n");
    let (mut second, mut third) = (server.raw(), server.raw());
    second.ask("PING", "+PONG\r\n");
    third.expect(b"-ERR max number of clients reached\r\n");
}

#[test]
fn debug_is_for_those_it_was_enabled_for() {
    for (option, near, far) in
        [(None, false, false), (Some("local"), true, false), (Some("yes"), true, true)]
    {
        let mut options = vec!["--bind", "0.0.0.0", "--protected-mode", "no"];
        options.extend(option.iter().flat_map(|word| ["--enable-debug-command", word]));
        let server = Server::start(&options);
        let may = |raw: &mut Raw| {
            raw.send(b"DEBUG SLEEP 0\r\n");
            let mut first = [0];
            raw.stream.read_exact(&mut first).expect("an answer");
            first == *b"+"
        };
        assert_eq!(may(&mut server.raw()), near, "{option:?}");
        if let Some(outer) = outer_address() {
            assert_eq!(may(&mut server.raw_at(outer)), far, "{option:?}");
        }
    }
}

#[test]
fn persistence_is_refused_in_so_many_words() {
    const NONE: &str = "This server keeps nothing on disk";
    for options in [["--save", "3600 1"], ["--appendonly", "yes"]] {
        let told = Server::refused(&options);
        assert!(told.contains(NONE) && told.contains(&options[0][2..]), "{told}");
    }
    let server = Server::start(&["--save", "", "--appendonly", "no"]);
    let mut it = server.connect();
    let mut set = |name: &str, value: &str| {
        let answer = redis::cmd("CONFIG").arg(&["SET", name, value]).query::<()>(&mut it);
        answer.map_err(|error| error.to_string())
    };
    assert!(set("save", "").is_ok() && set("appendonly", "no").is_ok());
    for (name, value) in [("save", "900 1"), ("appendonly", "yes")] {
        let error = set(name, value).expect_err("nothing would be kept");
        assert!(error.contains(NONE) && error.contains(name), "{error}");
    }
}

/// The directives of the file that comes with redis-server, where there is one, but for those that
/// put it in the background.
#[test]
fn a_redis_conf_as_it_comes_starts_this_server_too() {
    let Ok(stock) = fs::read_to_string("/etc/redis/redis.conf") else {
        eprintln!("skipped: there is no redis.conf");
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("redis.conf");
    let is_kept = |line: &&str| !line.starts_with("daemonize") && !line.starts_with("logfile");
    let lines: Vec<&str> = stock.lines().filter(is_kept).collect();
    fs::write(&path, lines.join("\n")).expect("written");
    let server = Server::start(&["--config", path.to_str().expect("text")]);
    server.raw().ask(
        "CONFIG GET lazyfree-lazy-expire",
        "*2\r\n$20\r\nlazyfree-lazy-expire\r\n$2\r\nno\r\n",
    );
    fs::write(&path, stock.replace("daemonize no", "daemonize yes")).expect("written");
    let told = Server::refused(&["--config", path.to_str().expect("text")]);
    assert!(told.contains("daemonize yes") && told.contains("only \"no\" can be set"), "{told}");
}

#[test]
fn a_value_is_what_was_sent_or_nothing() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for bytes in [&b"\xff"[..], b"caf\xe9"] {
        let head = format!(
            "*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$11\r\nrequirepass\r\n${}\r\n",
            bytes.len()
        );
        raw.send(&[head.as_bytes(), bytes, b"\r\n"].concat());
        raw.expect(
            b"-ERR CONFIG SET failed (possibly related to argument 'requirepass') - argument must \
              be UTF-8 text\r\n",
        );
    }
    raw.ask("CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$0\r\n\r\n");
    raw.ask("CONFIG SET hz 20 requirepass \"caf\\xc3\\xa9\"", "+OK\r\n");
    let mut other = server.raw();
    other.ask(
        "AUTH \"caf\\xe9\"",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    other.ask("AUTH café", "+OK\r\n");
    raw.ask("CONFIG SET hz 10 requirepass", "-ERR syntax error\r\n");
}
