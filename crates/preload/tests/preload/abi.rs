//! The C library's functions, at their edges.

use crate::support::{Kind, compile, folder, of_each_kind, preloaded};

of_each_kind! {
    the_c_functions_answer_as_c_and_posix_say
    pages_are_the_systems
    a_program_with_an_allocator_of_its_own
}

fn the_c_functions_answer_as_c_and_posix_say(kind: Kind) {
    let folder = folder();
    // `mallinfo` is one of them.
    let Some(program) = compile(&folder, "abi.c", &["-Wno-deprecated-declarations"]) else {
        return;
    };
    let run = preloaded(kind, program).run().said_ok();
    // By `tallow_stats_print`, by `malloc_stats`, and at exit.
    let reports: Vec<&str> = run.stderr.split("tallow: process ").skip(1).collect();
    assert_eq!(reports.len(), 3, "{}", run.told());
    for report in reports {
        for word in ["allocated", "resident", "mapped"] {
            let is_there = report.lines().any(|line| line.trim_start().starts_with(word));
            assert!(is_there, "no {word}: {}", run.told());
        }
    }
    let text = run.stdout.lines().next().expect("a line of JSON");
    let stats: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    let bytes = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{name} is missing"));
    assert!(bytes("allocated_bytes") <= bytes("active_bytes"));
    assert!(bytes("active_bytes") <= bytes("resident_bytes"));
    assert!(bytes("resident_bytes") <= bytes("mapped_bytes"));
    let classes = stats["classes"].as_array().expect("a list of size classes");
    assert!(classes.len() > 10 && classes.iter().all(|class| class["region_bytes"].is_u64()));
}

fn pages_are_the_systems(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "pages.c", &[]) else { return };
    preloaded(kind, program).run().said_ok();
}

/// What it leaves out forwards to what it has.
fn a_program_with_an_allocator_of_its_own(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "own.c", &[]) else { return };
    // Its books would be of what the library needs for itself.
    let run = preloaded(kind, program).env("TALLOW_STATS", "0").run();
    run.said_ok_without();
}
