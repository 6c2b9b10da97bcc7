//! Snapshots as JSON.
#![cfg(feature = "serde")]

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

#[test]
fn a_snapshot_serializes_with_all_its_classes() {
    let stats = tallow::stats();
    let json = serde_json::to_value(stats).expect("a snapshot is plain data");
    assert_eq!(json["allocated_bytes"], stats.allocated_bytes);
    let classes = json["classes"].as_array().expect("a list");
    assert_eq!(classes.len(), tallow::CLASS_COUNT);
    assert_eq!(classes[5]["region_bytes"], 80);
    assert!(json["os_calls"]["reserve"].as_u64() > Some(0));
}

#[test]
fn a_process_serializes() {
    let json = serde_json::to_value(tallow::process()).expect("plain data");
    assert!(json["rss_bytes"].as_u64() > Some(0));
    assert!(json["thp"].is_string());
}
