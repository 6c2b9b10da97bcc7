//! Starts servers on free ports and talks to them, through a client library or byte by byte.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whatever is waited for has come by then, however slow and busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for something to come true.
#[track_caller]
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server, stopped at the end of its test.
pub struct Server {
    child: Child,
    /// Where it listens; 0 if on a unix socket only.
    pub port: u16,
    /// The password it was started with.
    password: Option<String>,
}

impl Server {
    /// A server with these options.
    pub fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyspace"))
            .args(["serve", "--port", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let port = line.split_whitespace().skip_while(|word| *word != "port").nth(1);
        let port = port.and_then(|port| port.parse().ok());
        assert!(line.starts_with("Ready to accept"), "{line:?}");
        let password = options.iter().skip_while(|it| **it != "--requirepass").nth(1);
        Self { port: port.unwrap_or(0), child, password: password.map(|it| (*it).to_owned()) }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What a server says on standard error that does not start with these options.
    pub fn refused(options: &[&str]) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyspace"))
            .args(["serve", "--port", "0"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let start = Instant::now();
        while child.try_wait().expect("it was started").is_none() {
            if start.elapsed() > PATIENCE {
                // It would never end.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().expect("it has ended");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.status.code().is_some(), "{told}");
        told
    }

    /// A connection of the client library, which has said the password.
    pub fn connect(&self) -> redis::Connection {
        let password = self.password.as_ref().map_or_else(String::new, |it| format!(":{it}@"));
        let address = format!("redis://{password}127.0.0.1:{}", self.port);
        let client = redis::Client::open(address).expect("an address");
        client.get_connection().expect("a connection")
    }

    /// A bare connection.
    pub fn raw(&self) -> Raw {
        self.raw_at(IpAddr::from([127, 0, 0, 1]))
    }

    /// A bare connection to this address.
    pub fn raw_at(&self, address: IpAddr) -> Raw {
        let stream = TcpStream::connect((address, self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Raw { stream }
    }

    /// The value of a field of INFO.
    pub fn info(&self, field: &str) -> String {
        let text: String =
            redis::cmd("INFO").arg("everything").query(&mut self.connect()).expect("INFO");
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }

    /// Waits until it has stopped by itself; returns whether that was without an error.
    pub fn wait(mut self) -> bool {
        self.child.wait().expect("it was started").success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that other machines would use; `None`, said on standard error, if it has
/// none. Whoever connects to it comes from it.
pub fn outer_address() -> Option<IpAddr> {
    // Nothing is sent: the system only chooses where from it would be.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let address = socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr());
    let found = address.ok().map(|it| it.ip()).filter(|it| !it.is_loopback());
    if found.is_none() {
        eprintln!("skipped: this machine has no address but the loopback interface's");
    }
    found
}

/// A bare connection.
pub struct Raw {
    /// The socket.
    pub stream: TcpStream,
}

impl Raw {
    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes them");
    }

    /// Receives exactly these bytes.
    pub fn expect(&mut self, wanted: &[u8]) {
        let mut bytes = vec![0; wanted.len()];
        self.stream.read_exact(&mut bytes).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(wanted));
    }

    /// Sends a line and receives exactly these bytes.
    pub fn ask(&mut self, line: &str, wanted: &str) {
        self.send(line.as_bytes());
        self.send(b"\r\n");
        self.expect(wanted.as_bytes());
    }

    /// Receives up to the end of these bytes, however many reads that takes.
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let mut one = [0];
            self.stream.read_exact(&mut one).expect("more of an answer");
            bytes.push(one[0]);
        }
        bytes
    }

    /// Sends a line and receives a text.
    pub fn text(&mut self, line: &str) -> String {
        self.send(line.as_bytes());
        self.send(b"\r\n");
        let head = String::from_utf8(self.until(b"\r\n")).expect("a line");
        let length = head.trim_end().strip_prefix('$').and_then(|it| it.parse::<usize>().ok());
        let mut bytes = vec![0; length.unwrap_or_else(|| panic!("no text: {head}")) + 2];
        self.stream.read_exact(&mut bytes).expect("the rest of it");
        String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned()
    }

    /// Whether the server has closed the connection; `false` if it has said something.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "neither a word nor the end");
                true
            }
        }
    }

    /// Reads until the end; returns how much that was.
    pub fn drain(&mut self) -> usize {
        let (mut bytes, mut sum) = (vec![0; 1 << 16], 0);
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return sum,
                Ok(count) => sum += count,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "there is no end");
                    return sum;
                }
            }
        }
    }
}
