//! The connections that the load comes over: the requests for one key always on the same one, so
//! that they stay in order, in batches of a given depth.

use super::Config;
use super::wire::{Answer, Connection, described};
use anyhow::bail;

/// One connection, and the keys of the requests under way.
struct Lane {
    connection: Connection,
    ids: Vec<u64>,
}

/// The connections.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Requests in a batch over all lanes.
    batch: usize,
    waiting: usize,
    sent: u64,
}

impl Lanes {
    /// Connects.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let lanes = (0..config.connections.max(1))
            .map(|_| {
                let connection = Connection::open(&config.address, config.password.as_deref())?;
                Ok(Lane { connection, ids: Vec::new() })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let batch = lanes.len() * config.pipeline.max(1);
        Ok(Self { lanes, batch, waiting: 0, sent: 0 })
    }

    /// Requests sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Adds a request about key `id`; sends the batch when it is full.
    pub(super) fn request(&mut self, id: u64, args: &[&[u8]]) -> anyhow::Result<()> {
        self.request_and(id, args, &mut |_, _| {})
    }

    /// The same, with somebody who is shown the answers when the batch is full.
    pub(super) fn request_and(
        &mut self,
        id: u64,
        args: &[&[u8]],
        shown: &mut dyn FnMut(u64, Answer<'_>),
    ) -> anyhow::Result<()> {
        let place = (id % self.lanes.len() as u64) as usize;
        let lane = &mut self.lanes[place];
        lane.connection.request(args);
        lane.ids.push(id);
        self.waiting += 1;
        if self.waiting >= self.batch { self.flush_and(shown) } else { Ok(()) }
    }

    /// Sends what waits and reads the answers.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.flush_and(&mut |_, _| {})
    }

    /// The same, with somebody who is shown the answers.
    pub(super) fn flush_and(
        &mut self,
        shown: &mut dyn FnMut(u64, Answer<'_>),
    ) -> anyhow::Result<()> {
        self.sent += self.waiting as u64;
        self.waiting = 0;
        for lane in &mut self.lanes {
            lane.connection.send()?;
        }
        for Lane { connection, ids } in &mut self.lanes {
            for id in ids.drain(..) {
                match connection.answer()? {
                    // The books would be wrong from here on.
                    error @ Answer::Error(_) => bail!(
                        "the server refused a request: {}; give it the memory and the commands it \
                         takes (see its maxmemory and its ACL)",
                        described(&error),
                    ),
                    answer => shown(id, answer),
                }
            }
        }
        Ok(())
    }
}
