//! Those who have not said the password, or come from elsewhere: what they get, and what they cost.

use crate::clients::account;
use crate::support::{Server, outer_address, wait_for};
use std::io::{Read, Write};

const REFUSED: &[u8] = b"-NOAUTH Authentication required.\r\n";

#[test]
fn errors_do_not_pile_up_for_a_stranger_that_takes_none() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut raw = server.raw();
    let pings = b"PING\r\n".repeat(10_000);
    let mut most = 0;
    // The answers are several times what sockets hold.
    for _ in 0..100 {
        if raw.stream.write_all(&pings).is_err() {
            break;
        }
        most = most.max(account(&server, "output_buffers_normal"));
    }
    wait_for("it is cut off", || server.info("client_output_buffer_limit_disconnections") == "1");
    assert!(most < 64 << 10, "{most}");
}

#[test]
fn a_batch_of_a_stranger_is_refused_one_by_one() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut raw = server.raw();
    raw.send(&b"GET k\r\n".repeat(400));
    raw.expect(&REFUSED.repeat(400));
    raw.ask("AUTH secret", "+OK\r\n");
}

#[test]
fn whoever_says_the_password_is_told_all_from_then_on() {
    let server = Server::start(&["--requirepass", "secret"]);
    let value = "v".repeat(1 << 20);
    let () = redis::cmd("SET").arg(&["k", &value]).query(&mut server.connect()).expect("OK");
    let got = format!("$1048576\r\n{value}\r\n");
    let mut raw = server.raw();
    raw.send(b"AUTH secret\r\nGET k\r\n");
    raw.expect(format!("+OK\r\n{got}").as_bytes());
    // It is owed what it asked for before it became a stranger again.
    raw.send(b"GET k\r\nRESET\r\nGET k\r\nAUTH secret\r\nGET k\r\n");
    raw.expect(format!("{got}+RESET\r\n").as_bytes());
    raw.expect(REFUSED);
    raw.expect(format!("+OK\r\n{got}").as_bytes());
    let mut other = server.raw();
    other.send(b"HELLO 2 AUTH default secret SETNAME me\r\nGET k\r\nCLIENT GETNAME\r\n");
    let mut bytes = vec![0; 14 * 10 + got.len()];
    other.stream.read_exact(&mut bytes).expect("the map and the value");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("*14\r\n$6\r\nserver\r\n"), "{}", &text[..200]);
}

#[test]
fn without_a_password_other_machines_are_turned_away() {
    let Some(outer) = outer_address() else { return };
    let server = Server::start(&["--bind", "0.0.0.0", "--requirepass", "secret"]);
    let mut it = server.raw();
    it.ask("AUTH secret", "+OK\r\n");
    let may_connect = || {
        let mut far = server.raw_at(outer);
        let mut answer = Vec::new();
        // It may be gone before that arrives.
        let _ = far.stream.write_all(b"PING\r\nQUIT\r\n");
        let _ = far.stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == b'-' || answer.starts_with(b"+PONG"));
        answer.starts_with(b"+PONG") || answer.starts_with(REFUSED)
    };
    assert!(may_connect(), "it has only to say the password");
    it.ask("CONFIG SET requirepass \"\"", "+OK\r\n");
    assert!(!may_connect());
    let mut far = server.raw_at(outer);
    far.expect(b"-DENIED ");
    server.raw().ask("PING", "+PONG\r\n");
    it.ask("CONFIG SET protected-mode no", "+OK\r\n");
    assert!(may_connect());
    it.ask("CONFIG SET protected-mode yes", "+OK\r\n");
    assert!(!may_connect());
    it.ask("CONFIG SET requirepass other", "+OK\r\n");
    assert!(may_connect());
}
