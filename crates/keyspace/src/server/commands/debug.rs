//! DEBUG: for tests.
//!
//! To Redis these are no commands of their own but arguments of one, so an unknown one is told in
//! other words than elsewhere. As in Redis 7, `enable-debug-command` says who may: nobody (`no`, the
//! default), clients on this machine (`local`), or all (`yes`).

use super::flag::{ADMIN, LOADING, STALE};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::ValueRef;
use std::time::Duration;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] =
    &[CommandSpec::new("debug", -2, ADMIN | LOADING | STALE, debug).doc(
        "server",
        "1.0.0",
        "A container for debugging commands.",
    )];

/// What HELP says.
const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> ...]. Subcommands are:",
    "OBJECT <key>",
    "    How the value of a key is kept, and when it was last used.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Switches the removal of expired keys that nobody asks for.",
    "SLEEP <seconds>",
    "    Serves nobody for so long; decimals are allowed.",
    "HELP",
    "    This text.",
];

fn debug(ctx: &mut Ctx<'_>) -> Handled {
    if !ctx.server.config.allows_debug(ctx.client.stream.is_local()) {
        return Err(Fail::Fixed(
            "ERR DEBUG command not allowed: enable-debug-command is to be yes, or local for clients \
             of this machine, when the server is started.",
        ));
    }
    let count = ctx.args.len();
    if ctx.arg_is(1, "help") && count == 2 {
        ctx.reply().array(HELP.len());
        HELP.iter().for_each(|line| ctx.reply().simple(line));
        return Ok(());
    }
    match count {
        3 if ctx.arg_is(1, "set-active-expire") => {
            ctx.server.active_expire = leading_number(ctx.args.at(2)) != 0.0;
        }
        3 if ctx.arg_is(1, "sleep") => {
            let seconds = leading_number(ctx.args.at(2));
            std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            ctx.server.read_clock();
        }
        3 if ctx.arg_is(1, "object") => return object(ctx),
        _ => {
            let name = String::from_utf8_lossy(ctx.args.at(1)).into_owned();
            return Err(Fail::Text(format!(
                "ERR unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP."
            )));
        }
    }
    ctx.reply().ok();
    Ok(())
}

/// The number that a text begins with, 0 if it does not, as C's `strtod` has it.
fn leading_number(text: &[u8]) -> f64 {
    let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let length = text.iter().take_while(is_part).count();
    std::str::from_utf8(&text[..length]).ok().and_then(|it| it.parse().ok()).unwrap_or(0.0)
}

/// DEBUG OBJECT: where the entry is, how its value is kept, how long its content is, and how long
/// ago it was used.
fn object(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(2);
    let (db, reply, clock) = ctx.parts();
    let entry = db.peek(key, clock).ok_or(Fail::NO_KEY)?;
    let (access, value) = (entry.access(), entry.value());
    let content_bytes: usize = match value {
        ValueRef::Int(_) => size_of::<i64>(),
        ValueRef::String(bytes) => bytes.len(),
        ValueRef::Hash(hash) => hash.iter().map(|(field, value)| field.len() + value.len()).sum(),
        ValueRef::List(list) => list.iter_from(0).map(<[u8]>::len).sum(),
    };
    let idle_seconds = clock.access.wrapping_sub(access) & 0x00ff_ffff;
    let encoding = value.encoding();
    reply.simple(&format!(
        "Value at:{entry:p} refcount:1 encoding:{encoding} serializedlength:{content_bytes} \
         lru:{access} lru_seconds_idle:{idle_seconds}"
    ));
    Ok(())
}
