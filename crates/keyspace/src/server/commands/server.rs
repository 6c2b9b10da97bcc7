//! The server itself: INFO, TIME, SHUTDOWN.

use super::flag::{ADMIN, FAST, LOADING, STALE};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::info;
use std::time::{SystemTime, UNIX_EPOCH};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("info", -1, LOADING | STALE, info_text).doc(
        "server",
        "1.0.0",
        "Returns information and statistics about the server.",
    ),
    CommandSpec::new("time", 1, LOADING | STALE | FAST, time).doc(
        "server",
        "2.6.0",
        "Returns the server time.",
    ),
    CommandSpec::new("shutdown", -1, ADMIN | LOADING | STALE, shutdown).doc(
        "server",
        "1.0.0",
        "Synchronously saves the database(s) to disk and shuts down the server.",
    ),
];

fn info_text(ctx: &mut Ctx<'_>) -> Handled {
    let names: Vec<String> =
        ctx.args.from(1).map(|name| String::from_utf8_lossy(name).to_lowercase()).collect();
    let text = info::text(ctx.server, &names);
    ctx.reply().verbatim(&text);
    Ok(())
}

fn time(ctx: &mut Ctx<'_>) -> Handled {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reply = ctx.reply();
    reply.array(2);
    reply.text(&since.as_secs().to_string());
    reply.text(&since.subsec_micros().to_string());
    Ok(())
}

/// Nothing is kept on disk, so SAVE and NOSAVE are the same.
fn shutdown(ctx: &mut Ctx<'_>) -> Handled {
    for at in 1..ctx.args.len() {
        if ctx.arg_is(at, "abort") {
            return Err(Fail::Fixed("ERR No shutdown in progress."));
        }
        if !["save", "nosave", "now", "force"].iter().any(|word| ctx.arg_is(at, word)) {
            return Err(Fail::SYNTAX);
        }
    }
    tracing::info!("told to stop by client {}", ctx.client.address);
    ctx.server.shutdown = true;
    // There is no answer: the connection is closed.
    ctx.client.dead = true;
    Ok(())
}
