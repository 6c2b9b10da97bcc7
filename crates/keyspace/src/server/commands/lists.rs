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

/// LPOP and RPOP: one element, or an array of up to `count`.
fn pop(ctx: &mut Ctx<'_>, end: End) -> Handled {
    let args = ctx.args;
    if args.len() > 3 {
        return Err(Fail::arity(&String::from_utf8_lossy(args.at(0)).to_lowercase()));
    }
    let count = match args.get(2).map(int) {
        None => None,
        Some(count) => Some(usize::try_from(count?).map_err(|_| Fail::NEGATIVE)?),
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
