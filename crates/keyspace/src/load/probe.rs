//! How long GETs take: one at a time at a fixed pace, over a connection and on a thread of its own.
//!
//! A request whose turn came while the one before was still under way counts from its turn, not from
//! when it could be sent: a server that stalls makes all of them late that would have come meanwhile.
//! One that is sent late because this machine woke the thread late counts from when it is sent.

use super::Config;
use super::wire::Connection;
use crate::bytes::mix;
use crate::churn::Times;
use crate::workload::Generator;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two GETs.
const GET_EVERY: Duration = Duration::from_millis(1);
/// The longest time that the histogram can hold.
const MAX_NS: u64 = 60_000_000_000;

/// GETs under way.
pub(super) struct Probe {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Times>>,
}

impl Probe {
    /// Starts asking for these keys, in no order.
    pub(super) fn start(
        config: &Config,
        generator: &Generator,
        keys: Vec<u64>,
    ) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&config.address, config.password.as_deref())?;
        let generator = generator.clone();
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = thread::Builder::new().name("gets".to_owned()).spawn(
            move || -> anyhow::Result<Times> {
                let mut times = Histogram::new_with_bounds(1, MAX_NS, 3)?;
                let mut turn = Instant::now();
                let mut round = 0;
                // Relaxed: nothing else is passed with it.
                while !keys.is_empty() && !seen.load(Ordering::Relaxed) {
                    turn += GET_EVERY;
                    let early = turn.saturating_duration_since(Instant::now());
                    let start = if early.is_zero() {
                        turn
                    } else {
                        thread::sleep(early);
                        Instant::now()
                    };
                    let id = keys[mix(round) as usize % keys.len()];
                    round += 1;
                    connection.ask(&[b"GET", generator.key(id).as_bytes()])?;
                    times.saturating_record(start.elapsed().as_nanos() as u64);
                }
                Ok(Times::from(&times))
            },
        )?;
        Ok(Self { is_over, thread })
    }

    /// Ends it.
    pub(super) fn stop(self) -> anyhow::Result<Times> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
