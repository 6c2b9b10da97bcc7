//! Active defragmentation: when the data are moved together, and how much of the time that takes.
//!
//! The event loop calls [`poll`] in every turn. [`tallow::defrag::Defrag`] judges ten times a second
//! what a pass would release, as Redis does in its cron, and cuts passes into steps of
//! `active-defrag-cycle-us`, between which it wants to sleep as long as the effort allows. The knobs
//! are Redis's. What differs:
//!
//! - Redis compares bytes free in slabs with bytes allocated; here it is the bytes that a pass would
//!   give back to the system, so that none is begun in vain.
//! - Redis asks of each block in turn whether its slab is emptier than the mean. Here a plan says
//!   beforehand which slabs are to be emptied; blocks in others are not touched.
//! - The tables move too, a shard at a time, and so does the index of expiries.

use super::walk::Cursor;
use crate::server::Server;
use crate::server::config::Config;
use crate::server::info::field;
use std::time::{Duration, Instant};
use tallow::defrag::{Defrag, DefragStats, Mover, Settings, Visit};

/// The defragmentation of a server's data.
#[derive(Debug)]
pub(crate) struct ActiveDefrag {
    defrag: Defrag<Cursor>,
    /// What was set when it was last polled.
    settings: Settings,
    was_on: bool,
    /// Whether one pass is to be made whatever there is to gain, and when its next step is due.
    once: Option<Instant>,
    /// Keys of which something moved, and others, in passes that are over.
    key_hits: u64,
    key_misses: u64,
    /// The same in the pass under way, as far as it has come.
    current: (u64, u64),
    /// What had been done when the counters were last set to zero.
    base: DefragStats,
    /// When the present activity began, and how long all before it took.
    active_since: Option<Instant>,
    total_active: Duration,
}

impl ActiveDefrag {
    /// At rest.
    pub(crate) fn new() -> Self {
        let settings = Settings::default();
        Self {
            defrag: Defrag::new(settings),
            settings,
            was_on: false,
            once: None,
            key_hits: 0,
            key_misses: 0,
            current: (0, 0),
            base: DefragStats::default(),
            active_since: None,
            total_active: Duration::ZERO,
        }
    }

    /// The share of a processor's time that it takes now, in percent; 0 at rest.
    pub(crate) fn running_percent(&self) -> u32 {
        self.defrag.effort_percent()
    }

    /// Has one pass made, whether `activedefrag` is on or not.
    pub(crate) fn make_one_pass(&mut self) {
        self.once = Some(Instant::now());
    }

    /// Sets the counters to zero, as CONFIG RESETSTAT does.
    pub(crate) fn reset_counters(&mut self) {
        self.base = tallow::stats().defrag;
        (self.key_hits, self.key_misses) = (0, 0);
        self.current = (0, 0);
        self.total_active = Duration::ZERO;
        self.active_since = self.active_since.map(|_| Instant::now());
    }

    /// Writes the fields of INFO stats. The first five are Redis's; then what it does not know.
    pub(crate) fn write_fields(&self, text: &mut String) {
        let now = tallow::stats().defrag;
        let current = self.active_since.map_or(Duration::ZERO, |since| since.elapsed());
        field(text, "active_defrag_hits", now.hits - self.base.hits);
        field(text, "active_defrag_misses", now.misses - self.base.misses);
        field(text, "active_defrag_key_hits", self.key_hits + self.current.0);
        field(text, "active_defrag_key_misses", self.key_misses + self.current.1);
        field(text, "total_active_defrag_time", (self.total_active + current).as_millis());
        field(text, "current_active_defrag_time", current.as_millis());
        field(text, "active_defrag_passes", now.passes - self.base.passes);
        field(text, "active_defrag_moved_bytes", now.moved_bytes - self.base.moved_bytes);
        field(text, "active_defrag_released_bytes", now.released_bytes - self.base.released_bytes);
        field(text, "active_defrag_longest_step_us", now.longest_step_ns / 1000);
    }

    fn note_activity(&mut self) {
        match (self.active_since, self.running_percent() > 0) {
            (None, true) => self.active_since = Some(Instant::now()),
            (Some(since), false) => {
                self.total_active += since.elapsed();
                self.active_since = None;
            }
            _ => {}
        }
    }
}

/// What the configuration says, in the allocator's terms.
fn settings(config: &Config) -> Settings {
    // Each is within the bounds that the table of parameters gives it.
    let percent = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut settings = Settings::default();
    settings.ignore_bytes = config.active_defrag_ignore_bytes;
    settings.threshold_lower_percent = percent(config.active_defrag_threshold_lower);
    settings.threshold_upper_percent = percent(config.active_defrag_threshold_upper);
    settings.cycle_min_percent = percent(config.active_defrag_cycle_min);
    settings.cycle_max_percent = percent(config.active_defrag_cycle_max);
    settings.step = Duration::from_micros(config.active_defrag_cycle_us.max(1) as u64);
    settings
}

/// Takes a step if one is due. Returns how long the event loop may sleep for its part.
pub(crate) fn poll(server: &mut Server) -> Option<Duration> {
    if server.defrag.once.is_some() {
        return Some(poll_once(server));
    }
    let it = &mut server.defrag;
    if !server.config.activedefrag {
        if it.was_on {
            it.was_on = false;
            it.defrag.stop();
            it.note_activity();
        }
        return None;
    }
    let settings = settings(&server.config);
    if !it.was_on || it.settings != settings {
        it.was_on = true;
        it.settings = settings;
        it.defrag.set(settings);
    }
    let wait = visiting(server, |defrag, visit| defrag.poll(visit));
    server.defrag.note_activity();
    Some(wait)
}

/// The same for a pass that was asked for: it takes the most time that the configuration allows.
fn poll_once(server: &mut Server) -> Duration {
    let started = Instant::now();
    if let Some(due) = server.defrag.once.filter(|due| *due > started) {
        return due - started;
    }
    let settings = settings(&server.config);
    server.defrag.settings = settings;
    server.defrag.defrag.set(settings);
    let goes_on = visiting(server, |defrag, visit| defrag.step(visit));
    let percent = settings.cycle_max_percent.clamp(1, 100);
    let wait = started.elapsed() * (100 - percent) / percent;
    server.defrag.once = if goes_on { Instant::now().checked_add(wait) } else { None };
    server.defrag.note_activity();
    wait
}

/// Has `work` take a step with a visit of the databases, and counts the keys that are visited.
fn visiting<R>(
    server: &mut Server,
    work: impl FnOnce(&mut Defrag<Cursor>, &mut dyn FnMut(&mut Cursor, &mut Mover<'_>) -> Visit) -> R,
) -> R {
    let max_scan_fields = server.config.active_defrag_max_scan_fields as usize;
    let (it, dbs) = (&mut server.defrag, &mut server.dbs);
    let (mut current, mut over) = (it.current, false);
    let result = work(&mut it.defrag, &mut |cursor, mover| {
        let visit = cursor.visit(dbs, max_scan_fields, mover);
        (current, over) = ((cursor.key_hits, cursor.key_misses), visit == Visit::Done);
        visit
    });
    it.current = current;
    if over {
        it.key_hits += current.0;
        it.key_misses += current.1;
        it.current = (0, 0);
    }
    result
}
