//! Which addresses the server listens on, and who may connect.
//!
//! Loopback only, unless `bind` says otherwise; and then a password is wanted or protection must be
//! switched off in so many words. Redis lets the server start and turns strangers away one by one;
//! a server that nobody can use as it was meant had better say so at once. Since both can be changed
//! while it runs, strangers are turned away one by one here too.

use super::stream::Stream;
use crate::server::config::Config;
use anyhow::{Context, bail};
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// For TCP.
    Tcp(TcpListener),
    /// For a unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// The next connection; an error of the kind `WouldBlock` when there are no more.
    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, _) = tcp.accept()?;
                // Replies are written as a whole: nothing is gained by waiting for more.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(unix) => Ok(Stream::Unix(unix.accept()?.0)),
        }
    }

    /// Has the loop told when somebody connects.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => registry.register(tcp, token, Interest::READABLE),
            Self::Unix(unix) => registry.register(unix, token, Interest::READABLE),
        }
    }
}

/// Listens on all addresses of the configuration. Returns the TCP port too: 0 asks for a free one.
///
/// # Errors
/// If an address is wrong or taken, or open to strangers without a password.
pub(crate) fn listen(config: &Config) -> anyhow::Result<(Vec<Listener>, u16)> {
    let (mut listeners, mut port) = (Vec::new(), config.port as u16);
    let wants_tcp = config.port != 0 || config.unixsocket.is_empty();
    for name in config.bind.split_whitespace().filter(|_| wants_tcp) {
        // `-` before an address: it need not be there.
        let (name, optional) = name.strip_prefix('-').map_or((name, false), |rest| (rest, true));
        match bind(name, port, config) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(Listener::Tcp(listener));
            }
            Err(error) if optional => tracing::debug!("not listening on {name}: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    if !config.unixsocket.is_empty() {
        listeners.push(Listener::Unix(bind_unix(config)?));
    }
    if listeners.is_empty() {
        bail!("there is nothing to listen on: set bind or unixsocket");
    }
    Ok((listeners, if wants_tcp { port } else { 0 }))
}

fn bind(name: &str, port: u16, config: &Config) -> anyhow::Result<TcpListener> {
    let name = match name {
        "*" => "0.0.0.0",
        "::*" => "::",
        name => name,
    };
    let address: SocketAddr = (name, port)
        .to_socket_addrs()
        .with_context(|| format!("bind {name}: no such address"))?
        .next()
        .with_context(|| format!("bind {name}: no such address"))?;
    if !is_loopback(address.ip()) && config.is_protected() {
        bail!(
            "bind {name} would let anybody in; set requirepass to a password, or protected-mode \
             to no if the network keeps strangers out"
        );
    }
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    // Listening once more changes how many may wait, which mio decides by itself.
    SockRef::from(&listener).listen(backlog(config)).context("tcp-backlog")?;
    Ok(listener)
}

/// Whether only this machine reaches it.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn bind_unix(config: &Config) -> anyhow::Result<UnixListener> {
    let path = &config.unixsocket;
    // What a server that was killed has left: a socket that nobody answers on.
    if std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        remove_socket(path);
    }
    let listen = || -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before it listens, so nobody can who may not.
        if config.unixsocketperm != 0 {
            fs::set_permissions(path, Permissions::from_mode(config.unixsocketperm))?;
        }
        socket.listen(backlog(config))?;
        socket.set_nonblocking(true)?;
        Ok(UnixListener::from_std(socket.into()))
    };
    listen().with_context(|| format!("cannot listen on {path}"))
}

/// Removes a socket, and nothing else: a file answers as one does that nobody listens on.
pub(crate) fn remove_socket(path: &str) {
    if fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()) {
        // Whatever is wrong with it, whoever binds it next is told.
        let _ = fs::remove_file(path);
    }
}

/// How many may wait to be accepted.
fn backlog(config: &Config) -> i32 {
    i32::try_from(config.tcp_backlog).unwrap_or(i32::MAX)
}
