//! Giving free memory back while nobody allocates.
//!
//! Pages that came free go back to the system after a while (decay), and pages of slabs on which
//! nothing lives any more are given back one by one. Both happen where the program allocates: in a
//! server that has fallen idle, nowhere. Redis has its allocator's background thread for that
//! (`jemalloc-bg-thread`, on by default); here the parameter of that name starts Tallow's janitor.

use crate::gauge::Allocator;
use crate::server::Server;

/// Starts or stops the janitor, as the configuration says.
pub(crate) fn follow_config(server: &mut Server) {
    if !server.config.jemalloc_bg_thread || server.allocator == Allocator::System {
        tallow::janitor::stop();
    } else if let Err(error) = tallow::janitor::start() {
        tracing::warn!("no thread that gives free memory back: {error}");
    }
}
