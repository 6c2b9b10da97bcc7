//! Waiting for events: before it sleeps, the loop looks a little longer.
//!
//! A client that sends one pipeline after the other has the next one ready some microseconds after
//! the last reply. To fall asleep and be woken takes longer, and the waking is done by the client's
//! `send`, which has to interrupt another core: a server that sleeps between any two requests slows
//! its clients down, the more the faster it is itself. So the loop asks for events again and again
//! for [`LOOK`], if that was of use lately. Where it is not it is left alone for longer and longer: at
//! rest the loop sleeps as before. A client that comes back within [`LOOK`] again and again keeps
//! one core busy, though it alone could be served with less.

use mio::{Events, Poll};
use std::io;
use std::time::{Duration, Instant};

/// How long it looks before it sleeps: about as long as falling asleep and waking up takes.
const LOOK: Duration = Duration::from_micros(30);
/// After so many vain looks one after the other it is not left alone for any longer.
const MAX_VAIN: u32 = 8;

/// Whether to look before sleeping.
#[derive(Debug)]
pub(super) struct Watch {
    /// On a single core others must run before anything can happen.
    is_alone: bool,
    vain: u32,
    /// Waits to come that are slept at once.
    to_skip: u32,
}

impl Watch {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self { is_alone: cores == 1, vain: 0, to_skip: 0 }
    }

    /// Waits for events for at most `timeout`, as [`Poll::poll`] does.
    pub(super) fn wait(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        mut timeout: Duration,
    ) -> io::Result<()> {
        if !timeout.is_zero() && self.looks() {
            let started = Instant::now();
            let until = started + LOOK.min(timeout);
            loop {
                poll.poll(events, Some(Duration::ZERO))?;
                let came = !events.is_empty();
                if came || Instant::now() >= until {
                    self.note(came);
                    break;
                }
            }
            timeout = timeout.saturating_sub(started.elapsed());
            if !events.is_empty() || timeout.is_zero() {
                return Ok(());
            }
        }
        poll.poll(events, Some(timeout))
    }

    fn looks(&mut self) -> bool {
        let looks = self.to_skip == 0 && !self.is_alone;
        self.to_skip = self.to_skip.saturating_sub(1);
        looks
    }

    /// Notes whether a look was of use: 0, 2, 6, 14 ... waits are slept at once after vain ones.
    fn note(&mut self, came: bool) {
        self.vain = if came { 0 } else { (self.vain + 1).min(MAX_VAIN) };
        self.to_skip = if came { 0 } else { (1 << self.vain) - 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vain_looks_become_rare_and_one_of_use_is_enough() {
        let mut watch = Watch { is_alone: false, vain: 0, to_skip: 0 };
        let mut looks = 0;
        for _ in 0..10_000 {
            if watch.looks() {
                looks += 1;
                watch.note(false);
            }
        }
        assert!((30..60).contains(&looks), "{looks}");
        while !watch.looks() {}
        watch.note(true);
        assert!(watch.looks() && watch.looks());
        watch.is_alone = true;
        assert!(!watch.looks());
    }
}
