//! `keyspace load`: against this server, against redis-server where that is installed, and against
//! what is no server at all.

use crate::support::{Server, wait_for};
use redis::cmd;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A server without a port, stopped at the end.
struct SocketServer(Child);

impl Drop for SocketServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Small and short, for a debug build.
const QUICK: &[&str] = &["--keys", "4K", "--seconds", "0.5", "--heal-seconds", "0.6"];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyspace"));
    command.arg("load").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn load(args: &[&str]) -> Output {
    command(args).output().expect("the program starts")
}

/// A run that must succeed; its JSON.
fn json(args: &[&str]) -> Value {
    let output = load(&[args, QUICK, &["--json", "-"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("standard output is JSON and nothing else")
}

/// A run that must fail; what it says.
fn error(args: &[&str]) -> String {
    let output = load(args);
    assert!(!output.status.success(), "{args:?} should fail");
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn number(object: &Value, field: &str) -> f64 {
    object[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {object}"))
}

fn check(json: &Value) {
    let phases = json["phases"].as_array().expect("phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert_eq!(names, ["loaded", "expired", "healed"]);
    for phase in phases {
        let point = &phase["point"];
        assert!(number(point, "used_memory_bytes") > 0.0, "{point}");
        let ratio = number(point, "rss_bytes") / number(point, "used_memory_bytes");
        assert!((number(point, "ratio") - ratio).abs() < 1e-9, "nothing subtracted: {point}");
        let get = &phase["get"];
        assert!(number(get, "count") > 0.0, "{get}");
        assert!(number(get, "p50_ns") <= number(get, "p99_ns"), "{get}");
        assert!(number(get, "p99_ns") <= number(get, "p99_9_ns"), "{get}");
    }
    assert_eq!(phases[2]["point"]["keys"], 800, "a fifth stays");
    assert_eq!(json["verification"]["keys_checked"], 800);
    assert!(number(&phases[2]["point"], "expired_keys") >= 3200.0, "for real: {}", phases[2]);
    let timeline = json["timeline"].as_array().expect("a timeline");
    assert!(timeline.len() >= 5);
    assert!(
        timeline.windows(2).all(|two| number(&two[0], "wall_ms") <= number(&two[1], "wall_ms"))
    );
    assert!(
        json["verdict"].as_str().is_some_and(|verdict| verdict.contains("of the keys expired")),
        "{json}"
    );
}

#[test]
fn this_server_goes_through_all_phases() {
    let server = Server::start(&[]);
    let address = format!("127.0.0.1:{}", server.port);
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    let run = json(&["--connect", &address, "--report", page.to_str().expect("UTF-8")]);
    check(&run);
    assert_eq!(run["server"]["name"], "tallow-keyspace");
    assert!(run["server"]["rss_source"]["kernel"]["process_id"].is_u64(), "{}", run["server"]);
    assert_eq!(run["healing"]["answer"], "OK");
    let page = std::fs::read_to_string(page).expect("written");
    assert_eq!(page.matches("<svg").count(), 2);
    // It is not empty any more: nothing is deleted unasked.
    let told = error(&["--connect", &address]);
    assert!(told.contains("800 keys") && told.contains("--flush"), "{told}");
    let again = json(&["--connect", &address, "--flush", "--activedefrag", "no"]);
    assert!(again["healing"]["answer"].is_null());
    // The same seed: the same requests up to where wall time decides how many.
    assert_eq!(again["phases"][1]["requests"], run["phases"][1]["requests"]);
}

#[test]
fn every_operation_over_a_unix_socket_with_a_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("it.sock");
    let socket = socket.to_str().expect("UTF-8");
    let server = Command::new(env!("CARGO_BIN_EXE_keyspace"))
        .args(["serve", "--port", "0", "--requirepass", "secret", "--unixsocket", socket])
        .stdout(Stdio::null())
        .spawn();
    let _server = SocketServer(server.expect("the server starts"));
    wait_for("it listens", || UnixStream::connect(socket).is_ok());
    // Clusters that count, append, prepend, add, delete and compare.
    for workload in ["twitter-4", "twitter-14", "twitter-16", "twitter-20", "twitter-38"] {
        check(&json(&[
            "--connect",
            socket,
            "--password",
            "secret",
            "--flush",
            "--workload",
            workload,
        ]));
    }
    let told = error(&["--connect", socket]);
    assert!(told.contains("wants a password") && told.contains("--password"), "{told}");
    let told = error(&["--connect", socket, "--password", "wrong"]);
    assert!(told.contains("WRONGPASS") && told.contains("--password"), "{told}");
}

#[test]
fn a_wrong_value_is_found() {
    let server = Server::start(&[]);
    let address = format!("127.0.0.1:{}", server.port);
    let mut run = command(&["--connect", &address, "--keys", "2K"])
        .args(["--seconds", "0.5", "--heal-seconds", "1"])
        .spawn()
        .expect("the program starts");
    let mut it = server.connect();
    // All the time: what is written over early may be set right again.
    while run.try_wait().expect("it was started").is_none() {
        let key: Option<Vec<u8>> = cmd("RANDOMKEY").query(&mut it).expect("a key");
        if let Some(key) = key {
            // Nothing comes back that has expired, and nothing stays that is to expire.
            let mut set = cmd("SET");
            set.arg(key).arg(&["something else", "XX", "KEEPTTL"]);
            let _: Option<String> = set.query(&mut it).expect("set, or gone");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = run.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("than was written"), "{told}");
}

#[test]
fn where_no_server_is_one_is_told_what_to_do() {
    // A port that is taken, so that no other server gets it, and where nobody listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    let port = socket.local_addr().expect("it is bound").as_socket().expect("an address");
    let told = error(&["--connect", &port.to_string()]);
    assert!(told.contains("cannot connect") && told.contains("keyspace serve"), "{told}");
    assert!(error(&["--connect", "/no/such.sock"]).contains("cannot connect"));
    assert!(error(&["--connect", "nowhere"]).contains("HOST:PORT"));
    assert!(error(&["--workload", "twitter-99"]).contains("twitter-99"));
    assert!(error(&["--expire-share", "120%"]).contains("100%"));

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let web_server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let told = error(&["--connect", &address]);
    assert!(told.contains("does not speak Redis's protocol"), "{told}");
    web_server.join().expect("it has answered");
}

#[test]
fn redis_server_goes_through_all_phases() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().expect("UTF-8");
    let started = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket", socket])
        .stdout(Stdio::null())
        .spawn();
    let Ok(redis) = started else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let _redis = SocketServer(redis);
    wait_for("it listens", || UnixStream::connect(socket).is_ok());
    let run = json(&["--connect", socket]);
    check(&run);
    assert_eq!(run["server"]["name"], "redis");
    // It can defragment, or says why not.
    assert!(run["healing"]["answer"].is_string(), "{}", run["healing"]);
}
