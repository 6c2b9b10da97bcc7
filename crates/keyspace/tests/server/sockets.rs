//! Unix sockets: what is in their place, and who may use them.

use crate::support::Server;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn a_file_in_the_place_of_a_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "dear to me").expect("written");
    let told = Server::refused(&["--unixsocket", notes.to_str().expect("text")]);
    assert!(told.contains("cannot listen on"), "{told}");
    assert_eq!(fs::read(&notes).expect("it is there"), b"dear to me");
    // A link is no socket either, whatever it leads to.
    let (socket, link) = (folder.path().join("socket"), folder.path().join("link"));
    drop(UnixListener::bind(&socket).expect("a socket"));
    std::os::unix::fs::symlink(&socket, &link).expect("a link");
    let _ = Server::refused(&["--unixsocket", link.to_str().expect("text")]);
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_has_the_permissions_wanted() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("socket");
    let name = path.to_str().expect("text");
    drop(UnixListener::bind(&path).expect("a socket"));
    for (wanted, mode) in [("700", 0o700), ("0666", 0o666)] {
        let server = Server::start(&["--unixsocket", name, "--unixsocketperm", wanted]);
        let metadata = fs::metadata(&path).expect("it is there");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, mode);
        let mut stream = UnixStream::connect(&path).expect("a connection");
        stream.write_all(b"PING\r\n").expect("it takes them");
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"+PONG\r\n");
        stream.write_all(b"SHUTDOWN\r\n").expect("it takes them");
        assert!(server.wait() && !path.exists(), "it tidies up");
        // For the next one.
        drop(UnixListener::bind(&path).expect("a socket"));
    }
    let told = Server::refused(&["--unixsocket", name, "--unixsocketperm", "888"]);
    assert!(told.contains("octal"), "{told}");
}
