//! The server's log: `tracing` on standard error, at the level that `loglevel` says.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};
use tracing::Level;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::prelude::*;

/// How many levels are shown, from none to those for debugging. Relaxed: a number of its own.
static SHOWN: AtomicU8 = AtomicU8::new(3);

/// Starts logging; whoever logs already goes on.
pub(crate) fn start() {
    let shown = FilterFn::new(|of| {
        let rank = match *of.level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        rank <= SHOWN.load(Ordering::Relaxed)
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false);
    // It fails if another subscriber is there: then that one it is.
    let _ = tracing_subscriber::registry().with(lines.with_filter(shown)).try_init();
}

/// Shows what Redis's `level` shows.
pub(crate) fn set_level(level: &str) {
    let shown = match level {
        "debug" => 5,
        "verbose" => 4,
        "notice" => 3,
        "warning" => 2,
        _ => 0,
    };
    SHOWN.store(shown, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}
