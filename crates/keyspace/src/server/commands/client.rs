//! CLIENT: what the server knows of its clients.

use super::flag::{LOADING, STALE};
use super::{CommandSpec, Ctx, Fail, Handled};

const ANY_TIME: u32 = LOADING | STALE;

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
    ])];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

/// A name for a client.
///
/// # Errors
/// If there are spaces or line breaks in it, which would spoil CLIENT LIST.
pub(crate) fn checked_name(name: &[u8]) -> Result<String, Fail> {
    match std::str::from_utf8(name) {
        Ok(text) if name.iter().all(u8::is_ascii_graphic) => Ok(text.to_owned()),
        _ => Err(Fail::Fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        )),
    }
}

fn id(ctx: &mut Ctx<'_>) -> Handled {
    let id = ctx.client.id;
    ctx.reply().int(id as i64);
    Ok(())
}

fn getname(ctx: &mut Ctx<'_>) -> Handled {
    let client = &mut *ctx.client;
    match client.name.as_str() {
        "" => client.reply.null(),
        name => client.reply.text(name),
    }
    Ok(())
}

fn setname(ctx: &mut Ctx<'_>) -> Handled {
    ctx.client.name = checked_name(ctx.args.at(2))?;
    ctx.reply().ok();
    Ok(())
}

fn setinfo(ctx: &mut Ctx<'_>) -> Handled {
    let value = ctx.args.at(3);
    let clean = || {
        checked_name(value).map_err(|_| {
            let what = String::from_utf8_lossy(ctx.args.at(2)).into_owned();
            Fail::Text(format!("ERR {what} cannot contain spaces, newlines or special characters."))
        })
    };
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
