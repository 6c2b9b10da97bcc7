//! Reads the server's memory at fixed intervals, over a connection and on a thread of its own.
//!
//! `used_memory` is what the server says in INFO. Its RSS is what the kernel says of its process,
//! `VmRSS`, where the server runs on this machine and its process can be seen; else the
//! `used_memory_rss` of INFO, which Redis reads ten times a second.

use super::Config;
use super::outcome::{Point, RssSource};
use super::wire::{Answer, Connection, field, number};
use crate::churn::Phase;
use anyhow::{Context, bail};
use std::fs;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two readings.
const READ_EVERY: Duration = Duration::from_millis(250);
/// The kernel's and the server's count of the same process are no further apart than this.
const RSS_SLACK_BYTES: u64 = 32 << 20;

/// What the thread is told.
enum Word {
    /// This phase begins.
    Enter(Phase),
    /// Read now, as the end of the phase, and send the reading here.
    Finish(Phase, Sender<Point>),
    /// It is over.
    Stop,
}

/// The thread.
pub(super) struct Monitor {
    words: Sender<Word>,
    thread: JoinHandle<anyhow::Result<Vec<Point>>>,
    rss_source: RssSource,
}

impl Monitor {
    /// Starts reading.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let connection = Connection::open(&config.address, config.password.as_deref())?;
        let mut reader = Reader::new(connection)?;
        let rss_source = reader.source.clone();
        let (words, heard) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || reader.read_until_stopped(&heard))?;
        Ok(Self { words, thread, rss_source })
    }

    /// Where the RSS comes from.
    pub(super) fn rss_source(&self) -> RssSource {
        self.rss_source.clone()
    }

    /// Notes that a phase begins.
    pub(super) fn enter(&self, phase: Phase) {
        // Whoever has stopped says why when it is asked for a reading.
        let _ = self.words.send(Word::Enter(phase));
    }

    /// Reads now, as the end of `phase`; the next begins.
    pub(super) fn finish(&self, phase: Phase) -> anyhow::Result<Point> {
        let (sender, point) = mpsc::channel();
        let _ = self.words.send(Word::Finish(phase, sender));
        point.recv().context("the connection that reads INFO is lost; see the server's log")
    }

    /// Ends it.
    pub(super) fn stop(self) -> anyhow::Result<Vec<Point>> {
        let _ = self.words.send(Word::Stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Reader {
    connection: Connection,
    start: Instant,
    phase: Phase,
    source: RssSource,
    timeline: Vec<Point>,
}

impl Reader {
    fn new(mut connection: Connection) -> anyhow::Result<Self> {
        let memory = connection.info("memory")?;
        let (Some(_), Some(said_bytes)) =
            (number(&memory, "used_memory"), number(&memory, "used_memory_rss"))
        else {
            bail!("the server's INFO memory has no used_memory and used_memory_rss");
        };
        let server = connection.info("server")?;
        let process = field(&server, "process_id").and_then(|id| id.parse::<u32>().ok());
        // A process of this number may be another one: the server may be in a container.
        let source = match process.filter(|_| connection.is_local()) {
            Some(id) if vm_rss(id).is_some_and(|it| it.abs_diff(said_bytes) <= RSS_SLACK_BYTES) => {
                RssSource::Kernel { process_id: id }
            }
            _ => RssSource::Info,
        };
        let start = Instant::now();
        Ok(Self { connection, start, phase: Phase::Loaded, source, timeline: Vec::new() })
    }

    fn read_until_stopped(&mut self, heard: &Receiver<Word>) -> anyhow::Result<Vec<Point>> {
        let mut next = Instant::now();
        loop {
            match heard.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Word::Enter(phase)) => self.phase = phase,
                Ok(Word::Finish(phase, asked)) => {
                    self.phase = phase;
                    let point = self.read()?;
                    // Whoever asked may have gone, with an error of its own.
                    let _ = asked.send(point);
                    self.phase = match phase {
                        Phase::Loaded => Phase::Expired,
                        Phase::Expired | Phase::Healed => Phase::Healed,
                    };
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.read()?;
                    next += READ_EVERY;
                }
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Ok(std::mem::take(&mut self.timeline));
                }
            }
        }
    }

    fn read(&mut self) -> anyhow::Result<Point> {
        let memory = self.connection.info("memory")?;
        let kernel = match self.source {
            RssSource::Kernel { process_id } => vm_rss(process_id),
            RssSource::Info => None,
        };
        let stats = self.connection.info("stats")?;
        let keys = match self.connection.ask(&[b"DBSIZE"])? {
            Answer::Integer(count) => u64::try_from(count).unwrap_or(0),
            _ => 0,
        };
        let of = |text, name| number(text, name).unwrap_or(0);
        let used_memory_bytes = of(&memory, "used_memory");
        let rss_bytes = kernel.unwrap_or_else(|| of(&memory, "used_memory_rss"));
        let point = Point {
            phase: self.phase,
            wall_ms: self.start.elapsed().as_secs_f64() * 1e3,
            keys,
            used_memory_bytes,
            rss_bytes,
            ratio: rss_bytes as f64 / used_memory_bytes.max(1) as f64,
            expired_keys: of(&stats, "expired_keys"),
            active_defrag_running: of(&memory, "active_defrag_running"),
            active_defrag_hits: of(&stats, "active_defrag_hits"),
        };
        self.timeline.push(point);
        Ok(point)
    }
}

/// `VmRSS` of a process.
fn vm_rss(process_id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
