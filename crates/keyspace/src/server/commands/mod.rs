//! The commands: one table, one file per family.
//!
//! A command is a row ([`CommandSpec`]) in its family's table and a function that is given a
//! [`Ctx`]. What all commands have in common happens here, before and after: finding the row,
//! arity, authentication, memory limits, counting, error replies.
//!
//! To add one: write `fn name(ctx: &mut Ctx<'_>) -> Handled` in its family's file and a row in that
//! file's `TABLE`; to add a family, its table to [`FAMILIES`].
//!
//! # Where the replies differ from Redis's
//! A test sends some ten thousand drawn commands to this server and to redis-server 7.0.15 and
//! compares the replies byte for byte. What it leaves out differs on purpose:
//! - Cursors of SCAN and HSCAN mean something only to the server that gave them. These meet what is
//!   there all the time exactly once; Redis's may meet it twice.
//! - The order of HGETALL and KEYS, where there is none to speak of.
//! - OBJECT ENCODING tells the nearest of Redis's words: a string that was appended to stays
//!   `embstr` while it is short, since it stays in one block.
//! - COMMAND tells of the commands that there are, without tips, arguments and key specifications.
//! - A client's name, and those of its library and version, have at most 1024 bytes.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod debug;
pub(crate) mod fail;
pub(crate) mod hashes;
pub(crate) mod help;
pub(crate) mod introspection;
pub(crate) mod keys;
pub(crate) mod keyspace;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod object;
pub(crate) mod pubsub;
pub(crate) mod registry;
pub(crate) mod scan;
pub(crate) mod server;
pub(crate) mod strings;
pub(crate) mod values;

pub(crate) use fail::{Fail, Handled};
pub(crate) use registry::Registry;

use super::Server;
use super::db::{Clock, Db};
use super::maxmemory::{self, Room};
use super::net::client::Client;
use super::resp::{Args, Reply};
use std::time::Instant;

/// All families.
pub(crate) const FAMILIES: &[&[CommandSpec]] = &[
    strings::TABLE,
    hashes::TABLE,
    lists::TABLE,
    keys::TABLE,
    keyspace::TABLE,
    object::TABLE,
    connection::TABLE,
    client::TABLE,
    pubsub::TABLE,
    config::TABLE,
    introspection::TABLE,
    memory::TABLE,
    debug::TABLE,
    server::TABLE,
];

/// What is known about a command.
#[derive(Debug)]
pub(crate) struct CommandSpec {
    /// Its name in lower case.
    pub(crate) name: &'static str,
    /// Arguments with the name: exactly so many, or at least so many if negative.
    pub(crate) arity: i32,
    /// A union of [`flag`]s.
    pub(crate) flags: u32,
    /// Which arguments are keys: first, last (negative from the end), step. Zeros for none.
    pub(crate) keys: (i32, i32, i32),
    /// Its group in the documentation.
    pub(crate) group: &'static str,
    /// What it does.
    pub(crate) summary: &'static str,
    /// Since which version of Redis there is one.
    pub(crate) since: &'static str,
    /// What it does, in code.
    pub(crate) handler: fn(&mut Ctx<'_>) -> Handled,
    /// Commands in two words that begin with this one.
    pub(crate) subcommands: &'static [CommandSpec],
}

/// What a command is like.
pub(crate) mod flag {
    /// Changes data.
    pub(crate) const WRITE: u32 = 1;
    /// Reads data.
    pub(crate) const READONLY: u32 = 1 << 1;
    /// May take memory: refused when there is none left.
    pub(crate) const DENYOOM: u32 = 1 << 2;
    /// For administrators.
    pub(crate) const ADMIN: u32 = 1 << 3;
    /// About pub/sub.
    pub(crate) const PUBSUB: u32 = 1 << 4;
    /// Takes constant time, or nearly.
    pub(crate) const FAST: u32 = 1 << 5;
    /// May be called before the password was said.
    pub(crate) const NOAUTH: u32 = 1 << 6;
    /// May be called while data are loaded.
    pub(crate) const LOADING: u32 = 1 << 7;
    /// May be called while the data are old.
    pub(crate) const STALE: u32 = 1 << 8;

    /// Their names, in the order in which COMMAND says them.
    pub(crate) const NAMES: &[(u32, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (FAST, "fast"),
        (NOAUTH, "no_auth"),
    ];
}

impl CommandSpec {
    /// A row with what most have; the rest is added by the functions below.
    pub(crate) const fn new(
        name: &'static str,
        arity: i32,
        flags: u32,
        handler: fn(&mut Ctx<'_>) -> Handled,
    ) -> Self {
        let (group, summary, since) = ("server", "", "1.0.0");
        Self {
            name,
            arity,
            flags,
            keys: (0, 0, 0),
            group,
            summary,
            since,
            handler,
            subcommands: &[],
        }
    }

    /// Which arguments are keys.
    pub(crate) const fn keys(self, first: i32, last: i32, step: i32) -> Self {
        Self { keys: (first, last, step), ..self }
    }

    /// Its group, what it does, and since when.
    pub(crate) const fn doc(
        self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { group, since, summary, ..self }
    }

    /// A command of two words each.
    pub(crate) const fn with(self, subcommands: &'static [Self]) -> Self {
        Self { subcommands, ..self }
    }

    /// Whether it takes so many arguments, its name included.
    pub(crate) fn takes(&self, count: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= least } else { count == least }
    }

    /// Whether it has one of these flags.
    pub(crate) fn is(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }
}

/// What a command is given.
pub(crate) struct Ctx<'a> {
    /// Everything but the client.
    pub(crate) server: &'a mut Server,
    /// Who asks.
    pub(crate) client: &'a mut Client,
    /// The arguments, the name first.
    pub(crate) args: Args<'a>,
}

impl Ctx<'_> {
    /// Where the answer goes.
    #[inline]
    pub(crate) fn reply(&mut self) -> &mut Reply {
        &mut self.client.reply
    }

    /// The client's database, where the answer goes, and the time.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut Db, &mut Reply, Clock) {
        let clock = Clock { no_touch: self.client.no_touch, ..self.server.clock };
        (&mut self.server.dbs[self.client.db], &mut self.client.reply, clock)
    }

    /// The client's database and the time.
    #[inline]
    pub(crate) fn db(&mut self) -> (&mut Db, Clock) {
        let clock = Clock { no_touch: self.client.no_touch, ..self.server.clock };
        (&mut self.server.dbs[self.client.db], clock)
    }

    /// Whether the argument at `index` is `word`, in any case.
    pub(crate) fn arg_is(&self, index: usize, word: &str) -> bool {
        self.args.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }
}

/// Measures commands: the clock is read when another command comes, and when there is no more to be
/// executed. What a run of the same command took is noted as one sum, so that the reading costs a
/// pipeline little.
pub(crate) struct Stopwatch {
    since: Instant,
    /// The command that is being measured.
    running: Option<usize>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), running: None }
    }

    /// Ends the run of the same command.
    pub(crate) fn stop(&mut self, commands: &mut Registry) {
        if let Some(index) = self.running.take() {
            let now = Instant::now();
            commands.note_time(index, now - self.since);
            self.since = now;
        }
    }

    #[inline]
    fn enter(&mut self, index: usize, commands: &mut Registry) {
        if self.running != Some(index) {
            self.stop(commands);
            self.running = Some(index);
        }
    }
}

/// Executes one request.
pub(crate) fn execute(
    server: &mut Server,
    client: &mut Client,
    args: Args<'_>,
    stopwatch: &mut Stopwatch,
) {
    let found = server.commands.find(args, client.last_command);
    // What is done for a command before it is executed, such as making room, is its time too.
    match &found {
        Ok(index) => stopwatch.enter(*index, &mut server.commands),
        Err(_) => stopwatch.stop(&mut server.commands),
    }
    if let Ok(index) = found {
        server.note_next(index);
    }
    let permitted = found.and_then(|index| permit(server, client, args, index).map(|()| index));
    let index = match permitted {
        Ok(index) => index,
        Err(fail) => {
            if ["post", "host:"].iter().any(|it| args.at(0).eq_ignore_ascii_case(it.as_bytes())) {
                // A browser that was talked into sending this: nothing it says counts.
                tracing::warn!("client {} speaks HTTP: cut off", client.address);
                client.dead = true;
            }
            let text = fail.to_string();
            client.reply.error(&text);
            server.note_error(&text);
            return;
        }
    };
    let spec = server.commands.spec(index);
    client.last_command = Some(index);
    let mark = client.reply.mark();
    let result = (spec.handler)(&mut Ctx { server, client, args });
    server.counters.commands_processed += 1;
    let failed = result.is_err();
    if let Err(fail) = result {
        // What was written before it turned out to be wrong is no reply.
        client.reply.rewind(mark);
        let text = fail.to_string();
        client.reply.error(&text);
        server.note_error(&text);
    }
    server.commands.note(index, failed);
}

/// Whether a command may be executed.
fn permit(server: &mut Server, client: &Client, args: Args<'_>, index: usize) -> Result<(), Fail> {
    let spec = server.commands.spec(index);
    if !spec.takes(args.len()) {
        server.commands.note_rejected(index);
        return Err(Fail::arity(server.commands.full_name(index)));
    }
    if !server.knows(client) && !spec.is(flag::NOAUTH) {
        server.commands.note_rejected(index);
        return Err(Fail::NO_AUTH);
    }
    let adds = spec.is(flag::DENYOOM);
    if maxmemory::make_room(server, adds) == Room::None && adds {
        server.commands.note_rejected(index);
        return Err(Fail::OOM);
    }
    if let Err(fail) = pubsub::check_mode(client, server.commands.full_name(index)) {
        server.commands.note_rejected(index);
        return Err(fail);
    }
    Ok(())
}
