//! Publish and subscribe: messages to whoever listens.
//!
//! A message is copied into the output buffer of each subscriber, which is where the memory goes
//! when one of them is slow; those buffers are a class of their own for limits and books. A client
//! whose limit a message would pass is cut off before the message is written.

use super::flag::{FAST, LOADING, PUBSUB, STALE};
use super::help::help;
use super::scan::matches;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::Server;
use crate::server::net::client::Client;
use crate::server::net::limits;
use crate::server::pubsub::Kind;
use crate::server::resp::Resp;

const FLAGS: u32 = PUBSUB | LOADING | STALE;
/// What may be said in RESP2 while subscribed, where any reply could be taken for a message.
const IN_SUBSCRIBER_MODE: &[&str] =
    &["ping", "subscribe", "psubscribe", "unsubscribe", "punsubscribe", "quit", "reset"];

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("subscribe", -2, FLAGS, |ctx| subscribe(ctx, Kind::Channel)).doc(
        "pubsub",
        "2.0.0",
        "Listens for messages published to channels.",
    ),
    CommandSpec::new("psubscribe", -2, FLAGS, |ctx| subscribe(ctx, Kind::Pattern)).doc(
        "pubsub",
        "2.0.0",
        "Listens for messages published to channels that match one or more patterns.",
    ),
    CommandSpec::new("unsubscribe", -1, FLAGS, |ctx| unsubscribe(ctx, Kind::Channel)).doc(
        "pubsub",
        "2.0.0",
        "Stops listening to messages posted to channels.",
    ),
    CommandSpec::new("punsubscribe", -1, FLAGS, |ctx| unsubscribe(ctx, Kind::Pattern)).doc(
        "pubsub",
        "2.0.0",
        "Stops listening to messages published to channels that match one or more patterns.",
    ),
    CommandSpec::new("publish", 3, FLAGS | FAST, publish).doc(
        "pubsub",
        "2.0.0",
        "Posts a message to a channel.",
    ),
    CommandSpec::new("pubsub", -2, 0, |_| Err(Fail::SYNTAX))
        .doc("pubsub", "2.8.0", "A container for Pub/Sub commands.")
        .with(&[
            CommandSpec::new("channels", -2, FLAGS, channels).doc(
                "pubsub",
                "2.8.0",
                "Returns the active channels.",
            ),
            CommandSpec::new("numsub", -2, FLAGS, numsub).doc(
                "pubsub",
                "2.8.0",
                "Returns a count of subscribers to channels.",
            ),
            CommandSpec::new("numpat", 2, FLAGS, numpat).doc(
                "pubsub",
                "2.8.0",
                "Returns a count of unique pattern subscriptions.",
            ),
            CommandSpec::new("help", 2, LOADING | STALE, pubsub_help).doc(
                "pubsub",
                "6.2.0",
                "Returns helpful text about the different subcommands.",
            ),
        ]),
];

/// Whether a client is in the mode where only some commands may be called.
pub(crate) fn is_in_subscriber_mode(client: &Client) -> bool {
    client.topics.count() > 0 && client.reply.resp == Resp::V2
}

/// Refuses what may not be called there.
pub(crate) fn check_mode(client: &Client, name: &str) -> Handled {
    if is_in_subscriber_mode(client) && !IN_SUBSCRIBER_MODE.contains(&name) {
        return Err(Fail::Text(format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        )));
    }
    Ok(())
}

/// Ends all subscriptions of a client: it has said RESET, or is gone.
pub(crate) fn leave_all(server: &mut Server, client: &mut Client) {
    for kind in [Kind::Channel, Kind::Pattern] {
        for name in client.topics.names(kind) {
            server.pubsub.remove(&mut client.topics, client.place, kind, &name);
        }
    }
    client.reply.set_pubsub(false);
}

fn subscribe(ctx: &mut Ctx<'_>, kind: Kind) -> Handled {
    let word = if kind == Kind::Channel { "subscribe" } else { "psubscribe" };
    for name in ctx.args.from(1) {
        ctx.server.pubsub.add(&mut ctx.client.topics, ctx.client.place, kind, name);
        changed(ctx, word, Some(name));
    }
    Ok(())
}

fn unsubscribe(ctx: &mut Ctx<'_>, kind: Kind) -> Handled {
    let word = if kind == Kind::Channel { "unsubscribe" } else { "punsubscribe" };
    if ctx.args.len() > 1 {
        for name in ctx.args.from(1) {
            ctx.server.pubsub.remove(&mut ctx.client.topics, ctx.client.place, kind, name);
            changed(ctx, word, Some(name));
        }
    } else if ctx.client.topics.len(kind) == 0 {
        changed(ctx, word, None);
    } else {
        for name in ctx.client.topics.names(kind) {
            ctx.server.pubsub.remove(&mut ctx.client.topics, ctx.client.place, kind, &name);
            changed(ctx, word, Some(&name));
        }
    }
    Ok(())
}

/// Tells a client of a subscription that was begun or ended.
fn changed(ctx: &mut Ctx<'_>, word: &str, name: Option<&[u8]>) {
    let client = &mut *ctx.client;
    let count = client.topics.count();
    client.reply.set_pubsub(count > 0);
    limits::set(ctx.server, client);
    client.reply.push(3);
    client.reply.text(word);
    client.reply.bulk_or_null(name);
    client.reply.count(count);
}

fn publish(ctx: &mut Ctx<'_>) -> Handled {
    let (channel, message) = (ctx.args.at(1), ctx.args.at(2));
    let mut receivers = 0;
    for place in ctx.server.pubsub.channels.of(channel) {
        receivers += usize::from(deliver(ctx, place, &[b"message", channel, message]));
    }
    let mut by_pattern = Vec::new();
    for (pattern, places) in ctx.server.pubsub.patterns.iter() {
        if matches(pattern, channel) {
            let pattern: std::rc::Rc<[u8]> = pattern.into();
            by_pattern.extend(places.map(|place| (pattern.clone(), place)));
        }
    }
    for (pattern, place) in by_pattern {
        let parts = [&b"pmessage"[..], &pattern, channel, message];
        receivers += usize::from(deliver(ctx, place, &parts));
    }
    ctx.reply().count(receivers);
    Ok(())
}

/// Sends a message to the client at a place, which may be the one that publishes.
fn deliver(ctx: &mut Ctx<'_>, place: usize, parts: &[&[u8]]) -> bool {
    let write = |client: &mut Client| {
        client.reply.push(parts.len());
        parts.iter().for_each(|part| client.reply.bulk(part));
    };
    if place == ctx.client.place {
        write(ctx.client);
        return true;
    }
    let Some(mut client) = ctx.server.clients.take(place) else { return false };
    if !client.dead && !client.closing {
        limits::set(ctx.server, &mut client);
        write(&mut client);
        limits::check_output(ctx.server, &mut client);
    }
    ctx.server.clients.put(place, client);
    ctx.server.clients.queue(place);
    true
}

fn channels(ctx: &mut Ctx<'_>) -> Handled {
    if ctx.args.len() > 3 {
        return Err(Fail::arity("pubsub|channels"));
    }
    let pattern = ctx.args.get(2);
    let all = ctx.server.pubsub.channels.iter().map(|(name, _)| name);
    let found: Vec<&[u8]> = all.filter(|name| pattern.is_none_or(|it| matches(it, name))).collect();
    let reply = &mut ctx.client.reply;
    reply.array(found.len());
    found.into_iter().for_each(|name| reply.bulk(name));
    Ok(())
}

fn numsub(ctx: &mut Ctx<'_>) -> Handled {
    let names = ctx.args.from(2);
    ctx.client.reply.array(names.len() * 2);
    for name in names {
        ctx.client.reply.bulk(name);
        ctx.client.reply.count(ctx.server.pubsub.channels.of(name).len());
    }
    Ok(())
}

fn numpat(ctx: &mut Ctx<'_>) -> Handled {
    let count = ctx.server.pubsub.patterns.len();
    ctx.reply().count(count);
    Ok(())
}

fn pubsub_help(ctx: &mut Ctx<'_>) -> Handled {
    help(
        ctx.reply(),
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
        ],
    );
    Ok(())
}
