//! What a connection says of itself, and how it begins anew.

use crate::support::{Raw, Server};
use std::io::Read;

/// A field of CLIENT INFO, which is asked for in RESP2.
fn field(raw: &mut Raw, name: &str) -> String {
    let line = raw.text("CLIENT INFO");
    let found = line.split_whitespace().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
}

#[test]
fn what_a_client_says_of_itself_is_kept() {
    let server = Server::start(&[]);
    let (mut one, mut two) = (server.raw(), server.raw());
    one.ask("CLIENT ID", ":1\r\n");
    two.ask("CLIENT ID", ":2\r\n");
    one.ask("CLIENT ID", ":1\r\n");
    assert_eq!(field(&mut two, "id"), "2");
    one.ask("CLIENT GETNAME", "$-1\r\n");
    one.ask("CLIENT SETNAME alice", "+OK\r\n");
    one.ask("CLIENT GETNAME", "$5\r\nalice\r\n");
    two.ask("CLIENT GETNAME", "$-1\r\n");
    one.ask("CLIENT SETINFO LIB-NAME lib", "+OK\r\n");
    one.ask("CLIENT SETINFO lib-ver 1.2", "+OK\r\n");
    for (name, value) in [("name", "alice"), ("lib-name", "lib"), ("lib-ver", "1.2")] {
        assert_eq!(field(&mut one, name), value);
        assert_eq!(field(&mut two, name), "");
    }
    for (request, what) in [
        ("SETNAME \"two words\"", "Client names"),
        ("SETNAME \"two\\nlines\"", "Client names"),
        ("SETINFO lib-ver \"1 2\"", "lib-ver"),
    ] {
        let told =
            format!("-ERR {what} cannot contain spaces, newlines or special characters.\r\n");
        one.ask(&format!("CLIENT {request}"), &told);
    }
    one.ask("CLIENT SETINFO nosuch x", "-ERR Unrecognized option 'nosuch'\r\n");
    one.ask("CLIENT SETNAME \"\"", "+OK\r\n");
    one.ask("CLIENT GETNAME", "$-1\r\n");
}

#[test]
fn hello_may_say_the_password_and_the_name() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut raw = server.raw();
    raw.ask("HELLO 3", "-NOAUTH HELLO must be called with the client already authenticated");
    let mut raw = server.raw();
    raw.ask("HELLO 3 AUTH default wrong SETNAME me", "-WRONGPASS ");
    let mut raw = server.raw();
    raw.ask("HELLO 4 AUTH default secret", "-NOPROTO unsupported protocol version\r\n");
    raw.ask("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n");
    raw.ask("HELLO 3 AUTH default", "-ERR Syntax error in HELLO option 'AUTH'\r\n");
    raw.ask("GET k", "-NOAUTH Authentication required.\r\n");
    raw.ask("HELLO 3 AUTH default secret SETNAME me", "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    raw.expect(b"$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:3\r\n");
    raw.expect(b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n");
    raw.expect(b"$7\r\nmodules\r\n*0\r\n");
    raw.ask("CLIENT GETNAME", "$2\r\nme\r\n");
    raw.ask("GET none", "_\r\n");
}

#[test]
fn reset_begins_anew() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut raw = server.raw();
    raw.ask("AUTH secret", "+OK\r\n");
    let new = ["name", "db", "flags", "resp", "psub"].map(|name| field(&mut raw, name));
    assert_eq!(new, ["", "0", "N", "2", "0"]);
    for request in ["CLIENT SETNAME me", "SELECT 3", "CLIENT NO-EVICT on", "CLIENT NO-TOUCH on"] {
        raw.ask(request, "+OK\r\n");
    }
    assert_eq!(field(&mut raw, "flags"), "eT");
    raw.send(b"HELLO 3\r\n");
    raw.expect(b"%7\r\n");
    raw.until(b"modules\r\n*0\r\n");
    raw.ask("PSUBSCRIBE n*", ">3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:1\r\n");
    raw.ask("RESET", "+RESET\r\n");
    raw.ask("GET k", "-NOAUTH Authentication required.\r\n");
    raw.ask("AUTH secret", "+OK\r\n");
    assert_eq!(["name", "db", "flags", "resp", "psub"].map(|name| field(&mut raw, name)), new);
    raw.ask("PUBLISH news x", ":0\r\n");
}

#[test]
fn patterns_are_left_one_by_one_or_all() {
    let server = Server::start(&[]);
    let (mut raw, mut other) = (server.raw(), server.raw());
    let told = |word: &str, name: &str, count: usize| {
        format!("*3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len())
    };
    let joined: String =
        (1..).zip(["a*", "b*", "c*"]).map(|(i, it)| told("psubscribe", it, i)).collect();
    raw.ask("PSUBSCRIBE a* b* c*", &joined);
    raw.ask("SUBSCRIBE a1", &told("subscribe", "a1", 4));
    other.ask("PUBLISH a1 x", ":2\r\n");
    raw.expect(b"*3\r\n$7\r\nmessage\r\n$2\r\na1\r\n$1\r\nx\r\n");
    raw.expect(b"*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\na1\r\n$1\r\nx\r\n");
    raw.ask(
        "PUNSUBSCRIBE a* none",
        &(told("punsubscribe", "a*", 3) + &told("punsubscribe", "none", 3)),
    );
    other.ask("PUBLISH a1 y", ":1\r\n");
    raw.expect(b"*3\r\n$7\r\nmessage\r\n$2\r\na1\r\n$1\r\ny\r\n");
    other.ask("PUBSUB NUMPAT", ":2\r\n");
    // In no order.
    raw.send(b"PUNSUBSCRIBE\r\n");
    let mut answer = vec![0; 2 * told("punsubscribe", "b*", 1).len()];
    raw.stream.read_exact(&mut answer).expect("two answers");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("$2\r\nb*\r\n") && answer.contains("$2\r\nc*\r\n"), "{answer}");
    assert!(answer.ends_with(":1\r\n"), "one channel is left: {answer}");
    raw.ask("PUNSUBSCRIBE", "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:1\r\n");
    other.ask("PUBSUB NUMPAT", ":0\r\n");
}

#[test]
fn a_password_may_come_and_go() {
    const NONE: &str = "-NOAUTH Authentication required.\r\n";
    let server = Server::start(&[]);
    let mut early = server.raw();
    early.ask("CONFIG SET requirepass secret", "+OK\r\n");
    early.ask("PING", "+PONG\r\n");
    let (mut known, mut unknown) = (server.raw(), server.raw());
    known.ask("PING", NONE);
    unknown.ask("PING", NONE);
    known.ask("AUTH secret", "+OK\r\n");
    known.ask("PING", "+PONG\r\n");
    known.ask("CONFIG SET requirepass other", "+OK\r\n");
    known.ask("PING", "+PONG\r\n");
    unknown
        .ask("AUTH secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    // Where none is wanted, nobody is a stranger.
    known.ask("CONFIG SET requirepass \"\"", "+OK\r\n");
    unknown.ask("PING", "+PONG\r\n");
    known.ask("CONFIG SET requirepass third", "+OK\r\n");
    unknown.ask("PING", NONE);
    unknown.ask("AUTH third", "+OK\r\n");
}
