//! The connection: who is there, and which version of the protocol is spoken.

use super::fail::int;
use super::flag::{FAST, LOADING, NOAUTH, STALE};
use super::{CommandSpec, Ctx, Fail, Handled, client};
use crate::server::net::limits;
use crate::server::net::name::Name;
use crate::server::resp::Resp;

const ANY_TIME: u32 = FAST | LOADING | STALE;

/// The version of Redis whose commands and replies these are: what clients decide by.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("ping", -1, FAST, ping).doc(
        "connection",
        "1.0.0",
        "Returns the server's liveliness response.",
    ),
    CommandSpec::new("echo", 2, ANY_TIME, echo).doc(
        "connection",
        "1.0.0",
        "Returns the given string.",
    ),
    CommandSpec::new("quit", -1, ANY_TIME | NOAUTH, quit).doc(
        "connection",
        "1.0.0",
        "Closes the connection.",
    ),
    CommandSpec::new("hello", -1, ANY_TIME | NOAUTH, hello).doc(
        "connection",
        "6.0.0",
        "Handshakes with the server.",
    ),
    CommandSpec::new("auth", -2, ANY_TIME | NOAUTH, auth).doc(
        "connection",
        "1.0.0",
        "Authenticates the connection.",
    ),
    CommandSpec::new("reset", 1, ANY_TIME | NOAUTH, reset).doc(
        "connection",
        "6.2.0",
        "Resets the connection.",
    ),
];

fn ping(ctx: &mut Ctx<'_>) -> Handled {
    if super::pubsub::is_in_subscriber_mode(ctx.client) && ctx.args.len() <= 2 {
        // In the form of a message: the client waits for nothing else.
        let text = ctx.args.get(1).unwrap_or_default();
        let reply = ctx.reply();
        reply.array(2);
        reply.text("pong");
        reply.bulk(text);
        return Ok(());
    }
    match ctx.args.len() {
        1 => ctx.reply().simple("PONG"),
        2 => {
            let text = ctx.args.at(1);
            ctx.reply().bulk(text);
        }
        _ => return Err(Fail::arity("ping")),
    }
    Ok(())
}

fn echo(ctx: &mut Ctx<'_>) -> Handled {
    let text = ctx.args.at(1);
    ctx.reply().bulk(text);
    Ok(())
}

fn quit(ctx: &mut Ctx<'_>) -> Handled {
    ctx.reply().ok();
    ctx.client.closing = true;
    Ok(())
}

/// Whether these are the name and the password. The time that takes does not depend on how much of
/// the password is right.
fn authenticate(ctx: &mut Ctx<'_>, user: &[u8], password: &[u8]) -> Handled {
    let wanted = ctx.server.config.requirepass.as_bytes();
    let differs = wanted.len() != password.len()
        || wanted.iter().zip(password).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
    // Without a password the default user is let in with any.
    if user != b"default" || (ctx.server.wants_password() && differs) {
        return Err(Fail::Fixed("WRONGPASS invalid username-password pair or user is disabled."));
    }
    (ctx.client.authenticated, ctx.client.was_authenticated) = (true, true);
    // From here on it is told what any client is, in this batch too.
    limits::set(ctx.server, ctx.client);
    Ok(())
}

fn auth(ctx: &mut Ctx<'_>) -> Handled {
    let (user, password) = match ctx.args.len() {
        2 if !ctx.server.wants_password() => {
            return Err(Fail::Fixed(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        2 => (&b"default"[..], ctx.args.at(1)),
        3 => (ctx.args.at(1), ctx.args.at(2)),
        _ => return Err(Fail::SYNTAX),
    };
    authenticate(ctx, user, password)?;
    ctx.reply().ok();
    Ok(())
}

fn hello(ctx: &mut Ctx<'_>) -> Handled {
    let resp = match ctx.args.get(1).map(int) {
        None => ctx.client.reply.resp,
        Some(Ok(2)) => Resp::V2,
        Some(Ok(3)) => Resp::V3,
        Some(Ok(_)) => return Err(Fail::Fixed("NOPROTO unsupported protocol version")),
        Some(Err(_)) => {
            return Err(Fail::Fixed("ERR Protocol version is not an integer or out of range"));
        }
    };
    let (mut at, mut name) = (2, None);
    while at < ctx.args.len() {
        let args = ctx.args;
        if ctx.arg_is(at, "auth") && at + 2 < args.len() {
            authenticate(ctx, args.at(at + 1), args.at(at + 2))?;
            at += 3;
        } else if ctx.arg_is(at, "setname") && at + 1 < args.len() {
            name = Some(client::checked_name(client::NAMES, args.at(at + 1))?);
            at += 2;
        } else {
            let option = String::from_utf8_lossy(args.at(at)).into_owned();
            return Err(Fail::Text(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    if !ctx.server.knows(ctx.client) {
        return Err(Fail::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        ctx.client.name = name;
    }
    ctx.client.reply.resp = resp;
    let id = ctx.client.id;
    let reply = ctx.reply();
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.text(name);
        reply.text(value);
    }
    reply.text("proto");
    reply.int(if resp == Resp::V3 { 3 } else { 2 });
    reply.text("id");
    reply.int(id as i64);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.text(name);
        reply.text(value);
    }
    reply.text("modules");
    reply.array(0);
    Ok(())
}

fn reset(ctx: &mut Ctx<'_>) -> Handled {
    super::pubsub::leave_all(ctx.server, ctx.client);
    let wants_password = ctx.server.wants_password();
    let client = &mut *ctx.client;
    client.db = 0;
    client.name = Name::new();
    (client.no_evict, client.no_touch) = (false, false);
    client.reply.resp = Resp::V2;
    client.authenticated = !wants_password;
    client.reply.simple("RESET");
    Ok(())
}
