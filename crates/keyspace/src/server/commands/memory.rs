//! MEMORY: what only the allocator can tell. The answers are in [`memory`](crate::server::memory).

use super::flag::READONLY;
use super::{CommandSpec, Ctx, Fail, Handled};

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("memory", -2, 0, unknown)
    .doc("server", "4.0.0", "A container for memory diagnostics commands.")
    .with(&[CommandSpec::new("purge", 2, READONLY, purge).doc(
        "server",
        "4.0.0",
        "Asks the allocator to release memory.",
    )])];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

fn purge(ctx: &mut Ctx<'_>) -> Handled {
    tallow::purge();
    ctx.reply().ok();
    Ok(())
}
