//! Phase *loaded*, generated: the store is filled and then used until it is in a steady state.

use super::{Churn, Phase};
use crate::bytes::{appended, prepended, value_for};
use crate::clock::TICKS_PER_SECOND;
use crate::workload::{Cluster, Op};

/// Virtual time spanned, in mean TTLs: long enough for ages to be thoroughly mixed.
const SPAN_MEAN_TTLS: f64 = 1.25;
/// Steps that this time is cut into.
const STEPS: u32 = 1500;
/// Requests made in it, per key held.
const REQUESTS_PER_KEY: u64 = 2;
/// Points on the timeline while the store fills, and while it is in use.
const FILL_SAMPLES: u64 = 30;
const STEADY_SAMPLES: u32 = 50;
/// A value that appends have made longer than this many means is written anew.
const APPENDED_MEANS: usize = 4;

impl Churn<'_> {
    /// Fills the store, then serves requests while keys expire and new ones take their places.
    pub(super) fn load(&mut self, cluster: &'static Cluster, planned_keys: u64) {
        let sample_every = (planned_keys / FILL_SAMPLES).max(1);
        while self.is_below_goal() {
            self.fill_one();
            if self.store.keys().is_multiple_of(sample_every) {
                self.sample(Phase::Loaded, self.filled() * 0.4);
            }
        }
        let keys = self.store.keys();
        if let Some(generator) = &mut self.generator {
            generator.set_window(keys);
        }
        let span_ticks = cluster.mean_ttl_seconds() * f64::from(TICKS_PER_SECOND) * SPAN_MEAN_TTLS;
        let step_ticks = ((span_ticks / f64::from(STEPS)) as u32).max(1);
        let steps = ((span_ticks / f64::from(step_ticks)) as u32).max(1);
        let requests = keys * REQUESTS_PER_KEY;
        let mut made = 0;
        for step in 1..=steps {
            self.pass_time(step_ticks, 0);
            while made < requests * u64::from(step) / u64::from(steps) {
                self.request(cluster);
                made += 1;
                // New keys come in between the requests, not in a burst before them.
                if self.is_below_goal() {
                    self.write_new();
                }
            }
            while self.is_below_goal() {
                self.write_new();
            }
            self.evict_above_goal();
            if step.is_multiple_of((steps / STEADY_SAMPLES).max(1)) {
                self.sample(Phase::Loaded, 0.4 + 0.6 * f64::from(step) / f64::from(steps));
            }
        }
    }

    /// Fills in one key of a store in equilibrium.
    fn fill_one(&mut self) {
        let Some(generator) = &mut self.generator else { return };
        let (id, expiry) = generator.settled_birth(self.now);
        let (key, len) = (generator.key(id), generator.value_len());
        let value = value_for(crate::bytes::hash(key.as_bytes()), len);
        self.store.set(key.as_bytes(), value, expiry);
        self.operations += 1;
    }

    /// Writes a key that was never there.
    fn write_new(&mut self) {
        let Some(generator) = &mut self.generator else { return };
        let id = generator.birth();
        self.write(id);
    }

    /// Writes key `id` with a new value and its full TTL.
    fn write(&mut self, id: u64) {
        let Some(generator) = &mut self.generator else { return };
        let (key, len) = (generator.key(id), generator.value_len());
        let expiry = generator.expiry(id, self.now);
        let value = value_for(crate::bytes::hash(key.as_bytes()), len);
        self.store.set(key.as_bytes(), value, expiry);
        self.operations += 1;
    }

    /// One request of the cluster's mix.
    fn request(&mut self, cluster: &'static Cluster) {
        let Some(generator) = &mut self.generator else { return };
        let (op, id) = (generator.op(), generator.requested());
        let (key, now) = (generator.key(id), self.now);
        let key = key.as_bytes();
        self.operations += 1;
        let usual_len = cluster.value_bytes_mean.max(1) as usize;
        match op {
            Op::Get | Op::Gets => {
                // A look-aside cache: who misses asks the source and writes what it got.
                if self.store.get(key, now).is_none() {
                    self.write(id);
                }
            }
            Op::Set => self.write(id),
            Op::Add => {
                let (len, expiry) = (generator.value_len(), generator.expiry(id, now));
                let value = value_for(crate::bytes::hash(key), len);
                self.store.add(key, value, expiry, now);
            }
            Op::Replace => {
                if self.store.get(key, now).is_some() {
                    self.write(id);
                }
            }
            Op::Cas => {
                let len = generator.value_len();
                self.store.update(key, now, |hash, _| value_for(hash, len));
            }
            Op::Append | Op::Prepend => {
                let (fresh_len, extra) = (generator.value_len(), (usual_len / 8).max(1));
                self.store.update(key, now, |hash, old| {
                    if old.len() > APPENDED_MEANS * usual_len {
                        value_for(hash, fresh_len)
                    } else if op == Op::Append {
                        appended(hash, old, extra)
                    } else {
                        prepended(hash, &old, extra)
                    }
                });
            }
            Op::Delete => drop(self.store.delete(key)),
            // A counter gains a digit now and then, or loses one.
            Op::Incr | Op::Decr => {
                let longer = generator.value_len() > usual_len;
                self.store.update(key, now, |hash, old| {
                    let len = if longer { old.len() + 1 } else { old.len().max(2) - 1 };
                    value_for(hash, len)
                });
            }
        }
    }
}
