//! INFO, RESETSTAT, REWRITE and the doctor, as clients see them.

use crate::clients::account;
use crate::support::{Server, wait_for};
use redis::{Connection, cmd};

fn info(it: &mut Connection, sections: &[&str]) -> String {
    cmd("INFO").arg(sections).query(it).expect("a text")
}

fn titles(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# ")).collect()
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn sections_as_asked_for() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    assert_eq!(titles(&info(&mut it, &["memory", "CPU"])), ["Memory", "CPU"]);
    assert!(info(&mut it, &["none"]).is_empty());
    let usual = info(&mut it, &[]);
    assert_eq!(titles(&usual), titles(&info(&mut it, &["default"])));
    assert!(!titles(&usual).contains(&"Commandstats"));
    let all = info(&mut it, &["everything"]);
    for title in ["Server", "Clients", "Persistence", "Replication", "Commandstats", "Cluster"] {
        assert!(titles(&all).contains(&title), "{title}");
    }
    assert_eq!(field(&all, "role"), "master");
    assert!(field(&all, "used_cpu_user").parse::<f64>().expect("a number") >= 0.0);
}

#[test]
fn memory_in_redis_terms() {
    let server = Server::start(&["--maxmemory", "100mb"]);
    let mut it = server.connect();
    let () = it_set(&mut it, "big", 3_000_000);
    std::thread::sleep(std::time::Duration::from_millis(250));
    let text = info(&mut it, &["memory"]);
    let number = |name: &str| field(&text, name).parse::<f64>().expect("a number");
    assert!(number("used_memory") > 3e6 && number("used_memory_rss") > number("used_memory"));
    assert!(number("used_memory_peak") >= number("used_memory"));
    assert!((number("used_memory_dataset") - 3e6).abs() < 1e5, "{text}");
    let ratio = number("used_memory_rss") / number("allocator_allocated");
    assert!((number("mem_fragmentation_ratio") - ratio).abs() < 0.01, "{text}");
    assert_eq!(field(&text, "maxmemory_human"), "100.00M");
    assert!(number("tallow_account_dataset") > 3e6);
    // What was has its moment.
    let () = cmd("DEL").arg("big").query(&mut it).expect("1");
    let after = info(&mut it, &["memory"]);
    assert_eq!(field(&after, "used_memory_peak"), field(&text, "used_memory_peak"));
    assert!(
        field(&after, "used_memory_peak_perc").trim_end_matches('%').parse::<f64>().unwrap() < 50.0
    );
}

fn it_set(it: &mut Connection, key: &str, bytes: usize) {
    cmd("SET").arg(key).arg("x".repeat(bytes)).query(it).expect("OK")
}

#[test]
fn counts_and_their_reset() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    let () = cmd("SET").arg(&["k", "v", "EX", "1000"]).query(&mut it).expect("OK");
    assert!(cmd("LPUSH").arg(&["k", "v"]).query::<()>(&mut it).is_err());
    assert!(cmd("NOSUCH").query::<()>(&mut it).is_err());
    let text = info(&mut it, &["everything"]);
    assert_eq!(field(&text, "errorstat_WRONGTYPE"), "count=1");
    assert!(field(&text, "cmdstat_lpush").contains("calls=1"));
    let ttl: f64 = field(&text, "db0").rsplit('=').next().unwrap().parse().expect("a number");
    assert!((900e3..=1000e3).contains(&ttl), "{ttl}");
    let () = cmd("CONFIG").arg("RESETSTAT").query(&mut it).expect("OK");
    let text = info(&mut it, &["everything"]);
    assert!(!text.contains("errorstat_") && !text.contains("cmdstat_lpush"));
    assert_eq!(field(&text, "total_error_replies"), "0");
    assert_ne!(field(&text, "used_memory_peak"), "0");
}

/// Those of Valkey 9.1, but for what stands for them here: `_human` and scripting's are left out.
const MEMORY_FIELDS: &str = "used_memory used_memory_rss used_memory_peak used_memory_peak_perc \
    used_memory_startup used_memory_overhead used_memory_dataset used_memory_dataset_perc \
    allocator_allocated allocator_active allocator_resident allocator_muzzy total_system_memory \
    used_memory_lua used_memory_vm_eval used_memory_scripts maxmemory maxmemory_policy \
    allocator_frag_ratio allocator_frag_bytes allocator_rss_ratio allocator_rss_bytes \
    rss_overhead_ratio rss_overhead_bytes mem_fragmentation_ratio mem_fragmentation_bytes \
    mem_not_counted_for_evict mem_replication_backlog mem_total_replication_buffers \
    mem_replicas_repl_buffer mem_clients_slaves mem_clients_normal mem_cluster_links \
    mem_cluster_slot_import mem_cluster_slot_export mem_aof_buffer mem_allocator \
    mem_overhead_db_hashtable_rehashing active_defrag_running lazyfree_pending_objects \
    lazyfreed_objects";

/// Those of MEMORY STATS there, with one database.
const STATS_ENTRIES: &str = "peak.allocated total.allocated startup.allocated \
    replication.backlog replicas.repl.buffer clients.slaves clients.normal cluster.links \
    cluster.slot_import cluster.slot_export aof.buffer lua.caches functions.caches db.0 \
    overhead.db.hashtable.lut overhead.db.hashtable.rehashing overhead.total \
    db.dict.rehashing.count keys.count keys.bytes-per-key dataset.bytes dataset.percentage \
    peak.percentage allocator.allocated allocator.active allocator.resident allocator.muzzy \
    allocator-fragmentation.ratio allocator-fragmentation.bytes allocator-rss.ratio \
    allocator-rss.bytes rss-overhead.ratio rss-overhead.bytes fragmentation fragmentation.bytes";

#[test]
fn every_field_that_redis_has() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    it_set(&mut it, "k", 1_000_000);
    let text = info(&mut it, &["memory"]);
    let ours: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    for name in MEMORY_FIELDS.split_whitespace() {
        assert!(ours.contains(&name), "INFO memory has no {name}");
    }
    let stats: Vec<(String, redis::Value)> =
        cmd("MEMORY").arg("STATS").query(&mut it).expect("pairs");
    let names: Vec<&str> = stats.iter().map(|pair| &*pair.0).collect();
    let theirs: Vec<&str> = STATS_ENTRIES.split_whitespace().collect();
    let (redis, own) = names.split_at(theirs.len());
    assert_eq!(redis, theirs, "in this order");
    assert!(own.iter().all(|name| name.starts_with("tallow.")), "{own:?}");
    let number = |name: &str| match stats.iter().find(|pair| pair.0 == name) {
        Some((_, redis::Value::Int(number))) => *number,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(number("keys.bytes-per-key"), number("dataset.bytes"));
    // The redis-server that is installed has some that are no more.
    let Some(redis) = crate::redis_server::RedisServer::start(&[]) else { return };
    let theirs = format!("{:?}", redis.connect().ask_raw(b"INFO memory\r\n"));
    let theirs: Vec<&str> =
        theirs.split("\\\\r\\\\n").filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert!(theirs.len() > 40, "{theirs:?}");
    for name in theirs {
        assert!(ours.contains(&name), "INFO memory has no {name}");
    }
}

#[test]
fn a_peak_that_lasted_for_one_command_is_seen() {
    const BYTES: u64 = 32 << 20;
    let server = Server::start(&[]);
    let mut it = server.connect();
    let peak = |it: &mut Connection| -> u64 {
        field(&info(it, &["memory"]), "used_memory_peak").parse().expect("a number")
    };
    let before = peak(&mut it);
    let mut pipe = redis::pipe();
    pipe.cmd("SETRANGE").arg("k").arg(BYTES - 1).arg("a").ignore();
    let () = pipe.cmd("DEL").arg("k").ignore().query(&mut it).expect("both");
    let seen = peak(&mut it);
    assert!(before < BYTES / 2, "{before}");
    assert!((BYTES..BYTES * 3 / 2).contains(&seen), "{seen}");
}

#[test]
fn the_longest_time_to_live_there_is() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    for key in ["a", "b"] {
        let () = cmd("SET").arg(&[key, "v"]).query(&mut it).expect("OK");
        let at = ["PEXPIREAT", key, "9223372036854775807"];
        let () = cmd(at[0]).arg(&at[1..]).query(&mut it).expect("1");
    }
    let text = info(&mut it, &["keyspace"]);
    let ttl: i64 = field(&text, "db0").rsplit('=').next().unwrap().parse().expect("a number");
    assert!(ttl > i64::MAX / 1000 * 999, "{ttl}");
}

#[test]
fn the_configuration_is_written_back() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("a.conf");
    std::fs::write(&path, "# mine\nmaxmemory 100mb\nhz 20\n").expect("written");
    let server =
        Server::start(&["--config", path.to_str().expect("text"), "--loglevel", "warning"]);
    let mut it = server.connect();
    let () = cmd("CONFIG").arg(&["SET", "maxmemory", "1gb"]).query(&mut it).expect("OK");
    let () = cmd("CONFIG").arg("REWRITE").query(&mut it).expect("OK");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(text.starts_with("# mine\nmaxmemory 1gb\nhz 20\n"), "{text}");
    assert!(text.contains("loglevel warning\n"), "{text}");
    let without = Server::start(&[]);
    let error = cmd("CONFIG").arg("REWRITE").query::<()>(&mut without.connect()).unwrap_err();
    assert!(error.to_string().contains("running without a config file"), "{error}");
}

#[test]
fn the_other_allocator_answers_too() {
    let server = Server::start(&["--allocator", "system"]);
    let mut it = server.connect();
    it_set(&mut it, "k", 6_000_000);
    let text = info(&mut it, &["memory"]);
    assert!(field(&text, "mem_allocator").starts_with("libc"));
    assert!(field(&text, "used_memory").parse::<f64>().expect("a number") > 6e6);
    for name in ["DOCTOR", "MALLOC-STATS", "PURGE"] {
        let text: String = cmd("MEMORY").arg(name).query(&mut it).expect("a text");
        assert!(!text.is_empty(), "{name}");
    }
    let set = ["SET", "hz", "20", "activedefrag", "yes"];
    let error = cmd("CONFIG").arg(&set).query::<()>(&mut it).expect_err("nothing to move with");
    assert!(error.to_string().contains("requires a server that runs on Tallow"), "{error}");
    assert!(error.to_string().contains("argument 'activedefrag'"), "{error}");
    let got: Vec<String> =
        cmd("CONFIG").arg(&["GET", "hz", "activedefrag"]).query(&mut it).expect("pairs");
    assert_eq!(got, ["hz", "10", "activedefrag", "no"], "all or none");
    let help: Vec<String> = cmd("MEMORY").arg("HELP").query(&mut it).expect("lines");
    assert!(help.iter().any(|line| line.starts_with("USAGE")));
}

#[test]
fn the_doctor_tells_what_it_finds() {
    let server = Server::start(&[]);
    let mut it = server.connect();
    // What it tells, and the peak by what is used at the same moment.
    let mut doctor = || {
        let (memory, told): (String, String) = redis::pipe()
            .cmd("INFO")
            .arg("memory")
            .cmd("MEMORY")
            .arg("DOCTOR")
            .query(&mut it)
            .expect("two texts");
        let number = |name: &str| field(&memory, name).parse::<f64>().expect("a number");
        (told, number("used_memory_peak") / number("used_memory"))
    };
    assert!(doctor().0.contains("empty"));
    // Half a request: a buffer, and nothing in the dataset.
    let mut raw = server.raw();
    raw.send(b"*2\r\n$4\r\nECHO\r\n$90000000\r\n");
    raw.send(&vec![b'x'; 30 << 20]);
    wait_for("it arrives", || account(&server, "client_query_buffers") >= 30 << 20);
    let (told, peak) = doctor();
    for title in ["Big client buffers", "Buffers out of proportion"] {
        assert!(told.contains(&format!(" * {title}: ")), "{told}");
    }
    // Spare room comes and goes with how it arrives.
    assert_eq!(told.contains(" * Peak memory: "), peak > 1.5, "{peak} {told}");
    drop(raw);
    wait_for("it goes", || account(&server, "client_query_buffers") == 0);
    it_set(&mut server.connect(), "k", 6_000_000);
    let (told, _) = doctor();
    assert!(told.contains(" * Peak memory: at its peak this instance used "), "{told}");
    assert!(!told.contains("buffers"), "{told}");
}

#[test]
fn a_server_on_the_other_allocator_does_not_start_with_active_defragmentation() {
    let told = Server::refused(&["--allocator", "system", "--activedefrag", "yes"]);
    assert!(told.contains("requires a server that runs on Tallow"), "{told}");
}

#[test]
fn the_help_of_serve_lists_every_parameter() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_keyspace"))
        .args(["serve", "--help"])
        .output()
        .expect("the program starts");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let server = Server::start(&[]);
    let all: Vec<String> =
        cmd("CONFIG").arg(&["GET", "*"]).query(&mut server.connect()).expect("pairs");
    assert!(all.len() > 80, "{all:?}");
    for name in all.iter().step_by(2) {
        assert!(help.contains(&format!("--{name} ")), "{name} is not in {help}");
    }
}
