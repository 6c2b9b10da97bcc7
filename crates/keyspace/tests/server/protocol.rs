//! The protocol: pieces, pipelines, errors, versions, passwords.

use crate::support::Server;
use std::net::Shutdown;

#[test]
fn requests_in_pieces_and_in_pipelines() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n" {
        raw.send(&[*byte]);
    }
    raw.expect(b"+OK\r\n");
    raw.send(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(10_000));
    raw.expect(&b"$5\r\nhello\r\n".repeat(10_000));
    raw.send(b"PING\r\n\r\n*0\r\n*-1\r\nECHO 'a b'\r\n");
    raw.expect(b"+PONG\r\n$3\r\na b\r\n");
}

#[test]
fn what_was_sent_before_the_end_is_answered() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.send(b"PING\r\nPING\r\n");
    raw.stream.shutdown(Shutdown::Write).unwrap();
    raw.expect(b"+PONG\r\n+PONG\r\n");
    assert!(raw.is_closed());
}

#[test]
fn protocol_errors_are_told_and_end_the_connection() {
    let server = Server::start(&[]);
    for (sent, told) in [
        (&b"*x\r\n"[..], "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'\r\n"),
        (b"ECHO \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ] {
        let mut raw = server.raw();
        raw.send(sent);
        raw.expect(told.as_bytes());
        assert!(raw.is_closed());
    }
}

#[test]
fn errors_of_commands() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.ask("NOSUCH a", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n");
    raw.ask("GET", "-ERR wrong number of arguments for 'get' command\r\n");
    raw.ask("CONFIG NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.\r\n");
    raw.ask("LPUSH l a", ":1\r\n");
    raw.ask("GET l", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    raw.ask("SELECT 16", "-ERR DB index is out of range\r\n");
}

#[test]
fn passwords_and_versions() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut raw = server.raw();
    raw.ask("GET k", "-NOAUTH Authentication required.\r\n");
    raw.ask("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    raw.ask("AUTH secret", "+OK\r\n");
    raw.ask("GET k", "$-1\r\n");
    raw.send(b"HELLO 3\r\n");
    raw.expect(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    raw.send(b"QUIT\r\n");
}

#[test]
fn it_stops_when_told() {
    let server = Server::start(&[]);
    server.raw().send(b"SHUTDOWN NOSAVE\r\n");
    assert!(server.wait());
}
