//! Phase *expired*: traffic falls to a trickle and TTLs run out.

use super::{Churn, Phase};

/// The phase ends when this share of the loaded bytes of keys and values is left, in percent.
const SURVIVING_PERCENT: u64 = 22;
/// Steps of the clock per mean remaining TTL.
const STEPS_PER_REMAINING_TTL: f64 = 150.0;
/// After so many steps, what is left does not expire.
const MAX_STEPS: u32 = 6000;
/// In each step, one in so many of the loaded keys is read, and one changes its size.
const KEYS_PER_REQUEST: u64 = 1200;
/// Steps between two points on the timeline, at first; doubled whenever there are too many.
const SAMPLE_EVERY: u32 = 6;

impl Churn<'_> {
    /// Lets time pass until about a fifth of the bytes is left. Nothing new is written.
    pub(super) fn expire(&mut self) {
        let loaded_bytes = self.store.data_bytes();
        let floor_bytes = (loaded_bytes as u128 * u128::from(SURVIVING_PERCENT) / 100) as u64;
        let requests = self.store.keys() / KEYS_PER_REQUEST + 1;
        let Some(remaining) = self.store.mean_remaining_ticks(self.now) else { return };
        let step_ticks = ((remaining / STEPS_PER_REMAINING_TTL) as u32).max(1);
        let mut sample_every = SAMPLE_EVERY;
        for step in 1..=MAX_STEPS {
            if self.store.data_bytes() <= floor_bytes {
                break;
            }
            self.pass_time(step_ticks, floor_bytes);
            for _ in 0..requests {
                self.read_some();
                self.update_any();
            }
            if step.is_multiple_of(sample_every) {
                let gone = loaded_bytes.saturating_sub(self.store.data_bytes()) as f64;
                self.sample(Phase::Expired, gone / (loaded_bytes - floor_bytes).max(1) as f64);
                if step / sample_every == 60 {
                    sample_every *= 2;
                }
            }
        }
    }

    /// A read that takes note of what has expired, and that nobody fills in after a miss.
    fn read_some(&mut self) {
        let Some(generator) = &mut self.generator else { return };
        let id = generator.requested();
        let key = generator.key(id);
        self.store.get(key.as_bytes(), self.now);
        self.operations += 1;
    }
}
