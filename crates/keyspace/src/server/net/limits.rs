//! Who is cut off, and when: limits on buffers and on silence.
//!
//! A client that sends without end, or takes nothing of what it is sent, would use up the memory of
//! all the others. `client-query-buffer-limit` bounds the one, `client-output-buffer-limit` the
//! other, for each class of clients: at once above the hard limit, after some seconds above the soft
//! one.

use super::client::Client;
use crate::server::Server;
use crate::server::accounts::client_bytes;
use crate::server::config::Config;
use crate::server::config::kind::OutputLimit;
use crate::server::http;

/// Bounds on the buffers of a client that has not said its password. What it may leave waiting is what
/// Redis lets it: that has 16 KiB of room in each client, and refuses a kilobyte more.
const UNAUTHENTICATED_QUERY_BYTES: u64 = 1 << 20;
const UNAUTHENTICATED_OUTPUT_BYTES: u64 = KEPT_OUTPUT_BYTES as u64 + 1024;
/// Output buffers larger than this are given back once they are empty.
pub(crate) const KEPT_OUTPUT_BYTES: usize = 16 * 1024;
/// The spare room that the query buffer of an idle client may have.
const KEPT_QUERY_BYTES: usize = 4 * 1024;
/// The least that `maxmemory-clients` means.
const LEAST_FOR_CLIENTS_BYTES: u64 = 128 << 10;
/// After so long without a word a client's empty buffers are given back.
const IDLE_MS: i64 = 2000;
/// When nobody can be cut off, for how long not to look again.
const VAIN_MS: i64 = 100;

/// Descriptors for everything but clients and the page: listeners, what the kernel says, the log.
const OTHER_DESCRIPTORS: i64 = 32;

/// Asks the system for as many descriptors as `maxclients` wants.
///
/// # Errors
/// If it does not give so many: for how many clients they are enough.
pub(crate) fn raise_descriptors(config: &Config) -> Result<(), i64> {
    let page = if config.http.is_empty() { 0 } else { http::DESCRIPTORS };
    let others = OTHER_DESCRIPTORS + page;
    let Ok(got) = rlimit::increase_nofile_limit((config.maxclients + others) as u64) else {
        return Ok(());
    };
    let most = (i64::try_from(got).unwrap_or(i64::MAX) - others).max(1);
    if most < config.maxclients { Err(most) } else { Ok(()) }
}

/// Looks at a client's buffers, after they have grown; marks it dead if it is over a limit. What it
/// has sent counts, as in Redis; the room for that is twice as much at most, and for a moment.
pub(crate) fn check(server: &mut Server, client: &mut Client) {
    let query_bytes = (client.query.len() + client.scanner.buffer_bytes()) as u64;
    let limit = match server.knows(client) {
        true => server.config.client_query_buffer_limit,
        false => UNAUTHENTICATED_QUERY_BYTES.min(server.config.client_query_buffer_limit),
    };
    if query_bytes > limit {
        tracing::warn!("client {} has sent too much at once ({query_bytes} bytes)", client.address);
        server.counters.query_buffer_disconnections += 1;
        client.dead = true;
        client.query.free();
    }
    server.recent_max.note(client, server.clock.now_ms);
    check_output(server, client);
}

/// Lets the client's reply buffer know its hard limit, so that it stops at it in the midst of a
/// reply: before anything is executed, or sent by others.
pub(crate) fn set(server: &Server, client: &mut Client) {
    client.reply.set_limit(output_limit(server, client).hard_bytes);
}

/// The limit on what waits for a client. A stranger's is small in any case: errors alone would fill
/// the memory.
#[inline]
fn output_limit(server: &Server, client: &Client) -> OutputLimit {
    let limit = server.config.client_output_buffer_limit[client.class()];
    if client.was_authenticated || server.knows(client) {
        return limit;
    }
    let hard_bytes = match limit.hard_bytes {
        0 => UNAUTHENTICATED_OUTPUT_BYTES,
        bytes => bytes.min(UNAUTHENTICATED_OUTPUT_BYTES),
    };
    OutputLimit { hard_bytes, ..limit }
}

/// Looks at what it has not taken yet, after each reply.
#[inline]
pub(crate) fn check_output(server: &mut Server, client: &mut Client) {
    let limit = output_limit(server, client);
    let unsent = client.reply.unsent().len() as u64;
    let is_over = |bytes: u64| bytes != 0 && unsent > bytes;
    let too_long = if is_over(limit.soft_bytes) {
        let now = server.clock.now_ms;
        let since = *client.over_soft_since.get_or_insert(now);
        now - since > limit.soft_seconds as i64 * 1000
    } else {
        client.over_soft_since = None;
        false
    };
    if (is_over(limit.hard_bytes) || too_long || client.reply.is_over()) && !client.dead {
        cut_off(server, client);
    }
}

/// It is not told anything more, and its memory is free at once.
#[cold]
fn cut_off(server: &mut Server, client: &mut Client) {
    let unsent = client.reply.unsent().len();
    tracing::warn!("client {} takes too little of its replies ({unsent} bytes)", client.address);
    server.counters.output_buffer_disconnections += 1;
    client.dead = true;
    client.reply.free();
}

/// Looks at those who take nothing: nothing else happens to them when their time is over.
pub(crate) fn check_slow(server: &mut Server) {
    let late: Vec<usize> = server
        .clients
        .iter()
        .filter(|(_, it)| it.over_soft_since.is_some())
        .map(|(place, _)| place)
        .collect();
    for place in late {
        if let Some(mut client) = server.clients.take(place) {
            check_output(server, &mut client);
            server.clients.put(place, client);
        }
    }
}

/// Cuts off clients, the largest first, while all of them together take more than
/// `maxmemory-clients`; those that said CLIENT NO-EVICT stay.
///
/// Redis keeps its clients in buckets by size, brought up to date one by one. The accounts know what
/// all of them take at any moment, so as long as that is allowed nobody has to be looked at; and
/// if it is not, but whoever is left must stay, they are only looked at now and then.
pub(crate) fn evict(server: &mut Server) {
    let limit = server.config.maxmemory_clients.bytes(server.config.maxmemory);
    let now = server.clock.now_ms;
    if limit == 0
        || total_bytes(server) <= limit.max(LEAST_FOR_CLIENTS_BYTES)
        || (0..VAIN_MS).contains(&(now - server.clients.looked_in_vain_ms))
    {
        return;
    }
    // What those take that are cut off already will be free at once.
    let living = || server.clients.iter().filter(|(_, it)| !it.dead);
    let mut sum: u64 = living().map(|(_, it)| it.memory_bytes() as u64).sum();
    let evictable = living().filter(|(_, it)| !it.no_evict);
    let mut sizes: Vec<(u64, usize)> =
        evictable.map(|(place, it)| (it.memory_bytes() as u64, place)).collect();
    if sizes.is_empty() {
        server.clients.looked_in_vain_ms = now;
    }
    sizes.sort_unstable();
    while sum > limit.max(LEAST_FOR_CLIENTS_BYTES)
        && let Some((bytes, place)) = sizes.pop()
    {
        sum -= bytes;
        server.counters.evicted_clients += 1;
        if let Some(client) = server.clients.at(place) {
            tracing::warn!("client {} is cut off: it takes {bytes} bytes", client.address);
            client.dead = true;
        }
        server.clients.queue(place);
    }
}

/// What all clients take.
fn total_bytes(server: &Server) -> u64 {
    client_bytes() + (server.clients.len() * size_of::<Client>()) as u64
}

/// Gives back what idle clients have in reserve: a long line of idle connections should cost their
/// sockets and little more.
pub(crate) fn shrink_idle(server: &mut Server) {
    let now = server.clock.now_ms;
    for (_, client) in server.clients.iter_mut() {
        if now - client.active_ms <= IDLE_MS {
            continue;
        }
        // Half a request may be there for long; the room for all of it is made again.
        client.query.shrink_beyond(KEPT_QUERY_BYTES);
        if client.reply.unsent().is_empty() {
            client.reply.free();
            client.scanner.shrink();
        }
    }
}

/// Marks those dead that were silent for too long (`timeout`).
pub(crate) fn check_silence(server: &mut Server) {
    let (now, timeout) = (server.clock.now_ms, server.config.timeout * 1000);
    if timeout == 0 {
        return;
    }
    for (_, client) in server.clients.iter_mut() {
        // Whoever listens has nothing to say.
        if client.topics.count() == 0 && now - client.active_ms > timeout {
            client.dead = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gauge::Allocator;
    use crate::server::config::kind::Share;
    use crate::server::net::stream::Stream;
    use mio::net::UnixStream;

    /// A server with these limits on clients, and clients whose query buffers are so long.
    fn with_clients(limit_bytes: u64, each: &[(usize, bool)]) -> Server {
        let mut server = Server::new(Config::new(), Allocator::Tallow);
        server.config.maxmemory_clients = Share::Bytes(limit_bytes);
        each.iter().for_each(|(bytes, no_evict)| _ = add(&mut server, *bytes, *no_evict));
        server
    }

    fn add(server: &mut Server, bytes: usize, no_evict: bool) -> usize {
        let (stream, _) = UnixStream::pair().expect("a socket");
        let mut client = Client::new(1, Stream::Unix(stream), 0, true);
        client.query.extend(&vec![0; bytes]);
        client.no_evict = no_evict;
        server.clients.add(Box::new(client))
    }

    #[test]
    fn clients_that_may_not_go_are_not_looked_at_all_the_time() {
        let mut server = with_clients(1 << 20, &[(9 << 20, true), (1000, false)]);
        server.clock.now_ms = 1_000_000;
        evict(&mut server);
        assert_eq!(server.counters.evicted_clients, 1, "all that may go do");
        evict(&mut server);
        // Found at the next look only, not at each turn.
        let late = add(&mut server, 1000, false);
        server.clock.now_ms += VAIN_MS - 1;
        evict(&mut server);
        assert!(server.clients.at(late).is_some_and(|it| !it.dead));
        server.clock.now_ms += 1;
        evict(&mut server);
        assert!(server.clients.at(late).is_some_and(|it| it.dead));
    }
}
