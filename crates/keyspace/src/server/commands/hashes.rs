//! Hashes: fields with values under one key.

use super::fail::{float, int};
use super::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::scan::{ScanOptions, cursor};
use super::values::{change, change_or_make, of, read, remove_if_empty};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::hash::Hash;
use crate::server::resp::long_double::LongDouble;
use crate::server::resp::number::Digits;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] =
    &[
        CommandSpec::new("hset", -4, WRITE | DENYOOM | FAST, hset).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Creates or modifies the value of a field in a hash.",
        ),
        CommandSpec::new("hget", 3, READONLY | FAST, hget).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns the value of a field in a hash.",
        ),
        CommandSpec::new("hdel", -3, WRITE | FAST, hdel).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Deletes one or more fields and their values from a hash.",
        ),
        CommandSpec::new("hlen", 2, READONLY | FAST, hlen).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns the number of fields in a hash.",
        ),
        CommandSpec::new("hgetall", 2, READONLY, hgetall).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns all fields and values in a hash.",
        ),
        CommandSpec::new("hmset", -4, WRITE | DENYOOM | FAST, hset).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Sets the values of multiple fields.",
        ),
        CommandSpec::new("hsetnx", 4, WRITE | DENYOOM | FAST, hsetnx).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Sets the value of a field in a hash only when the field doesn't exist.",
        ),
        CommandSpec::new("hmget", -3, READONLY | FAST, hmget).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns the values of all fields in a hash.",
        ),
        CommandSpec::new("hexists", 3, READONLY | FAST, hexists).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Determines whether a field exists in a hash.",
        ),
        CommandSpec::new("hstrlen", 3, READONLY | FAST, hstrlen).keys(1, 1, 1).doc(
            "hash",
            "3.2.0",
            "Returns the length of the value of a field.",
        ),
        CommandSpec::new("hkeys", 2, READONLY, hkeys).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns all fields in a hash.",
        ),
        CommandSpec::new("hvals", 2, READONLY, hvals).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Returns all values in a hash.",
        ),
        CommandSpec::new("hscan", -3, READONLY, hscan).keys(1, 1, 1).doc(
            "hash",
            "2.8.0",
            "Iterates over fields and values of a hash.",
        ),
        CommandSpec::new("hincrby", 4, WRITE | DENYOOM | FAST, hincrby).keys(1, 1, 1).doc(
            "hash",
            "2.0.0",
            "Increments the integer value of a field in a hash by a number.",
        ),
        CommandSpec::new("hincrbyfloat", 4, WRITE | DENYOOM | FAST, hincrbyfloat)
            .keys(1, 1, 1)
            .doc("hash", "2.6.0", "Increments the floating point value of a field by a number."),
    ];

fn hset(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    if !args.len().is_multiple_of(2) {
        return Err(Fail::arity(&String::from_utf8_lossy(args.at(0)).to_lowercase()));
    }
    let says_ok = ctx.arg_is(0, "hmset");
    let limits = ctx.flat_limits();
    let (db, reply, clock) = ctx.parts();
    let hash: &mut Hash = change_or_make(db, args.at(1), clock)?;
    let mut new = 0;
    for at in (2..args.len()).step_by(2) {
        new += usize::from(hash.set(args.at(at), args.at(at + 1), limits));
    }
    match says_ok {
        true => reply.ok(),
        false => reply.count(new),
    }
    Ok(())
}

fn hget(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let value = read::<Hash>(db, args.at(1), clock)?.and_then(|hash| hash.get(args.at(2)));
    reply.bulk_or_null(value);
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let Some(hash) = change::<Hash>(db, args.at(1), clock)? else {
        reply.int(0);
        return Ok(());
    };
    let count = args.from(2).filter(|field| hash.remove(field)).count();
    reply.count(count);
    remove_if_empty::<Hash>(db, args.at(1), clock);
    Ok(())
}

fn hlen(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    reply.count(read::<Hash>(db, key, clock)?.map_or(0, Hash::len));
    Ok(())
}

fn hsetnx(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let limits = ctx.flat_limits();
    let (db, reply, clock) = ctx.parts();
    let hash: &mut Hash = change_or_make(db, args.at(1), clock)?;
    let is_new = hash.get(args.at(2)).is_none();
    if is_new {
        hash.set(args.at(2), args.at(3), limits);
    }
    reply.int(i64::from(is_new));
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let hash = read::<Hash>(db, args.at(1), clock)?;
    reply.array(args.len() - 2);
    args.from(2).for_each(|field| reply.bulk_or_null(hash.and_then(|hash| hash.get(field))));
    Ok(())
}

/// The length of a field's value, if it is there.
fn value_bytes(ctx: &mut Ctx<'_>) -> Result<Option<usize>, Fail> {
    let args = ctx.args;
    let (db, clock) = ctx.db();
    let hash = read::<Hash>(db, args.at(1), clock)?;
    Ok(hash.and_then(|it| it.get(args.at(2))).map(<[u8]>::len))
}

fn hexists(ctx: &mut Ctx<'_>) -> Handled {
    let bytes = value_bytes(ctx)?;
    ctx.reply().int(i64::from(bytes.is_some()));
    Ok(())
}

fn hstrlen(ctx: &mut Ctx<'_>) -> Handled {
    let bytes = value_bytes(ctx)?;
    ctx.reply().count(bytes.unwrap_or(0));
    Ok(())
}

/// What of a hash is replied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Fields,
    Values,
    Both,
}

/// HGETALL, HKEYS and HVALS.
fn all(ctx: &mut Ctx<'_>, part: Part) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let hash = read::<Hash>(db, key, clock)?;
    let count = hash.map_or(0, Hash::len);
    match part {
        Part::Both => reply.map(count),
        Part::Fields | Part::Values => reply.array(count),
    }
    for (field, value) in hash.into_iter().flat_map(Hash::iter) {
        if part != Part::Values {
            reply.bulk(field);
        }
        if part != Part::Fields {
            reply.bulk(value);
        }
    }
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_>) -> Handled {
    all(ctx, Part::Both)
}

fn hkeys(ctx: &mut Ctx<'_>) -> Handled {
    all(ctx, Part::Fields)
}

fn hvals(ctx: &mut Ctx<'_>) -> Handled {
    all(ctx, Part::Values)
}

fn hscan(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let cursor = cursor(ctx.args.at(2))?;
    let (db, reply, clock) = ctx.parts();
    if read::<Hash>(db, key, clock)?.is_none() {
        reply.array(2);
        reply.text("0");
        reply.array(0);
        return Ok(());
    }
    let options = ScanOptions::read(ctx, 3, None)?;
    let (db, reply, clock) = ctx.parts();
    let mut found = Vec::new();
    let next = of::<Hash>(db.peek(key, clock))?.map_or(0, |hash| {
        hash.scan(cursor, options.count, |field, value| {
            if options.wants(field) {
                found.push((field, value));
            }
        })
    });
    reply.array(2);
    reply.text(&next.to_string());
    reply.array(found.len() * 2);
    for (field, value) in found {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let by = int(args.at(3))?;
    let limits = ctx.flat_limits();
    let (db, reply, clock) = ctx.parts();
    // The hash is made only when nothing can go wrong any more (D2).
    let before = of::<Hash>(db.peek(args.at(1), clock))?.and_then(|hash| hash.get(args.at(2)));
    let before = match before {
        None => 0,
        Some(value) => int(value).map_err(|_| Fail::Fixed("ERR hash value is not an integer"))?,
    };
    let sum = before.checked_add(by).ok_or(Fail::OVERFLOW)?;
    let hash: &mut Hash = change_or_make(db, args.at(1), clock)?;
    hash.set(args.at(2), Digits::of(sum).as_bytes(), limits);
    reply.int(sum);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let by = float(args.at(3))?;
    if !by.is_finite() {
        return Err(Fail::Fixed("ERR value is NaN or Infinity"));
    }
    let limits = ctx.flat_limits();
    let (db, reply, clock) = ctx.parts();
    let before = of::<Hash>(db.peek(args.at(1), clock))?.and_then(|hash| hash.get(args.at(2)));
    let before = match before {
        None => LongDouble::ZERO,
        Some(value) => float(value).map_err(|_| Fail::Fixed("ERR hash value is not a float"))?,
    };
    let sum = before.plus(by).ok_or(Fail::NOT_FINITE)?;
    let text = sum.to_string();
    let hash: &mut Hash = change_or_make(db, args.at(1), clock)?;
    hash.set(args.at(2), text.as_bytes(), limits);
    reply.text(&text);
    Ok(())
}
