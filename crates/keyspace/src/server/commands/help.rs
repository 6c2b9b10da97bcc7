//! The HELP subcommands: lines in Redis's form.

use crate::server::resp::Reply;

/// Writes how to use `command`: `lines` name each subcommand and say what it does, indented.
pub(crate) fn help(reply: &mut Reply, command: &str, lines: &[&str]) {
    let first = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let last = ["HELP", "    Print this help."];
    reply.array(lines.len() + 1 + last.len());
    reply.simple(&first);
    lines.iter().chain(&last).for_each(|line| reply.simple(line));
}
