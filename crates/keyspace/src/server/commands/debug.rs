//! DEBUG: for tests.

use super::fail::int;
use super::flag::{ADMIN, LOADING, STALE};
use super::{CommandSpec, Ctx, Fail, Handled};

const FLAGS: u32 = ADMIN | LOADING | STALE;

/// The family's table.
pub(crate) const TABLE: &[CommandSpec] = &[CommandSpec::new("debug", -2, 0, unknown)
    .doc("server", "1.0.0", "A container for debugging commands.")
    .with(&[CommandSpec::new("set-active-expire", 3, FLAGS, set_active_expire).doc(
        "server",
        "1.0.0",
        "Switches the removal of expired keys that nobody asks for.",
    )])];

/// Only reached without a second word, which the arity refuses.
fn unknown(_: &mut Ctx<'_>) -> Handled {
    Err(Fail::SYNTAX)
}

fn set_active_expire(ctx: &mut Ctx<'_>) -> Handled {
    ctx.server.active_expire = int(ctx.args.at(2))? != 0;
    ctx.reply().ok();
    Ok(())
}
