//! The driver: connects, goes through the phases, compares in the end.

use super::books::Books;
use super::lanes::Lanes;
use super::monitor::Monitor;
use super::outcome::{Healing, Outcome, PhaseEnd, Server};
use super::probe::Probe;
use super::wire::{Answer, Connection, described, field};
use super::{ActiveDefrag, Config};
use crate::bytes::{hash, value_for};
use crate::churn::{Phase, Times};
use crate::clock::TICKS_PER_SECOND;
use crate::workload::Generator;
use anyhow::{Context, bail};
use std::time::Instant;

/// Virtual time spanned by *loaded* once the server is full, in mean TTLs.
const SPAN_MEAN_TTLS: f64 = 1.25;
/// Steps that this time is cut into.
const STEPS: u32 = 1500;
/// Requests made in it, per key held.
const REQUESTS_PER_KEY: u64 = 2;
/// Keys set between two words about progress.
const FILL_ROUND: u64 = 10_000;
/// The most keys: their numbers have 32 bits in the books, and most of those born are gone.
pub(super) const MAX_KEYS: u64 = 1 << 30;

/// The state of a run.
pub(super) struct Driver<'a> {
    pub(super) config: &'a Config,
    pub(super) progress: &'a mut dyn FnMut(Phase, Option<f64>),
    pub(super) generator: Generator,
    pub(super) books: Books,
    pub(super) lanes: Lanes,
    /// For questions that are no load.
    pub(super) control: Connection,
    pub(super) monitor: Monitor,
    pub(super) server: Server,
    phases: Vec<PhaseEnd>,
}

impl<'a> Driver<'a> {
    /// Connects, and makes sure that the server is empty and can be watched.
    pub(super) fn start(
        config: &'a Config,
        progress: &'a mut dyn FnMut(Phase, Option<f64>),
    ) -> anyhow::Result<Self> {
        if config.keys == 0 || config.keys > MAX_KEYS {
            bail!("--keys must be from 1 to {MAX_KEYS}");
        }
        let mut control = Connection::open(&config.address, config.password.as_deref())?;
        empty(&mut control, config)?;
        if config.activedefrag != ActiveDefrag::Keep {
            // Where there is none, it is off.
            let _ = control.ask(&[b"CONFIG", b"SET", b"activedefrag", b"no"])?;
        }
        let monitor = Monitor::start(config)?;
        let info = control.info("server")?;
        let server = Server {
            address: config.address.to_string(),
            name: field(&info, "server_name").unwrap_or("redis").to_owned(),
            version: field(&info, "redis_version").unwrap_or("unknown").to_owned(),
            allocator: field(&control.info("memory")?, "mem_allocator")
                .unwrap_or("unknown")
                .to_owned(),
            rss_source: monitor.rss_source(),
        };
        Ok(Self {
            config,
            progress,
            generator: Generator::new(config.cluster, config.seed, config.keys),
            books: Books::default(),
            lanes: Lanes::open(config)?,
            control,
            monitor,
            server,
            phases: Vec::with_capacity(3),
        })
    }

    /// Goes through the phases.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let times = self.load()?;
        self.finish(Phase::Loaded, times)?;
        let (survivors, times) = self.expire()?;
        self.finish(Phase::Expired, times)?;
        let (mut healing, times) = self.heal(&survivors)?;
        self.finish(Phase::Healed, times)?;
        healing.purged = self.purge()?;
        let checked = self.verify(&survivors)?;
        let timeline = self.monitor.stop()?;
        healing.judge(&timeline);
        let phases = self.phases.try_into().expect("three phases were finished");
        Ok(Outcome { server: self.server, phases, healing, timeline, keys_checked: checked })
    }

    /// Fills the server, then makes requests while keys expire and new ones take their places.
    fn load(&mut self) -> anyhow::Result<Times> {
        let keys = self.config.keys;
        while self.books.held() < keys {
            for _ in 0..FILL_ROUND.min(keys - self.books.held()) {
                let (id, expiry) = self.generator.settled_birth(self.books.now());
                let len = self.generator.value_len();
                self.set(id, len, expiry)?;
            }
            (self.progress)(Phase::Loaded, Some(0.3 * self.books.held() as f64 / keys as f64));
        }
        self.lanes.flush()?;
        let held = self.books.by_time_left().into_iter().map(|(id, _)| id).collect();
        let probe = Probe::start(self.config, &self.generator, held)?;
        let span = self.config.cluster.mean_ttl_seconds() * f64::from(TICKS_PER_SECOND);
        let step_ticks = ((span * SPAN_MEAN_TTLS / f64::from(STEPS)) as u32).max(1);
        let steps = ((span * SPAN_MEAN_TTLS / f64::from(step_ticks)) as u32).max(1);
        let requests = keys * REQUESTS_PER_KEY;
        let mut made = 0;
        for step in 1..=steps {
            self.pass(step_ticks)?;
            while made < requests * u64::from(step) / u64::from(steps) {
                self.request()?;
                made += 1;
                // New keys come in between the requests, not in a burst before them.
                if self.books.held() < keys {
                    self.write_new()?;
                }
            }
            while self.books.held() < keys {
                self.write_new()?;
            }
            self.lanes.flush()?;
            (self.progress)(Phase::Loaded, Some(0.3 + 0.7 * f64::from(step) / f64::from(steps)));
        }
        let times = probe.stop()?;
        // A server may be behind with expiry when requests come as fast as it takes them.
        let (now, held) = (Instant::now(), self.books.held());
        self.wait_for_expiry(Phase::Loaded, now, held, held)?;
        Ok(times)
    }

    /// Lets virtual time pass; keys whose time is then over are told so.
    fn pass(&mut self, ticks: u32) -> anyhow::Result<()> {
        self.books.pass(ticks);
        while let Some(id) = self.books.take_due() {
            let key = self.generator.key(id);
            self.lanes.request(id, &[b"PEXPIRE", key.as_bytes(), b"1"])?;
        }
        Ok(())
    }

    fn finish(&mut self, phase: Phase, get: Times) -> anyhow::Result<()> {
        self.lanes.flush()?;
        (self.progress)(phase, None);
        let point = self.monitor.finish(phase)?;
        let requests = self.lanes.sent();
        self.phases.push(PhaseEnd { name: phase, point, requests, get });
        Ok(())
    }

    /// Compares what the server holds with what it must.
    fn verify(&mut self, survivors: &[u64]) -> anyhow::Result<u64> {
        let (mut wrong, mut missing, mut example) = (0_u64, 0_u64, None);
        let (generator, books) = (&self.generator, &self.books);
        let mut compare = |id: u64, answer: Answer<'_>| {
            let key = generator.key(id);
            let must = value_for(hash(key.as_bytes()), books.value_bytes(id));
            match answer {
                Answer::Bulk(value) if *value == *must => return,
                Answer::Null => missing += 1,
                _ => wrong += 1,
            }
            example.get_or_insert_with(|| {
                let name = String::from_utf8_lossy(key.as_bytes()).into_owned();
                format!("{name} should hold {} bytes, but is {}", must.len(), described(&answer))
            });
        };
        for &id in survivors {
            let key = generator.key(id);
            self.lanes.request_and(id, &[b"GET", key.as_bytes()], &mut compare)?;
        }
        self.lanes.flush_and(&mut compare)?;
        match example {
            None => Ok(survivors.len() as u64),
            Some(example) => bail!(
                "of {} keys {missing} are missing and {wrong} hold something else than was written: \
                 {example}; either another client writes to this server, or it evicts (see its \
                 maxmemory-policy), or it has lost data",
                survivors.len(),
            ),
        }
    }

    /// Asks for what a user can ask for at last: MEMORY PURGE. `None` if the server has none.
    fn purge(&mut self) -> anyhow::Result<Option<super::Point>> {
        match self.control.ask(&[b"MEMORY", b"PURGE"])? {
            Answer::Simple(_) => self.monitor.finish(Phase::Healed).map(Some),
            _ => Ok(None),
        }
    }
}

/// Empties the server if that is wanted; else it must be empty.
fn empty(control: &mut Connection, config: &Config) -> anyhow::Result<()> {
    if config.flush
        && let Answer::Error(text) = control.ask(&[b"FLUSHALL"])?
    {
        bail!("{} cannot be emptied: {}", config.address, String::from_utf8_lossy(text));
    }
    match control.ask(&[b"DBSIZE"])? {
        Answer::Integer(0) => Ok(()),
        Answer::Integer(count) => bail!(
            "{} holds {count} keys already; use an empty server, or give --flush to delete them",
            config.address,
        ),
        answer => bail!("{} does not say its DBSIZE: {}", config.address, described(&answer)),
    }
}

impl Healing {
    /// What the server says to `CONFIG SET activedefrag yes`.
    pub(super) fn switch_on(config: &Config, control: &mut Connection) -> anyhow::Result<Self> {
        let answer = match config.activedefrag {
            ActiveDefrag::Yes => {
                let asked: [&[u8]; 4] = [b"CONFIG", b"SET", b"activedefrag", b"yes"];
                Some(described(&control.ask(&asked).context("cannot switch defragmentation on")?))
            }
            ActiveDefrag::No | ActiveDefrag::Keep => None,
        };
        Ok(Self { activedefrag: config.activedefrag, answer, ..Self::default() })
    }
}
