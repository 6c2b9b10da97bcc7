//! Strings that are numbers: counting.

use super::{store, string_of};
use crate::server::commands::fail::{float, int};
use crate::server::commands::{Ctx, Fail, Handled};
use crate::server::db::{Entry, ValueRef};
use crate::server::resp::long_double::LongDouble;

/// Adds to the number of a key.
fn add(ctx: &mut Ctx<'_>, by: i64) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let (before, at) = match db.lookup(key, clock) {
        None => (0, None),
        Some(entry) => match entry.value() {
            ValueRef::Int(number) => {
                let sum = number.checked_add(by).ok_or(Fail::OVERFLOW)?;
                entry.overwrite_int(sum);
                reply.int(sum);
                return Ok(());
            }
            ValueRef::String(bytes) => (int(bytes)?, entry.expires_at()),
            _ => return Err(Fail::WRONG_TYPE),
        },
    };
    let sum = before.checked_add(by).ok_or(Fail::OVERFLOW)?;
    db.insert(Entry::int(key, sum, at), clock);
    reply.int(sum);
    Ok(())
}

pub(super) fn incr(ctx: &mut Ctx<'_>) -> Handled {
    add(ctx, 1)
}

pub(super) fn decr(ctx: &mut Ctx<'_>) -> Handled {
    add(ctx, -1)
}

pub(super) fn incrby(ctx: &mut Ctx<'_>) -> Handled {
    let by = int(ctx.args.at(2))?;
    add(ctx, by)
}

pub(super) fn decrby(ctx: &mut Ctx<'_>) -> Handled {
    let by = int(ctx.args.at(2))?;
    let by = by.checked_neg().ok_or(Fail::Fixed("ERR decrement would overflow"))?;
    add(ctx, by)
}

pub(super) fn incrbyfloat(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, clock) = ctx.db();
    // A key of another kind is told first, as there.
    string_of(db.peek(key, clock))?;
    let by = float(ctx.args.at(2))?;
    let (db, reply, clock) = ctx.parts();
    let before = match string_of(db.peek(key, clock))? {
        None => LongDouble::ZERO,
        Some(bytes) => float(&bytes)?,
    };
    let sum = before.plus(by).ok_or(Fail::NOT_FINITE)?;
    let at = db.peek(key, clock).and_then(|entry| entry.expires_at());
    let text = sum.to_string();
    reply.text(&text);
    store(ctx, key, text.as_bytes(), at);
    Ok(())
}
