//! `maxmemory`: keeps the server below a limit, by giving keys up or by refusing to write.
//!
//! # What is measured
//! `used_memory`, as in Redis: what Tallow calls allocated, compared with the limit before each
//! command. The exact figure is asked for once a millisecond, and when an upper bound of what has
//! come since ([`Meter::most_bytes`](super::memory::meter::Meter::most_bytes)) passes the limit; and
//! then a little more is given up than must be ([`slack_bytes`]), so that the next look is some
//! hundred writes away.
//!
//! With `maxmemory-counts resident` it is RSS that is held below the limit: what the kernel
//! counts, and kills for. Redis cannot say that, since its allocator may keep what keys gave up. Tallow
//! purges first, which gives free pages and the caches of all threads back; then as many keys go as
//! a heap without fragmentation would have to lose. What is above the limit still is fragmentation:
//! that takes `activedefrag`, which moves what pins pages: while a pass is under way that is to release
//! as much as there is too much, no key goes for it. Where it is off, or not enough, an eighth of the
//! excess goes with each purge, every [`PURGE_EVERY_MS`].
//!
//! Nothing is left out of the sum but what is given up already: Redis leaves out what replicas have
//! not taken and the AOF buffer (or eviction would feed itself), and there are none of those here.
//! Output buffers count.
//!
//! Large values are given up in no time, and freed on [another thread](super::db::lazyfree). What
//! waits there is as good as free, so not one more goes than has to. If it is more than one
//! [`QUEUE_SHARE`]th of the limit, no more is sent there: eviction waits for that thread, and a
//! command that has to pay (below) frees what it gives up itself.
//!
//! # How long it takes
//! The calls of one turn of the event loop may take as long as `maxmemory-eviction-tenacity` says
//! (500 µs by default; in Redis each call may), however many commands a client sends at once. What is
//! left is done in the turns to come, and commands are executed meanwhile, each at the price of
//! [`KEYS_BEYOND_TIME`]: nobody waits for a limit that was lowered by gigabytes.
//!
//! # How far above the limit it can be
//! Two keys may be less than what a command adds. So the least that the data have taken since the
//! limit was passed is remembered ([`Maxmemory::least_data_bytes`]). Once they take [`credit_bytes`]
//! more than that, every command that may take memory first pays: it gives up what those before it
//! have added beyond, however long that takes, or is refused if there is nothing to give up.
//! Where entries are as large as those that make way for them this never happens. So `used_memory` is
//! at most the limit (or what was used when the limit was lowered), and
//! - the credit, a mebibyte at most, and what the last two commands add: each is executed whole,
//! - what eviction has sent to the other thread: an eighth of the limit and one value,
//! - what clients' buffers have grown by since. They have limits of their own, and no command pays
//!   for those of others; for them keys go when there is time.

use super::Server;
use super::accounts::client_bytes;
use super::db::evict::{Candidate, Policy, Pool};
use super::db::{Db, UnixMs};
use super::memory::kernel;
use crate::gauge::Allocator;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::time::{Duration, Instant};

/// Keys given up between two looks at memory and the clock.
const KEYS_PER_LOOK: usize = 16;
/// Keys given up before a command for which there is no time left in this turn.
const KEYS_BEYOND_TIME: usize = 2;
/// What the data may grow by while memory is above the limit: at least, for a small one, and at most.
const CREDIT_BYTES: (u64, u64) = (64 * 1024, 1024 * 1024);
/// The share of the limit that may wait to be freed on the other thread.
const QUEUE_SHARE: u64 = 8;
/// The most that is given up beyond the limit.
const MAX_SLACK_BYTES: u64 = 64 * 1024;
/// How often everything is given back to the system while RSS is above the limit.
const PURGE_EVERY_MS: i64 = 100;
/// What a defragmented heap takes for each byte allocated, in twentieths.
const COMPACT_TWENTIETHS: u64 = 21;

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Enough,
    /// Not yet: keys are still to be given up.
    Working,
    /// There is not, and no key may be given up.
    None,
}

/// What eviction remembers.
#[derive(Debug)]
pub(crate) struct Maxmemory {
    pool: Pool,
    rng: Pcg64Mcg,
    /// The database that a random key is taken from next.
    next_db: usize,
    /// Whether there is more to be done between turns of the event loop.
    is_working: bool,
    /// How long calls have taken in this turn,
    spent: Duration,
    /// and how many keys were given up in it; the most that ever were.
    turn: u64,
    most_in_turn: u64,
    /// Since when memory is above the limit.
    over_since_ms: Option<UnixMs>,
    /// Milliseconds that it was before.
    exceeded_ms: u64,
    purged_ms: UnixMs,
    /// What may be used at most until the next purge, while RSS is above the limit.
    resident_goal_bytes: u64,
    /// The least that was used beside clients' buffers since there was too much; `u64::MAX` while
    /// there is not.
    least_data_bytes: u64,
}

impl Maxmemory {
    /// Draws keys by numbers from this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            pool: Pool::default(),
            rng: Pcg64Mcg::seed_from_u64(seed),
            next_db: 0,
            is_working: false,
            spent: Duration::ZERO,
            turn: 0,
            most_in_turn: 0,
            over_since_ms: None,
            exceeded_ms: 0,
            purged_ms: 0,
            resident_goal_bytes: u64::MAX,
            least_data_bytes: u64::MAX,
        }
    }

    /// Milliseconds for which memory was above the limit: in all, and this time.
    pub(crate) fn exceeded_ms(&self, now: UnixMs) -> (u64, u64) {
        let current = self.over_since_ms.map_or(0, |since| (now - since).max(0) as u64);
        (self.exceeded_ms + current, current)
    }

    /// The most keys that were given up in one turn of the event loop, since this was last
    /// [forgotten](Self::reset_counters).
    pub(crate) fn most_in_turn(&self) -> u64 {
        self.most_in_turn
    }

    /// Counts from zero: also for how long memory is above the limit.
    pub(crate) fn reset_counters(&mut self, now: UnixMs) {
        (self.most_in_turn, self.exceeded_ms) = (0, 0);
        self.over_since_ms = self.over_since_ms.map(|_| now);
    }

    /// Follows the data down, while there is too much.
    fn follow(&mut self, excess: &Excess) {
        let is_more = excess.used_bytes > excess.most_bytes;
        self.least_data_bytes =
            if is_more { self.least_data_bytes.min(excess.data_bytes) } else { u64::MAX };
    }

    fn note_given_up(&mut self) {
        self.turn += 1;
        self.most_in_turn = self.most_in_turn.max(self.turn);
    }

    fn note(&mut self, is_over: bool, now: UnixMs) {
        match (is_over, self.over_since_ms) {
            (true, None) => self.over_since_ms = Some(now),
            (false, Some(since)) => {
                self.exceeded_ms += (now - since).max(0) as u64;
                self.over_since_ms = None;
            }
            _ => {}
        }
    }
}

/// Makes room if `maxmemory` is passed; called before each command. One that `adds`, since it may
/// take memory, pays for those before it if it must.
#[inline]
pub(crate) fn make_room(server: &mut Server, adds: bool) -> Room {
    let limit = server.config.maxmemory;
    let (counts_resident, now) = (server.config.counts_resident(), server.clock.now_ms);
    if limit == 0 || (!counts_resident && server.pulse.is_within(server.allocator, limit, now)) {
        return Room::Enough;
    }
    if counts_resident
        && server.pulse.rss_bytes <= limit
        && server.maxmemory.over_since_ms.is_none()
    {
        // RSS is read ten times a second.
        return Room::Enough;
    }
    make_room_now(server, adds)
}

/// Begins a turn, and goes on with what there was no time for. Returns whether there is still more.
pub(crate) fn go_on(server: &mut Server) -> bool {
    (server.maxmemory.spent, server.maxmemory.turn) = (Duration::ZERO, 0);
    let is_working = std::mem::take(&mut server.maxmemory.is_working);
    is_working && make_room_now(server, false) == Room::Working
}

/// Looks at memory ten times a second, also while nobody says anything.
pub(crate) fn tick(server: &mut Server) {
    server.maxmemory.is_working |= server.config.maxmemory > 0;
}

/// The limit or the policy has changed.
pub(crate) fn changed(server: &mut Server) {
    server.read_clock();
    server.maxmemory.pool.clear();
    server.maxmemory.least_data_bytes = u64::MAX;
    server.maxmemory.is_working = server.config.maxmemory > 0;
    if !server.maxmemory.is_working {
        // Nothing is too much without a limit.
        server.maxmemory.note(false, server.clock.now_ms);
    }
}

/// What has to go.
#[derive(Clone, Copy, Debug)]
struct Excess {
    /// Whether the limit is passed.
    is_over: bool,
    /// Bytes that are allocated, but for what is being freed on the other thread.
    used_bytes: u64,
    /// The same without what clients' buffers take.
    data_bytes: u64,
    /// What that is to be at most,
    most_bytes: u64,
    /// and what it is brought down to once it is more.
    goal_bytes: u64,
}

#[cold]
fn make_room_now(server: &mut Server, adds: bool) -> Room {
    let mut excess = measure(server);
    server.maxmemory.note(excess.is_over, server.clock.now_ms);
    if excess.is_over && server.config.maxmemory_policy == Policy::NoEviction {
        return Room::None;
    }
    if excess.used_bytes <= excess.most_bytes {
        return Room::Enough;
    }
    match make_room_in_time(server, &mut excess) {
        Room::Working if adds => pay(server, excess),
        room => room,
    }
}

/// Gives up what there is time for in this turn.
fn make_room_in_time(server: &mut Server, excess: &mut Excess) -> Room {
    let patience = patience(server.config.maxmemory_eviction_tenacity);
    let most = patience.map(|all| all.saturating_sub(server.maxmemory.spent));
    if most.is_some_and(|most| most.is_zero()) {
        for _ in 0..KEYS_BEYOND_TIME {
            if !is_behind(server)
                && let Some(candidate) = choose(server)
            {
                give_up(server, &candidate);
            }
        }
        server.maxmemory.is_working = true;
        return Room::Working;
    }
    let started = Instant::now();
    let room = make_room_within(server, excess, started, most);
    server.maxmemory.spent += started.elapsed();
    room
}

/// Gives keys up until that is enough, or the time is over; looks at what is left then.
fn make_room_within(
    server: &mut Server,
    excess: &mut Excess,
    started: Instant,
    most: Option<Duration>,
) -> Room {
    let now = server.clock.now_ms;
    loop {
        if most.is_some() && is_behind(server) {
            server.maxmemory.is_working = true;
            return Room::Working;
        }
        let more = give_up_some(server, excess.used_bytes - excess.goal_bytes);
        *excess = measure(server);
        if excess.used_bytes <= excess.goal_bytes {
            server.maxmemory.note(excess.is_over, now);
            return Room::Enough;
        }
        if !more {
            // What was given up may still be on its way.
            let is_coming = server.lazyfree.pending_objects() > 0;
            let is_enough = excess.used_bytes <= excess.most_bytes;
            server.maxmemory.is_working = is_coming && !is_enough;
            server.maxmemory.note(!is_enough, now);
            return match (is_enough, is_coming) {
                (true, _) => Room::Enough,
                (false, true) => Room::Working,
                (false, false) => Room::None,
            };
        }
        if most.is_some_and(|most| started.elapsed() >= most) {
            server.maxmemory.is_working = true;
            return Room::Working;
        }
    }
}

/// Gives up what the data have grown by beyond their credit since there is too much.
fn pay(server: &mut Server, mut excess: Excess) -> Room {
    let credit = credit_bytes(server.config.maxmemory);
    let mut more = true;
    while excess.used_bytes > excess.most_bytes {
        let owed = excess.data_bytes.saturating_sub(server.maxmemory.least_data_bytes + credit);
        if owed == 0 {
            return Room::Working;
        }
        if !more {
            return Room::None;
        }
        more = give_up_some(server, owed);
        excess = measure(server);
    }
    Room::Enough
}

/// Whether as much waits for the thread that frees large values as may.
fn is_behind(server: &Server) -> bool {
    server.lazyfree.queued_bytes() > server.config.maxmemory / QUEUE_SHARE
}

/// How much the data may grow by while there is too much.
fn credit_bytes(limit: u64) -> u64 {
    (limit / 64).clamp(CREDIT_BYTES.0, CREDIT_BYTES.1)
}

/// How much more than it must is given up: a thousandth of the limit.
fn slack_bytes(limit: u64) -> u64 {
    (limit / 1000).min(MAX_SLACK_BYTES)
}

/// How long a call may take (Redis: `evictionTimeLimitUs`); `None`: as long as it takes.
fn patience(tenacity: i64) -> Option<Duration> {
    match tenacity {
        ..=10 => Some(Duration::from_micros(50 * tenacity.max(0) as u64)),
        11..=99 => Some(Duration::from_micros((500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64)),
        _ => None,
    }
}

/// What is used, and what may be.
fn measure(server: &mut Server) -> Excess {
    let all_bytes = server.pulse.look(server.allocator, server.clock.now_ms);
    // Looked at after that: what has been freed between is counted still.
    let used_bytes = all_bytes.saturating_sub(server.lazyfree.queued_bytes());
    let (is_over, most_bytes, goal_bytes) = if server.config.counts_resident() {
        measure_resident(server, used_bytes)
    } else {
        let limit = server.config.maxmemory;
        (all_bytes > limit, limit, limit - slack_bytes(limit))
    };
    let data_bytes = used_bytes.saturating_sub(client_bytes());
    let excess = Excess { is_over, used_bytes, data_bytes, most_bytes, goal_bytes };
    server.maxmemory.follow(&excess);
    excess
}

/// Whether RSS is above the limit, what may be used then, and what that is brought down to.
fn measure_resident(server: &mut Server, used_bytes: u64) -> (bool, u64, u64) {
    let limit = server.config.maxmemory;
    let (mut rss, now) = (kernel::rss_bytes(), server.clock.now_ms);
    let purges = rss > limit && !(0..PURGE_EVERY_MS).contains(&(now - server.maxmemory.purged_ms));
    if purges {
        server.maxmemory.purged_ms = now;
        if server.allocator == Allocator::Tallow {
            tallow::purge();
        }
        rss = kernel::rss_bytes();
    }
    server.pulse.rss_bytes = rss;
    if rss <= limit {
        return (false, u64::MAX, u64::MAX);
    }
    if purges {
        // What a compact heap could hold within the limit, beside what is no heap.
        let stats = tallow::stats();
        let beside = rss.saturating_sub(stats.resident_bytes) + stats.metadata_bytes;
        let compact = limit.saturating_sub(beside) / COMPACT_TWENTIETHS * 20;
        // What a pass under way will release needs no key to go; nor does what waits to be freed.
        let is_healing = server.defrag.running_percent() > 0;
        let healed = if is_healing { stats.evacuable_bytes() } else { 0 };
        let excess = (rss - limit).saturating_sub(healed + server.lazyfree.queued_bytes());
        server.maxmemory.resident_goal_bytes = compact.min(used_bytes.saturating_sub(excess / 8));
    }
    (true, server.maxmemory.resident_goal_bytes, server.maxmemory.resident_goal_bytes)
}

/// Gives some keys up, until about `wanted` bytes are free. Returns whether there are more keys.
fn give_up_some(server: &mut Server, wanted_bytes: u64) -> bool {
    let mut freed = 0;
    for _ in 0..KEYS_PER_LOOK {
        let Some(candidate) = choose(server) else { return false };
        freed += give_up(server, &candidate);
        if freed >= wanted_bytes {
            break;
        }
    }
    true
}

/// Removes a key; returns about how many bytes that frees.
fn give_up(server: &mut Server, candidate: &Candidate) -> u64 {
    let Some(mut entry) = server.dbs[candidate.db].remove(&candidate.key) else { return 0 };
    server.counters.evicted_keys += 1;
    server.maxmemory.note_given_up();
    // Of what has an inside it takes a look at memory to know.
    let bytes = match entry.rich_mut() {
        None => entry.shell_bytes() as u64,
        Some(_) => u64::MAX / KEYS_PER_LOOK as u64,
    };
    let lazily = server.config.lazyfree_lazy_eviction && !is_behind(server);
    server.lazyfree.free_if(lazily, entry);
    bytes
}

/// The key to give up next.
fn choose(server: &mut Server) -> Option<Candidate> {
    let policy = server.config.maxmemory_policy;
    if policy.is_random() {
        return choose_any(server, policy.is_volatile());
    }
    let (clock, samples) = (server.clock, server.config.maxmemory_samples);
    let Maxmemory { pool, rng, .. } = &mut server.maxmemory;
    loop {
        let mut drawn = 0;
        for (i, db) in server.dbs.iter().enumerate() {
            for _ in 0..samples {
                let Some(entry) = draw(db, policy.is_volatile(), rng) else { break };
                pool.offer(policy.score(entry, clock), i, entry.key());
                drawn += 1;
            }
        }
        // Those in the pool may be gone, or expire no more.
        while let Some(best) = pool.best() {
            let entry = server.dbs[best.db].table().get(&best.key);
            if entry.is_some_and(|it| !policy.is_volatile() || it.expires_at().is_some()) {
                return Some(best);
            }
        }
        if drawn == 0 {
            return None;
        }
    }
}

/// A random key, from the databases in turn.
fn choose_any(server: &mut Server, volatile: bool) -> Option<Candidate> {
    let Maxmemory { rng, next_db, .. } = &mut server.maxmemory;
    for _ in 0..server.dbs.len() {
        *next_db = (*next_db + 1) % server.dbs.len();
        if let Some(entry) = draw(&server.dbs[*next_db], volatile, rng) {
            return Some(Candidate::any(*next_db, entry.key()));
        }
    }
    None
}

fn draw<'a>(db: &'a Db, volatile: bool, rng: &mut Pcg64Mcg) -> Option<&'a super::db::Entry> {
    match volatile {
        true => db.random_expiring(|| rng.random()),
        false => db.table().random(|| rng.random()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_that_of_redis() {
        assert_eq!(patience(0), Some(Duration::ZERO));
        assert_eq!(patience(10), Some(Duration::from_micros(500)));
        assert_eq!(patience(11), Some(Duration::from_micros(575)));
        assert!(patience(99).is_some_and(|time| time > Duration::from_secs(60)));
        assert_eq!(patience(100), None);
    }

    #[test]
    fn slack_is_small() {
        assert_eq!((slack_bytes(1 << 20), slack_bytes(1 << 40)), (1048, MAX_SLACK_BYTES));
    }

    #[test]
    fn the_credit_is_counted_from_the_least_since_there_was_too_much() {
        let mut it = Maxmemory::new(1);
        for (used_bytes, least) in
            [(50, u64::MAX), (130, 120), (150, 120), (120, 110), (100, u64::MAX)]
        {
            let data_bytes = used_bytes - 10;
            let is_over = used_bytes > 100;
            it.follow(&Excess { is_over, used_bytes, data_bytes, most_bytes: 100, goal_bytes: 90 });
            assert_eq!(it.least_data_bytes, least, "at {used_bytes}");
        }
        assert_eq!((credit_bytes(1 << 20), credit_bytes(32 << 20)), (64 << 10, 512 << 10));
        assert_eq!(credit_bytes(1 << 40), 1 << 20);
    }
}
