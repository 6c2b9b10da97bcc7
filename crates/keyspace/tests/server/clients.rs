//! Clients: pub/sub, limits on buffers, and memory that returns.

use crate::support::{Raw, Server, wait_for};
use redis::cmd;
use std::io::Read;
use std::time::Duration;

/// Live bytes of an account.
pub fn account(server: &Server, name: &str) -> u64 {
    let text: String = cmd("INFO").arg("memory").query(&mut server.connect()).expect("INFO");
    let find = |line: &str| line.split_once(name)?.1.strip_prefix(':')?.parse().ok();
    text.lines().find_map(find).unwrap_or(0)
}

#[test]
fn messages_reach_those_who_listen() {
    let server = Server::start(&[]);
    let (mut by_name, mut by_pattern, mut other) = (server.raw(), server.raw(), server.raw());
    by_name.ask("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    by_pattern.ask("HELLO 3", "%7\r\n");
    by_pattern.until(b"modules\r\n*0\r\n");
    by_pattern.ask("PSUBSCRIBE n*s", ">3\r\n$10\r\npsubscribe\r\n$3\r\nn*s\r\n:1\r\n");
    other.ask("PUBLISH news hello", ":2\r\n");
    by_name.expect(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    by_pattern.expect(b">4\r\n$8\r\npmessage\r\n$3\r\nn*s\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    other.ask("PUBSUB CHANNELS", "*1\r\n$4\r\nnews\r\n");
    other.ask("PUBSUB NUMSUB news x", "*4\r\n$4\r\nnews\r\n:1\r\n$1\r\nx\r\n:0\r\n");
    other.ask("PUBSUB NUMPAT", ":1\r\n");
    // In RESP2 nothing else may be said meanwhile; in RESP3 it may.
    by_name.ask(
        "GET k",
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
         are allowed in this context\r\n",
    );
    by_name.ask("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    by_pattern.ask("GET k", "_\r\n");
    by_name.ask("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
    by_name.ask("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    by_name.ask("SUBSCRIBE a", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    by_name.ask("RESET", "+RESET\r\n");
    other.ask("PUBLISH a x", ":0\r\n");
    drop(by_pattern);
    wait_for("a closed client listens no more", || server.info("pubsub_patterns") == "0");
    assert_eq!(account(&server, "subscriptions"), 0);
}

#[test]
fn a_slow_subscriber_is_cut_off_at_its_limit_and_its_memory_returns() {
    const LIMIT: u64 = 2 << 20;
    let limit = format!("pubsub {LIMIT} 0 0");
    let server = Server::start(&["--client-output-buffer-limit", &limit]);
    let (mut slow, mut loud) = (server.raw(), server.raw());
    slow.ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let message = "x".repeat(50_000);
    let (mut most, mut largest) = (0, 0u64);
    for _ in 0..2000 {
        loud.send(format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$50000\r\n{message}\r\n").as_bytes());
        let mut answer = [0; 4];
        loud.stream.read_exact(&mut answer).expect("a count");
        most = most.max(account(&server, "output_buffers_pubsub"));
        largest =
            largest.max(server.info("client_recent_max_output_buffer").parse().expect("bytes"));
        if &answer == b":0\r\n" {
            break;
        }
    }
    assert_eq!(server.info("client_output_buffer_limit_disconnections"), "1");
    // What waits is within the limit; what was sent of it may not be moved out of the way yet.
    assert!((LIMIT / 4..=LIMIT * 3 / 2).contains(&most), "{most}");
    assert!((LIMIT / 4..=LIMIT * 3 / 2).contains(&largest), "{largest}");
    assert!(slow.drain() < 20 << 20);
    assert_eq!(account(&server, "output_buffers_pubsub"), 0);
    assert_eq!(account(&server, "subscriptions"), 0);
}

#[test]
fn replies_stop_at_the_limit_in_the_midst_of_a_batch() {
    let server = Server::start(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    let mut it = server.connect();
    let () = cmd("SET").arg("k").arg("v".repeat(100_000)).query(&mut it).expect("OK");
    let mut pipe = redis::pipe();
    (0..1000).for_each(|i| _ = pipe.rpush("list", "w".repeat(100 * i)).ignore());
    let () = pipe.query(&mut it).expect("OK");
    for request in ["GET k\r\n".repeat(2000), "LRANGE list 0 -1\r\n".to_owned()] {
        let before: u64 = server.info("total_net_output_bytes").parse().expect("a number");
        let mut raw = server.raw();
        raw.send(request.as_bytes());
        raw.drain();
        let after: u64 = server.info("total_net_output_bytes").parse().expect("a number");
        assert!(after - before < 1 << 20, "{}", after - before);
    }
    assert_eq!(server.info("client_output_buffer_limit_disconnections"), "2");
}

#[test]
fn soft_limits_count_seconds() {
    // Longer than it takes to look at it.
    let server = Server::start(&["--client-output-buffer-limit", "normal 0 100kb 60"]);
    let mut it = server.connect();
    let () = cmd("SET").arg("k").arg("v".repeat(1 << 20)).query(&mut it).expect("OK");
    let mut slow = server.raw();
    // More than the sockets' buffers hold.
    slow.send("GET k\r\n".repeat(40).as_bytes());
    wait_for("it waits", || account(&server, "output_buffers_normal") > 1 << 20);
    let list: String = cmd("CLIENT").arg("LIST").query(&mut it).expect("a list");
    let of = |line: &str, name: &str| -> u64 {
        let found = line.split_whitespace().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
    };
    let slowest = list.lines().max_by_key(|line| of(line, "omem")).expect("two lines");
    assert!(of(slowest, "omem") > 1 << 20 && of(slowest, "oll") == 1, "{slowest}");
    assert_eq!(list.lines().filter(|line| of(line, "omem") > 0).count(), 1, "{list}");
    let set = ["SET", "client-output-buffer-limit", "normal 0 100kb 1"];
    let () = cmd("CONFIG").arg(&set).query(&mut it).expect("OK");
    wait_for("it is cut off", || server.info("client_output_buffer_limit_disconnections") == "1");
    wait_for("memory is back", || account(&server, "output_buffers_normal") < 64 << 10);
}

#[test]
fn query_buffers_have_limits() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut raw = server.raw();
    raw.send(b"*2\r\n$4\r\nECHO\r\n$500000000\r\n");
    raw.send(b"abc");
    wait_for("it arrives", || account(&server, "client_query_buffers") > 0);
    // Nothing is allocated ahead of what came.
    assert!(account(&server, "client_query_buffers") <= 256);
    let chunk = vec![b'x'; 1 << 16];
    for _ in 0..40 {
        use std::io::Write;
        if raw.stream.write_all(&chunk).is_err() {
            break;
        }
    }
    wait_for("cut off", || server.info("client_query_buffer_limit_disconnections") == "1");
    assert_eq!(account(&server, "client_query_buffers"), 0);
}

#[test]
fn what_a_long_request_took_does_not_stay_with_the_next_one() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let value = vec![b'x'; 20 << 20];
    raw.send(&[b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20971520\r\n", &value[..], b"\r\n*1\r\n"].concat());
    raw.expect(b"+OK\r\n");
    wait_for("the room goes", || account(&server, "client_query_buffers") < 1 << 20);
    raw.send(b"$4\r\nPING\r\n");
    raw.expect(b"+PONG\r\n");
}

#[test]
fn half_a_request_that_nobody_goes_on_with_takes_no_spare_room() {
    const HALF: usize = (5 << 20) + 1000;
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let value = vec![b'x'; 2 * HALF];
    raw.send(b"*2\r\n$4\r\nECHO\r\n$10487760\r\n");
    raw.send(&value[..HALF]);
    let taken = || account(&server, "client_query_buffers") as usize;
    wait_for("half of it arrives", || taken() >= HALF);
    wait_for("spare room goes", || (HALF..HALF + 5000).contains(&taken()));
    raw.send(&[&value[HALF..], b"\r\n"].concat());
    raw.expect(&[b"$10487760\r\n", &value[..], b"\r\n"].concat());
    assert_eq!(taken(), 0);
}

#[test]
fn names_are_in_the_books_and_have_a_bound() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let tot_mem = |raw: &mut Raw| -> usize {
        let line = raw.text("CLIENT INFO");
        let found = line.split_whitespace().find_map(|it| it.strip_prefix("tot-mem="));
        found.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let before = tot_mem(&mut raw);
    // The client library that asks says its own.
    let own = account(&server, "client_names");
    let name = "n".repeat(1024);
    raw.ask(&format!("CLIENT SETNAME {name}"), "+OK\r\n");
    raw.ask(&format!("CLIENT SETINFO lib-name {name}"), "+OK\r\n");
    raw.ask(&format!("CLIENT SETINFO LIB-VER {name}"), "+OK\r\n");
    // Whoever asked before may still be there when the next one asks.
    wait_for("all are counted", || account(&server, "client_names") == own + 3 * 1024);
    assert!(tot_mem(&mut raw) >= before + 3 * 1024);
    for (command, what) in [("SETNAME", "Client names"), ("SETINFO lib-ver", "lib-ver")] {
        let told = format!("-ERR {what} cannot be longer than 1024 bytes.\r\n");
        raw.ask(&format!("CLIENT {command} {name}n"), &told);
    }
    drop(raw);
    wait_for("its names go with it", || account(&server, "client_names") == own);
}

#[test]
fn too_many_clients_are_turned_away() {
    let server = Server::start(&["--maxclients", "2"]);
    let (mut one, mut two) = (server.raw(), server.raw());
    one.ask("PING", "+PONG\r\n");
    two.ask("PING", "+PONG\r\n");
    let mut three = server.raw();
    three.expect(b"-ERR max number of clients reached\r\n");
    assert!(three.is_closed());
    assert!(one.text("INFO stats").contains("rejected_connections:1\r\n"));
}

#[test]
fn browsers_are_cut_off() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n");
    assert!(raw.is_closed());
    assert!(cmd("GET").arg("k").query::<Option<String>>(&mut server.connect()) == Ok(None));
}

#[test]
fn deep_pipelines_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let mut reader = Raw { stream: raw.stream.try_clone().expect("a socket") };
    let all: String = (0..100_000).map(|i| format!("ECHO {i:06}\r\n")).collect();
    let sender = std::thread::spawn(move || raw.send(all.as_bytes()));
    for i in 0..100_000 {
        reader.expect(format!("$6\r\n{i:06}\r\n").as_bytes());
    }
    sender.join().expect("sent");
}

#[test]
fn clients_are_listed_and_killed() {
    let server = Server::start(&[]);
    let (mut it, mut other) = (server.connect(), server.raw());
    other.ask("CLIENT SETNAME other", "+OK\r\n");
    other.ask("SUBSCRIBE a", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    let client = |it: &mut redis::Connection, args: &[&str]| {
        cmd("CLIENT").arg(args).query::<String>(it).map_err(|error| error.to_string())
    };
    let list = client(&mut it, &["LIST", "TYPE", "pubsub"]).expect("a list");
    assert_eq!(list.lines().count(), 1);
    let field = |line: &str, name: &str| {
        let found = line.split_whitespace().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    };
    for (name, value) in
        [("name", "other"), ("flags", "P"), ("sub", "1"), ("resp", "2"), ("cmd", "subscribe")]
    {
        assert_eq!(field(&list, name), value);
    }
    let address = other.stream.local_addr().expect("an address").to_string();
    assert_eq!(field(&list, "addr"), address);
    let own = client(&mut it, &["INFO"]).expect("a line");
    assert_eq!(field(&own, "cmd"), "client|info");
    assert_eq!(client(&mut it, &["LIST"]).expect("a list").lines().count(), 2);
    assert_eq!(client(&mut it, &["LIST", "ID", "99"]), Ok(String::new()));
    // Whatever the order, and each once.
    let id_of = |line: &str| field(line, "id");
    let (mine, others) = (id_of(&own), id_of(&list));
    let mut ids: Vec<String> = (1000..3000).rev().map(|id| id.to_string()).collect();
    ids.extend([&mine, &others, &mine, &others].map(Clone::clone));
    ids.rotate_left(1001);
    let asked: Vec<&str> = ["LIST", "ID"].into_iter().chain(ids.iter().map(|id| &**id)).collect();
    let listed = client(&mut it, &asked).expect("a list");
    let mut both = [mine, others];
    both.sort_by_key(|id| id.parse::<u64>().expect("a number"));
    assert_eq!(listed.lines().map(id_of).collect::<Vec<_>>(), both);
    assert!(
        client(&mut it, &["KILL", "1.2.3.4:5"]).expect_err("no such").contains("No such client")
    );
    assert_eq!(client(&mut it, &["KILL", &address]), Ok("OK".to_owned()));
    assert!(other.is_closed());
    // Asked on this connection: another might still be there when all of a kind are killed.
    let channels = |it: &mut redis::Connection| {
        cmd("PUBSUB").arg("CHANNELS").query::<Vec<String>>(it).expect("a list")
    };
    wait_for("it listens no more", || channels(&mut it).is_empty());
    let mut third = server.raw();
    third.ask("PING", "+PONG\r\n");
    let killed = cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query::<usize>(&mut it);
    assert_eq!(killed, Ok(1));
    assert!(third.is_closed());
    let mut me = server.raw();
    me.ask("CLIENT KILL TYPE normal SKIPME no ID 999", ":0\r\n");
    me.ask("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n");
    me.ask("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n");
}

#[test]
fn the_largest_client_goes_when_all_take_too_much() {
    let server = Server::start(&["--maxmemory-clients", "2mb"]);
    let (mut large, mut small, mut kept) = (server.raw(), server.raw(), server.raw());
    let part =
        |bytes: usize| [&b"*2\r\n$4\r\nECHO\r\n$9000000\r\n"[..], &vec![b'x'; bytes]].concat();
    small.ask("PING", "+PONG\r\n");
    kept.ask("CLIENT NO-EVICT on", "+OK\r\n");
    large.send(&part(300_000));
    kept.send(&part(450_000));
    // The largest of the last seconds is told: looked at before spare room goes, which takes some.
    let recent = || server.info("client_recent_max_input_buffer").parse::<u64>().expect("bytes");
    let mut most = 0;
    wait_for("both arrive", || {
        most = recent();
        most >= 450_000
    });
    assert!(most < 500_000, "{most}");
    // And have no spare room any more, but for what an idle client may keep.
    let room = 750_000..760_000;
    wait_for("it goes", || room.contains(&account(&server, "client_query_buffers")));
    assert_eq!(server.info("evicted_clients"), "0");
    // While parts arrive, buffers may have as much room again: the limit comes when they have not.
    let () = cmd("CONFIG")
        .arg(&["SET", "maxmemory-clients", "600000"])
        .query(&mut server.connect())
        .expect("OK");
    wait_for("one is cut off", || server.info("evicted_clients") == "1");
    assert!(large.is_closed());
    small.ask("PING", "+PONG\r\n");
    // Who may not be cut off keeps what it has.
    assert!((450_000..460_000).contains(&account(&server, "client_query_buffers")));
    drop(kept);
    wait_for("memory returns", || account(&server, "client_query_buffers") == 0);
}

#[test]
fn a_batch_of_requests_makes_no_more_output_than_clients_may_take() {
    // A limit on keys too: none goes for what clients may not take.
    let limits = ["--maxmemory", "32mb", "--maxmemory-policy", "allkeys-random"];
    let server = Server::start(&[&["--maxmemory-clients", "4mb"], &limits[..]].concat());
    let mut it = server.connect();
    let () = cmd("SET").arg("k").arg("v".repeat(256 << 10)).query(&mut it).expect("OK");
    let mut large = server.raw();
    // One read, 190 MB of replies.
    large.send("GET k\r\n".repeat(744).as_bytes());
    assert!(large.drain() < 8 << 20);
    assert_eq!(server.info("evicted_clients"), "1");
    let calls = |server: &Server| -> u64 {
        let told = server.info("cmdstat_get");
        let number = told.split([',', '=']).nth(1).and_then(|it| it.parse().ok());
        number.unwrap_or_else(|| panic!("{told}"))
    };
    assert!((1..=64).contains(&calls(&server)), "{}", calls(&server));
    // What is copied into a buffer of twice the size is there twice for a moment.
    let peak: u64 = server.info("used_memory_peak").parse().expect("a number");
    assert!(peak < 24 << 20, "{peak}");
    assert_eq!(server.info("evicted_keys"), "0");
}

#[test]
fn ten_thousand_connections_take_little_and_give_it_back() {
    let server = Server::start(&["--maxclients", "12000"]);
    let used = || -> u64 { server.info("used_memory").parse().expect("a number") };
    let before = used();
    // Each has a descriptor here and one in the server.
    let own = rlimit::increase_nofile_limit(12_000).expect("a limit");
    let count = (own as usize).saturating_sub(1000).min(10_000);
    if count < 10_000 {
        println!("{count} connections: the system gives {own} descriptors");
    }
    let mut all: Vec<Raw> = (0..count).map(|_| server.raw()).collect();
    all.iter_mut().for_each(|it| it.send(b"PING\r\n"));
    all.iter_mut().for_each(|it| it.expect(b"+PONG\r\n"));
    wait_for("idle buffers go", || account(&server, "output_buffers_normal") < 20_000);
    let each = (used() - before) / count as u64;
    println!("{each} bytes for each idle connection of {count}");
    assert!((200..1500).contains(&each), "{each}");
    drop(all);
    wait_for("all are gone", || server.info("connected_clients") == "1");
    assert_eq!(account(&server, "client_query_buffers"), 0);
    assert!(account(&server, "command_state") < 2000 && account(&server, "subscriptions") == 0);
    assert!(used() < before + 400_000, "{} {before}", used());
}

#[test]
fn a_half_closed_client_gets_all_its_replies() {
    let server = Server::start(&[]);
    let () = cmd("SET").arg(&["k", &"v".repeat(1 << 20)]).query(&mut server.connect()).expect("OK");
    let mut raw = server.raw();
    // More than the sockets hold, so that most is written after the end was seen.
    raw.send("GET k\r\n".repeat(30).as_bytes());
    raw.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(raw.drain(), 30 * ("$1048576\r\n\r\n".len() + (1 << 20)));
}
