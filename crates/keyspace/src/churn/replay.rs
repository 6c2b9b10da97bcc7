//! Phase *loaded*, from a trace: its requests are made as they stand there.

use super::{Churn, Goal, Phase, expiry_after};
use crate::bytes::{appended, hash, prepended, value_for};
use crate::clock::Moment;
use crate::trace::{Request, TraceError, TraceReader};
use crate::workload::Op;
use anyhow::Context;
use std::path::Path;

/// Requests between two points on the timeline, at first; doubled whenever there are too many.
const SAMPLE_EVERY: u64 = 4096;
/// The TTL of a value that a read brings in before the trace has shown a write: a day.
const USUAL_TTL_SECONDS: u32 = 86_400;

impl Churn<'_> {
    /// Replays the trace at `path`, evicting where it would outgrow the size given.
    pub(super) fn replay(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display();
        let mut reader = TraceReader::open(path).with_context(|| {
            format!("cannot open the trace {name}; give the path of a CSV file")
        })?;
        let mut fill_ttl_seconds = USUAL_TTL_SECONDS;
        let mut key_buffer = Vec::new();
        let mut sample_every = SAMPLE_EVERY;
        while let Some(request) =
            reader.next_request().with_context(|| format!("the trace {name} cannot be used"))?
        {
            if let Goal::Bytes(bytes) = self.goal
                && request.value_bytes as u64 > bytes / 2
            {
                let limit = format!("half of --size ({bytes} bytes)");
                return Err(TraceError::value_too_large(&request, limit))
                    .with_context(|| format!("the trace {name} cannot be used"));
            }
            let then = Moment::from_seconds(request.at_seconds).unwrap_or(self.now).max(self.now);
            if then > self.now {
                let ticks = (then.seconds() - self.now.seconds()) * 10.0;
                self.pass_time(ticks.round() as u32, 0);
            }
            if request.ttl_seconds > 0 {
                fill_ttl_seconds = request.ttl_seconds;
            }
            self.apply(&request, &mut key_buffer, fill_ttl_seconds);
            self.evict_above_goal();
            if self.operations.is_multiple_of(sample_every) {
                self.sample(Phase::Loaded, self.filled().min(0.99));
                if self.operations / sample_every == 60 {
                    sample_every *= 2;
                }
            }
        }
        if self.operations == 0 {
            anyhow::bail!("the trace {name} is empty: there is nothing to replay");
        }
        Ok(())
    }

    fn apply(&mut self, request: &Request<'_>, key: &mut Vec<u8>, fill_ttl_seconds: u32) {
        // The anonymized name is shorter or longer than the real key; it is filled up to that
        // length, and kept whole where it is longer, since it is what tells keys apart.
        key.clear();
        key.extend_from_slice(request.key.as_bytes());
        key.resize(request.key_bytes.max(key.len()), b'.');
        let (key, now, len) = (&key[..], self.now, request.value_bytes);
        let expiry = expiry_after(now, request.ttl_seconds);
        let value = || value_for(hash(key), len);
        self.operations += 1;
        match request.op {
            Op::Get | Op::Gets => {
                // The length in a read is that of the answer: 0 was a miss there. Where this store
                // does not have the key yet, the read brings it in, as with a look-aside cache.
                if self.store.get(key, now).is_none() && len > 0 {
                    self.store.set(key, value(), expiry_after(now, fill_ttl_seconds));
                }
            }
            Op::Set => self.store.set(key, value(), expiry),
            Op::Add => drop(self.store.add(key, value(), expiry, now)),
            Op::Replace => {
                if self.store.get(key, now).is_some() {
                    self.store.set(key, value(), expiry);
                }
            }
            Op::Cas => {
                self.store.update(key, now, |hash, _| value_for(hash, len));
            }
            // A value cannot outgrow what a line of the trace may ask for.
            Op::Append | Op::Prepend => {
                self.store.update(key, now, |hash, old| {
                    if (old.len() + len) as u64 > crate::trace::MAX_VALUE_BYTES {
                        value_for(hash, len)
                    } else if request.op == Op::Append {
                        appended(hash, old, len)
                    } else {
                        prepended(hash, &old, len)
                    }
                });
            }
            Op::Delete => drop(self.store.delete(key)),
            Op::Incr | Op::Decr => {
                self.store.update(key, now, |hash, old| {
                    value_for(hash, if len > 0 { len } else { old.len() })
                });
            }
        }
    }
}
