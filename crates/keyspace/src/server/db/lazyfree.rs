//! Freeing big values on another thread.
//!
//! A hash of a million fields is a million blocks; freeing them takes some tens of milliseconds, in
//! which nobody would be served. So values of more than [`THRESHOLD_BLOCKS`] blocks are sent to a
//! thread that does nothing else, as in Redis (UNLINK, FLUSHALL ASYNC, and DEL with
//! `lazyfree-lazy-user-del`). Smaller ones are freed at once: that costs less than sending them.
//! Databases are sent whatever they hold: one of few keys may be as large as any.
//!
//! # What waits there
//! [`queued_bytes`](Lazyfree::queued_bytes) are as good as free: eviction leaves them out of what it
//! has to make room for. An entry counts with what it takes [at least](Entry::least_bytes) when it is
//! sent. The thread frees it block by block; each is taken off before it is freed, small ones together
//! with those before them once they make [`PIECE_BYTES`], and at last what is left of the same sum. So
//! the figure is at most what is still allocated and a piece, and zero when nothing waits. A database
//! counts with nothing: only its keys know how large they are.

use super::{Db, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Values of more blocks than this are freed elsewhere.
pub(crate) const THRESHOLD_BLOCKS: usize = 64;
/// What is freed of small blocks before it is taken off.
const PIECE_BYTES: u64 = 16 * 1024;

/// Whether it takes long to free an entry.
pub(crate) fn is_large(entry: &Entry) -> bool {
    entry.free_effort() > THRESHOLD_BLOCKS
}

/// What can be freed elsewhere.
#[derive(Debug)]
enum Rubbish {
    /// With the bytes that were counted for it.
    Entry(Entry, u64),
    /// With its keys.
    Db(Box<Db>, u64),
}

/// What the thread has done, and has to do.
#[derive(Debug, Default)]
struct Progress {
    /// Release: whoever sees an object here by an Acquire sees its bytes taken off.
    freed_objects: AtomicU64,
    /// Relaxed: a figure of the moment.
    queued_bytes: AtomicU64,
}

/// The way to the thread, which is started when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Lazyfree {
    thread: Option<Sender<Rubbish>>,
    sent_objects: u64,
    progress: Arc<Progress>,
    /// How many of the freed objects do not count any more.
    forgotten_objects: u64,
}

impl Lazyfree {
    /// Frees an entry: there if it is large, else here.
    pub(crate) fn free(&mut self, entry: Entry) {
        if is_large(&entry) {
            let bytes = entry.least_bytes() as u64;
            self.send(Rubbish::Entry(entry, bytes));
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
            self.send(Rubbish::Db(Box::new(db), objects));
        }
    }

    /// Objects that wait to be freed (`lazyfree_pending_objects`).
    pub(crate) fn pending_objects(&self) -> u64 {
        self.sent_objects.saturating_sub(self.progress.freed_objects.load(Ordering::Acquire))
    }

    /// Bytes that are allocated and will be freed there, at least.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.progress.queued_bytes.load(Ordering::Relaxed)
    }

    /// Objects freed there so far (`lazyfreed_objects`).
    pub(crate) fn freed_objects(&self) -> u64 {
        let freed = self.progress.freed_objects.load(Ordering::Relaxed);
        freed.saturating_sub(self.forgotten_objects)
    }

    /// Counts those that were freed from zero.
    pub(crate) fn reset_stats(&mut self) {
        self.forgotten_objects = self.progress.freed_objects.load(Ordering::Relaxed);
    }

    fn send(&mut self, rubbish: Rubbish) {
        if self.thread.is_none() {
            self.thread = start(Arc::clone(&self.progress));
        }
        let Some(thread) = &self.thread else { return };
        let (objects, bytes) = rubbish.size();
        // Before the thread can take them off.
        self.progress.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        match thread.send(rubbish) {
            Ok(()) => self.sent_objects += objects,
            // What comes back is freed here.
            Err(_) => _ = self.progress.queued_bytes.fetch_sub(bytes, Ordering::Relaxed),
        }
    }
}

impl Rubbish {
    /// Objects, and bytes as they are counted.
    fn size(&self) -> (u64, u64) {
        match self {
            Self::Entry(_, bytes) => (1, *bytes),
            Self::Db(_, objects) => (*objects, 0),
        }
    }

    /// Frees it, and takes off what was counted for it.
    fn free(self, progress: &Progress) {
        let (objects, _) = self.size();
        match self {
            Self::Entry(entry, bytes) => free_in_pieces(entry, bytes, &progress.queued_bytes),
            Self::Db(db, _) => drop(db),
        }
        progress.freed_objects.fetch_add(objects, Ordering::Release);
    }
}

/// Frees an entry for which `bytes` were counted.
fn free_in_pieces(mut entry: Entry, bytes: u64, queued_bytes: &AtomicU64) {
    let (mut left, mut piece) = (bytes, 0);
    if let Some(value) = entry.rich_mut() {
        value.free_inside(|bytes| {
            piece += bytes as u64;
            if piece >= PIECE_BYTES {
                let off = piece.min(left);
                queued_bytes.fetch_sub(off, Ordering::Relaxed);
                (left, piece) = (left - off, 0);
            }
        });
    }
    queued_bytes.fetch_sub(left, Ordering::Relaxed);
    drop(entry);
}

fn start(progress: Arc<Progress>) -> Option<Sender<Rubbish>> {
    let (sender, receiver) = channel::<Rubbish>();
    let run = move || receiver.into_iter().for_each(|rubbish| rubbish.free(&progress));
    let thread = thread::Builder::new().name("lazyfree".to_owned()).spawn(run);
    thread.map(|_| sender).map_err(|error| tracing::warn!("no thread to free on: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::super::hash::{FlatLimits, Hash};
    use super::super::list::{End, List};
    use super::super::{Clock, Value};
    use super::*;
    use std::time::{Duration, Instant};

    fn hash(fields: usize) -> Entry {
        let limits = FlatLimits { entries: 0, value_bytes: 0 };
        let mut hash = Hash::new();
        (0..fields).for_each(|i| _ = hash.set(format!("{i}").as_bytes(), &[7; 100], limits));
        Entry::rich(b"hash", Value::Hash(hash), None)
    }

    fn list(elements: usize) -> Entry {
        let mut list = List::new();
        (0..elements).for_each(|_| list.push(End::Tail, &[7; 5000]));
        Entry::rich(b"list", Value::List(list), None)
    }

    #[test]
    fn what_was_counted_is_taken_off_piece_by_piece() {
        for entry in [hash(1000), list(200), hash(1), Entry::string(b"k", &[7; 100_000], None)] {
            let bytes = entry.least_bytes() as u64;
            let queued = AtomicU64::new(bytes + 5);
            free_in_pieces(entry, bytes, &queued);
            assert_eq!(queued.into_inner(), 5);
        }
    }

    #[test]
    fn nothing_is_queued_once_all_is_freed() {
        let mut lazyfree = Lazyfree::default();
        let mut sent = 0;
        for _ in 0..20 {
            for entry in [hash(1000), list(200)] {
                sent += entry.least_bytes() as u64;
                lazyfree.free(entry);
                assert!(lazyfree.queued_bytes() <= sent);
            }
            // Freed here.
            lazyfree.free(hash(10));
        }
        let mut db = Db::new();
        db.insert(hash(1000), Clock::default());
        lazyfree.free_all(db);
        let started = Instant::now();
        while lazyfree.pending_objects() > 0 {
            assert!(started.elapsed() < Duration::from_secs(120), "{lazyfree:?}");
            thread::yield_now();
        }
        assert_eq!((lazyfree.queued_bytes(), lazyfree.freed_objects()), (0, 41));
    }
}
