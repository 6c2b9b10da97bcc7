//! CLIENT LIST, INFO and KILL: lines about clients, and parting with them.
//!
//! The fields are those of Redis 7. What they say of memory is the room that buffers have in their
//! accounts and not an estimate: the sum of `tot-mem` is what the accounts say, and the clients
//! themselves.

use super::super::fail::int;
use super::super::{Ctx, Fail, Handled};
use crate::server::Server;
use crate::server::net::client::{Client, PUBSUB_CLASS};
use crate::server::net::limits::KEPT_OUTPUT_BYTES;
use crate::server::pubsub::Kind;
use crate::server::resp::Resp;
use std::fmt::Write;

/// The words of TYPE.
const TYPES: &[&str] = &["normal", "master", "replica", "slave", "pubsub"];

/// The type of a client.
fn type_of(client: &Client) -> &'static str {
    if client.class() == PUBSUB_CLASS { "pubsub" } else { "normal" }
}

/// An argument as one of the types.
fn parse_type(arg: &[u8]) -> Result<&'static str, Fail> {
    let found = TYPES.iter().find(|name| arg.eq_ignore_ascii_case(name.as_bytes()));
    found.copied().ok_or_else(|| {
        Fail::Text(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(arg)))
    })
}

/// One line about a client.
fn describe(server: &Server, client: &Client, text: &mut String) {
    let now = server.clock.now_ms;
    let seconds = |since: i64| (now - since).max(0) / 1000;
    // There, replies beyond 16 KiB wait in a list of blocks; here it is the one buffer, grown.
    let (waiting, room) = (client.reply.unsent().len(), client.reply.buffer_bytes());
    let is_long = room > KEPT_OUTPUT_BYTES && waiting > 0;
    let (in_buffer, in_list) = if is_long { (0, room) } else { (waiting, 0) };
    let mut flags = String::new();
    for (is_set, flag) in [
        (client.class() == PUBSUB_CLASS, 'P'),
        (client.closing, 'c'),
        (client.dead, 'A'),
        (client.stream.is_unix(), 'U'),
        (client.no_evict, 'e'),
        (client.no_touch, 'T'),
    ] {
        flags.extend(is_set.then_some(flag));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let events = if client.blocked_write { "rw" } else { "r" };
    let command = client.last_command.map_or("NULL", |it| server.commands.full_name(it));
    let resp = if client.reply.resp == Resp::V3 { 3 } else { 2 };
    // A string takes all that is written.
    let _ = writeln!(
        text,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} \
         ssub=0 multi=-1 qbuf={} qbuf-free={} argv-mem={} multi-mem=0 rbs={} rbp={} obl={in_buffer} \
         oll={} omem={in_list} tot-mem={} events={events} cmd={command} user=default redir=-1 resp={resp} \
         lib-name={} lib-ver={}",
        client.id,
        client.address,
        client.stream.local(),
        client.stream.descriptor(),
        client.name,
        seconds(client.created_ms),
        seconds(client.active_ms),
        client.db,
        client.topics.len(Kind::Channel),
        client.topics.len(Kind::Pattern),
        client.query.len(),
        client.query.capacity() - client.query.len(),
        client.scanner.buffer_bytes(),
        room,
        room,
        u32::from(is_long),
        client.memory_bytes(),
        client.lib_name,
        client.lib_version,
    );
}

/// CLIENT INFO.
pub(super) fn info(ctx: &mut Ctx<'_>) -> Handled {
    let mut text = String::new();
    describe(ctx.server, ctx.client, &mut text);
    ctx.reply().verbatim(&text);
    Ok(())
}

/// CLIENT LIST [TYPE type] [ID id ...].
pub(super) fn list(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (mut wanted_type, mut ids) = (None, None);
    if args.len() == 4 && ctx.arg_is(2, "type") {
        wanted_type = Some(parse_type(args.at(3))?);
    } else if args.len() > 3 && ctx.arg_is(2, "id") {
        let parsed: Result<Vec<u64>, Fail> = args.from(3).map(parse_id).collect();
        let mut sorted = parsed.map_err(|_| Fail::Fixed("ERR Invalid client ID"))?;
        sorted.sort_unstable();
        ids = Some(sorted);
    } else if args.len() > 2 {
        return Err(Fail::SYNTAX);
    }
    // The one that asks is not among the others while it is served.
    let others = ctx.server.clients.iter().map(|(_, client)| client);
    let mut all: Vec<&Client> = others.chain([&*ctx.client]).collect();
    all.retain(|it| {
        !it.dead
            && wanted_type.is_none_or(|wanted| wanted == type_of(it))
            && ids.as_ref().is_none_or(|ids| ids.binary_search(&it.id).is_ok())
    });
    all.sort_unstable_by_key(|it| it.id);
    let mut text = String::new();
    all.into_iter().for_each(|it| describe(ctx.server, it, &mut text));
    ctx.reply().verbatim(&text);
    Ok(())
}

fn parse_id(arg: &[u8]) -> Result<u64, Fail> {
    let id = int(arg).ok().filter(|id| *id > 0);
    id.map(|id| id as u64).ok_or(Fail::Fixed("ERR client-id should be greater than 0"))
}

/// Which clients to part with: those for which all that is given holds.
#[derive(Debug, Default)]
struct Filter<'a> {
    id: Option<u64>,
    kind: Option<&'static str>,
    address: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    spares_me: bool,
}

impl<'a> Filter<'a> {
    fn parse(ctx: &Ctx<'a>) -> Result<Self, Fail> {
        let mut filter = Self { spares_me: true, ..Self::default() };
        if !(ctx.args.len() - 2).is_multiple_of(2) {
            return Err(Fail::SYNTAX);
        }
        for at in (2..ctx.args.len()).step_by(2) {
            let value = ctx.args.at(at + 1);
            match ctx.args.at(at).to_ascii_lowercase().as_slice() {
                b"id" => filter.id = Some(parse_id(value)?),
                b"type" => filter.kind = Some(parse_type(value)?),
                b"addr" => filter.address = Some(value),
                b"laddr" => filter.local = Some(value),
                b"user" if value == b"default" => {}
                b"user" => {
                    let name = String::from_utf8_lossy(value);
                    return Err(Fail::Text(format!("ERR No such user '{name}'")));
                }
                b"skipme" => {
                    filter.spares_me = match value.to_ascii_lowercase().as_slice() {
                        b"yes" => true,
                        b"no" => false,
                        _ => return Err(Fail::SYNTAX),
                    }
                }
                _ => return Err(Fail::SYNTAX),
            }
        }
        Ok(filter)
    }

    fn is(&self, client: &Client) -> bool {
        !client.dead
            && self.id.is_none_or(|id| id == client.id)
            && self.kind.is_none_or(|kind| kind == type_of(client))
            && self.address.is_none_or(|it| it == client.address.as_bytes())
            && self.local.is_none_or(|it| it == client.stream.local().as_bytes())
    }
}

/// CLIENT KILL address, or with filters.
pub(super) fn kill(ctx: &mut Ctx<'_>) -> Handled {
    let is_old = ctx.args.len() == 3;
    let filter = match is_old {
        true => Filter { address: Some(ctx.args.at(2)), ..Filter::default() },
        false => Filter::parse(ctx)?,
    };
    let found = ctx.server.clients.iter().filter(|(_, client)| filter.is(client));
    let places: Vec<usize> = found.map(|(place, _)| place).collect();
    for &place in &places {
        if let Some(client) = ctx.server.clients.at(place) {
            client.dead = true;
            client.reply.free();
        }
        ctx.server.clients.queue(place);
    }
    let mut count = places.len();
    if !filter.spares_me && filter.is(ctx.client) {
        // Once it has been told.
        ctx.client.closing = true;
        count += 1;
    }
    match (is_old, count) {
        (true, 0) => return Err(Fail::Fixed("ERR No such client")),
        (true, _) => ctx.reply().ok(),
        (false, count) => ctx.reply().count(count),
    }
    Ok(())
}
