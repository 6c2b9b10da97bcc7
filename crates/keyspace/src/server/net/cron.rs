//! What is done `hz` times a second, in slices that nobody notices.

use super::limits;
use crate::server::Server;

/// Keys looked at for expiry between two turns of the loop.
const EXPIRE_KEYS: usize = 400;

/// One tick.
pub(crate) fn tick(server: &mut Server) {
    limits::check_silence(server);
    server.pulse.tick(server.allocator, &server.counters, server.clock.now_ms);
}

/// Removes keys whose time has come, a slice of them in each database. Returns whether there are
/// more.
pub(crate) fn expire(server: &mut Server) -> bool {
    if !server.active_expire {
        return false;
    }
    let mut more = false;
    let (now, lazyfree) = (server.clock.now_ms, &mut server.lazyfree);
    for db in &mut server.dbs {
        if db.expiry().items() > 0 {
            let (_, done) = db.expire(now, EXPIRE_KEYS, |entry| lazyfree.free(entry));
            more |= !done;
        }
    }
    more
}
