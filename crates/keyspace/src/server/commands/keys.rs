//! Keys of any kind: whether they are there, and until when.

use super::fail::int;
use super::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::keyspace::db_index;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::{Clock, Entry, UnixMs};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("del", -2, WRITE, del).keys(1, -1, 1).doc(
        "generic",
        "1.0.0",
        "Deletes one or more keys.",
    ),
    CommandSpec::new("unlink", -2, WRITE | FAST, unlink).keys(1, -1, 1).doc(
        "generic",
        "4.0.0",
        "Asynchronously deletes one or more keys.",
    ),
    CommandSpec::new("exists", -2, READONLY | FAST, exists).keys(1, -1, 1).doc(
        "generic",
        "1.0.0",
        "Determines whether one or more keys exist.",
    ),
    CommandSpec::new("touch", -2, READONLY | FAST, exists).keys(1, -1, 1).doc(
        "generic",
        "3.2.1",
        "Returns the number of existing keys out of those specified after updating the time they \
         were last accessed.",
    ),
    CommandSpec::new("type", 2, READONLY | FAST, type_of).keys(1, 1, 1).doc(
        "generic",
        "1.0.0",
        "Determines the type of value stored at a key.",
    ),
    CommandSpec::new("rename", 3, WRITE, rename).keys(1, 2, 1).doc(
        "generic",
        "1.0.0",
        "Renames a key and overwrites the destination.",
    ),
    CommandSpec::new("renamenx", 3, WRITE | FAST, renamenx).keys(1, 2, 1).doc(
        "generic",
        "1.0.0",
        "Renames a key only when the target key name doesn't exist.",
    ),
    CommandSpec::new("copy", -3, WRITE | DENYOOM, copy).keys(1, 2, 1).doc(
        "generic",
        "6.2.0",
        "Copies the value of a key to a new key.",
    ),
    CommandSpec::new("expire", -3, WRITE | FAST, expire).keys(1, 1, 1).doc(
        "generic",
        "1.0.0",
        "Sets the expiration time of a key in seconds.",
    ),
    CommandSpec::new("pexpire", -3, WRITE | FAST, expire).keys(1, 1, 1).doc(
        "generic",
        "2.6.0",
        "Sets the expiration time of a key in milliseconds.",
    ),
    CommandSpec::new("expireat", -3, WRITE | FAST, expire).keys(1, 1, 1).doc(
        "generic",
        "1.2.0",
        "Sets the expiration time of a key to a Unix timestamp.",
    ),
    CommandSpec::new("pexpireat", -3, WRITE | FAST, expire).keys(1, 1, 1).doc(
        "generic",
        "2.6.0",
        "Sets the expiration time of a key to a Unix milliseconds timestamp.",
    ),
    CommandSpec::new("ttl", 2, READONLY | FAST, ttl).keys(1, 1, 1).doc(
        "generic",
        "1.0.0",
        "Returns the expiration time in seconds of a key.",
    ),
    CommandSpec::new("pttl", 2, READONLY | FAST, ttl).keys(1, 1, 1).doc(
        "generic",
        "2.6.0",
        "Returns the expiration time in milliseconds of a key.",
    ),
    CommandSpec::new("expiretime", 2, READONLY | FAST, ttl).keys(1, 1, 1).doc(
        "generic",
        "7.0.0",
        "Returns the expiration time of a key as a Unix timestamp.",
    ),
    CommandSpec::new("pexpiretime", 2, READONLY | FAST, ttl).keys(1, 1, 1).doc(
        "generic",
        "7.0.0",
        "Returns the expiration time of a key as a Unix milliseconds timestamp.",
    ),
    CommandSpec::new("persist", 2, WRITE | FAST, persist).keys(1, 1, 1).doc(
        "generic",
        "2.2.0",
        "Removes the expiration time of a key.",
    ),
];

/// Removes the keys named; big values are freed elsewhere if `lazily`.
fn remove(ctx: &mut Ctx<'_>, lazily: bool) -> Handled {
    let mut count = 0;
    for key in ctx.args.from(1) {
        let (db, clock) = ctx.db();
        // Expired ones are not there any more, though they may still be met.
        if db.peek(key, clock).is_none() {
            continue;
        }
        if let Some(entry) = db.remove(key) {
            count += 1;
            ctx.server.lazyfree.free_if(lazily, entry);
        }
    }
    ctx.reply().count(count);
    Ok(())
}

fn del(ctx: &mut Ctx<'_>) -> Handled {
    let lazily = ctx.server.config.lazyfree_lazy_user_del;
    remove(ctx, lazily)
}

fn unlink(ctx: &mut Ctx<'_>) -> Handled {
    remove(ctx, true)
}

/// EXISTS and TOUCH: only the latter counts as use, which is what it is for: CLIENT NO-TOUCH does not
/// hold. A key named twice counts twice.
fn exists(ctx: &mut Ctx<'_>) -> Handled {
    let (mut count, touches) = (0, ctx.arg_is(0, "touch"));
    for key in ctx.args.from(1) {
        let (db, clock) = ctx.db();
        let found = match touches {
            true => db.read(key, Clock { no_touch: false, ..clock }),
            false => db.inspect(key, clock),
        };
        count += usize::from(found.is_some());
    }
    ctx.reply().count(count);
    Ok(())
}

fn type_of(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let name = db.inspect(key, clock).map_or("none", |entry| entry.value().type_name());
    reply.simple(name);
    Ok(())
}

fn rename(ctx: &mut Ctx<'_>) -> Handled {
    rename_unless(ctx, |_| false)?;
    ctx.reply().ok();
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_>) -> Handled {
    let renamed = rename_unless(ctx, |target| target.is_some())?;
    ctx.reply().int(i64::from(renamed));
    Ok(())
}

/// Renames a key, unless what is under the new name is a reason not to. Returns whether it did.
fn rename_unless(
    ctx: &mut Ctx<'_>,
    is_reason: impl FnOnce(Option<&mut Entry>) -> bool,
) -> Result<bool, Fail> {
    let (from, to) = (ctx.args.at(1), ctx.args.at(2));
    let (db, clock) = ctx.db();
    db.lookup(from, clock).ok_or(Fail::NO_KEY)?;
    if is_reason(db.lookup(to, clock)) {
        return Ok(false);
    }
    if from != to
        && let Some(entry) = db.remove(from)
        && let Some(old) = db.insert_renamed(entry.renamed(to), clock)
    {
        let lazily = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.lazyfree.free_if(lazily, old);
    }
    Ok(true)
}

/// COPY: to another key, of another database too.
fn copy(ctx: &mut Ctx<'_>) -> Handled {
    let (from, to) = (ctx.args.at(1), ctx.args.at(2));
    let (mut target, mut replace, mut at) = (ctx.client.db, false, 3);
    while at < ctx.args.len() {
        if ctx.arg_is(at, "replace") {
            replace = true;
        } else if ctx.arg_is(at, "db") && at + 1 < ctx.args.len() {
            target = db_index(ctx, at + 1)?;
            at += 1;
        } else {
            return Err(Fail::SYNTAX);
        }
        at += 1;
    }
    if target == ctx.client.db && from == to {
        return Err(Fail::Fixed("ERR source and destination objects are the same"));
    }
    let clock = ctx.server.clock;
    let entry = ctx.db().0.read(from, clock).map(|entry| entry.copied(to));
    let db = &mut ctx.server.dbs[target];
    let Some(entry) = entry.filter(|_| replace || db.lookup(to, clock).is_none()) else {
        ctx.reply().int(0);
        return Ok(());
    };
    // A copy is a new key: how often another of its name was used is not asked.
    let old = db.remove(to);
    db.insert(entry, clock);
    if let Some(old) = old {
        let lazily = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.lazyfree.free_if(lazily, old);
    }
    ctx.reply().int(1);
    Ok(())
}

/// When a change of expiry is made.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    only_without: bool,
    only_with: bool,
    only_later: bool,
    only_earlier: bool,
}

impl Conditions {
    fn read(ctx: &Ctx<'_>) -> Result<Self, Fail> {
        let mut it = Self::default();
        for index in 3..ctx.args.len() {
            let option = ctx.args.at(index);
            match option.to_ascii_lowercase().as_slice() {
                b"nx" => it.only_without = true,
                b"xx" => it.only_with = true,
                b"gt" => it.only_later = true,
                b"lt" => it.only_earlier = true,
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(Fail::Text(format!("ERR Unsupported option {option}")));
                }
            }
        }
        if it.only_without && (it.only_with || it.only_later || it.only_earlier) {
            return Err(Fail::Fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if it.only_later && it.only_earlier {
            return Err(Fail::Fixed("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(it)
    }

    /// No expiry counts as one in infinity.
    fn allow(self, before: Option<UnixMs>, at: UnixMs) -> bool {
        !(self.only_without && before.is_some()
            || self.only_with && before.is_none()
            || self.only_later && before.is_none_or(|before| at <= before)
            || self.only_earlier && before.is_some_and(|before| at >= before))
    }
}

fn is_in_ms(name: &[u8]) -> bool {
    name[0].eq_ignore_ascii_case(&b'p')
}

fn expire(ctx: &mut Ctx<'_>) -> Handled {
    let (name, key) = (ctx.args.at(0), ctx.args.at(1));
    let conditions = Conditions::read(ctx)?;
    let number = int(ctx.args.at(2))?;
    let is_absolute = name.to_ascii_lowercase().ends_with(b"at");
    let base = if is_absolute { 0 } else { ctx.server.clock.now_ms };
    let in_ms = if is_in_ms(name) { Some(number) } else { number.checked_mul(1000) };
    let at = in_ms.and_then(|ms| ms.checked_add(base)).ok_or_else(|| Fail::expire_time(name))?;
    let (db, reply, clock) = ctx.parts();
    let Some(before) = db.lookup(key, clock).map(|entry| entry.expires_at()) else {
        reply.int(0);
        return Ok(());
    };
    let allowed = conditions.allow(before, at);
    reply.int(i64::from(allowed));
    if allowed && at <= clock.now_ms {
        // In the past: it has expired.
        if let Some(entry) = db.remove(key) {
            let lazily = ctx.server.config.lazyfree_lazy_expire;
            ctx.server.lazyfree.free_if(lazily, entry);
        }
    } else if allowed {
        db.set_expiry(key, Some(at), clock);
    }
    Ok(())
}

fn ttl(ctx: &mut Ctx<'_>) -> Handled {
    let (name, key) = (ctx.args.at(0), ctx.args.at(1));
    let is_absolute = name.to_ascii_lowercase().ends_with(b"time");
    let (db, reply, clock) = ctx.parts();
    let number = match db.inspect(key, clock).map(|entry| entry.expires_at()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => {
            let ms = if is_absolute { at } else { (at - clock.now_ms).max(0) };
            match (is_in_ms(name), is_absolute) {
                (true, _) => ms,
                (false, true) => ms / 1000,
                // To the nearest second, as there.
                (false, false) => ms.saturating_add(500) / 1000,
            }
        }
    };
    reply.int(number);
    Ok(())
}

fn persist(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let expires = db.lookup(key, clock).is_some_and(|entry| entry.expires_at().is_some());
    if expires {
        db.set_expiry(key, None, clock);
    }
    reply.int(i64::from(expires));
    Ok(())
}
