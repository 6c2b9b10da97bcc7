//! Parts of strings: appending, overwriting, cutting out.

use super::{store, string_of};
use crate::server::accounts::Dataset;
use crate::server::buffer::Buffer;
use crate::server::commands::fail::{int, range};
use crate::server::commands::{Ctx, Fail, Handled};
use crate::server::db::{Clock, Db, Entry, Value};

/// The string of a key as a buffer with room to grow, made of what it was before; `None` if there
/// is no such key.
fn growing<'d>(
    db: &'d mut Db,
    key: &[u8],
    clock: Clock,
) -> Result<Option<&'d mut Buffer<Dataset>>, Fail> {
    let Some(entry) = db.lookup(key, clock) else { return Ok(None) };
    if entry.rich_mut().is_none() {
        let bytes = entry.value().to_bytes().ok_or(Fail::WRONG_TYPE)?;
        let value = Value::String(Buffer::copy_of(&bytes));
        let at = entry.expires_at();
        db.insert(Entry::rich(key, value, at), clock);
    }
    match db.lookup(key, clock).and_then(Entry::rich_mut) {
        Some(Value::String(bytes)) => Ok(Some(bytes)),
        _ => Err(Fail::WRONG_TYPE),
    }
}

/// Refuses strings that no client could have sent.
fn check_length(ctx: &Ctx<'_>, bytes: u64) -> Result<(), Fail> {
    if bytes > ctx.server.config.proto_max_bulk_len { Err(Fail::TOO_LONG) } else { Ok(()) }
}

pub(super) fn append(ctx: &mut Ctx<'_>) -> Handled {
    let (key, more) = (ctx.args.at(1), ctx.args.at(2));
    let (db, clock) = ctx.db();
    let before = string_of(db, key, clock)?.map(|bytes| bytes.len());
    let Some(before) = before else {
        store(ctx, key, more, None);
        ctx.reply().count(more.len());
        return Ok(());
    };
    check_length(ctx, (before + more.len()) as u64)?;
    let (db, reply, clock) = ctx.parts();
    if let Some(bytes) = growing(db, key, clock)? {
        bytes.extend(more);
    }
    reply.count(before + more.len());
    Ok(())
}

pub(super) fn strlen(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    let length = string_of(db, key, clock)?.map(|bytes| bytes.len());
    reply.count(length.unwrap_or(0));
    ctx.count_lookup(length.is_some());
    Ok(())
}

pub(super) fn setrange(ctx: &mut Ctx<'_>) -> Handled {
    let (key, value) = (ctx.args.at(1), ctx.args.at(3));
    let offset = int(ctx.args.at(2))?;
    let offset = u64::try_from(offset).map_err(|_| Fail::Fixed("ERR offset is out of range"))?;
    let (db, clock) = ctx.db();
    let before = string_of(db, key, clock)?.map(|bytes| bytes.len());
    if value.is_empty() {
        ctx.reply().count(before.unwrap_or(0));
        return Ok(());
    }
    check_length(ctx, offset.saturating_add(value.len() as u64))?;
    let (start, end) = (offset as usize, offset as usize + value.len());
    let (db, reply, clock) = ctx.parts();
    if before.is_none() {
        db.insert(Entry::rich(key, Value::String(Buffer::new()), None), clock);
    }
    // In place if it fits; what lies between is zeros.
    if let Some(bytes) =
        db.lookup(key, clock).and_then(Entry::string_mut).and_then(|it| it.get_mut(start..end))
    {
        bytes.copy_from_slice(value);
        reply.count(before.unwrap_or(0));
        return Ok(());
    }
    if let Some(bytes) = growing(db, key, clock)? {
        if bytes.len() < end {
            bytes.resize(end);
        }
        bytes.bytes_mut()[start..end].copy_from_slice(value);
        reply.count(bytes.len());
    }
    Ok(())
}

pub(super) fn getrange(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (start, stop) = (int(ctx.args.at(2))?, int(ctx.args.at(3))?);
    let (db, reply, clock) = ctx.parts();
    let bytes = string_of(db, key, clock)?.unwrap_or_default();
    let (first, count) = range(start, stop, bytes.len());
    reply.bulk(&bytes[first..first + count]);
    Ok(())
}
