//! The keyspace as a whole: KEYS and SCAN, sizes, flushing, and whether there is room for more.

use super::fail::int;
use super::flag::{FAST, LOADING, READONLY, STALE, WRITE};
use super::scan::{ScanOptions, cursor, matches};
use super::{CommandSpec, Ctx, Fail, Handled};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("keys", 2, READONLY, keys).doc(
        "generic",
        "1.0.0",
        "Returns all key names that match a pattern.",
    ),
    CommandSpec::new("scan", -2, READONLY, scan).doc(
        "generic",
        "2.8.0",
        "Iterates over the key names in the database.",
    ),
    CommandSpec::new("randomkey", 1, READONLY, randomkey).doc(
        "generic",
        "1.0.0",
        "Returns a random key name from the database.",
    ),
    CommandSpec::new("dbsize", 1, READONLY | FAST, dbsize).doc(
        "server",
        "1.0.0",
        "Returns the number of keys in the database.",
    ),
    CommandSpec::new("flushdb", -1, WRITE, flushdb).doc(
        "server",
        "1.0.0",
        "Removes all keys from the current database.",
    ),
    CommandSpec::new("flushall", -1, WRITE, flushall).doc(
        "server",
        "1.0.0",
        "Removes all keys from all databases.",
    ),
    CommandSpec::new("swapdb", 3, WRITE | FAST, swapdb).doc(
        "server",
        "4.0.0",
        "Swaps two Redis databases.",
    ),
    CommandSpec::new("select", 2, LOADING | STALE | FAST, select).doc(
        "connection",
        "1.0.0",
        "Changes the selected database.",
    ),
];

fn keys(ctx: &mut Ctx<'_>) -> Handled {
    let pattern = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let is_wanted = |key: &[u8]| pattern == b"*" || matches(pattern, key);
    let live = || {
        let all = db.table().iter().filter(|entry| !entry.is_due(clock.now_ms));
        all.map(|entry| entry.key()).filter(|key| is_wanted(key))
    };
    reply.array(live().count());
    live().for_each(|key| reply.bulk(key));
    Ok(())
}

fn scan(ctx: &mut Ctx<'_>) -> Handled {
    let cursor = cursor(ctx.args.at(1))?;
    let options = ScanOptions::read(ctx, 2, Some("type"))?;
    let (db, reply, clock) = ctx.parts();
    let (mut found, mut asked_for_type) = (Vec::<&[u8]>::new(), 0);
    let next = db.table().scan(cursor, options.count, |entry| {
        if entry.is_due(clock.now_ms) || !options.wants(entry.key()) {
            return;
        }
        if let Some(name) = options.type_name {
            asked_for_type += 1;
            if !name.eq_ignore_ascii_case(entry.value().type_name().as_bytes()) {
                return;
            }
        }
        found.push(entry.key());
    });
    reply.array(2);
    reply.text(&next.to_string());
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    // As there: to know the type of a key is to have looked it up.
    db.lookups.hits += asked_for_type;
    Ok(())
}

fn randomkey(ctx: &mut Ctx<'_>) -> Handled {
    let clock = ctx.server.clock;
    // Keys that have expired are no answer; if there are only those, there is none.
    for _ in 0..100 {
        let mut state = ctx.server.random() | 1;
        let draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 16
        };
        let db = &ctx.server.dbs[ctx.client.db];
        match db.table().random(draw) {
            Some(entry) if entry.is_due(clock.now_ms) => {}
            found => {
                ctx.client.reply.bulk_or_null(found.map(|entry| entry.key()));
                return Ok(());
            }
        }
    }
    ctx.reply().null();
    Ok(())
}

fn dbsize(ctx: &mut Ctx<'_>) -> Handled {
    let count = ctx.db().0.len();
    ctx.reply().count(count);
    Ok(())
}

/// Whether to flush in the background.
fn flush_lazily(ctx: &Ctx<'_>) -> Result<bool, Fail> {
    match ctx.args.len() {
        1 => Ok(ctx.server.config.lazyfree_lazy_user_flush),
        2 if ctx.arg_is(1, "async") => Ok(true),
        2 if ctx.arg_is(1, "sync") => Ok(false),
        _ => Err(Fail::SYNTAX),
    }
}

fn flush(ctx: &mut Ctx<'_>, index: usize, lazily: bool) {
    let all = ctx.server.dbs[index].take_all();
    if lazily {
        ctx.server.lazyfree.free_all(all);
    }
}

fn flushdb(ctx: &mut Ctx<'_>) -> Handled {
    let lazily = flush_lazily(ctx)?;
    flush(ctx, ctx.client.db, lazily);
    ctx.reply().ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_>) -> Handled {
    let lazily = flush_lazily(ctx)?;
    for index in 0..ctx.server.dbs.len() {
        flush(ctx, index, lazily);
    }
    ctx.reply().ok();
    Ok(())
}

/// The number of a database in an argument.
pub(super) fn db_index(ctx: &Ctx<'_>, at: usize) -> Result<usize, Fail> {
    let index = i32::try_from(int(ctx.args.at(at))?).map_err(|_| {
        Fail::Fixed("ERR value is out of range, value must between -2147483648 and 2147483647")
    })?;
    db_at(ctx, index)
}

fn db_at(ctx: &Ctx<'_>, index: i32) -> Result<usize, Fail> {
    let index = usize::try_from(index).ok().filter(|index| *index < ctx.server.dbs.len());
    index.ok_or(Fail::Fixed("ERR DB index is out of range"))
}

/// Exchanges two databases: clients see the other's keys from then on.
fn swapdb(ctx: &mut Ctx<'_>) -> Handled {
    let number = |at, wrong| {
        let number = int(ctx.args.at(at)).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or(Fail::Fixed(wrong))
    };
    let one = number(1, "ERR invalid first DB index")?;
    let other = number(2, "ERR invalid second DB index")?;
    let (one, other) = (db_at(ctx, one)?, db_at(ctx, other)?);
    ctx.server.dbs.swap(one, other);
    ctx.reply().ok();
    Ok(())
}

fn select(ctx: &mut Ctx<'_>) -> Handled {
    ctx.client.db = db_index(ctx, 1)?;
    ctx.reply().ok();
    Ok(())
}
