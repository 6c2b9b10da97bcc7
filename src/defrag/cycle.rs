//! When a pass is worth while, and how much of the time it may take.

use super::mover::Mover;
use super::pass::{Options, Outcome, Pass, Prediction};
use crate::stats::stats;
use std::time::{Duration, Instant};

/// How often fragmentation is judged.
const JUDGE_EVERY: Duration = Duration::from_millis(100);
/// How long what could not be reached is left alone.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// When a [`Defrag`] works, and how hard. The knobs, and what they are when not
/// set, are those of Redis's active defragmentation.
///
/// What is judged is [`Snapshot::evacuable_bytes`](crate::Snapshot::evacuable_bytes),
/// the memory that a pass would release, against allocated bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Less than this is left alone (`active-defrag-ignore-bytes`); 100 MiB.
    pub ignore_bytes: u64,
    /// Less than this share of allocated bytes is left alone
    /// (`active-defrag-threshold-lower`); 10 %.
    pub threshold_lower_percent: u32,
    /// From this share on the effort is at its highest
    /// (`active-defrag-threshold-upper`); 100 %.
    pub threshold_upper_percent: u32,
    /// The lowest effort, as a share of one processor's time
    /// (`active-defrag-cycle-min`); 1 %.
    pub cycle_min_percent: u32,
    /// The highest effort (`active-defrag-cycle-max`); 25 %.
    pub cycle_max_percent: u32,
    /// How long one step may take (`active-defrag-cycle-us`); 500 µs. Requests
    /// wait no longer than this for the defragmentation.
    pub step: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ignore_bytes: 100 << 20,
            threshold_lower_percent: 10,
            threshold_upper_percent: 100,
            cycle_min_percent: 1,
            cycle_max_percent: 25,
            step: Duration::from_micros(500),
        }
    }
}

impl Settings {
    /// The effort for what a pass would gain, in percent; 0 is none.
    fn effort_percent(&self, gain_bytes: u64, allocated_bytes: u64) -> u32 {
        let percent = u128::from(gain_bytes) * 100 / u128::from(allocated_bytes.max(1));
        let (lower, upper) = (self.threshold_lower_percent, self.threshold_upper_percent);
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        if gain_bytes == 0 || gain_bytes < self.ignore_bytes || percent < lower {
            return 0;
        }
        let max = self.cycle_max_percent.clamp(1, 100);
        let min = self.cycle_min_percent.clamp(1, max);
        if percent >= upper {
            return max;
        }
        // `lower <= percent < upper`.
        let part = u64::from(max - min) * u64::from(percent - lower) / u64::from(upper - lower);
        min + part as u32
    }
}

/// Whether a visit has come to the end of the program's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Not yet: the cursor says where to go on.
    More,
    /// Everything has been visited.
    Done,
}

/// What a [`Defrag`] is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Planning,
    Visiting,
    Ending,
}

/// Defragmentation that runs by itself beside the program's work: begins a pass
/// when there is enough to gain, and cuts it into short steps, planning and
/// ending included.
///
/// `C` is where the program's visit goes on: an index, a key, whatever its data
/// need. Between two steps the program may do with its data whatever it likes;
/// what it inserts behind the cursor is visited by the next pass.
///
/// ```
/// use tallow::defrag::{Defrag, Relocate, Settings, Visit};
///
/// #[global_allocator]
/// static ALLOC: tallow::Tallow = tallow::Tallow::new();
///
/// let mut settings = Settings::default();
/// settings.ignore_bytes = 1 << 20;
/// let mut defrag = Defrag::<usize>::new(settings);
/// let mut list: Vec<Box<[u8; 100]>> = (0..200_000).map(|i| Box::new([i as u8; 100])).collect();
/// let mut i = 0;
/// list.retain(|_| { i += 1; i % 10 == 0 });
///
/// // The event loop: serve requests, then
/// loop {
///     let wait = defrag.poll(|at, mover| {
///         while *at < list.len() {
///             list[*at].relocate(mover);
///             *at += 1;
///             if mover.out_of_time() {
///                 return Visit::More;
///             }
///         }
///         Visit::Done
///     });
///     // `wait` is the longest time to wait for the next request.
/// #   std::thread::sleep(wait);
///     if defrag.last_outcome().is_some() {
///         break; // a service goes on for ever
///     }
/// }
/// let outcome = defrag.last_outcome().unwrap();
/// assert!(outcome.released_bytes > 10 << 20);
/// assert_eq!(tallow::stats().defrag.released_bytes, outcome.released_bytes);
/// ```
#[derive(Debug)]
pub struct Defrag<C> {
    settings: Settings,
    cursor: C,
    pass: Option<Pass>,
    phase: Phase,
    effort_percent: u32,
    /// When the next step is due, and the next judgement.
    due: Option<Instant>,
    judge_at: Option<Instant>,
    /// What the last pass has promised and not released, if that was most of it:
    /// it belongs to data that are not visited. No second pass tries again, but for
    /// one now and then: other data may have come in its place.
    out_of_reach_bytes: u64,
    forget_at: Option<Instant>,
    last: Option<Outcome>,
}

impl<C: Default> Defrag<C> {
    /// A controller at rest. There can be any number of them, but one pass runs
    /// at a time in a process, and the others find nothing to do meanwhile.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cursor: C::default(),
            pass: None,
            phase: Phase::Planning,
            effort_percent: 0,
            due: None,
            judge_at: None,
            out_of_reach_bytes: 0,
            forget_at: None,
            last: None,
        }
    }

    /// Takes a step if one is due; returns how long to wait until the next one.
    ///
    /// `visit` relocates the program's data from the cursor on, until the mover
    /// is [out of time](Mover::out_of_time) or there are no more. It is not called
    /// with each step. Should it panic, the pass goes on with the next call.
    ///
    /// Judges the fragmentation every 100 ms (some microseconds).
    pub fn poll(&mut self, visit: impl FnOnce(&mut C, &mut Mover<'_>) -> Visit) -> Duration {
        let now = Instant::now();
        if let Some(due) = self.due.filter(|&due| due > now) {
            return due - now;
        }
        if self.judge_at.is_none_or(|at| at <= now) {
            self.judge_at = now.checked_add(JUDGE_EVERY);
            let effort_percent = self.judge();
            // What has begun is not slowed down: it would only take longer.
            self.effort_percent = match self.pass {
                Some(_) => self.effort_percent.max(effort_percent).max(1),
                None => effort_percent,
            };
        }
        if self.effort_percent == 0 {
            self.due = self.judge_at;
            return JUDGE_EVERY;
        }
        let goes_on = self.step(visit);
        let took = now.elapsed();
        let wait = took * (100 - self.effort_percent) / self.effort_percent;
        if !goes_on {
            self.effort_percent = 0;
            if self.last.is_none() {
                // It could not begin: another pass runs, or nothing can be moved.
                self.due = self.judge_at;
                return JUDGE_EVERY;
            }
            // Perhaps there is more to gain: judged when the next step is due.
            self.judge_at = None;
        }
        self.due = Instant::now().checked_add(wait);
        wait
    }

    /// Takes a step now, whatever the fragmentation and the effort; begins a pass
    /// if none is under way. Returns whether there is more to do in this pass.
    ///
    /// For programs that keep time themselves. `visit` is as for
    /// [`poll`](Defrag::poll).
    pub fn step(&mut self, visit: impl FnOnce(&mut C, &mut Mover<'_>) -> Visit) -> bool {
        let started = Instant::now();
        let deadline = started.checked_add(self.settings.step);
        let Some(pass) = &mut self.pass else {
            let pass = Pass::prepare(Options::default(), deadline);
            // One that does nothing is over: another one runs, or nothing can move.
            let active = pass.active();
            self.pass = active.then_some(pass);
            self.phase = Phase::Planning;
            self.cursor = C::default();
            self.last = None;
            return active;
        };
        if !pass.active() {
            // This is a child, forked meanwhile.
            self.pass = None;
            return false;
        }
        match self.phase {
            Phase::Planning => {
                if pass.plan_until(deadline) {
                    let gain = pass.predicted().slabs > 0;
                    self.phase = if gain { Phase::Visiting } else { Phase::Ending };
                }
            }
            Phase::Visiting => {
                let mut mover = pass.step(self.settings.step);
                if visit(&mut self.cursor, &mut mover) == Visit::Done {
                    self.phase = Phase::Ending;
                }
            }
            Phase::Ending => {
                if pass.end_until(deadline) {
                    let outcome = pass.outcome();
                    let promised = pass.predicted().released_bytes;
                    let short = promised.saturating_sub(outcome.released_bytes);
                    // Less than half of what was promised: another pass would do no
                    // better. Otherwise objects were written anew meanwhile, in the
                    // places of others, and there may be more to gain.
                    let in_vain = short > outcome.released_bytes;
                    self.out_of_reach_bytes = if in_vain { short } else { 0 };
                    self.forget_at = started.checked_add(FORGET_AFTER);
                    self.last = Some(outcome);
                    self.pass = None;
                    return false;
                }
            }
        }
        true
    }

    /// What a pass would be worth now.
    fn judge(&mut self) -> u32 {
        let stats = stats();
        let evacuable_bytes = stats.evacuable_bytes();
        if self.forget_at.is_some_and(|at| at <= Instant::now()) {
            (self.out_of_reach_bytes, self.forget_at) = (0, None);
        }
        self.out_of_reach_bytes = self.out_of_reach_bytes.min(evacuable_bytes);
        let gain_bytes = evacuable_bytes - self.out_of_reach_bytes;
        self.settings.effort_percent(gain_bytes, stats.allocated_bytes)
    }

    /// The share of one processor's time that is being used, in percent; 0 at
    /// rest (`active_defrag_running`).
    pub fn effort_percent(&self) -> u32 {
        if self.pass.is_some() { self.effort_percent.max(1) } else { 0 }
    }

    /// What the pass under way is going to do; nothing while it is planned.
    pub fn predicted(&self) -> Option<Prediction> {
        self.pass.as_ref().filter(|_| self.phase != Phase::Planning).map(Pass::predicted)
    }

    /// What the last pass did, once it is over.
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.last
    }

    /// How it works.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Sets how it works, from the next step on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        (self.due, self.judge_at, self.out_of_reach_bytes) = (None, None, 0);
    }

    /// Ends the pass under way, if there is one, at once. What was moved is moved.
    /// [`poll`](Defrag::poll) judges anew when 100 ms have gone by.
    pub fn stop(&mut self) {
        self.last = self.pass.take().map(Pass::finish).or(self.last);
        self.effort_percent = 0;
        self.judge_at = Instant::now().checked_add(JUDGE_EVERY);
        self.due = self.judge_at;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn effort_goes_up_between_the_thresholds() {
        let it = Settings { ignore_bytes: 1000, ..Settings::default() };
        assert_eq!(it.effort_percent(999, 1000), 0);
        assert_eq!(it.effort_percent(1000, 10_001), 0);
        assert_eq!(it.effort_percent(1000, 10_000), 1);
        assert_eq!(it.effort_percent(5500, 10_000), 13);
        assert_eq!(it.effort_percent(10_000, 10_000), 25);
        assert_eq!(it.effort_percent(u64::MAX, 1), 25);
        assert_eq!(it.effort_percent(1000, 0), 25);
    }

    #[test]
    fn odd_settings_do_no_harm() {
        let it = Settings {
            ignore_bytes: 0,
            threshold_lower_percent: 50,
            threshold_upper_percent: 20,
            cycle_min_percent: 500,
            cycle_max_percent: 0,
            ..Settings::default()
        };
        assert_eq!(it.effort_percent(0, 0), 0);
        assert_eq!(it.effort_percent(49, 100), 0);
        assert_eq!(it.effort_percent(50, 100), 1);
    }
}
