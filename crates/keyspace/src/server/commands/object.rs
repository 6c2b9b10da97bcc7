//! OBJECT: how a value is kept, and what eviction knows of its use.
//!
//! Looking does not count as use. Which of FREQ and IDLETIME there is depends on the policy, since
//! an entry has 24 bits for one of them.

use super::flag::READONLY;
use super::help::help;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::db::{Clock, Entry, evict};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("object", -2, 0, unknown)
    .doc("generic", "2.2.3", "A container for object introspection commands.")
    .with(&[
        CommandSpec::new("encoding", 3, READONLY, encoding).keys(2, 2, 1).doc(
            "generic",
            "2.2.3",
            "Returns the internal encoding of a value.",
        ),
        CommandSpec::new("freq", 3, READONLY, freq).keys(2, 2, 1).doc(
            "generic",
            "4.0.0",
            "Returns how often a key is used, as a logarithmic counter.",
        ),
        CommandSpec::new("idletime", 3, READONLY, idletime).keys(2, 2, 1).doc(
            "generic",
            "2.2.3",
            "Returns the seconds since a key was used.",
        ),
        CommandSpec::new("refcount", 3, READONLY, refcount).keys(2, 2, 1).doc(
            "generic",
            "2.2.3",
            "Returns how many references there are to a value.",
        ),
        CommandSpec::new("help", 2, 0, usage).doc("generic", "6.2.0", "Says how to use OBJECT."),
    ])];

const USAGE: &[&str] = &[
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
];

const NO_FREQUENCY: Fail = Fail::Fixed(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
     when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);
const NO_IDLE_TIME: Fail = Fail::Fixed(
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
     switching between policies at runtime LRU and LFU data will take some time to adjust.",
);

/// Not reached with a subcommand that there is.
fn unknown(ctx: &mut Ctx<'_>) -> Handled {
    usage(ctx)
}

fn usage(ctx: &mut Ctx<'_>) -> Handled {
    help(ctx.reply(), "OBJECT", USAGE);
    Ok(())
}

/// Answers with a number about the key's entry, or with nothing if there is none.
fn number(ctx: &mut Ctx<'_>, of: impl Fn(&Entry, Clock) -> Result<i64, Fail>) -> Handled {
    let key = ctx.args.at(2);
    let (db, reply, clock) = ctx.parts();
    match db.inspect(key, clock) {
        Some(entry) => {
            let number = of(entry, clock)?;
            reply.int(number);
        }
        None => reply.null(),
    }
    Ok(())
}

fn encoding(ctx: &mut Ctx<'_>) -> Handled {
    let key = ctx.args.at(2);
    let (db, reply, clock) = ctx.parts();
    match db.inspect(key, clock) {
        Some(entry) => reply.text(entry.value().encoding()),
        None => reply.null(),
    }
    Ok(())
}

fn freq(ctx: &mut Ctx<'_>) -> Handled {
    number(ctx, |entry, clock| match clock.lfu {
        Some(lfu) => Ok(lfu.counter(entry.access()).into()),
        None => Err(NO_FREQUENCY),
    })
}

fn idletime(ctx: &mut Ctx<'_>) -> Handled {
    number(ctx, |entry, clock| match clock.lfu {
        Some(_) => Err(NO_IDLE_TIME),
        None => Ok(evict::idle_seconds(entry, clock).into()),
    })
}

/// Values are never shared.
fn refcount(ctx: &mut Ctx<'_>) -> Handled {
    number(ctx, |_, _| Ok(1))
}
