//! Hashes: fields with values under one key.

use super::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::values::{change, change_or_make, read, remove_if_empty};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::hash::Hash;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
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
];

fn hset(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    if !args.len().is_multiple_of(2) {
        return Err(Fail::arity("hset"));
    }
    let limits = ctx.flat_limits();
    let (db, reply, clock) = ctx.parts();
    let hash: &mut Hash = change_or_make(db, args.at(1), clock)?;
    let mut new = 0;
    for at in (2..args.len()).step_by(2) {
        new += usize::from(hash.set(args.at(at), args.at(at + 1), limits));
    }
    reply.count(new);
    Ok(())
}

fn hget(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let value = read::<Hash>(db, args.at(1), clock)?.and_then(|hash| hash.get(args.at(2)));
    reply.bulk_or_null(value);
    let found = value.is_some();
    ctx.count_lookup(found);
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

fn hgetall(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let Some(hash) = read::<Hash>(db, key, clock)? else {
        reply.map(0);
        return Ok(());
    };
    reply.map(hash.len());
    for (field, value) in hash.iter() {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}
