//! Lists: elements in order, taken from both ends.

use super::fail::{int, range};
use super::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::values::{change, change_or_make, read, remove_if_empty};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::list::{End, List};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("lpush", -3, WRITE | DENYOOM | FAST, lpush).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Prepends one or more elements to a list. Creates the key if it doesn't exist.",
    ),
    CommandSpec::new("rpush", -3, WRITE | DENYOOM | FAST, rpush).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Appends one or more elements to a list. Creates the key if it doesn't exist.",
    ),
    CommandSpec::new("lpop", -2, WRITE | FAST, lpop).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Returns the first elements in a list after removing it.",
    ),
    CommandSpec::new("rpop", -2, WRITE | FAST, rpop).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Returns and removes the last elements of a list.",
    ),
    CommandSpec::new("llen", 2, READONLY | FAST, llen).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Returns the length of a list.",
    ),
    CommandSpec::new("lrange", 4, READONLY, lrange).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Returns a range of elements from a list.",
    ),
    CommandSpec::new("lpushx", -3, WRITE | DENYOOM | FAST, lpushx).keys(1, 1, 1).doc(
        "list",
        "2.2.0",
        "Prepends one or more elements to a list only when the list exists.",
    ),
    CommandSpec::new("rpushx", -3, WRITE | DENYOOM | FAST, rpushx).keys(1, 1, 1).doc(
        "list",
        "2.2.0",
        "Appends an element to a list only when the list exists.",
    ),
    CommandSpec::new("lindex", 3, READONLY, lindex).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Returns an element from a list by its index.",
    ),
    CommandSpec::new("lset", 4, WRITE | DENYOOM, lset).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Sets the value of an element in a list by its index.",
    ),
    CommandSpec::new("linsert", 5, WRITE | DENYOOM, linsert).keys(1, 1, 1).doc(
        "list",
        "2.2.0",
        "Inserts an element before or after another element in a list.",
    ),
    CommandSpec::new("lrem", 4, WRITE, lrem).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Removes elements from a list. Deletes the list if the last element was removed.",
    ),
    CommandSpec::new("ltrim", 4, WRITE, ltrim).keys(1, 1, 1).doc(
        "list",
        "1.0.0",
        "Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
    ),
];

fn push(ctx: &mut Ctx<'_>, end: End) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let list: &mut List = change_or_make(db, args.at(1), clock)?;
    args.from(2).for_each(|element| list.push(end, element));
    reply.count(list.len());
    Ok(())
}

fn lpush(ctx: &mut Ctx<'_>) -> Handled {
    push(ctx, End::Head)
}

fn rpush(ctx: &mut Ctx<'_>) -> Handled {
    push(ctx, End::Tail)
}

/// LPUSHX and RPUSHX: only if there is a list.
fn push_if_there(ctx: &mut Ctx<'_>, end: End) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let Some(list) = change::<List>(db, args.at(1), clock)? else {
        reply.int(0);
        return Ok(());
    };
    args.from(2).for_each(|element| list.push(end, element));
    reply.count(list.len());
    Ok(())
}

fn lpushx(ctx: &mut Ctx<'_>) -> Handled {
    push_if_there(ctx, End::Head)
}

fn rpushx(ctx: &mut Ctx<'_>) -> Handled {
    push_if_there(ctx, End::Tail)
}

/// LPOP and RPOP: one element, or an array of up to `count`.
fn pop(ctx: &mut Ctx<'_>, end: End) -> Handled {
    let args = ctx.args;
    if args.len() > 3 {
        return Err(Fail::arity(&String::from_utf8_lossy(args.at(0)).to_lowercase()));
    }
    let count = match args.get(2).map(int) {
        None => None,
        Some(count) => {
            // Not a number at all is told in the same words.
            let count = count.ok().and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or(Fail::NEGATIVE)?)
        }
    };
    let (db, reply, clock) = ctx.parts();
    let Some(list) = change::<List>(db, args.at(1), clock)? else {
        match count {
            None => reply.null(),
            Some(_) => reply.null_array(),
        }
        return Ok(());
    };
    match count {
        None => _ = list.pop(end, |element| reply.bulk(element)),
        Some(count) => {
            let count = count.min(list.len());
            reply.array(count);
            (0..count).for_each(|_| {
                list.pop(end, |element| reply.bulk(element));
            });
        }
    }
    remove_if_empty::<List>(db, args.at(1), clock);
    Ok(())
}

fn lpop(ctx: &mut Ctx<'_>) -> Handled {
    pop(ctx, End::Head)
}

fn rpop(ctx: &mut Ctx<'_>) -> Handled {
    pop(ctx, End::Tail)
}

fn llen(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    reply.count(read::<List>(db, key, clock)?.map_or(0, List::len));
    Ok(())
}

fn lrange(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (start, stop) = (int(ctx.args.at(2))?, int(ctx.args.at(3))?);
    let (db, reply, clock) = ctx.parts();
    let Some(list) = read::<List>(db, key, clock)? else {
        reply.array(0);
        return Ok(());
    };
    let (first, count) = range(start, stop, list.len());
    reply.array(count);
    list.iter_from(first).take(count).for_each(|element| reply.bulk(element));
    Ok(())
}

/// Which element an index means; negative ones count from the end.
fn element_at(index: i64, list: &List) -> Option<usize> {
    let from_end = if index < 0 { i64::try_from(list.len()).unwrap_or(i64::MAX) } else { 0 };
    usize::try_from(index.saturating_add(from_end)).ok().filter(|index| *index < list.len())
}

fn lindex(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let Some(list) = read::<List>(db, args.at(1), clock)? else {
        reply.null();
        return Ok(());
    };
    let index = element_at(int(args.at(2))?, list);
    reply.bulk_or_null(index.and_then(|index| list.get(index)));
    Ok(())
}

fn lset(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (db, reply, clock) = ctx.parts();
    let list = change::<List>(db, args.at(1), clock)?.ok_or(Fail::NO_KEY)?;
    let index = element_at(int(args.at(2))?, list).ok_or(Fail::OUT_OF_RANGE)?;
    list.set(index, args.at(3));
    reply.ok();
    Ok(())
}

fn linsert(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let behind = match () {
        () if ctx.arg_is(2, "after") => true,
        () if ctx.arg_is(2, "before") => false,
        () => return Err(Fail::SYNTAX),
    };
    let (db, reply, clock) = ctx.parts();
    let Some(list) = change::<List>(db, args.at(1), clock)? else {
        reply.int(0);
        return Ok(());
    };
    let Some(pivot) = list.iter_from(0).position(|element| element == args.at(3)) else {
        reply.int(-1);
        return Ok(());
    };
    match pivot + usize::from(behind) {
        at if at == list.len() => list.push(End::Tail, args.at(4)),
        at => list.insert(at, args.at(4)),
    }
    reply.count(list.len());
    Ok(())
}

/// LREM: all that are equal, or so many from the head, or (negative) from the tail.
fn lrem(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let count = int(args.at(2))?;
    let end = if count < 0 { End::Tail } else { End::Head };
    let most = match count.unsigned_abs() {
        0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let (db, reply, clock) = ctx.parts();
    let Some(list) = change::<List>(db, args.at(1), clock)? else {
        reply.int(0);
        return Ok(());
    };
    let removed = list.remove_equal(end, most, args.at(3));
    reply.count(removed);
    remove_if_empty::<List>(db, args.at(1), clock);
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let (start, stop) = (int(args.at(2))?, int(args.at(3))?);
    let (db, reply, clock) = ctx.parts();
    if let Some(list) = change::<List>(db, args.at(1), clock)? {
        let (first, count) = range(start, stop, list.len());
        list.drop_from(End::Tail, list.len() - first - count);
        list.drop_from(End::Head, first);
    }
    reply.ok();
    remove_if_empty::<List>(db, args.at(1), clock);
    Ok(())
}
