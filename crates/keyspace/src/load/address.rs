//! Where a server is: `host:port`, or the path of a unix socket.

use anyhow::{Context, bail};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    /// Whatever has a slash is a path; the rest must end in a port.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("give HOST:PORT, such as 127.0.0.1:6379, or the path of a unix socket, such \
                      as ./keyspace.sock"
                .to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Address {
    /// Connects; reads wait for `patience` at most.
    pub(super) fn connect(&self, patience: Duration) -> anyhow::Result<Stream> {
        let unreachable = || {
            format!(
                "cannot connect to {self}; start a server there (`keyspace serve` or \
                 redis-server), or give another --connect"
            )
        };
        match self {
            Self::Tcp(text) => {
                let mut last = None;
                for place in text.to_socket_addrs().with_context(unreachable)? {
                    match TcpStream::connect_timeout(&place, patience) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(patience))?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(error) => last = Some(error),
                    }
                }
                match last {
                    Some(error) => Err(error).with_context(unreachable),
                    None => bail!("{}: the name has no address", unreachable()),
                }
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(unreachable)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Whether the server runs on this machine, so that its `/proc` may be ours.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()),
            Self::Unix(_) => true,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        assert_eq!("localhost:6379".parse(), Ok(Address::Tcp("localhost:6379".to_owned())));
        assert_eq!("./a.sock".parse(), Ok(Address::Unix("./a.sock".into())));
        assert!("[::1]:6379".parse::<Address>().is_ok());
        for wrong in ["", "localhost", ":6379", "localhost:", "localhost:99999"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
