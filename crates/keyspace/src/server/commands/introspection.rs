//! COMMAND: the table of commands, for clients that want to know.

use super::flag::{self, LOADING, STALE};
use super::scan::matches;
use super::{CommandSpec, Ctx, FAMILIES, Fail, Handled};
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
        CommandSpec::new("list", -2, FLAGS, list).doc(
            "server",
            "7.0.0",
            "Returns a list of command names.",
        ),
        CommandSpec::new("getkeys", -4, FLAGS, getkeys).doc(
            "server",
            "2.8.13",
            "Extracts the key names from an arbitrary command.",
        ),
        CommandSpec::new("help", 2, FLAGS, help).doc(
            "server",
            "5.0.0",
            "Returns helpful text about the different subcommands.",
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
    specs().for_each(|spec| describe(ctx.reply(), spec, spec.name));
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
    let (commands, reply, names) = (&ctx.server.commands, &mut ctx.client.reply, ctx.args.from(2));
    reply.array(names.len());
    for name in names {
        match commands.by_full_name(name) {
            Some(index) => describe(reply, commands.spec(index), commands.full_name(index)),
            None => reply.null(),
        }
    }
    Ok(())
}

/// Whether a command of this full name is listed.
type Filter<'a> = Box<dyn Fn(&str, &CommandSpec) -> bool + 'a>;

/// COMMAND LIST, all or those that a filter lets through; those in two words too.
fn list(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args;
    let wanted: Filter<'_> = match args.len() {
        2 => Box::new(|_, _| true),
        5 if ctx.arg_is(2, "filterby") && ctx.arg_is(3, "pattern") => {
            let pattern = args.at(4).to_ascii_lowercase();
            Box::new(move |name, _| matches(&pattern, name.as_bytes()))
        }
        5 if ctx.arg_is(2, "filterby") && ctx.arg_is(3, "aclcat") => {
            let wanted = args.at(4);
            Box::new(move |_, spec| {
                categories(spec).iter().any(|it| it.as_bytes().eq_ignore_ascii_case(wanted))
            })
        }
        // There are no modules.
        5 if ctx.arg_is(2, "filterby") && ctx.arg_is(3, "module") => Box::new(|_, _| false),
        _ => return Err(Fail::SYNTAX),
    };
    let all = ctx.server.commands.specs();
    let names: Vec<&str> =
        all.filter(|(name, spec)| wanted(name, spec)).map(|(name, _)| name).collect();
    let reply = &mut ctx.client.reply;
    reply.array(names.len());
    names.iter().for_each(|name| reply.text(name));
    Ok(())
}

/// COMMAND GETKEYS: which arguments of another request are keys.
fn getkeys(ctx: &mut Ctx<'_>) -> Handled {
    let args = ctx.args.skip(2);
    let index = ctx.server.commands.look_up(args);
    let index = index.map_err(|_| Fail::Fixed("ERR Invalid command specified"))?;
    let (spec, count) = (ctx.server.commands.spec(index), args.len());
    let (first, last, step) = spec.keys;
    if first == 0 {
        return Err(Fail::Fixed("ERR The command has no key arguments"));
    }
    if !spec.takes(count) {
        return Err(Fail::Fixed("ERR Invalid number of arguments specified for command"));
    }
    // A last one below zero counts from the end.
    let last = if last < 0 { count as i64 + i64::from(last) } else { last.into() };
    let keys: Vec<&[u8]> = (i64::from(first)..=last)
        .step_by(step.max(1) as usize)
        .filter_map(|at| args.get(at as usize))
        .collect();
    let reply = ctx.reply();
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

/// What COMMAND HELP says.
const HELP: &[&str] = &[
    "COMMAND [<subcommand> [<arg> ...]]. Without one: all that is known of all commands. Subcommands \
     are:",
    "COUNT",
    "    How many commands there are.",
    "DOCS [<name> ...]",
    "    What these commands do, or all.",
    "GETKEYS <command> [<arg> ...]",
    "    Which of the arguments are keys.",
    "INFO [<name> ...]",
    "    Arity, flags and places of keys of these commands, or of all.",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    The names of commands.",
    "HELP",
    "    This text.",
];

fn help(ctx: &mut Ctx<'_>) -> Handled {
    ctx.reply().array(HELP.len());
    HELP.iter().for_each(|line| ctx.reply().simple(line));
    Ok(())
}

/// The categories that Redis's access lists would know a command by: what it does to data, what it
/// is about, how long it takes.
fn categories(spec: &CommandSpec) -> Vec<&'static str> {
    let group = match spec.group {
        "generic" => "keyspace",
        "server" => "",
        other => other,
    };
    [
        (spec.is(flag::READONLY), "read"),
        (spec.is(flag::WRITE), "write"),
        (spec.is(flag::ADMIN), "admin"),
        (spec.is(flag::ADMIN), "dangerous"),
        (spec.is(flag::FAST), "fast"),
        (!spec.is(flag::FAST), "slow"),
        (!group.is_empty(), group),
    ]
    .into_iter()
    .filter_map(|(is_so, name)| is_so.then_some(name))
    .collect()
}

/// Name, arity, flags, first key, last key, step, ACL categories, tips, key specifications,
/// subcommands. There are no tips, and no key specifications beyond first, last and step.
fn describe(reply: &mut Reply, spec: &CommandSpec, full_name: &str) {
    reply.array(10);
    reply.text(full_name);
    reply.int(spec.arity.into());
    let flags: Vec<&str> =
        flag::NAMES.iter().filter(|(bit, _)| spec.is(*bit)).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
    for number in [spec.keys.0, spec.keys.1, spec.keys.2] {
        reply.int(number.into());
    }
    let categories = categories(spec);
    reply.set(categories.len());
    categories.iter().for_each(|name| reply.simple(&format!("@{name}")));
    reply.array(0);
    reply.array(0);
    reply.array(spec.subcommands.len());
    for sub in spec.subcommands {
        describe(reply, sub, &format!("{full_name}|{}", sub.name));
    }
}

/// COMMAND DOCS: all, or those of these names that there are.
fn docs(ctx: &mut Ctx<'_>) -> Handled {
    let (commands, reply, names) = (&ctx.server.commands, &mut ctx.client.reply, ctx.args.from(2));
    let wanted: Vec<(&str, &CommandSpec)> = match names.len() {
        0 => specs().map(|spec| (spec.name, spec)).collect(),
        _ => names
            .filter_map(|name| commands.by_full_name(name))
            .map(|index| (commands.full_name(index), commands.spec(index)))
            .collect(),
    };
    reply.map(wanted.len());
    for (name, spec) in wanted {
        reply.text(name);
        document(reply, spec, name);
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
