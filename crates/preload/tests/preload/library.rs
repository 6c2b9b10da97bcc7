//! Builds the library. Shared with the benchmark.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// `libtallow.so`, maybe with a feature. That has a folder of its own, so that the two
/// do not take turns.
pub(crate) fn build(feature: Option<&str>) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "--release", "--package", "tallow-preload", "--lib"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    let target = target_directory();
    if let Some(feature) = feature {
        let target = target.unwrap_or_else(|| "target".into());
        cargo.args(["--features", feature, "--target-dir"]).arg(target.join(feature));
    } else if let Some(target) = target {
        cargo.arg("--target-dir").arg(target);
    }
    let out = cargo.output().expect("cargo runs");
    assert!(out.status.success(), "the library does not build");
    // One JSON object a line; the last artifact is the library asked for.
    let text = String::from_utf8(out.stdout).expect("cargo writes text");
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut files = messages.filter_map(|message: serde_json::Value| {
        let file = message["filenames"][0].as_str()?;
        file.ends_with("libtallow.so").then(|| PathBuf::from(file))
    });
    files.next_back().expect("cargo names the library")
}

/// Where this test was built; `None`: wherever Cargo would.
fn target_directory() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    test.ancestors().find(|at| at.join("CACHEDIR.TAG").exists()).map(Into::into)
}
