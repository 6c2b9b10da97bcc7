//! The page over HTTP: what is served, who may act, and what headless Chromium makes of it.

use crate::support::{PATIENCE, Raw, outer_address, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server with a page.
struct Page {
    child: Child,
    port: u16,
    http_port: u16,
    token: String,
}

impl Page {
    fn start() -> Self {
        Self::start_with(&["--http", "127.0.0.1:0"])
    }

    fn start_with(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyspace"))
            .args(["serve", "--port", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            line.trim().to_owned()
        };
        let (ready, page) = (line(), line());
        let port = ready.rsplit(' ').next().and_then(|port| port.parse().ok());
        let (address, token) = page.split_once("/#token=").expect("a token");
        let http_port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        Self {
            child,
            port: port.expect("a port"),
            http_port: http_port.expect("a port"),
            token: token.to_owned(),
        }
    }

    fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(("127.0.0.1", self.port)).expect("an address");
        client.get_connection().expect("a connection")
    }

    /// The status and the rest of the answer.
    fn ask(&self, line: &str, headers: &str) -> (u16, String) {
        self.ask_at([127, 0, 0, 1].into(), line, headers)
    }

    /// The same at this address.
    fn ask_at(&self, address: IpAddr, line: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((address, self.http_port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it takes them");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), answer)
    }

    fn get(&self, path: &str) -> String {
        let (status, answer) = self.ask(&format!("GET {path}"), "Host: localhost\r\n");
        assert_eq!(status, 200, "{answer}");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/api/state")).expect("JSON")
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fill(connection: &mut redis::Connection, keys: usize) {
    let mut pipe = redis::pipe();
    for i in 0..keys {
        pipe.cmd("SET").arg(format!("key:{i}")).arg("x".repeat(64 + i % 200)).ignore();
    }
    pipe.query::<()>(connection).expect("filled");
}

#[test]
fn page_state_and_metrics_are_served_and_agree_with_info() {
    let page = Page::start();
    let mut connection = page.connect();
    fill(&mut connection, 1000);
    for (path, part) in [("/", "<title>"), ("/page.js", "fetch("), ("/page.css", ":root")] {
        assert!(page.get(path).contains(part), "{path}");
    }
    assert_eq!(page.get("/healthz"), "ok");
    // Which reads RSS: otherwise INFO's may be from before.
    let () = redis::cmd("MEMORY").arg("PURGE").query(&mut connection).expect("OK");
    let state = page.state();
    assert_eq!(state["server"]["keys"], 1000);
    assert_eq!(state["server"]["clients"], 1);
    let info: String = redis::cmd("INFO").query(&mut connection).expect("INFO");
    let field = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    for (name, pointer) in
        [("used_memory", "/memory/used_bytes"), ("used_memory_rss", "/memory/rss_bytes")]
    {
        let here = state.pointer(pointer).and_then(|it| it.as_f64()).expect("a number");
        assert!((here / field(name) - 1.0).abs() < 0.15, "{name}: {here} and {}", field(name));
    }
    let metrics = page.get("/metrics");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("keyspace_") && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.contains("\nkeyspace_keys 1000\n"), "{metrics}");
    assert!(metrics.contains("keyspace_account_live_bytes{account=\"dataset\"}"), "{metrics}");
}

#[test]
fn strangers_are_refused_and_acting_needs_the_token() {
    let page = Page::start();
    let local = "Host: localhost\r\n";
    assert_eq!(page.ask("GET /api/state", "Host: evil.example\r\n").0, 421);
    assert_eq!(page.ask("GET /nothing", local).0, 404);
    assert_eq!(page.ask("DELETE /", local).0, 405);
    let token = format!("{local}X-Keyspace-Token: {}\r\n", page.token);
    let foreign = format!("{token}Origin: http://evil.example\r\n");
    assert_eq!(page.ask("POST /api/defrag", local).0, 403);
    for headers in [local, "Host: localhost\r\nX-Keyspace-Token: 0123\r\n", &foreign] {
        assert_eq!(page.ask("POST /api/activedefrag/yes", headers).0, 403);
        assert_eq!(page.ask("POST /api/purge", headers).0, 403);
    }
    assert_eq!(page.state()["server"]["active_defrag"], false);
    assert_eq!(page.ask("POST /api/activedefrag/yes", &token).0, 200);
    assert_eq!(page.state()["server"]["active_defrag"], true);
    assert_eq!(page.ask("POST /api/purge", &token).0, 200);
    let long = format!("{local}X: {}\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(("127.0.0.1", page.http_port)).expect("a connection");
    let _ = write!(stream, "GET / HTTP/1.1\r\n{long}\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

/// Where other machines may look, they need the token for figures too.
#[test]
fn strangers_on_an_open_address_see_no_figures() {
    let page = Page::start_with(&["--http", "0.0.0.0:0", "--requirepass", "secret"]);
    let local = "Host: localhost\r\n";
    let token = format!("{local}X-Keyspace-Token: {}\r\n", page.token);
    let bearer = format!("{local}Authorization: Bearer {}\r\n", page.token);
    for path in ["/api/state", "/metrics"] {
        let (status, answer) = page.ask(&format!("GET {path}"), local);
        assert!(status == 403 && !answer.contains("keyspace_keys"), "{answer}");
        assert_eq!(
            page.ask(&format!("GET {path}"), "Host: localhost\r\nX-Keyspace-Token: 0\r\n").0,
            403
        );
        assert_eq!(page.ask(&format!("GET {path}"), &token).0, 200);
        assert_eq!(page.ask(&format!("GET {path}"), &bearer).0, 200);
    }
    // The page itself says nothing.
    assert_eq!(page.ask("GET /", local).0, 200);
    assert_eq!(page.ask("GET /healthz", local).0, 200);
}

/// And nothing at all once there is no password any more.
#[test]
fn without_a_password_other_machines_see_no_page() {
    let Some(outer) = outer_address() else { return };
    let page = Page::start_with(&["--http", "0.0.0.0:0", "--requirepass", "secret"]);
    let token = format!("Host: localhost\r\nX-Keyspace-Token: {}\r\n", page.token);
    let status = |address, path: &str| page.ask_at(address, &format!("GET {path}"), &token).0;
    let mut it =
        Raw { stream: TcpStream::connect(("127.0.0.1", page.port)).expect("a connection") };
    it.ask("AUTH secret", "+OK\r\n");
    for (setting, seen) in [
        ("requirepass secret", 200),
        ("requirepass \"\"", 403),
        ("protected-mode no", 200),
        ("protected-mode yes", 403),
        ("requirepass other", 200),
    ] {
        it.ask(&format!("CONFIG SET {setting}"), "+OK\r\n");
        for path in ["/", "/healthz", "/api/state"] {
            assert_eq!(status(outer, path), seen, "{setting} {path}");
            assert_eq!(status([127, 0, 0, 1].into(), path), 200, "{setting} {path}");
        }
    }
}

#[test]
fn one_pass_of_defragmentation_can_be_asked_for() {
    let page = Page::start();
    let mut it = page.connect();
    fill(&mut it, 50_000);
    let mut pipe = redis::pipe();
    for i in (0..50_000).filter(|i| i % 5 > 0) {
        pipe.cmd("DEL").arg(format!("key:{i}")).ignore();
    }
    pipe.query::<()>(&mut it).expect("they are there");
    let moved = |it: &mut redis::Connection| -> u64 {
        let info: String = redis::cmd("INFO").arg("stats").query(it).expect("INFO");
        let line = info.lines().find_map(|line| line.strip_prefix("active_defrag_passes:"));
        line.and_then(|value| value.parse().ok()).expect("a number")
    };
    assert_eq!(moved(&mut it), 0);
    let token = format!("Host: localhost\r\nX-Keyspace-Token: {}\r\n", page.token);
    assert_eq!(page.ask("POST /api/defrag", &token).0, 200);
    wait_for("the pass ends", || moved(&mut it) != 0);
    let state = page.state();
    assert_eq!(state["server"]["active_defrag"], false, "it stays off");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(moved(&mut it), 1, "one pass and no more");
    let info: String = redis::cmd("INFO").arg("stats").query(&mut it).expect("INFO");
    assert!(!info.contains("active_defrag_hits:0\r"), "{info}");
}

#[test]
fn the_other_allocator_purges_and_does_not_defragment() {
    let page = Page::start_with(&["--http", "127.0.0.1:0", "--allocator", "system"]);
    let token = format!("Host: localhost\r\nX-Keyspace-Token: {}\r\n", page.token);
    assert_eq!(page.ask("POST /api/purge", &token).0, 200);
    for path in ["/api/defrag", "/api/activedefrag/yes"] {
        let (status, answer) = page.ask(&format!("POST {path}"), &token);
        assert!(status == 409 && answer.contains("runs on Tallow"), "{answer}");
    }
    assert_eq!(page.state()["server"]["active_defrag"], false);
}

#[test]
fn charts_have_data_in_chromium() {
    let page = Page::start();
    fill(&mut page.connect(), 20_000);
    let profile = tempfile::tempdir().expect("a folder");
    let dump = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
        .args(["--virtual-time-budget=120000", "--dump-dom", "--window-size=1280,800"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://127.0.0.1:{}/", page.http_port))
        .output();
    let Ok(dump) = dump else {
        eprintln!("skipped: there is no chromium");
        return;
    };
    let (dom, log) = (String::from_utf8_lossy(&dump.stdout), String::from_utf8_lossy(&dump.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(!dom.contains("data-errors"), "{dom}");
    let number = |name: &str| -> Vec<usize> {
        let name = format!("{name}=\"");
        let parts = dom.split(&name).skip(1);
        parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
    };
    assert!(number("data-samples").first().is_some_and(|samples| *samples >= 2), "{dom}\n{log}");
    let points = number("data-points");
    assert!(points.len() == 7 && points.iter().all(|points| *points >= 2), "{points:?}");
    assert!(number("data-rows").first().is_some_and(|rows| *rows > 3), "{dom}");
}
