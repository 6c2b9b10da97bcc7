//! All commands by name, and what is counted about them.

use super::{CommandSpec, FAMILIES, Fail};
use crate::server::resp::Args;
use std::collections::HashMap;
use std::time::Duration;

/// The longest name that is looked up.
const MAX_NAME_BYTES: usize = 32;
/// How much of an unknown command's arguments is cited.
const CITED_BYTES: usize = 128;

/// What INFO commandstats says of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommandStats {
    /// Calls that were executed.
    pub(crate) calls: u64,
    /// Time spent in them.
    pub(crate) nanos: u64,
    /// Calls refused before they were executed.
    pub(crate) rejected: u64,
    /// Calls that came to an error.
    pub(crate) failed: u64,
}

/// The commands.
#[derive(Debug)]
pub(crate) struct Registry {
    commands: Vec<Registered>,
    by_name: HashMap<&'static [u8], usize>,
}

#[derive(Debug)]
struct Registered {
    spec: &'static CommandSpec,
    /// `name`, or `name|subcommand`.
    full_name: String,
    /// Places of the subcommands.
    subcommands: std::ops::Range<usize>,
    /// Whether its first word says all: it has no subcommands, and is none.
    is_single: bool,
    stats: CommandStats,
}

impl Registry {
    /// The commands of all families.
    pub(crate) fn new() -> Self {
        let (mut commands, mut by_name) = (Vec::new(), HashMap::new());
        for spec in FAMILIES.iter().copied().flatten() {
            by_name.insert(spec.name.as_bytes(), commands.len());
            let first = commands.len() + 1;
            let subcommands = first..first + spec.subcommands.len();
            let new = |spec, full_name, subcommands, is_single| Registered {
                spec,
                full_name,
                subcommands,
                is_single,
                stats: CommandStats::default(),
            };
            let is_single = spec.subcommands.is_empty();
            commands.push(new(spec, spec.name.to_owned(), subcommands, is_single));
            for sub in spec.subcommands {
                commands.push(new(sub, format!("{}|{}", spec.name, sub.name), 0..0, false));
            }
        }
        Self { commands, by_name }
    }

    /// What is known about the command at `index`.
    #[inline]
    pub(crate) fn spec(&self, index: usize) -> &'static CommandSpec {
        self.commands[index].spec
    }

    /// Its name; `name|subcommand` for those in two words.
    pub(crate) fn full_name(&self, index: usize) -> &str {
        &self.commands[index].full_name
    }

    /// All of them, those in two words too, with their full names and figures.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, CommandStats)> {
        self.commands.iter().map(|it| (&*it.full_name, it.stats))
    }

    /// All of them, with their full names and what is known of them.
    pub(crate) fn specs(&self) -> impl Iterator<Item = (&str, &'static CommandSpec)> {
        self.commands.iter().map(|it| (&*it.full_name, it.spec))
    }

    /// How many there are, those in two words counted once.
    pub(crate) fn count(&self) -> usize {
        self.by_name.len()
    }

    /// The command of a name.
    pub(crate) fn by_name(&self, name: &[u8]) -> Option<usize> {
        let mut lower = [0; MAX_NAME_BYTES];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).copied()
    }

    /// The command of a full name: `name`, or `name|subcommand`.
    pub(crate) fn by_full_name(&self, name: &[u8]) -> Option<usize> {
        match name.iter().position(|byte| *byte == b'|') {
            None => self.by_name(name),
            Some(at) => self.subcommand(self.by_name(&name[..at])?, &name[at + 1..]),
        }
    }

    /// The subcommand of this name of the command at `index`.
    fn subcommand(&self, index: usize, name: &[u8]) -> Option<usize> {
        let mut all = self.commands[index].subcommands.clone();
        all.find(|sub| self.commands[*sub].spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The command of a request; `last` is tried first.
    #[inline]
    pub(crate) fn find(&self, args: Args<'_>, last: Option<usize>) -> Result<usize, Fail> {
        let name = args.at(0);
        if let Some(last) = last {
            let known = &self.commands[last];
            if known.is_single && known.spec.name.as_bytes().eq_ignore_ascii_case(name) {
                return Ok(last);
            }
        }
        self.look_up(args)
    }

    /// The command of a request, by its names alone.
    pub(crate) fn look_up(&self, args: Args<'_>) -> Result<usize, Fail> {
        let name = args.at(0);
        let index = self.by_name(name).ok_or_else(|| unknown(args))?;
        match args.get(1) {
            Some(second) if !self.commands[index].subcommands.is_empty() => self
                .subcommand(index, second)
                .ok_or_else(|| unknown_subcommand(self.commands[index].spec.name, second)),
            _ => Ok(index),
        }
    }

    /// Counts a call.
    #[inline]
    pub(crate) fn note(&mut self, index: usize, failed: bool) {
        let stats = &mut self.commands[index].stats;
        stats.calls += 1;
        stats.failed += u64::from(failed);
    }

    /// Adds what one or more calls took.
    pub(crate) fn note_time(&mut self, index: usize, took: Duration) {
        self.commands[index].stats.nanos += took.as_nanos() as u64;
    }

    /// Counts a call that was refused.
    pub(crate) fn note_rejected(&mut self, index: usize) {
        self.commands[index].stats.rejected += 1;
    }

    /// Counts from zero.
    pub(crate) fn reset_stats(&mut self) {
        self.commands.iter_mut().for_each(|it| it.stats = CommandStats::default());
    }
}

/// The beginning of an argument, up to a zero byte, as C's strings end.
fn cite(bytes: &[u8], most: usize) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

fn unknown(args: Args<'_>) -> Fail {
    let mut cited = String::new();
    for arg in args.from(1) {
        if cited.len() >= CITED_BYTES {
            break;
        }
        cited.push_str(&format!("'{}' ", cite(arg, CITED_BYTES - cited.len())));
    }
    let name = cite(args.at(0), CITED_BYTES);
    Fail::Text(format!("ERR unknown command '{name}', with args beginning with: {cited}"))
}

fn unknown_subcommand(name: &str, second: &[u8]) -> Fail {
    let (second, name) = (cite(second, CITED_BYTES), name.to_uppercase());
    Fail::Text(format!("ERR unknown subcommand '{second}'. Try {name} HELP."))
}
