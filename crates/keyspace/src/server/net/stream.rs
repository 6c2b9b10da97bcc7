//! TCP and unix sockets as one.

use super::listen::is_loopback;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// The peer's address, as CLIENT LIST shows it.
    pub(crate) fn peer(&self) -> String {
        match self {
            Self::Tcp(tcp) => {
                tcp.peer_addr().map_or_else(|_| "?:0".to_owned(), |it| it.to_string())
            }
            Self::Unix(unix) => format!("{}:0", Self::path(unix)),
        }
    }

    /// The own address.
    pub(crate) fn local(&self) -> String {
        match self {
            Self::Tcp(tcp) => {
                tcp.local_addr().map_or_else(|_| "?:0".to_owned(), |it| it.to_string())
            }
            Self::Unix(unix) => format!("{}:0", Self::path(unix)),
        }
    }

    /// Has the system ask a silent peer every so many seconds whether it is still there, and give it
    /// up after three questions; 0 for never.
    pub(crate) fn keep_alive(&self, seconds: u64) -> io::Result<()> {
        let Self::Tcp(tcp) = self else { return Ok(()) };
        if seconds == 0 {
            return Ok(());
        }
        let interval = Duration::from_secs((seconds / 3).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(seconds))
            .with_interval(interval)
            .with_retries(3);
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)
    }

    /// Whether the peer is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().is_ok_and(|it| is_loopback(it.ip())),
            Self::Unix(_) => true,
        }
    }

    /// Whether it is a unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Its file descriptor.
    pub(crate) fn descriptor(&self) -> i32 {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }

    fn path(unix: &UnixStream) -> String {
        let address = unix.local_addr().ok();
        let path = address.as_ref().and_then(|it| it.as_pathname());
        path.map_or_else(String::new, |path| path.display().to_string())
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(into),
            Self::Unix(unix) => unix.read(into),
        }
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    /// Has the loop told when it can be read or written.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(tcp) => tcp.register(registry, token, both),
            Self::Unix(unix) => unix.register(registry, token, both),
        }
    }
}
