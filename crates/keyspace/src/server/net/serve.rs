//! What is done for one client: what it has sent is executed, and it is told the replies.
//!
//! Requests are executed where they lie, in the bytes that were just read; only the beginning of one
//! that is not all there is kept, in the client's query buffer. Replies pile up in its output buffer,
//! within its [limits] and those of all clients, until all that was read is executed, and are written
//! in one go.

use super::client::Client;
use super::limits::{self, Served};
use crate::server::Server;
use crate::server::buffer::Buffer;
use crate::server::commands;
use crate::server::resp::request::{Bounds, Scanned};
use std::io::ErrorKind;
use std::mem;

/// Written at once to a socket; the rest is for the next turn, as others are.
/// With 64 KiB ten clients that each get values of 1 MB got a quarter fewer.
const WRITE_BYTES: usize = 1 << 20;

/// Writes what the client's socket takes, and no more than [`WRITE_BYTES`]: one that takes whatever it
/// is given would keep all others waiting.
pub(super) fn write(server: &mut Server, client: &mut Client) {
    write_at_most(server, client, WRITE_BYTES);
}

fn write_at_most(server: &mut Server, client: &mut Client, bytes: usize) {
    let mut most = bytes;
    while most > 0 && !client.reply.unsent().is_empty() && !client.blocked_write {
        let unsent = client.reply.unsent();
        match client.stream.write(&unsent[..unsent.len().min(most)]) {
            Ok(0) => client.dead = true,
            Ok(count) => {
                most -= count;
                server.counters.net_output_bytes += count as u64;
                client.reply.note_sent(count, limits::KEPT_OUTPUT_BYTES);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => client.blocked_write = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => client.dead = true,
        }
        if client.dead {
            return;
        }
    }
    limits::check_output(server, client);
}

/// Executes all whole requests in what the client has sent, and keeps the rest.
pub(super) fn execute_input(server: &mut Server, client: &mut Client, input: &[u8]) {
    limits::set(server, client);
    if client.query.is_empty() {
        let used = execute(server, client, input, 0);
        client.query.extend(&input[used..]);
    } else {
        let mut query = mem::replace(&mut client.query, Buffer::new());
        query.extend(input);
        let used = execute(server, client, &query, query.capacity());
        // What follows a request came with its end. It moves to a buffer of its own size: the room
        // that a long request took would stay for as long as the next one is not whole.
        client.query = if used > 0 { Buffer::copy_of(&query[used..]) } else { query };
    }
    limits::check(server, client);
}

/// Executes all whole requests in `bytes`, which are in a buffer of the client's that is so large;
/// returns how much that was.
fn execute(server: &mut Server, client: &mut Client, bytes: &[u8], buffer_bytes: usize) -> usize {
    let (mut used, mut stopwatch) = (0, commands::Stopwatch::start());
    // Taken out, since its arguments are read while the client is changed.
    let mut scanner = mem::take(&mut client.scanner);
    while used < bytes.len() && !client.closing && !client.dead {
        let bounds = Bounds {
            max_bulk_bytes: server.config.proto_max_bulk_len as i64,
            is_authenticated: server.knows(client),
        };
        let rest = &bytes[used..];
        match scanner.scan(rest, bounds) {
            Scanned::Request(count) => {
                let args = scanner.args(rest);
                if args.len() > 0 {
                    let lent_bytes = buffer_bytes + scanner.buffer_bytes();
                    limits::evict(server, Some(Served { client, lent_bytes }));
                    if client.dead {
                        break;
                    }
                    commands::execute(server, client, args, &mut stopwatch);
                    limits::check_output(server, client);
                }
                used += count;
                scanner.next();
            }
            Scanned::Incomplete => break,
            Scanned::Refused(text) => {
                client.reply.error(&format!("ERR Protocol error: {text}"));
                server.note_error("ERR");
                client.closing = true;
                scanner.next();
                used = bytes.len();
            }
        }
    }
    stopwatch.stop(&mut server.commands);
    client.scanner = scanner;
    if client.closing || client.dead { bytes.len() } else { used }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gauge::Allocator;
    use crate::server::config::Config;
    use crate::server::net::stream::Stream;
    use mio::net::UnixStream;
    use std::io::Read;

    #[test]
    fn a_client_that_takes_all_it_is_given_gets_so_much_at_a_time() {
        let mut server = Server::new(Config::new(), Allocator::Tallow);
        let (near, mut far) = UnixStream::pair().expect("a socket");
        let mut client = Client::new(1, Stream::Unix(near), 0, true);
        client.reply.bulk(&vec![b'x'; 1 << 20]);
        let mut taken = vec![0; 1 << 21];
        // A socket takes more than that.
        const MOST: usize = 64 << 10;
        for turn in 1..=3 {
            write_at_most(&mut server, &mut client, MOST);
            assert_eq!(server.counters.net_output_bytes, turn * MOST as u64);
            assert!(!client.blocked_write);
            let mut bytes = 0;
            while let Ok(count @ 1..) = far.read(&mut taken) {
                bytes += count;
            }
            assert_eq!(bytes, MOST);
        }
    }
}
