//! Questions of the page's thread to the event loop, and its answers.
//!
//! An [`Ask`] goes through a channel; a [`Waker`] ends the loop's wait. The answer goes into a
//! one-shot channel, which takes it without waiting; whoever asked may be gone by then.

use crate::server::Server;
use crate::server::config::Config;
use mio::Waker;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// What the event loop alone knows.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Facts {
    pub(super) uptime_ms: u64,
    pub(super) keys: u64,
    pub(super) keys_with_expiry: u64,
    pub(super) clients: u64,
    pub(super) max_clients: u64,
    pub(super) max_memory_bytes: u64,
    pub(super) active_defrag: bool,
    pub(super) commands: u64,
    pub(super) connections: u64,
    pub(super) expired_keys: u64,
    pub(super) evicted_keys: u64,
    pub(super) evicted_clients: u64,
    pub(super) keyspace_hits: u64,
    pub(super) keyspace_misses: u64,
    pub(super) net_input_bytes: u64,
    pub(super) net_output_bytes: u64,
    pub(super) output_limit_disconnections: u64,
    pub(super) lazyfree_pending: u64,
}

/// Something to be done by the loop.
pub(super) enum Ask {
    /// What it knows.
    Facts(oneshot::Sender<Facts>),
    /// To give free memory back, as MEMORY PURGE does; the answer is how many bytes that were.
    Purge(oneshot::Sender<u64>),
    /// To set `activedefrag`; the answer is why that cannot be.
    ActiveDefrag(bool, oneshot::Sender<Result<(), &'static str>>),
    /// To make one pass of defragmentation now; the same answer.
    Defrag(oneshot::Sender<Result<(), &'static str>>),
}

/// The page's end.
pub(super) struct PageEnd {
    asks: Sender<Ask>,
    waker: Waker,
    is_protected: Arc<AtomicBool>,
}

impl PageEnd {
    /// Whether only this machine may look ([`Config::is_protected`]), as the loop has said last.
    pub(super) fn is_protected(&self) -> bool {
        self.is_protected.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the answer; `None` if the loop is gone.
    pub(super) async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (to, answer) = oneshot::channel();
        self.asks.send(ask(to)).ok()?;
        self.waker.wake().ok()?;
        answer.await.ok()
    }
}

/// The loop's end.
#[derive(Debug)]
pub(crate) struct LoopEnd {
    asks: Receiver<Ask>,
    /// Relaxed on both sides: it is about nothing but itself.
    is_protected: Arc<AtomicBool>,
}

/// Both ends.
pub(super) fn link(waker: Waker) -> (PageEnd, LoopEnd) {
    let (to, asks) = channel();
    let is_protected = Arc::new(AtomicBool::new(true));
    let page_end = PageEnd { asks: to, waker, is_protected: Arc::clone(&is_protected) };
    (page_end, LoopEnd { asks, is_protected })
}

impl LoopEnd {
    /// Lets the page know what has changed about who may look.
    pub(crate) fn follow(&self, config: &Config) {
        self.is_protected.store(config.is_protected(), Ordering::Relaxed);
    }

    /// Does what was asked for. An answer that nobody waits for any more is dropped.
    pub(crate) fn answer(&self, server: &mut Server) {
        for ask in self.asks.try_iter() {
            match ask {
                Ask::Facts(to) => drop(to.send(facts(server))),
                Ask::Purge(to) => drop(to.send(server.purge())),
                Ask::ActiveDefrag(on, to) => drop(to.send(set_active_defrag(server, on))),
                Ask::Defrag(to) => {
                    let config = Config { activedefrag: true, ..server.config.clone() };
                    let can = config.fits(server.allocator).map_err(|(_, why)| why);
                    if can.is_ok() {
                        server.defrag.make_one_pass();
                    }
                    let _ = to.send(can);
                }
            }
        }
    }
}

fn set_active_defrag(server: &mut Server, on: bool) -> Result<(), &'static str> {
    let config = Config { activedefrag: on, ..server.config.clone() };
    config.fits(server.allocator).map_err(|(_, why)| why)?;
    server.config = config;
    Ok(())
}

fn facts(server: &Server) -> Facts {
    let (it, lookups) = (&server.counters, server.lookups());
    Facts {
        uptime_ms: server.started.elapsed().as_millis() as u64,
        keys: server.dbs.iter().map(|db| db.len() as u64).sum(),
        keys_with_expiry: server.dbs.iter().map(|db| db.with_expiry() as u64).sum(),
        clients: server.clients.len() as u64,
        max_clients: server.config.maxclients as u64,
        max_memory_bytes: server.config.maxmemory,
        active_defrag: server.config.activedefrag,
        commands: it.commands_processed,
        connections: it.connections_received,
        expired_keys: server.dbs.iter().map(|db| db.expired_keys).sum(),
        evicted_keys: it.evicted_keys,
        evicted_clients: it.evicted_clients,
        keyspace_hits: lookups.hits,
        keyspace_misses: lookups.misses,
        net_input_bytes: it.net_input_bytes,
        net_output_bytes: it.net_output_bytes,
        output_limit_disconnections: it.output_buffer_disconnections,
        lazyfree_pending: server.lazyfree.pending_objects(),
    }
}
