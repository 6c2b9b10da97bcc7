//! What is done `hz` times a second, in slices that nobody notices.

use super::{expire, limits};
use crate::server::Server;
use crate::server::maxmemory;

/// One tick.
pub(crate) fn tick(server: &mut Server) {
    limits::check_silence(server);
    limits::check_slow(server);
    limits::shrink_idle(server);
    server.pulse.tick(server.allocator, &server.counters, server.clock.now_ms);
    maxmemory::tick(server);
    expire::note_stale(server);
}
