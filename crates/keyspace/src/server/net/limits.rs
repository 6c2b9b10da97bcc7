//! Who is cut off, and when: limits on buffers and on silence.
//!
//! A client that sends without end, or takes nothing of what it is sent, would use up the memory of
//! all the others. `client-query-buffer-limit` bounds the one, `client-output-buffer-limit` the
//! other, for each class of clients: at once above the hard limit, after some seconds above the soft
//! one.

use super::client::Client;
use crate::server::Server;
use crate::server::accounts::{Commands, Output, OutputPubsub, Query, Subscriptions};
use crate::server::config::Config;
use tallow::Purpose;

/// Bounds on the query buffer of a client that has not said its password.
const UNAUTHENTICATED_QUERY_BYTES: u64 = 1 << 20;
/// Output buffers larger than this are given back once they are empty.
pub(crate) const KEPT_OUTPUT_BYTES: usize = 16 * 1024;
/// The least that `maxmemory-clients` means.
const LEAST_FOR_CLIENTS_BYTES: u64 = 128 << 10;
/// After so long without a word a client's empty buffers are given back.
const IDLE_MS: i64 = 2000;

/// Descriptors for everything but clients.
const OTHER_DESCRIPTORS: i64 = 32;

/// Asks the system for as many descriptors as `maxclients` wants; lowers that if there are fewer.
pub(crate) fn raise_descriptors(config: &mut Config) {
    let wanted = config.maxclients + OTHER_DESCRIPTORS;
    let Ok(got) = rlimit::increase_nofile_limit(wanted as u64) else { return };
    let most = i64::try_from(got).unwrap_or(i64::MAX) - OTHER_DESCRIPTORS;
    if most < config.maxclients {
        tracing::warn!("maxclients is {most}: the system gives no more than {got} descriptors");
        config.maxclients = most.max(1);
    }
}

/// Looks at a client's buffers, after they have grown; marks it dead if it is over a limit.
pub(crate) fn check(server: &mut Server, client: &mut Client) {
    let query_bytes = (client.query.len() + client.scanner.buffer_bytes()) as u64;
    let limit = match client.authenticated {
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
    let limit = server.config.client_output_buffer_limit[client.class()];
    client.reply.set_limit(limit.hard_bytes);
}

/// Looks at what it has not taken yet, after each reply.
#[inline]
pub(crate) fn check_output(server: &mut Server, client: &mut Client) {
    let limit = server.config.client_output_buffer_limit[client.class()];
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
/// all of them take at any moment, so as long as that is allowed nobody has to be looked at.
pub(crate) fn evict(server: &mut Server) {
    let limit = server.config.maxmemory_clients.bytes(server.config.maxmemory);
    if limit == 0 || total_bytes(server) <= limit.max(LEAST_FOR_CLIENTS_BYTES) {
        return;
    }
    // What those take that are cut off already will be free at once.
    let living = || server.clients.iter().filter(|(_, it)| !it.dead);
    let mut sum: u64 = living().map(|(_, it)| it.memory_bytes() as u64).sum();
    let evictable = living().filter(|(_, it)| !it.no_evict);
    let mut sizes: Vec<(u64, usize)> =
        evictable.map(|(place, it)| (it.memory_bytes() as u64, place)).collect();
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
    let accounts = [
        Query::account(),
        Output::account(),
        OutputPubsub::account(),
        Commands::account(),
        Subscriptions::account(),
    ];
    let buffers: u64 = accounts.iter().map(|account| account.live_bytes()).sum();
    buffers + (server.clients.len() * size_of::<Client>()) as u64
}

/// Gives back what idle clients have in reserve: a long line of idle connections should cost their
/// sockets and little more.
pub(crate) fn shrink_idle(server: &mut Server) {
    let now = server.clock.now_ms;
    for (_, client) in server.clients.iter_mut() {
        if now - client.active_ms > IDLE_MS && client.reply.unsent().is_empty() {
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
