//! The active expiry cycle: removes keys whose time has come, in slices.
//!
//! Redis looks at the next twenty keys of those that expire, wherever the last look ended, and goes
//! on while more than a tenth of them had expired: so it knows neither when it is done nor where
//! the others are, and lets a tenth of the keys with an expiry lie dead. The wheel ([`db::expiry`](crate::server::db::expiry)) hands out
//! exactly those that are due, so a turn of the event loop takes what has come up since the last
//! one, mostly nothing.
//!
//! When very many come up at once the work is bounded as there: a slice of at most half a
//! millisecond, then a pause such that it takes a quarter of the time (`active-expire-effort` raises
//! both). Only while no client wants anything is it done without pauses.

use crate::server::Server;
use crate::server::info::field;
use std::time::{Duration, Instant};

/// What the cycle knows about itself.
#[derive(Debug, Default)]
pub(crate) struct ExpireCycle {
    /// When the next slice may begin, if clients are waiting.
    not_before: Option<Instant>,
    /// The database to begin with: the one in which the last slice ended.
    next_db: usize,
    /// Keys that have expired and are still there, in percent of those that expire: a running mean.
    stale_percent: f64,
    /// Slices that ended for want of time.
    cap_reached: u64,
    busy: Duration,
}

impl ExpireCycle {
    /// Writes the fields of INFO stats.
    pub(crate) fn write_fields(&self, text: &mut String) {
        field(text, "expired_stale_perc", format_args!("{:.2}", self.stale_percent));
        field(text, "expired_time_cap_reached_count", self.cap_reached);
        field(text, "expire_cycle_cpu_milliseconds", self.busy.as_millis());
    }

    /// Sets the counters to zero.
    pub(crate) fn reset_counters(&mut self) {
        (self.stale_percent, self.cap_reached, self.busy) = (0.0, 0, Duration::ZERO);
    }
}

/// Notes how many dead keys there are: in every tick.
pub(super) fn note_stale(server: &mut Server) {
    let now = server.clock.now_ms;
    let dead: usize = server.dbs.iter().map(|db| db.dead(now)).sum();
    let all: usize = server.dbs.iter().map(|db| db.with_expiry()).sum();
    let percent = dead as f64 * 100.0 / all.max(1) as f64;
    // As there: a twentieth of the present, the rest of the past.
    let mean = &mut server.expire_cycle.stale_percent;
    *mean = percent.min(100.0) * 0.05 + *mean * 0.95;
}

/// Takes a slice, if there is something to do and it may be done now. Returns when to go on, if there
/// is more. `is_idle` says that no client wants anything.
pub(super) fn run(server: &mut Server, is_idle: bool) -> Option<Duration> {
    bury(server);
    if !server.active_expire || !server.dbs.iter().any(|db| db.has_expiry_work()) {
        return None;
    }
    let started = Instant::now();
    if let Some(at) = server.expire_cycle.not_before.filter(|at| !is_idle && *at > started) {
        return Some(at - started);
    }
    // One to ten.
    let effort = (server.config.active_expire_effort - 1).clamp(0, 9) as u32;
    let slice = Duration::from_micros(u64::from(500 + 50 * effort));
    let share_percent = 25 + 2 * effort;
    let deadline = started + slice;
    let (now, lazily) = (server.clock.now_ms, server.config.lazyfree_lazy_expire);
    let (it, lazyfree) = (&mut server.expire_cycle, &mut server.lazyfree);
    let count = server.dbs.len();
    let mut more = false;
    for _ in 0..count {
        let db = &mut server.dbs[it.next_db % count];
        if db.has_expiry_work() {
            let in_time = || Instant::now() < deadline;
            more = !db.expire(now, in_time, |entry| lazyfree.free_if(lazily, entry));
            if more {
                break;
            }
        }
        it.next_db = (it.next_db + 1) % count;
    }
    let took = started.elapsed();
    it.busy += took;
    it.not_before = None;
    if !more {
        return None;
    }
    it.cap_reached += 1;
    let pause = took * (100 - share_percent) / share_percent;
    it.not_before = Some(started + took + pause);
    Some(if is_idle { Duration::ZERO } else { pause })
}

/// Parts with large values that lookups found expired.
fn bury(server: &mut Server) {
    let lazily = server.config.lazyfree_lazy_expire;
    for db in server.dbs.iter_mut().filter(|db| !db.rubbish.is_empty()) {
        for entry in std::mem::take(&mut db.rubbish) {
            server.lazyfree.free_if(lazily, entry);
        }
    }
}
