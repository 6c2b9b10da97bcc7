//! The C library's functions, at their edges.

use crate::support::{compile, folder, preloaded};

#[test]
fn the_c_functions_answer_as_c_and_posix_say() {
    let folder = folder();
    // `mallinfo` is one of them.
    let Some(program) = compile(&folder, "abi.c", &["-Wno-deprecated-declarations"]) else {
        return;
    };
    let run = preloaded(program).run().said_ok();
    let text = run.stdout.lines().next().expect("a line of JSON");
    let stats: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    let bytes = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{name} is missing"));
    assert!(bytes("allocated_bytes") <= bytes("active_bytes"));
    assert!(bytes("active_bytes") <= bytes("resident_bytes"));
    assert!(bytes("resident_bytes") <= bytes("mapped_bytes"));
    let classes = stats["classes"].as_array().expect("a list of size classes");
    assert!(classes.len() > 10 && classes.iter().all(|class| class["region_bytes"].is_u64()));
}
