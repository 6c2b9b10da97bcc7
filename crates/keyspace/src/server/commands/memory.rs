//! MEMORY: what only the allocator can tell. The answers are in [`memory`](crate::server::memory).

use super::fail::int;
use super::flag::READONLY;
use super::help::help;
use super::{CommandSpec, Ctx, Fail, Handled};
use crate::server::memory::books::Books;
use crate::server::memory::sample::Sample;
use crate::server::memory::usage::Sizes;
use crate::server::memory::waste::Waste;
use crate::server::memory::{doctor, stats};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("memory", -2, 0, unknown)
    .doc("server", "4.0.0", "A container for memory diagnostics commands.")
    .with(&[
        CommandSpec::new("doctor", 2, 0, diagnose).doc(
            "server",
            "4.0.0",
            "Outputs a memory problems report.",
        ),
        CommandSpec::new("help", 2, 0, show_help).doc(
            "server",
            "4.0.0",
            "Returns helpful text about the different subcommands.",
        ),
        CommandSpec::new("malloc-stats", 2, 0, malloc_stats).doc(
            "server",
            "4.0.0",
            "Returns the allocator statistics.",
        ),
        CommandSpec::new("purge", 2, 0, purge).doc(
            "server",
            "4.0.0",
            "Asks the allocator to release memory.",
        ),
        CommandSpec::new("stats", 2, 0, memory_stats).doc(
            "server",
            "4.0.0",
            "Returns details about memory usage.",
        ),
        CommandSpec::new("usage", -3, READONLY, usage).keys(2, 2, 1).doc(
            "server",
            "4.0.0",
            "Estimates the memory usage of a key.",
        ),
    ])];

const HELP: &[&str] = &[
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return where every byte of the process is, and the allocator's tables.",
    "PURGE",
    "    Give all free memory back to the system.",
    "STATS",
    "    Return information about the memory usage of the server.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Hashes are counted",
    "    whole, unless SAMPLES says how many of their fields to look at (0: all).",
];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

fn show_help(ctx: &mut Ctx<'_>) -> Handled {
    help(ctx.reply(), "MEMORY", HELP);
    Ok(())
}

fn diagnose(ctx: &mut Ctx<'_>) -> Handled {
    let mut sample = Sample::now(ctx.server);
    sample.waste = Waste::look(ctx.server, &tallow::stats());
    ctx.reply().verbatim(&doctor::report(&sample, &tallow::process()));
    Ok(())
}

fn malloc_stats(ctx: &mut Ctx<'_>) -> Handled {
    let (sample, books) = (Sample::now(ctx.server), Books::now());
    ctx.reply().verbatim(&stats::malloc_stats(&sample, &books));
    Ok(())
}

fn memory_stats(ctx: &mut Ctx<'_>) -> Handled {
    let (sample, books) = (Sample::now(ctx.server), Books::now());
    stats::write(&sample, &books, ctx.reply());
    Ok(())
}

fn purge(ctx: &mut Ctx<'_>) -> Handled {
    ctx.server.purge();
    ctx.reply().ok();
    Ok(())
}

fn usage(ctx: &mut Ctx<'_>) -> Handled {
    let samples = match ctx.args.len() {
        3 => 0,
        5 if ctx.arg_is(3, "samples") => {
            usize::try_from(int(ctx.args.at(4))?).map_err(|_| Fail::SYNTAX)?
        }
        _ => return Err(Fail::SYNTAX),
    };
    let key = ctx.args.at(2);
    let (db, reply, clock) = ctx.parts();
    match db.peek(key, clock) {
        Some(entry) => {
            let bytes = Sizes::of(&tallow::stats()).entry_bytes(entry, samples);
            reply.int(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        None => reply.null(),
    }
    Ok(())
}
