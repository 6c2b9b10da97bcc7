//! How long things take: the store's operations, with a pass of defragmentation beside them and
//! without one, and the steps of the healing.
//!
//! All memory is taken when the run begins, and the operations leave the books as they are: wall
//! time decides how many of them there are, and must not decide what is allocated.

use crate::bytes;
use crate::clock::{Expiry, Moment};
use crate::store::Store;
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Operations before the first one that counts, and those that count, while no pass runs.
const WARM_UP: u32 = 20_000;
const WITHOUT: u32 = 100_000;
/// Operations after each step of a pass: with these the passes take about a third of the time, more
/// than the quarter that `Defrag` takes at most when it paces itself.
const BESIDE_STEP: u32 = 1000;
/// One operation in so many is a SET, the others are GETs.
const SET_EVERY: u32 = 10;
/// Time between two arrivals of the requests that do not wait for each other.
const ARRIVE_EVERY: Duration = Duration::from_micros(20);
/// How long they arrive, without a pass and beside a paced one.
const ARRIVALS: Duration = Duration::from_millis(500);
/// Keys that the operations go round, drawn beforehand, and the room for them. Looking for a key
/// brings its entry into the caches, so that must be long ago when its operation is timed: together
/// they are more than the caches next to the processor hold.
const POOL_KEYS: usize = 16_384;
const POOL_BYTES: usize = 1 << 20;
/// The longest key that is drawn.
const MAX_KEY_BYTES: usize = 4096;
/// The longest time that a histogram can hold.
const MAX_NS: u64 = 60_000_000_000;

/// A distribution of times, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Values counted.
    pub count: u64,
    /// The median.
    pub p50_ns: u64,
    /// 99 % were no longer,
    pub p99_ns: u64,
    /// 99.9 %,
    pub p99_9_ns: u64,
    /// and all.
    pub max_ns: u64,
}

impl From<&Histogram<u64>> for Times {
    fn from(times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile).min(times.max());
        Self {
            count: times.len(),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            max_ns: times.max(),
        }
    }
}

/// Times of operations on the store.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Operations {
    /// Finding a value and looking at it.
    pub get: Times,
    /// Writing a value of the same length anew.
    pub set: Times,
    /// Both.
    pub all: Times,
}

/// What requests see that arrive at a fixed rate, whether or not the thread that serves them is
/// busy: from arrival to completion. One that arrives during a step waits for its end.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Queueing {
    /// Time between two arrivals.
    pub arrive_every_ns: u64,
    /// The highest effort of the pass, in percent of one processor; 0 when there was too little to
    /// gain for a paced one.
    pub effort_percent: u32,
    /// While nothing else goes on.
    pub without: Times,
    /// Beside a paced pass.
    pub during: Times,
}

/// What defragmentation costs the operations beside it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Before the first pass.
    pub without: Operations,
    /// Between the steps of the passes.
    pub during: Operations,
    /// p99 of all operations during a pass, over that without one; 0 when there was no pass.
    pub p99_ratio: f64,
    /// The same with the time that requests wait for a step.
    pub queueing: Queueing,
}

/// Times of the steps of the healing.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Steps {
    /// All steps: planning, moving, ending, and rebuilding tables.
    #[serde(flatten)]
    pub times: Times,
    /// Steps longer than a millisecond.
    pub over_1ms: u64,
    /// Those of them in which the kernel gave the processor to somebody else.
    pub over_1ms_preempted: u64,
    /// The longest step in which it did not.
    pub longest_undisturbed_ns: u64,
}

#[derive(Debug)]
struct Histograms {
    get: Histogram<u64>,
    set: Histogram<u64>,
    all: Histogram<u64>,
}

impl Histograms {
    fn new() -> Self {
        Self { get: histogram(), set: histogram(), all: histogram() }
    }

    fn operations(&self) -> Operations {
        let Self { get, set, all } = self;
        Operations { get: get.into(), set: set.into(), all: all.into() }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 2).expect("fixed bounds, which are right")
}

fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(time.as_nanos().min(u128::from(MAX_NS)) as u64);
}

/// A key of the pool: where it lies there, its hash, its value's length, and when it expires.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    start: usize,
    key_len: usize,
    hash: u64,
    len: usize,
    expiry: Expiry,
}

/// Takes the times.
#[derive(Debug)]
pub(super) struct Probe {
    rng: Pcg64Mcg,
    pool: Vec<Drawn>,
    pool_bytes: Vec<u8>,
    next: usize,
    /// The key whose turn it is.
    key: Vec<u8>,
    without: Histograms,
    during: Histograms,
    arrivals_without: Histogram<u64>,
    arrivals_during: Histogram<u64>,
    effort_percent: u32,
    steps: Histogram<u64>,
    preempted: Steps,
}

impl Probe {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Pcg64Mcg::seed_from_u64(seed.rotate_left(17)),
            pool: Vec::with_capacity(POOL_KEYS),
            pool_bytes: Vec::with_capacity(POOL_BYTES),
            next: 0,
            key: Vec::with_capacity(MAX_KEY_BYTES),
            without: Histograms::new(),
            during: Histograms::new(),
            arrivals_without: histogram(),
            arrivals_during: histogram(),
            effort_percent: 0,
            steps: histogram(),
            preempted: Steps::default(),
        }
    }

    /// Times operations while nothing else goes on.
    pub(super) fn without_pass(&mut self, store: &mut Store, now: Moment) {
        self.fill_pool(store, now);
        for _ in 0..WARM_UP {
            self.operation(store, now);
        }
        for i in 0..WITHOUT {
            let set = i.is_multiple_of(SET_EVERY);
            if let Some(time) = self.timed(store, now, set) {
                note(&mut self.without, set, time);
            }
        }
    }

    /// Times the operations that follow a step of a pass.
    pub(super) fn beside_step(&mut self, store: &mut Store, now: Moment) {
        for i in 0..BESIDE_STEP {
            let set = i.is_multiple_of(SET_EVERY);
            if let Some(time) = self.timed(store, now, set) {
                note(&mut self.during, set, time);
            }
        }
    }

    /// Serves requests as they arrive, and nothing else.
    pub(super) fn arrivals_without_pass(&mut self, store: &mut Store, now: Moment) {
        self.serve_arrivals(store, now, false, |_, _| Some(ARRIVALS));
    }

    /// Serves requests as they arrive, and takes steps between them until the time is over or
    /// `poll` returns `None`. It returns the effort in percent, and how long to wait for the next
    /// step.
    pub(super) fn arrivals_beside_pass(
        &mut self,
        store: &mut Store,
        now: Moment,
        mut poll: impl FnMut(&mut Store) -> Option<(u32, Duration)>,
    ) {
        self.serve_arrivals(store, now, true, |probe, store| {
            let (effort_percent, wait) = probe.step(|| poll(store))?;
            probe.effort_percent = probe.effort_percent.max(effort_percent);
            Some(wait)
        });
    }

    /// An event loop in real time: a step if one is due, then all requests that have arrived.
    fn serve_arrivals(
        &mut self,
        store: &mut Store,
        now: Moment,
        beside_pass: bool,
        mut poll: impl FnMut(&mut Self, &mut Store) -> Option<Duration>,
    ) {
        let start = Instant::now();
        let (mut arrival, mut due, mut number) = (start, start, 0_u32);
        let mut drawn = self.draw();
        while start.elapsed() < ARRIVALS {
            if due <= Instant::now() {
                let Some(wait) = poll(self, store) else { break };
                due = Instant::now() + wait;
            }
            while arrival <= Instant::now() {
                if let Some(drawn) = drawn {
                    self.run(store, now, number.is_multiple_of(SET_EVERY), drawn);
                    let times = if beside_pass {
                        &mut self.arrivals_during
                    } else {
                        &mut self.arrivals_without
                    };
                    record(times, arrival.elapsed());
                }
                arrival += ARRIVE_EVERY;
                number += 1;
                drawn = self.draw();
            }
        }
    }

    fn operation(&mut self, store: &mut Store, now: Moment) {
        let set = self.rng.random_range(0..SET_EVERY) == 0;
        let _ = self.timed(store, now, set);
    }

    /// Times one operation on a key that is there; `None` if none was found.
    fn timed(&mut self, store: &mut Store, now: Moment, set: bool) -> Option<Duration> {
        let drawn = self.draw()?;
        let start = Instant::now();
        self.run(store, now, set, drawn);
        Some(start.elapsed())
    }

    fn fill_pool(&mut self, store: &Store, now: Moment) {
        for _ in 0..POOL_KEYS {
            let key = &mut self.key;
            let found = store.sample(self.rng.random(), now, MAX_KEY_BYTES, key);
            let Some((len, expiry)) = found else { continue };
            let (start, key_len) = (self.pool_bytes.len(), key.len());
            if start + key_len > POOL_BYTES {
                break;
            }
            self.pool_bytes.extend_from_slice(key);
            self.pool.push(Drawn { start, key_len, hash: bytes::hash(key), len, expiry });
        }
    }

    /// The next key of the pool; `None` if it is empty.
    fn draw(&mut self) -> Option<Drawn> {
        self.next = if self.next + 1 < self.pool.len() { self.next + 1 } else { 0 };
        let drawn = *self.pool.get(self.next)?;
        self.key.clear();
        self.key.extend_from_slice(&self.pool_bytes[drawn.start..][..drawn.key_len]);
        Some(drawn)
    }

    /// A GET of the key whose turn it is, or a SET that leaves it as it is.
    fn run(&self, store: &mut Store, now: Moment, set: bool, drawn: Drawn) {
        if set {
            let value = bytes::value_for(drawn.hash, drawn.len);
            store.set(&self.key, value, drawn.expiry);
        } else {
            black_box(store.get(&self.key, now).and_then(|value| value.last().copied()));
        }
    }

    /// Runs a step of the healing and takes its time.
    pub(super) fn step<R>(&mut self, step: impl FnOnce() -> R) -> R {
        let (start, before) = (Instant::now(), involuntary_switches());
        let result = step();
        let time = start.elapsed();
        let preempted = involuntary_switches() != before;
        record(&mut self.steps, time);
        let seen = &mut self.preempted;
        if time > Duration::from_millis(1) {
            seen.over_1ms += 1;
            seen.over_1ms_preempted += u64::from(preempted);
        }
        if !preempted {
            seen.longest_undisturbed_ns = seen.longest_undisturbed_ns.max(time.as_nanos() as u64);
        }
        result
    }

    pub(super) fn steps(&self) -> Steps {
        Steps { times: (&self.steps).into(), ..self.preempted }
    }

    pub(super) fn latency(&self) -> Latency {
        let (without, during) = (self.without.operations(), self.during.operations());
        let p99_ratio = during.all.p99_ns as f64 / without.all.p99_ns.max(1) as f64;
        let queueing = Queueing {
            arrive_every_ns: ARRIVE_EVERY.as_nanos() as u64,
            effort_percent: self.effort_percent,
            without: (&self.arrivals_without).into(),
            during: (&self.arrivals_during).into(),
        };
        Latency { without, during, p99_ratio, queueing }
    }
}

fn note(times: &mut Histograms, set: bool, time: Duration) {
    record(if set { &mut times.set } else { &mut times.get }, time);
    record(&mut times.all, time);
}

/// How often the kernel took the processor away from this thread; 0 where it does not say.
#[cfg(target_os = "linux")]
fn involuntary_switches() -> i64 {
    // SAFETY: all zero is a value of this plain struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place is valid.
    let code = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    if code == 0 { usage.ru_nivcsw } else { 0 }
}

#[cfg(not(target_os = "linux"))]
fn involuntary_switches() -> i64 {
    0
}
