//! Strings: GET, SET and their kin.
//!
//! A string that is a number in its canonical form is kept as one and counted up in place; others
//! lie with their key in one block. Only what is appended to, or long, has a buffer of its own with
//! room to grow. See [`Entry`].

mod edit;
mod numbers;

use edit::{append, getrange, setrange, strlen};
use numbers::{decr, decrby, incr, incrby, incrbyfloat};

use super::fail::int;
use super::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::{Entry, UnixMs, ValueRef};
use crate::server::resp::{Args, Reply};
use std::borrow::Cow;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[
    CommandSpec::new("get", 2, READONLY | FAST, get).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Returns the string value of a key.",
    ),
    CommandSpec::new("set", -3, WRITE | DENYOOM, set).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
    ),
    CommandSpec::new("setnx", 3, WRITE | DENYOOM | FAST, setnx).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Sets the string value of a key only when the key doesn't exist.",
    ),
    CommandSpec::new("setex", 4, WRITE | DENYOOM, setex).keys(1, 1, 1).doc(
        "string",
        "2.0.0",
        "Sets the string value and expiration time of a key.",
    ),
    CommandSpec::new("psetex", 4, WRITE | DENYOOM, setex).keys(1, 1, 1).doc(
        "string",
        "2.6.0",
        "Sets both string value and expiration time in milliseconds of a key.",
    ),
    CommandSpec::new("getset", 3, WRITE | DENYOOM | FAST, getset).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Returns the previous string value of a key after setting it to a new value.",
    ),
    CommandSpec::new("getdel", 2, WRITE | FAST, getdel).keys(1, 1, 1).doc(
        "string",
        "6.2.0",
        "Returns the string value of a key after deleting the key.",
    ),
    CommandSpec::new("getex", -2, WRITE | FAST, getex).keys(1, 1, 1).doc(
        "string",
        "6.2.0",
        "Returns the string value of a key after setting its expiration time.",
    ),
    CommandSpec::new("mget", -2, READONLY | FAST, mget).keys(1, -1, 1).doc(
        "string",
        "1.0.0",
        "Returns the string values of one or more keys.",
    ),
    CommandSpec::new("mset", -3, WRITE | DENYOOM, mset).keys(1, -1, 2).doc(
        "string",
        "1.0.1",
        "Sets the string values of one or more keys.",
    ),
    CommandSpec::new("msetnx", -3, WRITE | DENYOOM, msetnx).keys(1, -1, 2).doc(
        "string",
        "1.0.1",
        "Sets the string values of one or more keys only when all keys don't exist.",
    ),
    CommandSpec::new("append", 3, WRITE | DENYOOM | FAST, append).keys(1, 1, 1).doc(
        "string",
        "2.0.0",
        "Appends a string to the value of a key. Creates the key if it doesn't exist.",
    ),
    CommandSpec::new("strlen", 2, READONLY | FAST, strlen).keys(1, 1, 1).doc(
        "string",
        "2.2.0",
        "Returns the length of a string value.",
    ),
    CommandSpec::new("setrange", 4, WRITE | DENYOOM, setrange).keys(1, 1, 1).doc(
        "string",
        "2.2.0",
        "Overwrites a part of a string value with another by an offset.",
    ),
    CommandSpec::new("getrange", 4, READONLY, getrange).keys(1, 1, 1).doc(
        "string",
        "2.4.0",
        "Returns a substring of the string stored at a key.",
    ),
    CommandSpec::new("substr", 4, READONLY, getrange).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Returns a substring from a string value.",
    ),
    CommandSpec::new("incr", 2, WRITE | DENYOOM | FAST, incr).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Increments the integer value of a key by one.",
    ),
    CommandSpec::new("decr", 2, WRITE | DENYOOM | FAST, decr).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Decrements the integer value of a key by one.",
    ),
    CommandSpec::new("incrby", 3, WRITE | DENYOOM | FAST, incrby).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Increments the integer value of a key by a number.",
    ),
    CommandSpec::new("decrby", 3, WRITE | DENYOOM | FAST, decrby).keys(1, 1, 1).doc(
        "string",
        "1.0.0",
        "Decrements a number from the integer value of a key.",
    ),
    CommandSpec::new("incrbyfloat", 3, WRITE | DENYOOM | FAST, incrbyfloat).keys(1, 1, 1).doc(
        "string",
        "2.6.0",
        "Increment the floating point value of a key by a number.",
    ),
];

/// The string of an entry that was looked up.
fn string_of(entry: Option<&mut Entry>) -> Result<Option<Cow<'_, [u8]>>, Fail> {
    match entry {
        None => Ok(None),
        Some(entry) => entry.value().to_bytes().map(Some).ok_or(Fail::WRONG_TYPE),
    }
}

/// Replies with the string of an entry.
#[inline]
fn reply_string(reply: &mut Reply, entry: Option<&mut Entry>) -> Result<bool, Fail> {
    match entry.map(|entry| entry.value()) {
        None => reply.null(),
        Some(ValueRef::String(bytes)) => {
            reply.bulk(bytes);
            return Ok(true);
        }
        Some(ValueRef::Int(number)) => {
            reply.bulk_int(number);
            return Ok(true);
        }
        Some(_) => return Err(Fail::WRONG_TYPE),
    }
    Ok(false)
}

/// Stores a string in place of whatever is there.
#[inline]
fn store(ctx: &mut Ctx<'_>, key: &[u8], value: &[u8], at: Option<UnixMs>) {
    let clock = ctx.server.clock;
    let old = ctx.server.dbs[ctx.client.db].insert_string(key, value, at, clock);
    if let Some(old @ Entry::Rich(_)) = old {
        let lazily = ctx.server.config.lazyfree_lazy_server_del;
        ctx.server.lazyfree.free_if(lazily, old);
    }
}

/// The time that an expiry argument means: `EX 10`, `PXAT 1700000000000`.
fn time_of(ctx: &Ctx<'_>, name: &str, arg: &[u8]) -> Result<UnixMs, Fail> {
    let number = int(arg)?;
    let wrong = || Fail::expire_time(ctx.args.at(0));
    if number <= 0 {
        return Err(wrong());
    }
    let in_ms = if name.starts_with('p') { Some(number) } else { number.checked_mul(1000) };
    let is_absolute = name.ends_with("at");
    let base = if is_absolute { 0 } else { ctx.server.clock.now_ms };
    in_ms.and_then(|ms| ms.checked_add(base)).ok_or_else(wrong)
}

/// The options of SET and GETEX. What a time means is looked at when all of them are known: an
/// option that is none is told first.
#[derive(Clone, Copy, Debug, Default)]
struct Options<'a> {
    /// `EX 10` and its kin.
    time: Option<(&'static str, &'a [u8])>,
    /// The expiry that it has stays.
    keep_ttl: bool,
    persist: bool,
    only_new: bool,
    only_old: bool,
    get: bool,
}

impl<'a> Options<'a> {
    /// Reads the options from the argument at `first` on. One that is said twice counts as said
    /// once, of a time the last one.
    fn read(ctx: &Ctx<'a>, first: usize, is_set: bool) -> Result<Self, Fail> {
        let mut it = Self::default();
        let mut at = first;
        while at < ctx.args.len() {
            let is = |word| ctx.arg_is(at, word);
            match it.time {
                _ if is_set && is("nx") && !it.only_old => it.only_new = true,
                _ if is_set && is("xx") && !it.only_new => it.only_old = true,
                _ if is_set && is("get") => it.get = true,
                None if is_set && is("keepttl") => it.keep_ttl = true,
                None if !is_set && is("persist") => it.persist = true,
                _ if it.keep_ttl || it.persist => return Err(Fail::SYNTAX),
                before => {
                    let name = ["ex", "px", "exat", "pxat"].into_iter().find(|name| is(name));
                    let name = name.filter(|name| before.is_none_or(|(other, _)| other == *name));
                    let value = ctx.args.get(at + 1);
                    it.time = Some(name.zip(value).ok_or(Fail::SYNTAX)?);
                    at += 1;
                }
            }
            at += 1;
        }
        Ok(it)
    }

    /// When the key shall expire.
    fn expires_at(&self, ctx: &Ctx<'_>) -> Result<Option<UnixMs>, Fail> {
        self.time.map(|(name, arg)| time_of(ctx, name, arg)).transpose()
    }
}

fn get(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    reply_string(reply, db.read(key, clock))?;
    Ok(())
}

fn set(ctx: &mut Ctx<'_>) -> Handled {
    let (key, value) = (ctx.args.at(1), ctx.args.at(2));
    if ctx.args.len() == 3 {
        store(ctx, key, value, None);
        ctx.reply().ok();
        return Ok(());
    }
    let options = Options::read(ctx, 3, true)?;
    let at = options.expires_at(ctx)?;
    let (db, reply, clock) = ctx.parts();
    if options.get {
        reply_string(reply, db.read(key, clock))?;
    }
    let (is_there, kept) = match db.peek(key, clock) {
        Some(entry) => (true, entry.expires_at()),
        None => (false, None),
    };
    if (options.only_new && is_there) || (options.only_old && !is_there) {
        if !options.get {
            ctx.reply().null();
        }
        return Ok(());
    }
    // A time in the past is stored as well: the next lookup removes the key.
    store(ctx, key, value, if options.keep_ttl { kept } else { at });
    if !options.get {
        ctx.reply().ok();
    }
    Ok(())
}

fn setnx(ctx: &mut Ctx<'_>) -> Handled {
    let (key, value) = (ctx.args.at(1), ctx.args.at(2));
    let (db, clock) = ctx.db();
    let is_new = db.lookup(key, clock).is_none();
    if is_new {
        store(ctx, key, value, None);
    }
    ctx.reply().int(i64::from(is_new));
    Ok(())
}

fn setex(ctx: &mut Ctx<'_>) -> Handled {
    let name = if ctx.arg_is(0, "psetex") { "px" } else { "ex" };
    let at = time_of(ctx, name, ctx.args.at(2))?;
    let (key, value) = (ctx.args.at(1), ctx.args.at(3));
    store(ctx, key, value, Some(at));
    ctx.reply().ok();
    Ok(())
}

fn getset(ctx: &mut Ctx<'_>) -> Handled {
    let (key, value) = (ctx.args.at(1), ctx.args.at(2));
    let (db, reply, clock) = ctx.parts();
    reply_string(reply, db.read(key, clock))?;
    store(ctx, key, value, None);
    Ok(())
}

fn getdel(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let (db, reply, clock) = ctx.parts();
    if reply_string(reply, db.read(key, clock))? {
        db.remove(key);
    }
    Ok(())
}

fn getex(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(1);
    let options = Options::read(ctx, 2, false)?;
    let (db, reply, clock) = ctx.parts();
    if !reply_string(reply, db.read(key, clock))? {
        return Ok(());
    }
    // Only now: where there is no key, no time is wrong.
    let at = options.expires_at(ctx)?;
    let (db, clock) = ctx.db();
    match at {
        Some(at) if at <= clock.now_ms => drop(db.remove(key)),
        Some(at) => _ = db.set_expiry(key, Some(at), clock),
        None if options.persist => _ = db.set_expiry(key, None, clock),
        None => {}
    }
    Ok(())
}

fn mget(ctx: &mut Ctx<'_>) -> Handled {
    let keys = ctx.args.from(1);
    ctx.reply().array(keys.len());
    for key in keys {
        let (db, reply, clock) = ctx.parts();
        // What is no string counts as missing here.
        if reply_string(reply, db.read(key, clock)).is_err() {
            reply.null();
        }
    }
    Ok(())
}

/// The pairs of MSET and MSETNX.
fn pairs<'a>(args: Args<'a>) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])>, Fail> {
    if args.len().is_multiple_of(2) {
        return Err(Fail::arity(&String::from_utf8_lossy(args.at(0)).to_lowercase()));
    }
    Ok((1..args.len()).step_by(2).map(move |at| (args.at(at), args.at(at + 1))))
}

fn mset(ctx: &mut Ctx<'_>) -> Handled {
    for (key, value) in pairs(ctx.args)? {
        store(ctx, key, value, None);
    }
    ctx.reply().ok();
    Ok(())
}

fn msetnx(ctx: &mut Ctx<'_>) -> Handled {
    let mut all_new = true;
    let args = ctx.args;
    for (key, _) in pairs(args)? {
        let (db, clock) = ctx.db();
        all_new &= db.peek(key, clock).is_none();
    }
    if all_new {
        for (key, value) in pairs(args)? {
            store(ctx, key, value, None);
        }
    }
    ctx.reply().int(i64::from(all_new));
    Ok(())
}
