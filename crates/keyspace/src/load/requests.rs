//! The requests of the workload, in Redis's words, and their entries in the books.

use super::drive::Driver;
use crate::bytes::{hash, value_for};
use crate::clock::Expiry;
use crate::workload::{Op, WrittenKey};

/// The shortest TTL written: the server's clock must not run out before the virtual one.
const MIN_TTL_MS: u64 = 3_600_000;
/// A value that appends have made longer than this many means is written anew.
const APPENDED_MEANS: usize = 4;

impl Driver<'_> {
    /// Writes a key that was never there.
    pub(super) fn write_new(&mut self) -> anyhow::Result<()> {
        let id = self.generator.birth();
        self.write(id)
    }

    /// Writes key `id` with a new value and its full TTL.
    pub(super) fn write(&mut self, id: u64) -> anyhow::Result<()> {
        let (len, expiry) =
            (self.generator.value_len(), self.generator.expiry(id, self.books.now()));
        self.set(id, len, expiry)
    }

    /// `SET key value PX ttl`.
    pub(super) fn set(&mut self, id: u64, len: usize, expiry: Expiry) -> anyhow::Result<()> {
        self.books.write(id, len, expiry);
        let ticks = expiry.remaining_ticks(self.books.now()).unwrap_or(u32::MAX);
        let ttl_ms = (u64::from(ticks) * 100).max(MIN_TTL_MS).to_string();
        let (key, value) = self.key_and_value(id, len);
        self.lanes.request(id, &[b"SET", key.as_bytes(), &value, b"PX", ttl_ms.as_bytes()])
    }

    /// `SET key value XX KEEPTTL`, if the key is held.
    fn change(&mut self, id: u64, len: usize) -> anyhow::Result<()> {
        if !self.books.holds(id) {
            return Ok(());
        }
        self.books.resize(id, len);
        let (key, value) = self.key_and_value(id, len);
        self.lanes.request(id, &[b"SET", key.as_bytes(), &value, b"XX", b"KEEPTTL"])
    }

    /// One request of the cluster's mix.
    pub(super) fn request(&mut self) -> anyhow::Result<()> {
        let (op, id) = (self.generator.op(), self.generator.requested());
        let usual_len = self.config.cluster.value_bytes_mean.max(1) as usize;
        let (held, old_len) = (self.books.holds(id), self.books.value_bytes(id));
        let key = self.generator.key(id);
        match op {
            Op::Get | Op::Gets => {
                self.lanes.request(id, &[b"GET", key.as_bytes()])?;
                if held { Ok(()) } else { self.write(id) }
            }
            Op::Set => self.write(id),
            Op::Add if held => {
                let len = self.generator.value_len();
                let (key, value) = self.key_and_value(id, len);
                self.lanes.request(id, &[b"SET", key.as_bytes(), &value, b"NX"])
            }
            Op::Add => self.write(id),
            Op::Replace | Op::Cas => {
                let len = self.generator.value_len();
                self.change(id, len)
            }
            Op::Append | Op::Prepend => {
                let (fresh_len, extra) = (self.generator.value_len(), (usual_len / 8).max(1));
                if old_len > APPENDED_MEANS * usual_len {
                    self.change(id, fresh_len)
                } else if op == Op::Prepend || !held {
                    self.change(id, old_len + extra)
                } else {
                    self.append(id, old_len, extra)
                }
            }
            Op::Delete => {
                self.books.remove(id);
                self.lanes.request(id, &[b"DEL", key.as_bytes()])
            }
            // A counter gains a digit now and then, or loses one.
            Op::Incr | Op::Decr => {
                let longer = self.generator.value_len() > usual_len;
                self.change(id, if longer { old_len + 1 } else { old_len.max(2) - 1 })
            }
        }
    }

    fn append(&mut self, id: u64, old_len: usize, extra: usize) -> anyhow::Result<()> {
        self.books.resize(id, old_len + extra);
        let (key, value) = self.key_and_value(id, old_len + extra);
        self.lanes.request(id, &[b"APPEND", key.as_bytes(), &value[old_len..]])
    }

    /// The name of key `id`, and a value of its own of `len` bytes.
    pub(super) fn key_and_value(&self, id: u64, len: usize) -> (WrittenKey, Box<[u8]>) {
        let key = self.generator.key(id);
        (key, value_for(hash(key.as_bytes()), len))
    }
}
