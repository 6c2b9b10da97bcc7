//! Freeing big values on another thread.
//!
//! A hash of a million fields is a million blocks; freeing them takes some tens of milliseconds, in
//! which nobody would be served. So values of more than [`THRESHOLD_BLOCKS`] blocks are sent to a
//! thread that does nothing else, as in Redis (UNLINK, FLUSHALL ASYNC, and DEL with
//! `lazyfree-lazy-user-del`). Smaller ones are freed at once: that costs less than sending them.
//! Databases are sent whatever they hold: one of few keys may be as large as any.

use super::{Db, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Values of more blocks than this are freed elsewhere.
pub(crate) const THRESHOLD_BLOCKS: usize = 64;

/// Whether it takes long to free an entry.
pub(crate) fn is_large(entry: &Entry) -> bool {
    entry.free_effort() > THRESHOLD_BLOCKS
}

/// What can be freed elsewhere.
#[derive(Debug)]
enum Rubbish {
    Entry(Entry),
    Db(Box<Db>),
}

/// The way to the thread, which is started when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Lazyfree {
    thread: Option<Sender<(Rubbish, u64)>>,
    sent_objects: u64,
    /// Counted by the thread. Relaxed: a number of its own.
    freed_objects: Arc<AtomicU64>,
    /// How many of those do not count any more.
    forgotten_objects: u64,
}

impl Lazyfree {
    /// Frees an entry: there if it is large, else here.
    pub(crate) fn free(&mut self, entry: Entry) {
        if is_large(&entry) {
            self.send(Rubbish::Entry(entry), 1);
        }
    }

    /// The same, but here in any case unless `lazily`: for the parameters `lazyfree-lazy-*`.
    pub(crate) fn free_if(&mut self, lazily: bool, entry: Entry) {
        if lazily {
            self.free(entry);
        }
    }

    /// Frees all of a database there.
    pub(crate) fn free_all(&mut self, db: Db) {
        let objects = db.len() as u64;
        if objects > 0 || !db.rubbish.is_empty() {
            self.send(Rubbish::Db(Box::new(db)), objects);
        }
    }

    /// Objects that wait to be freed (`lazyfree_pending_objects`).
    pub(crate) fn pending_objects(&self) -> u64 {
        self.sent_objects.saturating_sub(self.freed_objects.load(Ordering::Relaxed))
    }

    /// Objects freed there so far (`lazyfreed_objects`).
    pub(crate) fn freed_objects(&self) -> u64 {
        self.freed_objects.load(Ordering::Relaxed).saturating_sub(self.forgotten_objects)
    }

    /// Counts those that were freed from zero.
    pub(crate) fn reset_stats(&mut self) {
        self.forgotten_objects = self.freed_objects.load(Ordering::Relaxed);
    }

    fn send(&mut self, rubbish: Rubbish, objects: u64) {
        if self.thread.is_none() {
            self.thread = start(Arc::clone(&self.freed_objects));
        }
        let Some(thread) = &self.thread else { return };
        // If it cannot be sent, what comes back is freed here.
        if thread.send((rubbish, objects)).is_ok() {
            self.sent_objects += objects;
        }
    }
}

fn start(freed_objects: Arc<AtomicU64>) -> Option<Sender<(Rubbish, u64)>> {
    let (sender, receiver) = channel();
    let run = move || {
        for (rubbish, objects) in receiver {
            match rubbish {
                Rubbish::Entry(entry) => drop(entry),
                Rubbish::Db(db) => drop(db),
            }
            freed_objects.fetch_add(objects, Ordering::Relaxed);
        }
    };
    let thread = thread::Builder::new().name("lazyfree".to_owned()).spawn(run);
    thread.map(|_| sender).map_err(|error| tracing::warn!("no thread to free on: {error}")).ok()
}
