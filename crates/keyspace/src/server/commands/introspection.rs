//! COMMAND: the table of commands, for clients that want to know.

use super::flag::{self, LOADING, STALE};
use super::{CommandSpec, Ctx, FAMILIES, Handled};
use crate::server::resp::Reply;

const FLAGS: u32 = LOADING | STALE;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("command", -1, FLAGS, all)
    .doc("server", "2.8.13", "Returns detailed information about all commands.")
    .with(&[
        CommandSpec::new("count", 2, FLAGS, count).doc(
            "server",
            "2.8.13",
            "Returns a count of commands.",
        ),
        CommandSpec::new("info", -2, FLAGS, info).doc(
            "server",
            "2.8.13",
            "Returns information about one, multiple or all commands.",
        ),
        CommandSpec::new("docs", -2, FLAGS, docs).doc(
            "server",
            "7.0.0",
            "Returns documentary information about one, multiple or all commands.",
        ),
    ])];

fn specs() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.iter().copied().flatten()
}

fn all(ctx: &mut Ctx<'_>) -> Handled {
    let count = ctx.server.commands.count();
    ctx.reply().array(count);
    specs().for_each(|spec| describe(ctx.reply(), spec));
    Ok(())
}

fn count(ctx: &mut Ctx<'_>) -> Handled {
    let count = ctx.server.commands.count();
    ctx.reply().count(count);
    Ok(())
}

/// COMMAND INFO: nothing for a command that there is not.
fn info(ctx: &mut Ctx<'_>) -> Handled {
    if ctx.args.len() == 2 {
        return all(ctx);
    }
    let names = ctx.args.from(2);
    ctx.reply().array(names.len());
    for name in names {
        match ctx.server.commands.by_name(name) {
            Some(index) => describe(&mut ctx.client.reply, ctx.server.commands.spec(index)),
            None => ctx.reply().null_array(),
        }
    }
    Ok(())
}

/// Name, arity, flags, first key, last key, step, ACL categories, tips, key specifications,
/// subcommands.
fn describe(reply: &mut Reply, spec: &CommandSpec) {
    reply.array(10);
    reply.text(spec.name);
    reply.int(spec.arity.into());
    let flags: Vec<&str> =
        flag::NAMES.iter().filter(|(bit, _)| spec.is(*bit)).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
    for number in [spec.keys.0, spec.keys.1, spec.keys.2] {
        reply.int(number.into());
    }
    reply.set(0);
    reply.array(0);
    reply.array(0);
    reply.array(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| describe(reply, sub));
}

fn docs(ctx: &mut Ctx<'_>) -> Handled {
    let names: Vec<&[u8]> = ctx.args.from(2).collect();
    let wanted: Vec<&CommandSpec> = specs()
        .filter(|spec| {
            let name = spec.name.as_bytes();
            names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(name))
        })
        .collect();
    let reply = ctx.reply();
    reply.map(wanted.len());
    for spec in wanted {
        reply.text(spec.name);
        document(reply, spec, spec.name);
    }
    Ok(())
}

fn document(reply: &mut Reply, spec: &CommandSpec, full_name: &str) {
    let has_subcommands = !spec.subcommands.is_empty();
    reply.map(3 + usize::from(has_subcommands));
    for (name, text) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
        reply.text(name);
        reply.text(text);
    }
    if has_subcommands {
        reply.text("subcommands");
        reply.map(spec.subcommands.len());
        for sub in spec.subcommands {
            let name = format!("{full_name}|{}", sub.name);
            reply.text(&name);
            document(reply, sub, &name);
        }
    }
}
