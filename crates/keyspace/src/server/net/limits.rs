//! Who is cut off, and when: limits on buffers and on silence.
//!
//! A client that sends without end, or takes nothing of what it is sent, would use up the memory of
//! all the others. `client-query-buffer-limit` bounds the one, `client-output-buffer-limit` the
//! other, for each class of clients: at once above the hard limit, after some seconds above the soft
//! one. `maxmemory-clients` bounds all of them together; it is looked at before each command, so that
//! they take no more than that and what one command tells them.

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
/// When nobody can be cut off, for how long not to look again,
const VAIN_MS: i64 = 100;
/// as long as clients do not take more by such a share of the limit.
const VAIN_SHARE: u64 = 16;

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

/// Who is being served, and is not among the other clients meanwhile.
pub(super) struct Served<'a> {
    pub(super) client: &'a mut Client,
    /// Bytes of its buffers that are not with it while its requests are executed.
    pub(super) lent_bytes: usize,
}

/// Cuts off clients, the largest first, while all of them together take more than
/// `maxmemory-clients`; those that said CLIENT NO-EVICT stay. Between turns, and before each command:
/// what it is told may be as much as the limit. Before keys are given up, too, so that none goes for
/// what clients may not take.
///
/// Redis keeps its clients in buckets by size, brought up to date one by one. The accounts know what
/// all of them take at any moment, so as long as that is allowed nobody has to be looked at: it takes
/// some loads. And if it is not, but nobody is found to be cut off, they are only looked at now and
/// then, or when they take a [`VAIN_SHARE`]th of the limit more.
#[inline]
pub(super) fn evict(server: &mut Server, served: Option<Served<'_>>) {
    let limit = server.config.maxmemory_clients.bytes(server.config.maxmemory);
    if limit > 0 && total_bytes(server) > limit.max(LEAST_FOR_CLIENTS_BYTES) {
        evict_above(server, limit.max(LEAST_FOR_CLIENTS_BYTES), served);
    }
}

#[cold]
fn evict_above(server: &mut Server, limit: u64, mut served: Option<Served<'_>>) {
    let (now, total) = (server.clock.now_ms, total_bytes(server));
    let (vain_ms, vain_bytes) = server.clients.looked_in_vain;
    if (0..VAIN_MS).contains(&(now - vain_ms)) && total <= vain_bytes + limit / VAIN_SHARE {
        return;
    }
    // What those take that are cut off already will be free at once. The one that is served has no
    // place now.
    let others = server.clients.iter().map(|(place, it)| (Some(place), it, 0));
    let me = served.iter().map(|it| (None, &*it.client, it.lent_bytes));
    let living: Vec<(u64, bool, Option<usize>)> = others
        .chain(me)
        .filter(|(_, it, _)| !it.dead)
        .map(|(place, it, lent)| ((it.memory_bytes() + lent) as u64, it.no_evict, place))
        .collect();
    let mut sum: u64 = living.iter().map(|it| it.0).sum();
    let mut sizes: Vec<(u64, Option<usize>)> =
        living.iter().filter(|it| !it.1).map(|it| (it.0, it.2)).collect();
    if sum <= limit || sizes.is_empty() {
        server.clients.looked_in_vain = (now, total);
    }
    sizes.sort_unstable();
    while sum > limit
        && let Some((bytes, place)) = sizes.pop()
    {
        sum -= bytes;
        server.counters.evicted_clients += 1;
        let client = match place {
            Some(place) => server.clients.at(place),
            None => served.as_mut().map(|it| &mut *it.client),
        };
        if let Some(client) = client {
            tracing::warn!("client {} is cut off: it takes {bytes} bytes", client.address);
            client.dead = true;
            client.reply.free();
            client.query.free();
        }
        if let Some(place) = place {
            server.clients.queue(place);
        }
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
    use crate::server::accounts::Query;
    use crate::server::buffer::Buffer;
    use crate::server::config::kind::Share;
    use crate::server::memory::meter::tests::is_alone;
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
        if !is_alone(module_path!(), "clients_that_may_not_go_are_not_looked_at_all_the_time") {
            return;
        }
        let mut server = with_clients(1 << 20, &[(9 << 20, true), (1000, false)]);
        server.clock.now_ms = 1_000_000;
        evict(&mut server, None);
        assert_eq!(server.counters.evicted_clients, 1, "all that may go do");
        evict(&mut server, None);
        // Found at the next look only, not at each turn.
        let late = add(&mut server, 1000, false);
        server.clock.now_ms += VAIN_MS - 1;
        evict(&mut server, None);
        assert!(server.clients.at(late).is_some_and(|it| !it.dead));
        server.clock.now_ms += 1;
        evict(&mut server, None);
        assert!(server.clients.at(late).is_some_and(|it| it.dead));
    }

    #[test]
    fn the_one_that_is_served_is_looked_at_with_the_others() {
        if !is_alone(module_path!(), "the_one_that_is_served_is_looked_at_with_the_others") {
            return;
        }
        let mut server = with_clients(1 << 20, &[(300 << 10, false), (400 << 10, true)]);
        server.clock.now_ms = 1_000_000;
        let place = add(&mut server, 0, false);
        let mut client = server.clients.take(place).expect("it was added");
        evict(&mut server, Some(Served { client: &mut client, lent_bytes: 0 }));
        assert!(!client.dead);
        client.reply.bulk(&vec![b'x'; 100 << 10]);
        let lent = Buffer::<Query>::copy_of(&vec![b'x'; 600 << 10]);
        evict(&mut server, Some(Served { client: &mut client, lent_bytes: lent.capacity() }));
        drop(lent);
        assert!(client.dead && client.reply.buffer_bytes() == 0, "the largest");
        assert_eq!(server.counters.evicted_clients, 1);
        // With what is left all is well; and growth is looked at in the same millisecond.
        let mut next =
            Client::new(9, Stream::Unix(UnixStream::pair().expect("a socket").0), 0, true);
        evict(&mut server, Some(Served { client: &mut next, lent_bytes: 0 }));
        assert!(!next.dead);
        next.reply.bulk(&vec![b'x'; 1 << 20]);
        evict(&mut server, Some(Served { client: &mut next, lent_bytes: 0 }));
        assert!(next.dead);
        assert_eq!(server.counters.evicted_clients, 2);
    }
}
