//! The program as a user starts it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Small enough for a debug build, large enough for thousands of slabs' worth of churn.
const SIZE: &str = "32MiB";

fn keyspace(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyspace"));
    command.env_remove("KEYSPACE_ALLOCATOR").args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// Runs the demo and returns its JSON from standard output.
fn churn(args: &[&str]) -> Value {
    let output = keyspace(&[&["churn", "--json", "-"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("standard output is JSON and nothing else")
}

/// Runs the demo, which must fail, and returns what it said.
fn churn_error(args: &[&str]) -> String {
    let output = keyspace(&[&["churn"], args].concat());
    assert!(!output.status.success(), "{args:?} should fail");
    text(&output.stderr).to_owned()
}

fn number(object: &Value, field: &str) -> f64 {
    object[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {object}"))
}

/// The fields that others rely on are there, and agree with each other.
fn check_fields(json: &Value) {
    let phases = json["phases"].as_array().expect("phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert_eq!(names, ["loaded", "expired", "healed"]);
    for phase in phases {
        for field in
            ["requested_bytes", "allocated_bytes", "active_bytes", "rss_bytes", "live_keys"]
        {
            assert!(number(phase, field) > 0.0, "{field} of {phase}");
        }
        assert!(number(phase, "resident_bytes") > 0.0);
        let ratio = number(phase, "rss_bytes") / number(phase, "allocated_bytes");
        assert!((number(phase, "fragmentation_ratio") - ratio).abs() < 1e-9, "raw RSS: {phase}");
    }
    for field in [
        "moved_bytes",
        "predicted_bytes",
        "released_bytes",
        "passes",
        "longest_step_us",
        "hits",
        "misses",
        "steps",
    ] {
        assert!(json["defrag"][field].is_u64(), "defrag.{field}");
    }
    let timeline = json["timeline"].as_array().expect("a timeline");
    assert!(timeline.len() >= 40, "{} points", timeline.len());
    for pair in timeline.windows(2) {
        assert!(number(&pair[0], "wall_ms") <= number(&pair[1], "wall_ms"));
        assert!(number(&pair[0], "virtual_seconds") <= number(&pair[1], "virtual_seconds"));
    }
    assert_eq!(json["verification"]["keys_checked"], phases[2]["live_keys"]);
    assert!(json["verdict"].as_str().is_some_and(|verdict| verdict.contains('x')));
}

/// About a fifth of the bytes outlives the second phase, and all of that the third.
fn check_survivors(json: &Value) {
    let keys = |phase: usize| number(&json["phases"][phase], "live_keys");
    let left = keys(1) / keys(0);
    assert!((0.15..0.30).contains(&left), "{left} of the keys are left");
    assert!((keys(1) - keys(2)).abs() < f64::EPSILON, "healing loses nothing");
}

#[test]
fn the_demo_shows_fragmentation_and_heals_it() {
    let json = churn(&["--size", SIZE]);
    check_fields(&json);
    check_survivors(&json);
    assert_eq!(json["allocator"], "tallow");
    let phases = &json["phases"];
    let peak = number(&phases[0], "allocated_bytes");
    let wanted = f64::from(32 << 20);
    assert!((peak / wanted - 1.0).abs() < 0.1, "{peak} allocated for a size of {wanted}");
    // So small a store is not all of the process, so the bounds here are not those of a full run.
    let rss = |phase: usize| number(&phases[phase], "rss_bytes");
    assert!(number(&phases[1], "fragmentation_ratio") >= 1.5, "{}", phases[1]);
    assert!(number(&json["defrag"], "moved_bytes") > 0.0, "{}", json["defrag"]);
    assert!(number(&json["defrag"], "passes") >= 1.0);
    let moved = number(&json["defrag"], "moved_bytes");
    assert!(moved <= 1.05 * number(&json["defrag"], "predicted_bytes"), "{}", json["defrag"]);
    let gained: f64 =
        json["gains"].as_array().expect("a list").iter().map(|g| number(g, "released_bytes")).sum();
    assert!((gained - number(&json["defrag"], "released_bytes")).abs() < 0.5, "{}", json["gains"]);
    let latency = &json["latency"];
    for times in [&json["defrag"]["step"], &latency["without"]["all"], &latency["during"]["all"]] {
        let at = |name| number(times, name);
        assert!(at("count") > 0.0, "{times}");
        assert!(at("p50_ns") <= at("p99_ns") && at("p99_ns") <= at("p99_9_ns"), "{times}");
        assert!(at("p99_9_ns") <= at("max_ns"), "{times}");
    }
    assert!(number(latency, "p99_ratio") > 0.0, "{latency}");
    // There is too little to gain here for a paced pass.
    assert!(number(&latency["queueing"]["without"], "count") > 0.0, "{latency}");
    assert_eq!(latency["queueing"]["effort_percent"], 0);
    let step = &json["defrag"]["step"];
    assert!(number(step, "count") >= number(&json["defrag"], "steps"), "{}", json["defrag"]);
    assert!(number(step, "over_1ms_preempted") <= number(step, "over_1ms"), "{step}");
    let regions: f64 =
        json["gains"].as_array().expect("a list").iter().map(|g| number(g, "regions_moved")).sum();
    assert!((regions - number(&json["defrag"], "hits")).abs() < 0.5, "{}", json["gains"]);
    assert!(rss(2) < 0.7 * rss(1), "{} of {} bytes are still there", rss(2), rss(1));
}

#[test]
fn the_same_seed_gives_the_same_books() {
    let books = |seed: &str| {
        let json = churn(&["--keys", "20000", "--seed", seed]);
        let phases = json["phases"].as_array().expect("phases").clone();
        phases
            .iter()
            .map(|phase| {
                ["requested_bytes", "allocated_bytes", "live_keys", "used_bytes", "operations"]
                    .map(|field| phase[field].as_u64().expect("a count"))
            })
            .collect::<Vec<_>>()
    };
    let first = books("7");
    assert_eq!(first, books("7"));
    assert_ne!(first, books("8"));
}

#[test]
fn the_system_allocator_runs_the_same_history() {
    let args = ["--keys", "20000", "--seed", "7"];
    let system = churn(&[&args[..], &["--allocator", "system"]].concat());
    check_fields(&system);
    assert_eq!(system["allocator"], "system");
    assert_eq!(system["defrag"]["moved_bytes"], 0);
    assert_eq!(system["defrag"]["passes"], 0);
    let tallow = churn(&args);
    assert_eq!(tallow["allocator"], "tallow");
    for phase in 0..3 {
        for field in ["live_keys", "used_bytes", "operations"] {
            assert_eq!(system["phases"][phase][field], tallow["phases"][phase][field], "{field}");
        }
    }
}

#[test]
fn a_workload_with_one_ttl_expires_too() {
    let json = churn(&["--workload", "twitter-43", "--size", "16MiB"]);
    check_fields(&json);
    check_survivors(&json);
}

#[test]
fn the_report_is_a_page_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (page, json) = (path("page.html"), path("run.json"));
    let output = keyspace(&["churn", "--keys", "5000", "--report", &page, "--json", &json]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("healed"), "the summary is on standard output");
    let html = std::fs::read_to_string(&page).expect("written");
    assert_eq!(html.matches("<svg").count(), 4, "memory, two maps, classes");
    assert!(html.trim_end().ends_with("</html>"));
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http"), "nothing comes from elsewhere");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    check_fields(&json);
}

#[test]
fn workloads_are_listed_with_their_source() {
    let output = keyspace(&["churn", "--list-workloads"]);
    assert!(output.status.success());
    let list = text(&output.stdout);
    for name in ["twitter-1 ", "twitter-4 ", "twitter-52 ", "twitter-54 ", "CC BY 4.0"] {
        assert!(list.contains(name), "{name} is not in {list}");
    }
}

#[test]
fn wrong_arguments_are_refused_with_advice() {
    let error = churn_error(&["--size", "100TiB"]);
    assert!(error.contains("112.50 TiB"), "{error}");
    assert!(error.contains("smaller --size"), "{error}");
    let error = churn_error(&["--workload", "twitter-5"]);
    assert!(error.contains("--list-workloads"), "{error}");
    let error = churn_error(&["--size", "much"]);
    assert!(error.contains("--size"), "{error}");
    let error = churn_error(&["--keys", "0"]);
    assert!(error.contains("--keys"), "{error}");
    let error = churn_error(&["--json", "/no/such/folder/file", "--keys", "10"]);
    assert!(error.contains("/no/such/folder/file"), "{error}");
}

fn write_trace(folder: &Path, lines: &[u8]) -> String {
    let path = folder.join("trace.csv");
    std::fs::write(&path, lines).expect("written");
    path.display().to_string()
}

#[test]
fn a_trace_is_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = String::new();
    for n in 0..20_000_u32 {
        let (op, ttl) = match n % 4 {
            0 | 1 => ("set", 60 + n % 3600),
            2 => ("append", 0),
            _ => ("get", 0),
        };
        let key = if n % 4 == 2 { n - 1 } else { n };
        lines.push_str(&format!("{},key{key},24,{},{},{op},{ttl}\n", n / 100, 50 + n % 400, n % 9));
    }
    let trace = write_trace(folder.path(), lines.as_bytes());
    let json = churn(&["--trace", &trace, "--size", "64MiB"]);
    check_fields(&json);
    assert_eq!(json["phases"][0]["operations"], 20_000);
    assert!(number(&json["phases"][0], "live_keys") > 10_000.0);
    assert!(number(&json["phases"][1], "live_keys") < 6000.0);
    // A store that is too small for it evicts.
    let small = churn(&["--trace", &trace, "--size", "1MiB"]);
    assert!(number(&small["phases"][0], "used_bytes") < 1.1 * f64::from(1 << 20));
}

#[test]
fn a_bad_trace_is_refused_by_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    for (line, expected) in [
        (&b"5,k,3,x,1,get,0\n"[..], "line 2, column 4 (value bytes): \"x\" is not a whole number"),
        (b"5,k,3\n", "line 2, column 4 (value bytes): missing"),
        (b"5,k\xff,3,9,1,get,0\n", "line 2, column 2 (anonymized key): not UTF-8"),
        (b"5,k,3,9,1,fetch,0\n", "line 2, column 6 (operation): \"fetch\""),
        (
            b"5,k,3,536870912,1,set,9\n",
            "line 2, column 4 (value bytes): a value of 536870912 bytes",
        ),
    ] {
        let trace = write_trace(folder.path(), &[b"0,good,4,10,1,set,100\n", line].concat());
        let error = churn_error(&["--trace", &trace, "--size", "32MiB"]);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("trace.csv"), "the file is named: {error}");
    }
    let empty = write_trace(folder.path(), b"");
    assert!(churn_error(&["--trace", &empty, "--size", "32MiB"]).contains("empty"));
    assert!(churn_error(&["--trace", "/no/such/trace"]).contains("/no/such/trace"));
}
