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
                // One at least: a phase may be over before this thread has begun. Relaxed: nothing
                // else is passed with it.
                while !keys.is_empty() && (round == 0 || !seen.load(Ordering::Relaxed)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::ActiveDefrag;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server that knows no key; in the end, how often it was asked for one.
    fn server(listener: TcpListener) -> u64 {
        let (mut stream, _) = listener.accept().expect("a client");
        let (mut bytes, mut gets) = ([0; 100], 0);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let is_get = bytes[..count].windows(3).any(|it| it == b"GET");
            gets += u64::from(is_get);
            stream.write_all(if is_get { b"$-1\r\n" } else { b"+PONG\r\n" }).expect("taken");
        }
        gets
    }

    #[test]
    fn a_phase_that_is_over_at_once_has_a_get() {
        // Which thread comes first is chance.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            let server = thread::spawn(move || server(listener));
            let config = Config {
                address: address.parse().expect("an address"),
                password: None,
                cluster: "twitter-4".parse().expect("a cluster"),
                keys: 1,
                expire_share: 0.0,
                seed: 1,
                connections: 1,
                pipeline: 1,
                expire: Duration::ZERO,
                heal: Duration::ZERO,
                activedefrag: ActiveDefrag::Keep,
                flush: false,
            };
            let generator = Generator::new(config.cluster, config.seed, config.keys);
            let probe = Probe::start(&config, &generator, vec![1]).expect("it starts");
            let times = probe.stop().expect("answers");
            assert!(times.count > 0, "{times:?}");
            assert_eq!(server.join().expect("no panic"), times.count);
        }
    }
}
