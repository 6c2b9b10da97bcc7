//! When dirty pages go back to the OS: a pure function of time and counts.
//!
//! As in jemalloc: time is cut into epochs; each epoch remembers how many pages
//! became dirty in it; a page's right to stay falls along a smoothstep curve
//! from 1 to 0 over the decay time. The sum over the epochs is the limit.

use crate::config::DECAY_MS;

/// Epochs to a decay time.
pub(crate) const EPOCHS: usize = 64;
/// 1.0 of the curve.
const ONE: u64 = 1 << 24;
/// `CURVE[age]`: what may stay of pages that are `age` epochs old.
const CURVE: [u64; EPOCHS] = curve();

/// `1 - smootherstep(x)` for `x = (age + 1) / EPOCHS`, in fixed point:
/// `6x^5 - 15x^4 + 10x^3` (Perlin).
const fn curve() -> [u64; EPOCHS] {
    let mut out = [0; EPOCHS];
    let n = EPOCHS as i128;
    let mut i = 0;
    while i < EPOCHS {
        let x = (i + 1) as i128;
        let top = 6 * x.pow(5) - 15 * x.pow(4) * n + 10 * x.pow(3) * n * n;
        out[i] = (ONE as i128 - top * ONE as i128 / n.pow(5)) as u64;
        i += 1;
    }
    out
}

/// When pages go.
#[derive(Debug)]
enum Time {
    /// Within [`DECAY_MS`]. All zero, so that the allocator's statics are.
    Usual,
    Within(u64),
    Never,
}

/// The decay clock of the page heap.
#[derive(Debug)]
pub(crate) struct Decay {
    time: Time,
    /// Start of the running epoch; 0 before the first tick.
    since_ms: u64,
    /// Dirty pages when the last epoch ended, after purging.
    seen_pages: usize,
    /// Pages that became dirty, newest epoch first.
    backlog: [usize; EPOCHS],
    /// What may stay of the pages of `seen_pages`, where not all that was due has gone.
    owed: Option<usize>,
}

impl Decay {
    /// Pages go within [`DECAY_MS`].
    pub(crate) const fn usual() -> Self {
        Self::with(Time::Usual)
    }

    /// Pages go within `time_ms`, or never; `Some(0)` is the page heap's business.
    pub(crate) fn new(time_ms: Option<u64>) -> Self {
        Self::with(time_ms.map_or(Time::Never, Time::Within))
    }

    const fn with(time: Time) -> Self {
        Self { time, since_ms: 0, seen_pages: 0, backlog: [0; EPOCHS], owed: None }
    }

    /// Moves the clock to `now_ms` and returns how many of the `dirty_pages`
    /// may stay, or `None` when no epoch has ended and nothing is owed.
    pub(crate) fn advance(&mut self, now_ms: u64, dirty_pages: usize) -> Option<usize> {
        if self.since_ms == 0 {
            self.since_ms = now_ms.max(1);
        }
        let epoch_ms = (self.time_ms()? / EPOCHS as u64).max(1);
        let ended = now_ms.saturating_sub(self.since_ms) / epoch_ms;
        let owed = self.owed.take();
        if ended == 0 {
            // What has become dirty since then has its own time.
            let fresh = dirty_pages.saturating_sub(self.seen_pages);
            self.seen_pages = owed?;
            return owed.map(|stay| stay + fresh).filter(|&limit| limit < dirty_pages);
        }
        self.since_ms += ended * epoch_ms;
        let shift = (ended as usize).min(EPOCHS);
        self.backlog.copy_within(..EPOCHS - shift, shift);
        self.backlog[..shift].fill(0);
        self.backlog[shift - 1] = dirty_pages.saturating_sub(self.seen_pages);
        let stay: u64 = self.backlog.iter().zip(CURVE).map(|(&n, part)| n as u64 * part).sum();
        let limit = ((stay / ONE) as usize).min(dirty_pages);
        self.seen_pages = limit;
        Some(limit)
    }

    /// What was due stays for now: it is not taken for freshly freed the next time.
    pub(crate) fn put_off(&mut self, dirty_pages: usize) {
        self.seen_pages = dirty_pages;
    }

    /// Of what was due some has gone; of the `dirty_pages` that are left `limit` may stay.
    pub(crate) fn go_on(&mut self, dirty_pages: usize, limit: usize) {
        self.put_off(dirty_pages);
        self.owed = Some(limit);
    }

    pub(crate) fn time_ms(&self) -> Option<u64> {
        match self.time {
            Time::Usual => Some(DECAY_MS),
            Time::Within(ms) => Some(ms),
            Time::Never => None,
        }
    }

    /// Everything was purged: nothing is owed.
    pub(crate) fn reset(&mut self, dirty_pages: usize) {
        self.backlog = [0; EPOCHS];
        self.seen_pages = dirty_pages;
        self.owed = None;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    #[test]
    fn curve_falls_from_one_to_nothing() {
        assert!(CURVE.windows(2).all(|w| w[0] >= w[1]));
        assert!(CURVE[0] > ONE * 99 / 100);
        assert_eq!(CURVE[EPOCHS / 2 - 1], ONE / 2);
        assert_eq!(CURVE[EPOCHS - 1], 0);
    }

    #[test]
    fn a_spike_is_gone_after_the_decay_time() {
        let mut decay = Decay::new(Some(6400));
        assert_eq!(decay.advance(1000, 0), None);
        let (mut dirty, mut half) = (1000, 0);
        for ms in 1001..=1000 + 6400 + 100 {
            if let Some(limit) = decay.advance(ms, dirty) {
                assert!(limit <= dirty);
                dirty = limit;
            }
            if ms == 1000 + 3300 {
                half = dirty;
            }
        }
        assert_eq!(dirty, 0);
        assert!((400..600).contains(&half), "{half}");
    }

    /// What is due goes in parts, without waiting for an epoch; what becomes dirty meanwhile
    /// has its own time.
    #[test]
    fn what_is_owed_is_due_at_once() {
        let mut decay = Decay::new(Some(6400));
        assert_eq!(decay.advance(1000, 0), None);
        assert!(decay.advance(1100, 1000).is_some());
        assert_eq!(decay.advance(20_000, 1000), Some(0));
        decay.go_on(600, 0);
        assert_eq!(decay.advance(20_001, 600), Some(0));
        decay.go_on(300, 0);
        assert_eq!(decay.advance(20_002, 350), Some(50));
        decay.go_on(100, 50);
        // 50 of them have come since the last epoch.
        assert_eq!(decay.advance(20_003, 100), Some(50));
        // All has gone that was due.
        assert_eq!(decay.advance(20_004, 50), None);
        decay.go_on(50, 0);
        decay.reset(50);
        assert_eq!(decay.advance(20_005, 50), None);
    }

    #[test]
    fn what_is_put_off_goes_when_it_would_have_gone() {
        let (mut at_once, mut put_off) = (Decay::new(Some(6400)), Decay::new(Some(6400)));
        assert_eq!(at_once.advance(1000, 0), put_off.advance(1000, 0));
        let mut dirty = 1000;
        for ms in (1100..=1000 + 6400 + 100).step_by(100) {
            let limit = at_once.advance(ms, dirty).expect("an epoch has ended");
            assert_eq!(put_off.advance(ms, 1000), Some(limit), "at {ms} ms");
            dirty = limit;
            put_off.put_off(1000);
        }
        assert_eq!(dirty, 0);
    }

    #[test]
    fn without_a_time_nothing_decays() {
        let mut decay = Decay::new(None);
        assert!((0..100).all(|i| decay.advance(i * 100_000, 1000).is_none()));
    }

    quickcheck! {
        fn never_allows_more_than_there_is(steps: Vec<(u16, u16)>) -> bool {
            let mut decay = Decay::new(Some(1000));
            let (mut now, mut dirty) = (1, 0usize);
            steps.iter().all(|&(ms, grown)| {
                now += u64::from(ms);
                dirty += usize::from(grown);
                let limit = decay.advance(now, dirty).unwrap_or(dirty);
                let fine = limit <= dirty;
                dirty = limit;
                fine
            })
        }
    }
}
