//! The library's machine code.

use crate::support::{Kind, installed};
use std::process::Command;

/// The instructions of a function; `None` without a disassembler.
fn instructions(kind: Kind, function: &str) -> Option<Vec<String>> {
    if !installed("objdump") {
        return None;
    }
    let objdump = |args: &[&str]| {
        let out = Command::new("objdump").args(args).arg(kind.library()).output();
        let out = out.expect("it runs");
        assert!(out.status.success(), "objdump: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    // By its place: functions that are the same have one, and many names.
    let symbols = objdump(&["--dynamic-syms"]);
    let symbol = symbols.lines().find(|line| line.split_whitespace().last() == Some(function));
    let number = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
    let symbol = symbol.unwrap_or_else(|| panic!("{function} is not exported"));
    let start = number(symbol.split_whitespace().next()).expect("an address");
    let bytes = number(symbol.split_once('\t').and_then(|(_, rest)| rest.split(' ').next()));
    let end = start + bytes.expect("a size");
    let (start, end) = (format!("--start-address={start}"), format!("--stop-address={end}"));
    let text = objdump(&["--disassemble", "--no-show-raw-insn", &start, &end]);
    let lines = text.lines().filter(|line| line.starts_with(' ') && line.contains(":\t"));
    let lines: Vec<String> = lines.map(Into::into).collect();
    assert!(!lines.is_empty(), "{function} is not there:\n{text}");
    Some(lines)
}

/// The cache of a thread is one load away: no call of the loader's.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn the_thread_cache_is_found_without_a_call() {
    for function in ["malloc", "free", "_Znwm", "_ZdlPv"] {
        let Some(lines) = instructions(Kind::Plain, function) else { return };
        let told = || format!("{function}:\n{}", lines.join("\n"));
        assert!(lines.iter().any(|line| line.contains("%fs:0x0")), "{}", told());
        assert!(lines.iter().all(|line| !line.contains("call")), "{}", told());
    }
}

/// What forwards to another operator is a jump through a table.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn forwarding_operators_are_a_load_and_a_jump() {
    for function in ["_Znam", "_ZdaPv", "_ZdlPvm", "_ZdaPvm", "_ZdlPvmSt11align_val_t"] {
        let Some(lines) = instructions(Kind::Plain, function) else { return };
        let count = lines.iter().filter(|line| !line.contains("int3")).count();
        assert!(count <= 4, "{function}:\n{}", lines.join("\n"));
    }
}
