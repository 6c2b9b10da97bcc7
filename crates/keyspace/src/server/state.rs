//! What the server knows: everything that a command can reach besides its own client.

use super::commands::Registry;
use super::config::Config;
use super::config::params::LOG_LEVELS;
use super::db::defrag::ActiveDefrag;
use super::db::lazyfree::Lazyfree;
use super::db::lfu::Lfu;
use super::db::{Clock, Db, Lookups};
use super::maxmemory::Maxmemory;
use super::memory::pulse::Pulse;
use super::net::client::Client;
use super::net::clients::Clients;
use super::net::expire::ExpireCycle;
use super::net::recent::RecentMax;
use super::pubsub::Pubsub;
use crate::gauge::Allocator;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counters for INFO, set to zero by CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Connections accepted.
    pub(crate) connections_received: u64,
    /// Connections turned away since there were too many.
    pub(crate) rejected_connections: u64,
    /// Commands executed.
    pub(crate) commands_processed: u64,
    /// Error replies.
    pub(crate) error_replies: u64,
    /// Bytes read from clients.
    pub(crate) net_input_bytes: u64,
    /// Bytes sent to clients.
    pub(crate) net_output_bytes: u64,
    /// Keys given up for want of memory.
    pub(crate) evicted_keys: u64,
    /// Clients cut off for want of memory.
    pub(crate) evicted_clients: u64,
    /// Clients cut off since their query buffers were too large.
    pub(crate) query_buffer_disconnections: u64,
    /// Clients cut off since their output buffers were too large.
    pub(crate) output_buffer_disconnections: u64,
}

/// Codes of errors that are counted each for itself, as in Redis.
const MAX_ERROR_CODES: usize = 128;

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    /// All parameters.
    pub(crate) config: Config,
    /// The databases.
    pub(crate) dbs: Vec<Db>,
    /// All clients but the one whose command is being executed.
    pub(crate) clients: Clients,
    /// Who listens to what.
    pub(crate) pubsub: Pubsub,
    /// The commands and how often they were called.
    pub(crate) commands: Registry,
    /// The command executed last.
    last_command: usize,
    /// The time of this turn of the event loop.
    pub(crate) clock: Clock,
    /// When the server was started.
    pub(crate) started: Instant,
    /// Its name for this run: 40 hexadecimal digits.
    pub(crate) run_id: String,
    /// Counters for INFO.
    pub(crate) counters: Counters,
    /// Error replies by their codes: no more codes than [`MAX_ERROR_CODES`].
    pub(crate) errors: BTreeMap<String, u64>,
    /// Frees big values elsewhere.
    pub(crate) lazyfree: Lazyfree,
    /// Gives keys up when memory is short.
    pub(crate) maxmemory: Maxmemory,
    /// Moves the data together.
    pub(crate) defrag: ActiveDefrag,
    /// Removes keys whose time has come.
    pub(crate) expire_cycle: ExpireCycle,
    /// The largest buffers of clients lately.
    pub(crate) recent_max: RecentMax,
    /// Whether keys are removed when their time has come (DEBUG SET-ACTIVE-EXPIRE).
    pub(crate) active_expire: bool,
    /// The TCP port that is listened on; 0 for none.
    pub(crate) port: u16,
    /// Whether to stop after this turn.
    pub(crate) shutdown: bool,
    /// `used_memory` when everything was set up.
    pub(crate) startup_bytes: u64,
    /// What the program's own allocations come from.
    pub(crate) allocator: Allocator,
    /// What is read regularly: RSS, the peak, rates.
    pub(crate) pulse: Pulse,
    rng: Pcg64Mcg,
}

impl Server {
    /// A server without data and clients.
    pub(crate) fn new(config: Config, allocator: Allocator) -> Self {
        // The standard library asks the system for the seeds of its hashers.
        let seed = RandomState::new().hash_one(0);
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let run_id = (0..5).map(|_| format!("{:08x}", rng.random::<u32>())).collect();
        let mut server = Self {
            dbs: (0..config.databases).map(|_| Db::new()).collect(),
            clients: Clients::new(),
            pubsub: Pubsub::default(),
            commands: Registry::new(),
            last_command: 0,
            clock: Clock::default(),
            started: Instant::now(),
            run_id,
            counters: Counters::default(),
            errors: BTreeMap::new(),
            lazyfree: Lazyfree::default(),
            maxmemory: Maxmemory::new(rng.random()),
            defrag: ActiveDefrag::new(),
            expire_cycle: ExpireCycle::default(),
            recent_max: RecentMax::default(),
            active_expire: true,
            port: 0,
            shutdown: false,
            startup_bytes: 0,
            allocator,
            pulse: Pulse::default(),
            rng,
            config,
        };
        server.read_clock();
        server
    }

    /// Reads the clock; once for each turn of the loop.
    pub(crate) fn read_clock(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clock.now_ms = since.as_millis() as i64;
        self.clock.access = since.as_secs() as u32 & 0x00ff_ffff;
        self.clock.lfu = self.config.maxmemory_policy.is_lfu().then_some(Lfu {
            minutes: (since.as_secs() / 60) as u16,
            log_factor: self.config.lfu_log_factor as u32,
            decay_minutes: self.config.lfu_decay_time as u32,
        });
    }

    /// Counts an error reply by its code, the first word.
    pub(crate) fn note_error(&mut self, text: &str) {
        let code = text.split_whitespace().next().unwrap_or_default();
        self.counters.error_replies += 1;
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.insert(code.to_owned(), 1);
        }
    }

    /// Lookups of keys by commands that read, in all databases.
    pub(crate) fn lookups(&self) -> Lookups {
        self.dbs.iter().fold(Lookups::default(), |sum, db| Lookups {
            hits: sum.hits + db.lookups.hits,
            misses: sum.misses + db.lookups.misses,
        })
    }

    /// Counts from zero (CONFIG RESETSTAT). What is no count stays: the peak of memory.
    pub(crate) fn reset_stats(&mut self) {
        self.counters = Counters::default();
        self.errors.clear();
        self.commands.reset_stats();
        self.lazyfree.reset_stats();
        for db in &mut self.dbs {
            (db.expired_keys, db.lookups) = (0, Lookups::default());
        }
        self.expire_cycle.reset_counters();
        self.defrag.reset_counters();
        self.maxmemory.reset_counters(self.clock.now_ms);
    }

    /// Gives back what is free, whichever allocator has it, and reads RSS anew: who asks for it
    /// wants to see what that did. Returns how many bytes Tallow gave back.
    pub(crate) fn purge(&mut self) -> u64 {
        let bytes = tallow::purge();
        if self.allocator == Allocator::System {
            Allocator::System.release_free_memory();
        }
        self.read_memory();
        bytes
    }

    /// Reads the figures of memory that are otherwise read ten times a second.
    pub(crate) fn read_memory(&mut self) {
        self.pulse.read(self.allocator, self.clock.now_ms);
    }

    /// Notes which command is the next to be executed, whoever sends it.
    #[inline]
    pub(crate) fn note_next(&mut self, command: usize) {
        if self.last_command != command {
            self.last_command = command;
            self.watch_peak();
        }
    }

    /// Looks at the peak of memory, if it may be another.
    #[inline]
    pub(crate) fn watch_peak(&mut self) {
        self.pulse.watch_peak(self.allocator, self.clock.now_ms);
    }

    /// A random number.
    pub(crate) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    /// Whether a client may do what all may: it has said the password, or need not.
    #[inline]
    pub(crate) fn knows(&self, client: &Client) -> bool {
        client.authenticated || !self.wants_password()
    }

    /// Whether clients have to say a password.
    pub(crate) fn wants_password(&self) -> bool {
        !self.config.requirepass.is_empty()
    }

    /// Makes the log as talkative as the configuration says.
    pub(crate) fn set_log_level(&mut self) {
        super::net::log::set_level(LOG_LEVELS[self.config.loglevel]);
    }
}
