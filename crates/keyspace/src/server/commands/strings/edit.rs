//! Parts of strings: appending, overwriting, cutting out.

use super::{store, string_of};
use crate::server::commands::fail::int;
use crate::server::commands::{Ctx, Fail, Handled};
use crate::server::db::Entry;

/// Refuses strings that no client could have sent.
fn check_length(ctx: &Ctx<'_>, bytes: u64) -> Result<(), Fail> {
    if bytes > ctx.server.config.proto_max_bulk_len { Err(Fail::TOO_LONG) } else { Ok(()) }
}

pub(super) fn append(ctx: &mut Ctx<'_>) -> Handled {
    let (key, more) = (ctx.args.at(1), ctx.args.at(2));
    let (db, clock) = ctx.db();
    let before = string_of(db.peek(key, clock))?.map(|bytes| bytes.len());
    let Some(before) = before else {
        store(ctx, key, more, None);
        ctx.reply().count(more.len());
        return Ok(());
    };
    check_length(ctx, (before + more.len()) as u64)?;
    let (db, reply, clock) = ctx.parts();
    let length = before + more.len();
    if let Some(bytes) = db.lookup(key, clock).and_then(|entry| entry.resize_string(length)) {
        bytes[before..].copy_from_slice(more);
    }
    reply.count(length);
    Ok(())
}

pub(super) fn strlen(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let length = string_of(db.read(key, clock))?.map(|bytes| bytes.len());
    reply.count(length.unwrap_or(0));
    Ok(())
}

pub(super) fn setrange(ctx: &mut Ctx<'_>) -> Handled {
    let (key, value) = (ctx.args.at(1), ctx.args.at(3));
    let offset = int(ctx.args.at(2))?;
    let offset = u64::try_from(offset).map_err(|_| Fail::Fixed("ERR offset is out of range"))?;
    let (db, clock) = ctx.db();
    let before = string_of(db.lookup(key, clock))?.map(|bytes| bytes.len());
    if value.is_empty() {
        ctx.reply().count(before.unwrap_or(0));
        return Ok(());
    }
    check_length(ctx, offset.saturating_add(value.len() as u64))?;
    let (start, end) = (offset as usize, offset as usize + value.len());
    let (db, reply, clock) = ctx.parts();
    if before.is_none() {
        db.insert(Entry::string(key, b"", None), clock);
    }
    // What lies between the old end and the offset is zeros.
    let length = before.unwrap_or(0).max(end);
    if let Some(bytes) = db.peek(key, clock).and_then(|entry| entry.resize_string(length)) {
        bytes[start..end].copy_from_slice(value);
    }
    reply.count(length);
    Ok(())
}

pub(super) fn getrange(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (start, stop) = (int(ctx.args.at(2))?, int(ctx.args.at(3))?);
    let (db, reply, clock) = ctx.parts();
    let bytes = string_of(db.read(key, clock))?.unwrap_or_default();
    let (first, count) = substring(start, stop, bytes.len());
    reply.bulk(&bytes[first..first + count]);
    Ok(())
}

/// The bytes from `start` to `stop`: where the first is, and how many. Unlike elsewhere, a stop
/// that lies before the beginning is the first byte.
fn substring(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (first, last) = (from_end(start), from_end(stop).min(len - 1));
    if (start < 0 && stop < 0 && start > stop) || first > last {
        return (0, 0);
    }
    (first as usize, (last - first + 1) as usize)
}
