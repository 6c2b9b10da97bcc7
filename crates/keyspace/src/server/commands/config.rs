//! CONFIG: parameters at run time. The table is in [`params`](crate::server::config::params).

use super::flag::{ADMIN, LOADING, STALE};
use super::help::help;
use super::scan::matches;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::config::params::{Param, TABLE as PARAMS};
use crate::server::net::limits;

const FLAGS: u32 = ADMIN | LOADING | STALE;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("config", -2, 0, unknown)
    .doc("server", "2.0.0", "A container for server configuration commands.")
    .with(&[
        CommandSpec::new("get", -3, FLAGS, get).doc(
            "server",
            "2.0.0",
            "Returns the effective values of configuration parameters.",
        ),
        CommandSpec::new("set", -4, FLAGS, set).doc(
            "server",
            "2.0.0",
            "Sets configuration parameters in-flight.",
        ),
        CommandSpec::new("help", 2, LOADING | STALE, show_help).doc(
            "server",
            "5.0.0",
            "Returns helpful text about the different subcommands.",
        ),
        CommandSpec::new("rewrite", 2, FLAGS, rewrite).doc(
            "server",
            "2.8.0",
            "Persists the effective configuration to file.",
        ),
        CommandSpec::new("resetstat", 2, FLAGS, resetstat).doc(
            "server",
            "2.0.0",
            "Resets the server's statistics.",
        ),
    ])];

const HELP: &[&str] = &[
    "GET <pattern> [<pattern> ...]",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "SET <directive> <value> [<directive> <value> ...]",
    "    Set the configuration <directive> to <value>: all of them, or none.",
    "RESETSTAT",
    "    Reset statistics reported by the INFO command.",
    "REWRITE",
    "    Rewrite the configuration file with the values of now.",
];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

fn get(ctx: &mut Ctx<'_>) -> Handled {
    let config = &mut ctx.server.config;
    let patterns: Vec<Vec<u8>> = ctx.args.from(2).map(<[u8]>::to_ascii_lowercase).collect();
    let found: Vec<&Param> = PARAMS
        .iter()
        .filter(|param| patterns.iter().any(|it| matches(it, param.name.as_bytes())))
        .collect();
    let reply = &mut ctx.client.reply;
    reply.map(found.len());
    for param in found {
        reply.text(param.name);
        reply.text(&param.field.get(config));
    }
    Ok(())
}

fn failed(name: &str, why: &str) -> Fail {
    Fail::Text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

/// All or none: what is wrong with one leaves the others as they were.
fn set(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    if !args.len().is_multiple_of(2) {
        return Err(Fail::SYNTAX);
    }
    let mut config = ctx.server.config.clone();
    let mut changed: Vec<&Param> = Vec::new();
    for at in (2..args.len()).step_by(2) {
        let name = String::from_utf8_lossy(args.at(at));
        let param = Param::find(&name).ok_or_else(|| {
            Fail::Text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            ))
        })?;
        if !param.mutable {
            return Err(failed(&name, "can't set immutable config"));
        }
        if changed.iter().any(|other| other.name == param.name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        // Other bytes than those that were sent must not become a password.
        let value = str::from_utf8(args.at(at + 1))
            .map_err(|_| failed(&name, "argument must be UTF-8 text"))?;
        param.field.set(&mut config, value).map_err(|why| failed(&name, &why))?;
        changed.push(param);
    }
    if config.maxclients > ctx.server.config.maxclients {
        limits::raise_descriptors(&config).map_err(|most| {
            failed("maxclients", &format!("the system has no descriptors for so many: try {most}"))
        })?;
    }
    config.fits(ctx.server.allocator).map_err(|(name, why)| failed(name, why))?;
    ctx.server.config = config;
    for param in changed {
        if let Some(changed) = param.changed {
            changed(ctx.server);
        }
    }
    ctx.reply().ok();
    Ok(())
}

fn show_help(ctx: &mut Ctx<'_>) -> Handled {
    help(ctx.reply(), "CONFIG", HELP);
    Ok(())
}

fn rewrite(ctx: &mut Ctx<'_>) -> Handled {
    match ctx.server.config.rewrite() {
        Ok(()) => ctx.reply().ok(),
        Err(error) => {
            tracing::warn!("CONFIG REWRITE failed: {error:#}");
            return Err(Fail::Text(format!("ERR {error:#}")));
        }
    }
    Ok(())
}

fn resetstat(ctx: &mut Ctx<'_>) -> Handled {
    ctx.server.reset_stats();
    ctx.reply().ok();
    Ok(())
}
