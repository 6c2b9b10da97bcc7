//! Clients that people use, from end to end: redis-cli, redis-benchmark, Python's and Rust's
//! libraries. What is not installed is skipped, with a word.

use crate::support::Server;
use redis::{Commands, cmd};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a program with this input; `None`, said on standard error, if there is no such program.
fn run(program: &str, args: &[&str], input: &str) -> Option<Output> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no {program}");
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it takes input");
    drop(stdin);
    Some(child.wait_with_output().expect("it was started"))
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    text
}

fn cli(server: &Server, args: &[&str], input: &str) -> Option<String> {
    let port = server.port.to_string();
    let args: Vec<&str> = ["-p", &port].into_iter().chain(args.iter().copied()).collect();
    run("redis-cli", &args, input).map(|output| text(&output))
}

#[test]
fn redis_cli() {
    let server = Server::start(&[]);
    let input = "SET k \"two words\"\nGET k\nHSET h f 1 g 2\nHGETALL h\nRPUSH l a b c\n\
                 LRANGE l 0 -1\nGET l\nNOSUCH\nTTL k\nSELECT 3\nDBSIZE\n";
    let Some(answer) = cli(&server, &[], input) else { return };
    let wanted = "OK\ntwo words\n2\nf\n1\ng\n2\n3\na\nb\nc\n\
                  WRONGTYPE Operation against a key holding the wrong kind of value\n\n\
                  ERR unknown command 'NOSUCH', with args beginning with: \n\n-1\nOK\n0\n";
    assert_eq!(answer, wanted);

    let mut it = server.connect();
    for i in 0..500 {
        let _: () = it.set(format!("key:{i}"), "v".repeat(i)).unwrap();
    }
    let keys = cli(&server, &["--scan", "--pattern", "key:*"], "").unwrap();
    assert_eq!(keys.lines().count(), 500);
    let big = cli(&server, &["--bigkeys"], "").unwrap();
    assert!(big.contains("Biggest string found '\"key:499\"' has 499 bytes"), "{big}");
    assert!(big.contains("1 hashs with 2 fields") && big.contains("1 lists with 3 items"), "{big}");
    // Where the memory of a key is told, that of all keys is summed up.
    if cmd("MEMORY").arg(&["USAGE", "k"]).query::<u64>(&mut it).is_ok() {
        // Apart from the others by more than a size class.
        let _: () = it.set("big", "v".repeat(5000)).unwrap();
        let big = cli(&server, &["--memkeys"], "").unwrap();
        assert!(big.contains("Biggest string found '\"big\"' has"), "{big}");
    } else {
        eprintln!("skipped: --memkeys, since there is no MEMORY USAGE");
    }
}

/// The protocol as redis-cli sends it in bulk, and a reply for each.
#[test]
fn redis_cli_pipe() {
    let server = Server::start(&[]);
    let input = "SET key value\r\n".repeat(10_000);
    let Some(answer) = cli(&server, &["--pipe"], &input) else { return };
    assert!(answer.contains("errors: 0, replies: 10000"), "{answer}");
}

#[test]
fn redis_benchmark() {
    let server = Server::start(&[]);
    let port = server.port.to_string();
    let tests = "ping,set,get,incr,hset,lpush,rpop,lrange_100,mset";
    for pipeline in ["1", "16"] {
        let args = ["-p", &port, "-t", tests, "-n", "2000", "-P", pipeline, "-q", "-c", "10"];
        let Some(output) = run("redis-benchmark", &args, "") else { return };
        let said = text(&output);
        assert!(!said.contains("Error"), "{said}");
        // PING comes in two forms; the list is filled before it is read.
        assert_eq!(said.matches("requests per second").count(), 11, "{said}");
    }
    assert_eq!(server.info("rejected_connections"), "0");
}

#[test]
fn python() {
    let directory = tempfile::tempdir().expect("a directory");
    let venv = directory.path().join("venv");
    let install = format!("{}/bin/pip", venv.display());
    let python = format!("{}/bin/python", venv.display());
    let steps: [(&str, &[&str]); 2] = [
        ("python3", &["-m", "venv", venv.to_str().expect("a plain path")]),
        (&install, &["install", "--quiet", "--disable-pip-version-check", "redis"]),
    ];
    for (program, args) in steps {
        let Some(output) = run(program, args, "") else { return };
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped: {program} {args:?} does not work: {why}");
            return;
        }
    }
    let server = Server::start(&[]);
    let script = directory.path().join("client.py");
    fs::write(&script, include_str!("client.py")).expect("a file");
    let args = [script.to_str().expect("a plain path"), &server.port.to_string()];
    let output = run(&python, &args, "").expect("it was made");
    assert_eq!(text(&output), "all is well\n");
}

#[test]
fn rust() {
    let server = Server::start(&["--requirepass", "secret"]);
    for protocol in ["resp2", "resp3"] {
        let address = format!("redis://:secret@127.0.0.1:{}/2?protocol={protocol}", server.port);
        let client = redis::Client::open(address).expect("an address");
        let mut it = client.get_connection().expect("a connection");
        let (a, b): (i64, Vec<String>) = redis::pipe()
            .del("l")
            .ignore()
            .incr("n", 1)
            .rpush("l", &["x", "y"])
            .ignore()
            .lrange("l", 0, -1)
            .query(&mut it)
            .unwrap();
        assert!(a > 0 && b == ["x", "y"]);
        let fields: Vec<(String, String)> =
            (0..1000).map(|i| (i.to_string(), "v".into())).collect();
        let _: () = it.hset_multiple("h", &fields).unwrap();
        let scanned = it.hscan::<_, (String, String)>("h").unwrap().count();
        assert_eq!(scanned, 1000);
        assert_eq!(it.hget::<_, _, Option<String>>("h", "none").unwrap(), None);
        let error = it.get::<_, String>("h").unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
        assert_eq!(cmd("INCRBYFLOAT").arg(&["f", "0.1"]).query::<f64>(&mut it).unwrap(), 0.1);
        let _: () = cmd("FLUSHDB").query(&mut it).unwrap();
    }
}
