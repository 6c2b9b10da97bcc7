//! CONFIG and the command line: what can be set, what is refused, and what then happens.

use crate::support::Server;

#[test]
fn lengths_have_a_bound_that_can_be_counted_with() {
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for bytes in ["4294967296", "9223372036854775808", "18446744073709551615", "1048575"] {
        raw.ask(
            &format!("CONFIG SET proto-max-bulk-len {bytes}"),
            "-ERR CONFIG SET failed (possibly related to argument 'proto-max-bulk-len') - argument \
             must be between 1048576 and 4294967295 inclusive\r\n",
        );
    }
    raw.ask("CONFIG SET proto-max-bulk-len 4294967295", "+OK\r\n");
    raw.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
    raw.expect(b"+OK\r\n");
    raw.send(b"*1\r\n$4294967296\r\n");
    raw.expect(b"-ERR Protocol error: invalid bulk length\r\n");
}
