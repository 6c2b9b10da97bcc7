//! CLIENT: what the server knows of its clients.

mod list;

use super::flag::{ADMIN, LOADING, STALE};
use super::help::help;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::net::name::{MAX_BYTES, Name, Unfit};

const ANY_TIME: u32 = LOADING | STALE;
/// How errors call what CLIENT SETNAME and HELLO give.
pub(crate) const NAMES: &str = "Client names";

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("client", -2, 0, unknown)
    .doc("connection", "2.4.0", "A container for client connection commands.")
    .with(&[
        CommandSpec::new("id", 2, ANY_TIME, id).doc(
            "connection",
            "5.0.0",
            "Returns the unique client ID of the connection.",
        ),
        CommandSpec::new("getname", 2, ANY_TIME, getname).doc(
            "connection",
            "2.6.9",
            "Returns the name of the connection.",
        ),
        CommandSpec::new("setname", 3, ANY_TIME, setname).doc(
            "connection",
            "2.6.9",
            "Sets the connection name.",
        ),
        CommandSpec::new("setinfo", 4, ANY_TIME, setinfo).doc(
            "connection",
            "7.2.0",
            "Sets information specific to the client or connection.",
        ),
        CommandSpec::new("list", -2, ADMIN | ANY_TIME, list::list).doc(
            "connection",
            "2.4.0",
            "Lists open connections.",
        ),
        CommandSpec::new("info", 2, ANY_TIME, list::info).doc(
            "connection",
            "6.2.0",
            "Returns information about the connection.",
        ),
        CommandSpec::new("kill", -3, ADMIN | ANY_TIME, list::kill).doc(
            "connection",
            "2.4.0",
            "Terminates open connections.",
        ),
        CommandSpec::new("no-evict", 3, ADMIN | ANY_TIME, no_evict).doc(
            "connection",
            "7.0.0",
            "Sets the client eviction mode of the connection.",
        ),
        CommandSpec::new("no-touch", 3, ANY_TIME, no_touch).doc(
            "connection",
            "7.2.0",
            "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
        ),
        CommandSpec::new("help", 2, ANY_TIME, client_help).doc(
            "connection",
            "5.0.0",
            "Returns helpful text about the different subcommands.",
        ),
    ])];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

/// A name for a client, which is called `what` if there is something wrong with it.
pub(crate) fn checked_name(what: &str, name: &[u8]) -> Result<Name, Fail> {
    Name::checked(name).map_err(|unfit| {
        Fail::Text(match unfit {
            Unfit::Characters => {
                format!("ERR {what} cannot contain spaces, newlines or special characters.")
            }
            Unfit::Length => format!("ERR {what} cannot be longer than {MAX_BYTES} bytes."),
        })
    })
}

fn id(ctx: &mut Ctx<'_>) -> Handled {
    let id = ctx.client.id;
    ctx.reply().int(id as i64);
    Ok(())
}

fn getname(ctx: &mut Ctx<'_>) -> Handled {
    let client = &mut *ctx.client;
    match &*client.name {
        "" => client.reply.null(),
        name => client.reply.text(name),
    }
    Ok(())
}

fn setname(ctx: &mut Ctx<'_>) -> Handled {
    ctx.client.name = checked_name(NAMES, ctx.args.at(2))?;
    ctx.reply().ok();
    Ok(())
}

fn setinfo(ctx: &mut Ctx<'_>) -> Handled {
    let value = ctx.args.at(3);
    let clean = || checked_name(&String::from_utf8_lossy(ctx.args.at(2)), value);
    if ctx.arg_is(2, "lib-name") {
        ctx.client.lib_name = clean()?;
    } else if ctx.arg_is(2, "lib-ver") {
        ctx.client.lib_version = clean()?;
    } else {
        let what = String::from_utf8_lossy(ctx.args.at(2)).into_owned();
        return Err(Fail::Text(format!("ERR Unrecognized option '{what}'")));
    }
    ctx.reply().ok();
    Ok(())
}

/// ON or OFF.
fn switch(ctx: &Ctx<'_>) -> Result<bool, Fail> {
    match (ctx.arg_is(2, "on"), ctx.arg_is(2, "off")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Fail::SYNTAX),
    }
}

fn no_evict(ctx: &mut Ctx<'_>) -> Handled {
    ctx.client.no_evict = switch(ctx)?;
    ctx.reply().ok();
    Ok(())
}

fn no_touch(ctx: &mut Ctx<'_>) -> Handled {
    ctx.client.no_touch = switch(ctx)?;
    ctx.reply().ok();
    Ok(())
}

fn client_help(ctx: &mut Ctx<'_>) -> Handled {
    help(
        ctx.reply(),
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "    * ID <client-id>",
            "      Kill connections by client id.",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "    * ID <client-id> [<client-id> ...]",
            "      Return clients of specified IDs only.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are LIB-NAME and LIB-VER.",
        ],
    );
    Ok(())
}
