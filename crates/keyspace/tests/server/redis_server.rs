//! The installed redis-server, to compare with; and a reader of replies as they come.

use crate::support::PATIENCE;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A redis-server without persistence, stopped at the end of its test.
pub struct RedisServer {
    child: Child,
    directory: tempfile::TempDir,
}

impl RedisServer {
    /// One with these options; `None`, said on standard error, if there is none installed.
    pub fn start(options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(["--enable-debug-command", "yes", "--unixsocket"])
            .arg(directory.path().join("socket"))
            .args(options)
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("skipped: there is no redis-server to compare with");
            return None;
        };
        Some(Self { child, directory })
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A connection.
    pub fn connect(&self) -> Peer {
        let until = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => {
                    let reader = stream.try_clone().expect("a second descriptor");
                    return Peer::new("redis-server", Box::new(reader), Box::new(stream));
                }
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => panic!("redis-server does not answer: {error}"),
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have stopped by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.socket());
    }
}

/// A reply as it came, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// One line, its kind first.
    Line(String),
    /// A string, or a verbatim one; bytes that are no text are escaped.
    Bulk(String),
    /// An array, map, set or push message: its kind, and its elements in order.
    Many(char, Vec<Reply>),
}

/// One end of a connection.
pub struct Peer {
    name: &'static str,
    reader: BufReader<Box<dyn Read>>,
    writer: Box<dyn Write>,
}

impl Peer {
    fn new(name: &'static str, reader: Box<dyn Read>, writer: Box<dyn Write>) -> Self {
        Self { name, reader: BufReader::new(reader), writer }
    }

    /// A connection to a server of this crate.
    pub fn of(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let reader = stream.try_clone().expect("a second descriptor");
        Self::new("keyspace", Box::new(reader), Box::new(stream))
    }

    /// Sends a request of these arguments and reads the reply.
    pub fn ask(&mut self, args: &[Vec<u8>]) -> Reply {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend(format!("${}\r\n", arg.len()).bytes());
            request.extend(arg);
            request.extend(b"\r\n");
        }
        self.ask_raw(&request)
    }

    /// Sends bytes and reads one reply.
    pub fn ask_raw(&mut self, request: &[u8]) -> Reply {
        self.writer.write_all(request).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.read()
    }

    fn read(&mut self) -> Reply {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("a reply");
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        let Some(kind) = line.chars().next() else { panic!("{} has hung up", self.name) };
        let length = line[1..].parse().unwrap_or(-1);
        match kind {
            '$' | '=' if length >= 0 => {
                let mut bytes = vec![0; length as usize + 2];
                self.reader.read_exact(&mut bytes).expect("the rest of a reply");
                let text = bytes[..length as usize].escape_ascii().to_string();
                Reply::Bulk(format!("{kind}{text}"))
            }
            '*' | '~' | '>' if length >= 0 => {
                Reply::Many(kind, (0..length).map(|_| self.read()).collect())
            }
            '%' => Reply::Many(kind, (0..length * 2).map(|_| self.read()).collect()),
            _ => Reply::Line(line),
        }
    }
}
