//! Starts servers on free ports and talks to them, through a client library or byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server, stopped at the end of its test.
pub struct Server {
    child: Child,
    /// Where it listens.
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
        let password = options.iter().skip_while(|it| **it != "--requirepass").nth(1);
        Self {
            port: port.unwrap_or_else(|| panic!("no port in {line:?}")),
            child,
            password: password.map(|it| (*it).to_owned()),
        }
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
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
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

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0]), Ok(1))
    }
}
