//! The event loop: waits, reads, executes, writes.
//!
//! ```text
//!   wait for sockets, or until the next tick
//!   for each socket that can be read:  read up to 16 KiB, execute every whole request in it
//!   slices of work: expiry, defragmentation
//!   write to all clients that have been told something
//! ```
//! Readiness is told once (edges), so a socket that gave all it was asked for goes on a list to be
//! read again in the next turn: nobody can keep the others waiting by sending without end. What was
//! read is executed where it lies; only the beginning of a request that is not all there is copied
//! into a buffer of the client's own. An idle client has no buffers at all but its reply buffer.
//! How it waits: [`wait`](super::wait); what it does for one client: [`serve`](super::serve).

use super::client::Client;
use super::listen::{Listener, listen, remove_socket};
use super::serve::{execute_input, write};
use super::wait::Watch;
use super::{cron, expire, limits, log};
use crate::gauge::Allocator;
use crate::server::Server;
use crate::server::commands;
use crate::server::config::Config;
use crate::server::db::defrag;
use crate::server::http::{self, link::LoopEnd};
use crate::server::maxmemory;
use crate::server::memory::background;
use anyhow::{Context, bail};
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::time::{Duration, Instant};

/// Read at once from a socket.
const READ_BYTES: usize = 16 * 1024;
/// The same inside of a long argument.
const READ_MUCH_BYTES: usize = 256 * 1024;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 1000;

const SIGNALS: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Tokens from here on are places of clients.
const FIRST_CLIENT: usize = 64;
/// What those are told who may not connect: there are too many already, or they are from elsewhere.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";
const DENIED: &[u8] =
    b"-DENIED This server is in protected mode and has no password: it talks to its \
    own machine only. There, set requirepass to a password, or protected-mode to no.\r\n";

/// The page has asked for something.
const PAGE: Token = Token(FIRST_CLIENT - 1);

struct EventLoop {
    server: Server,
    poll: Poll,
    listeners: Vec<Listener>,
    signals: UnixStream,
    /// What was read last; beyond that, rubbish.
    input: Vec<u8>,
    /// Places of clients that may have more to be read.
    to_read: Vec<usize>,
    /// Whether connections may be waiting that were not accepted in their turn.
    to_accept: Vec<usize>,
    /// Listeners at which somebody waits for whom there was no descriptor: looked at with each tick,
    /// since nothing is said when there are some again.
    starved: Vec<usize>,
    next_tick: Instant,
    /// Where the page asks, with `http`.
    page: Option<LoopEnd>,
}

/// Serves until it is told to stop.
///
/// # Errors
/// If it cannot listen, or the system gives no means to wait for events.
pub(crate) fn run(mut config: Config, allocator: Allocator) -> anyhow::Result<()> {
    log::start();
    if let Err((name, why)) = config.fits(allocator) {
        bail!("{name}: {why}");
    }
    if !config.unused.is_empty() {
        tracing::warn!("set, and not used here: {}", config.unused.join(", "));
    }
    if let Err(most) = limits::raise_descriptors(&config) {
        tracing::warn!("maxclients is {most}: the system gives no descriptors for more");
        config.maxclients = most;
    }
    let (mut listeners, port) = listen(&config)?;
    let poll = Poll::new().context("cannot wait for events")?;
    let mut signals = watch_signals().context("cannot watch for signals")?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    for (i, listener) in listeners.iter_mut().enumerate() {
        listener.register(poll.registry(), Token(FIRST_LISTENER + i))?;
    }
    let (page, page_url) = match config.http.as_str() {
        "" => (None, None),
        _ => {
            let (page, url) = http::start(&config, Waker::new(poll.registry(), PAGE)?)?;
            (Some(page), Some(url))
        }
    };
    let mut server = Server::new(config, allocator);
    server.port = port;
    server.set_log_level();
    background::follow_config(&mut server);
    let mut it = EventLoop {
        server,
        poll,
        listeners,
        signals,
        input: vec![0; READ_BYTES],
        to_read: Vec::new(),
        to_accept: Vec::new(),
        starved: Vec::new(),
        next_tick: Instant::now(),
        page,
    };
    it.server.read_memory();
    it.server.startup_bytes = it.server.pulse.used_bytes;
    it.announce();
    if let Some(url) = page_url {
        println!("The page is at {url}");
    }
    let result = it.turn_until_shutdown();
    if !it.server.config.unixsocket.is_empty() {
        remove_socket(&it.server.config.unixsocket);
    }
    tracing::info!("stopped");
    result
}

/// A socket that can be read once SIGTERM or SIGINT has come.
fn watch_signals() -> io::Result<UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(UnixStream::from_std(reader))
}

impl EventLoop {
    /// Says on standard output that connections are accepted, and where.
    fn announce(&self) {
        let config = &self.server.config;
        let mut places = Vec::new();
        if self.server.port != 0 {
            places.push(format!("port {}", self.server.port));
        }
        if !config.unixsocket.is_empty() {
            places.push(config.unixsocket.clone());
        }
        println!("Ready to accept connections on {}", places.join(" and "));
    }

    fn turn_until_shutdown(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut due: Option<Instant> = None;
        let mut watch = Watch::new();
        while !self.server.shutdown {
            let queued = !self.server.clients.to_write.is_empty();
            let busy = queued || !self.to_read.is_empty() || !self.to_accept.is_empty();
            let wait = match busy {
                true => Duration::ZERO,
                false => {
                    let until = due.map_or(self.next_tick, |due| due.min(self.next_tick));
                    until.saturating_duration_since(Instant::now())
                }
            };
            match watch.wait(&mut self.poll, &mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.context("cannot wait for events")?,
            }
            self.server.read_clock();
            let is_idle = !busy && events.is_empty();
            for place in mem::take(&mut self.to_accept) {
                self.accept(place);
            }
            for place in mem::take(&mut self.to_read) {
                self.serve(place);
            }
            for event in &events {
                match event.token() {
                    SIGNALS => self.take_signals(),
                    PAGE => {
                        if let Some(page) = &self.page {
                            page.answer(&mut self.server);
                        }
                    }
                    Token(token) if token < FIRST_CLIENT => self.accept(token - FIRST_LISTENER),
                    Token(token) => {
                        let place = token - FIRST_CLIENT;
                        if event.is_writable() {
                            self.unblock(place);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.serve(place);
                        }
                        if event.is_read_closed() {
                            // The end is read in the next turn, when what came before it is
                            // answered; there will be no other event for it.
                            self.to_read.push(place);
                        }
                    }
                }
            }
            if let Some(page) = &self.page {
                // Before anybody is told that it has changed.
                page.follow(&self.server.config);
            }
            self.server.watch_peak();
            // Replies do not wait for what nobody waits for.
            self.write_all();
            // Before keys go for what clients take.
            limits::evict(&mut self.server, None);
            due = self.work(is_idle);
            if self.next_tick <= Instant::now() {
                self.tick();
            }
            self.write_all();
        }
        Ok(())
    }

    /// Takes slices of the work that nobody waits for. Returns when to go on.
    fn work(&mut self, is_idle: bool) -> Option<Instant> {
        let expiry = expire::run(&mut self.server, is_idle);
        let defrag = defrag::poll(&mut self.server);
        let eviction = maxmemory::go_on(&mut self.server).then_some(Duration::ZERO);
        let wait = expiry.into_iter().chain(defrag).chain(eviction).min()?;
        Instant::now().checked_add(wait)
    }

    fn tick(&mut self) {
        let hz = self.server.config.hz.clamp(1, 500) as u64;
        self.next_tick = Instant::now() + Duration::from_nanos(1_000_000_000 / hz);
        cron::tick(&mut self.server);
        self.to_accept.extend(&self.starved);
        let dead: Vec<usize> =
            self.server.clients.iter().filter(|(_, it)| it.dead).map(|it| it.0).collect();
        for place in dead {
            self.close(place);
        }
    }

    fn take_signals(&mut self) {
        let mut bytes = [0; 16];
        if self.signals.read(&mut bytes).is_ok_and(|count| count > 0) {
            tracing::info!("told to stop by a signal");
            self.server.shutdown = true;
        }
    }

    /// Accepts those who wait at a listener.
    fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listeners[listener].accept() {
                Ok(stream) => self.welcome(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.starved.retain(|it| *it != listener);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, most likely.
                    if !self.starved.contains(&listener) {
                        tracing::warn!("cannot accept a connection: {error}");
                        self.starved.push(listener);
                    }
                    return;
                }
            }
        }
        self.to_accept.push(listener);
    }

    fn welcome(&mut self, mut stream: super::stream::Stream) {
        let server = &mut self.server;
        let refusal = if server.clients.len() as i64 >= server.config.maxclients {
            Some(FULL)
        } else if server.config.is_protected() && !stream.is_local() {
            Some(DENIED)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            server.counters.rejected_connections += 1;
            // It may not take it: it is gone in any case.
            let _ = stream.write(refusal);
            return;
        }
        server.counters.connections_received += 1;
        if let Err(error) = stream.keep_alive(server.config.tcp_keepalive as u64) {
            tracing::debug!("tcp-keepalive: {error}");
        }
        let (id, now) = (server.clients.new_id(), server.clock.now_ms);
        let client = Client::new(id, stream, now, !server.wants_password());
        let place = server.clients.add(Box::new(client));
        let token = Token(FIRST_CLIENT + place);
        let registered = server
            .clients
            .at(place)
            .map(|client| client.stream.register(self.poll.registry(), token));
        if let Some(Err(error)) = registered {
            tracing::warn!("cannot watch a connection: {error}");
            server.clients.remove(place);
        }
    }

    /// Reads from a client and executes what it has sent.
    fn serve(&mut self, place: usize) {
        let Some(mut client) = self.server.clients.take(place) else { return };
        let wanted = if client.scanner.wants_much() { READ_MUCH_BYTES } else { READ_BYTES };
        if self.input.len() < wanted {
            self.input.resize(wanted, 0);
        }
        match client.stream.read(&mut self.input[..wanted]) {
            // It has said all it wants to, and may still wait for answers.
            Ok(0) => client.closing = true,
            Ok(count) => {
                self.server.counters.net_input_bytes += count as u64;
                client.active_ms = self.server.clock.now_ms;
                execute_input(&mut self.server, &mut client, &self.input[..count]);
                if count == wanted {
                    self.to_read.push(place);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.to_read.push(place),
            Err(_) => client.dead = true,
        }
        if self.input.len() > READ_BYTES && !client.scanner.wants_much() {
            // Long arguments are rare; what was for one is given back once it is there.
            self.input = vec![0; READ_BYTES];
        }
        self.server.clients.put(place, client);
        self.server.clients.queue(place);
    }

    /// Notes that a client's socket takes more.
    fn unblock(&mut self, place: usize) {
        if let Some(client) = self.server.clients.at(place)
            && mem::take(&mut client.blocked_write)
        {
            self.server.clients.queue(place);
        }
    }

    /// Writes to all clients that have something to be told, and parts with those that are done.
    fn write_all(&mut self) {
        let mut places = mem::take(&mut self.server.clients.to_write);
        for &place in &places {
            let Some(mut client) = self.server.clients.take(place) else { continue };
            client.queued = false;
            if !client.dead {
                write(&mut self.server, &mut client);
            }
            let is_done = client.closing && client.reply.unsent().is_empty();
            let over = client.dead || is_done;
            let takes_more = !client.reply.unsent().is_empty() && !client.blocked_write;
            self.server.clients.put(place, client);
            if over {
                self.close(place);
            } else if takes_more {
                self.server.clients.queue(place);
            }
        }
        places.clear();
        // Keeps its room, unless somebody was queued meanwhile.
        if self.server.clients.to_write.is_empty() {
            self.server.clients.to_write = places;
        }
    }

    fn close(&mut self, place: usize) {
        // The system forgets a descriptor that is closed; there is nothing to be told.
        if let Some(mut client) = self.server.clients.take(place) {
            commands::pubsub::leave_all(&mut self.server, &mut client);
            self.server.clients.remove(place);
        }
        self.to_read.retain(|it| *it != place);
    }
}
