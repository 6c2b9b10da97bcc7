//! Commands through a client library.

use crate::support::{Server, wait_for};
use redis::{Commands, Value, cmd};

#[test]
fn strings() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let _: () = it.set("k", "value").unwrap();
    assert_eq!(it.get::<_, String>("k").unwrap(), "value");
    assert_eq!(it.append::<_, _, usize>("k", "!!").unwrap(), 7);
    assert_eq!(it.getrange::<_, String>("k", -3, -1).unwrap(), "e!!");
    assert_eq!(it.setrange::<_, _, usize>("k", 10, "x").unwrap(), 11);
    assert_eq!(it.get::<_, Vec<u8>>("k").unwrap(), b"value!!\0\0\0x");
    assert_eq!(it.incr::<_, _, i64>("n", 5).unwrap(), 5);
    assert_eq!(it.decr::<_, _, i64>("n", 7).unwrap(), -2);
    assert_eq!(it.incr::<_, _, f64>("f", 0.5).unwrap(), 0.5);
    let all: Vec<Option<String>> = it.mget(&["n", "none", "f"]).unwrap();
    assert_eq!(all, [Some("-2".to_owned()), None, Some("0.5".to_owned())]);
    let old: Option<String> =
        cmd("SET").arg(&["n", "1", "XX", "GET", "KEEPTTL"]).query(&mut it).unwrap();
    assert_eq!(old.as_deref(), Some("-2"));
    let none: Option<String> = cmd("SET").arg(&["n", "1", "NX"]).query(&mut it).unwrap();
    assert_eq!(none, None);
    assert_eq!(it.get_del::<_, String>("n").unwrap(), "1");
    assert!(!it.exists::<_, bool>("n").unwrap());
}

#[test]
fn expiry() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let _: () = it.set_ex("k", 1, 100_000).unwrap();
    // Some of it may have passed.
    let left = it.ttl::<_, i64>("k").unwrap();
    assert!((99_000..=100_000).contains(&left), "{left}");
    assert!(!cmd("EXPIRE").arg(&["k", "1000", "GT"]).query::<bool>(&mut it).unwrap());
    assert!(cmd("EXPIRE").arg(&["k", "1000", "LT"]).query::<bool>(&mut it).unwrap());
    assert!(it.persist::<_, bool>("k").unwrap());
    assert_eq!(it.ttl::<_, i64>("k").unwrap(), -1);
    assert_eq!(it.ttl::<_, i64>("none").unwrap(), -2);
    for i in 0..1000 {
        let _: () = it.pset_ex(format!("soon{i}"), "v", 50).unwrap();
    }
    // Nobody asks for them.
    wait_for("all go", || cmd("DBSIZE").query::<usize>(&mut it).unwrap() == 1);
    assert_eq!(server.info("expired_keys"), "1000");
}

#[test]
fn keys_are_scanned_once_each() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    for i in 0..5000 {
        let _: () = it.set(format!("key{i}"), i).unwrap();
    }
    let mut keys: Vec<String> = it.scan().unwrap().map(|key| key.unwrap()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5000);
    let few: Vec<String> = it.keys("key12?").unwrap();
    assert_eq!(few.len(), 10);
    let _: () = it.rename("key1", "renamed").unwrap();
    assert_eq!(it.get::<_, i64>("renamed").unwrap(), 1);
    let _: () = cmd("FLUSHALL").query(&mut it).unwrap();
    assert_eq!(cmd("DBSIZE").query::<usize>(&mut it).unwrap(), 0);
}

#[test]
fn hashes_and_lists() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    for i in 0..1000 {
        let _: () = it.hset("h", i, i * 2).unwrap();
    }
    assert_eq!(it.hget::<_, _, i64>("h", 77).unwrap(), 154);
    assert_eq!(it.hlen::<_, usize>("h").unwrap(), 1000);
    let all: std::collections::HashMap<i64, i64> = it.hgetall("h").unwrap();
    assert!(all.len() == 1000 && all.iter().all(|(field, value)| *value == field * 2));
    let _: () = it.rpush("l", &[1, 2, 3]).unwrap();
    let _: () = it.lpush("l", 0).unwrap();
    assert_eq!(it.lrange::<_, Vec<i64>>("l", 0, -1).unwrap(), [0, 1, 2, 3]);
    assert_eq!(it.rpop::<_, i64>("l", None).unwrap(), 3);
    let rest: Vec<i64> = it.lpop("l", std::num::NonZero::new(9)).unwrap();
    assert_eq!(rest, [0, 1, 2]);
    assert!(!it.exists::<_, bool>("l").unwrap());
}

#[test]
fn debug_object_of_each_kind() {
    let server =
        Server::start(&["--hash-max-listpack-entries", "2", "--enable-debug-command", "yes"]);
    let mut it = server.connect();
    let _: () = it.set("int", 5).unwrap();
    let _: () = it.set("short", "hello").unwrap();
    let _: () = it.set("long", "x".repeat(20_000)).unwrap();
    let _: () = it.hset("flat", "f", "value").unwrap();
    let _: () = it.hset_multiple("table", &[("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
    let _: () = it.rpush("list", &["a", "bc"]).unwrap();
    for (key, encoding, bytes) in [
        ("int", "int", 8),
        ("short", "embstr", 5),
        ("long", "raw", 20_000),
        ("flat", "listpack", 6),
        ("table", "hashtable", 6),
        ("list", "quicklist", 3),
    ] {
        let text: String = cmd("DEBUG").arg(&["OBJECT", key]).query(&mut it).unwrap();
        let of = |name: &str| {
            let rest = text.split_once(&format!("{name}:")).expect("the field is there").1;
            rest.split(' ').next().unwrap_or_default().to_owned()
        };
        assert!(of("Value at").starts_with("0x"), "{text}");
        let found = (of("refcount"), of("encoding"), of("serializedlength"));
        assert_eq!(found, ("1".to_owned(), encoding.to_owned(), bytes.to_string()), "{key}");
        assert!(of("lru_seconds_idle").parse::<u32>().unwrap() < 60, "{text}");
    }
}

#[test]
fn parameters() {
    let server = Server::start(&["--maxmemory", "100mb"]);
    let mut it = server.connect();
    let get = |it: &mut redis::Connection, name: &str| -> Vec<String> {
        cmd("CONFIG").arg(&["GET", name]).query(it).unwrap()
    };
    assert_eq!(get(&mut it, "maxmemory"), ["maxmemory", "104857600"]);
    let _: () = cmd("CONFIG").arg(&["SET", "maxmemory", "1gb"]).query(&mut it).unwrap();
    assert_eq!(get(&mut it, "maxmemory"), ["maxmemory", "1073741824"]);
    assert!(cmd("CONFIG").arg(&["SET", "port", "1"]).query::<()>(&mut it).is_err());
    assert!(cmd("CONFIG").arg(&["SET", "hz", "no"]).query::<()>(&mut it).is_err());
}

#[test]
fn commands_in_two_words_are_known_by_one_name() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let mut command = |args: &[&str]| cmd("COMMAND").arg(args).query::<Value>(&mut it).unwrap();
    let Value::Array(all) = command(&["INFO", "config|GET", "none|get"]) else { panic!() };
    let Value::Array(known) = &all[0] else { panic!("{all:?}") };
    assert_eq!((&known[0], &known[1]), (&bulk("config|get"), &Value::Int(-3)));
    assert_eq!(all[1], Value::Nil);
    let Value::Array(docs) = command(&["DOCS", "config|get", "none|get"]) else { panic!() };
    assert_eq!((docs.len(), &docs[0]), (2, &bulk("config|get")));
    let Value::Array(listed) = command(&["LIST"]) else { panic!() };
    assert!(listed.contains(&bulk("config")) && listed.contains(&bulk("config|get")));
    let admin = command(&["LIST", "FILTERBY", "ACLCAT", "Admin"]);
    let Value::Array(admin) = admin else { panic!() };
    assert!(admin.contains(&bulk("config|set")) && !admin.contains(&bulk("get")));
    let keys = command(&["GETKEYS", "MEMORY", "USAGE", "k"]);
    assert_eq!(keys, Value::Array(vec![bulk("k")]));
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[test]
fn info_tells_what_clients_ask_for() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for i in 0..200 {
        let expires = redis::SetExpiry::EX(1000);
        let options = redis::SetOptions::default().with_expiration(expires);
        connection.set_options::<_, _, ()>(i, "value", options).expect("SET");
    }
    assert_eq!(server.info("role"), "master");
    assert_eq!(server.info("loading"), "0");
    let keyspace = server.info("db0");
    let mean_ms = keyspace.rsplit_once("avg_ttl=").and_then(|(_, ms)| ms.parse::<u64>().ok());
    assert!(keyspace.starts_with("keys=200,expires=200,"), "{keyspace}");
    assert!(mean_ms.is_some_and(|ms| (900_000..=1_000_000).contains(&ms)), "{keyspace}");
    let seconds: f64 = server.info("used_cpu_user").parse().expect("a number");
    assert!((0.0..60.0).contains(&seconds));
    // Some readings later there is a rate.
    wait_for("a rate", || server.info("instantaneous_ops_per_sec") != "0");
}
