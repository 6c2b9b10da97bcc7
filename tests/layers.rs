//! The floors of `src/lib.rs`: each module uses its own floor and lower ones;
//! one door to the system, one file with the atomics, and no `unsafe` where
//! only numbers are at work. The table in the crate's documentation is read,
//! so that it cannot say something else than what is checked.

mod scan;

use scan::{code_of, each_file, has_word, src, strip_tests};
use std::collections::BTreeMap;
use std::fs;

/// Modules without a floor: documentation, and the crate's face.
const NO_FLOOR: [&str; 3] = ["design", "trust", ""];
/// Modules that are made of safe code only, submodules included.
const SAFE: [&str; 4] = ["bits", "class", "pages::decay", "defrag::plan"];

/// Each module's floor, from the table in the crate's documentation.
fn floors(lib: &str) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for line in lib.lines() {
        let cells: Vec<&str> = line.trim_start_matches("//!").split('|').map(str::trim).collect();
        let ["", floor, modules, ..] = cells[..] else { continue };
        let Ok(floor) = floor.parse::<usize>() else { continue };
        for name in modules.split('`').skip(1).step_by(2) {
            out.insert(name.trim_end_matches("()").to_owned(), floor);
        }
    }
    out
}

/// A path in the code: where it starts, and its segments with all the braces
/// opened: `crate::{a, b::c}` gives `crate::a` and `crate::b::c`.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let Some(start) = code[at..].find(|c: char| c.is_alphabetic() || c == '_') else { break };
        let start = at + start;
        at = start + word(&code[start..]).len();
        let mut found = Vec::new();
        let end = path_at(code, start, &mut Vec::new(), &mut found);
        if found.iter().any(|path| path.len() > 1) {
            out.extend(found.into_iter().map(|path| (start, path)));
            at = at.max(end);
        }
    }
    out
}

fn word(code: &str) -> &str {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    &code[..end]
}

/// Reads the path at `at` behind the segments `before`; returns where it ends.
fn path_at(code: &str, at: usize, before: &mut Vec<String>, out: &mut Vec<Vec<String>>) -> usize {
    let name = word(&code[at..]);
    let depth = before.len();
    before.push(name.to_owned());
    let mut end = at + name.len();
    if let Some(rest) = code[end..].strip_prefix("::") {
        let next = code.len() - rest.len();
        if rest.starts_with('{') {
            end = next + 1;
            loop {
                let skip = code[end..].find(|c: char| !c.is_whitespace() && c != ',');
                end += skip.unwrap_or(code.len() - end);
                if end >= code.len() || code[end..].starts_with('}') {
                    break;
                }
                if word(&code[end..]).is_empty() {
                    // A `*`.
                    end += code[end..].chars().next().map_or(1, char::len_utf8);
                } else {
                    end = path_at(code, end, before, out);
                }
            }
            end = (end + 1).min(code.len());
        } else if !word(rest).is_empty() {
            end = path_at(code, next, before, out);
        } else {
            out.push(before.clone());
        }
    } else {
        out.push(before.clone());
    }
    before.truncate(depth);
    end
}

/// Makes a path that starts with `crate`, `self` or `super` one from the root.
fn resolve(module: &[&str], path: &[String]) -> Option<Vec<String>> {
    let (mut base, mut rest): (Vec<String>, _) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.iter().map(|&m| m.to_owned()).collect(), &path[1..]),
        "super" => (module.iter().map(|&m| m.to_owned()).collect(), path),
        _ => return None,
    };
    while let Some("super") = rest.first().map(String::as_str) {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// Everything that is wrong in the file of a module (`pages::decay`).
fn violations(floors: &BTreeMap<String, usize>, module: &str, source: &str) -> Vec<String> {
    let (code, _) = strip_tests(&code_of(source));
    let segments: Vec<&str> = module.split("::").filter(|s| !s.is_empty()).collect();
    let top = segments.first().copied().unwrap_or("");
    let floor = floors.get(top).copied();
    let mut out = Vec::new();
    if floor.is_none() && !NO_FLOOR.contains(&top) {
        out.push(format!("{module}: has no floor in the table of src/lib.rs"));
    }
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    for (at, path) in paths(&code) {
        let text = path.join("::");
        if text.starts_with("libc::") && top != "os" {
            out.push(format!("{module}:{}: names {text}, outside of os", line(at)));
        }
        let atomic =
            text.starts_with("core::sync::atomic") || text.starts_with("std::sync::atomic");
        if (atomic || path[0] == "loom") && top != "sync" {
            out.push(format!("{module}:{}: names {text}, outside of sync", line(at)));
        }
        let Some(target) = resolve(&segments, &path) else { continue };
        let (Some(mine), Some(target_floor)) = (floor, target.first().and_then(|t| floors.get(t)))
        else {
            continue;
        };
        if *target_floor > mine {
            out.push(format!(
                "{module}:{}: floor {mine} uses {} of floor {target_floor}",
                line(at),
                target.join("::")
            ));
        }
    }
    let safe = SAFE.iter().any(|s| module == *s || module.starts_with(&format!("{s}::")));
    if safe && has_word(&code, |w| w == "unsafe") {
        out.push(format!("{module}: has `unsafe`, and needs none"));
    }
    out
}

fn table() -> BTreeMap<String, usize> {
    floors(&fs::read_to_string(src().join("lib.rs")).expect("src/lib.rs"))
}

#[test]
fn modules_use_their_own_floor_and_lower_ones() {
    let floors = table();
    assert!((0..=9).all(|f| floors.values().any(|&v| v == f)), "ten floors: {floors:?}");
    let (mut found, mut files, mut seen) = (Vec::new(), 0, Vec::new());
    each_file(&src(), "", &mut |module, source| {
        files += 1;
        seen.push(module.to_owned());
        found.extend(violations(&floors, module, source));
    });
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    // The check itself has looked at everything there is.
    assert!(files >= 30, "only {files} files seen");
    for module in floors.keys().map(String::as_str).chain(SAFE) {
        assert!(seen.iter().any(|s| s == module), "{module} is in the table, but has no file");
    }
}

#[test]
fn planted_violations_are_reported() {
    let floors = table();
    let bad = [
        ("pages", "use crate::arena::CENTRAL;", "pages:1: floor 4 uses arena::CENTRAL of floor 6"),
        (
            "bits",
            "\nuse crate::{config::PAGE_BYTES, heap};",
            "bits:2: floor 1 uses heap of floor 8",
        ),
        ("slab", "fn f() { crate::thread::with_cache(|_| ()) }", "of floor 7"),
        ("os::unix", "use super::super::meta::Meta;", "uses meta::Meta of floor 3"),
        (
            "meta",
            "use crate::{\n    lock::Lock,\n    pages::{PageHeap, Extent},\n};",
            "pages::PageHeap",
        ),
        ("heap", "fn f() { unsafe { libc::getpid() }; }", "names libc::getpid, outside of os"),
        ("stats", "use core::sync::atomic::AtomicU64;", "outside of sync"),
        ("lock", "use std::sync::{Mutex, atomic::Ordering};", "names std::sync::atomic::Ordering"),
        ("arena::bin", "use loom::thread;", "names loom::thread, outside of sync"),
        ("pages::decay", "fn f(p: *const u8) -> u8 { unsafe { *p } }", "has `unsafe`"),
        ("attic", "fn f() {}", "attic: has no floor"),
        ("class", "#[cfg(not(loom))]\nmod x { use crate::heap; }", "class:2: floor 2 uses heap"),
        ("class", "#[cfg(test)]\nmod tests { }\nuse crate::heap::free;", "class:3: floor 2"),
        (
            "class",
            "struct A {\n#[cfg(loom)]\na: [u8; 2],\n}\nfn f() { crate::heap::free() }",
            "class:5",
        ),
    ];
    for (module, source, expected) in bad {
        let found = violations(&floors, module, source).join("\n");
        assert!(found.contains(expected), "{module}: {source:?} gave {found:?}");
    }
    let good = [
        ("arena", "use crate::pages::PageHeap; use super::heap;"),
        ("bits", "// use crate::heap;\n/* unsafe */ const A: &str = \"crate::heap \\\" unsafe\";"),
        (
            "bits",
            "#[cfg(all(test, not(loom)))]\nmod tests { use crate::heap; fn f() { unsafe {} } }",
        ),
        ("bits", "#[cfg(loom)]\nmod model;\n/// See [`crate::heap::free`].\nfn f() {}"),
        ("slab", "fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }"),
        ("os", "use libc::c_int;"),
        ("sync", "pub use core::sync::atomic::AtomicU64; pub use loom::thread;"),
    ];
    for (module, source) in good {
        let mut found = violations(&floors, module, source);
        // `super::heap` of a top module is `crate::heap`: the one that is bad.
        if source.contains("super::heap") {
            assert_eq!(found.len(), 1, "{found:?}");
            found.clear();
        }
        assert!(found.is_empty(), "{module}: {source:?} gave {found:?}");
    }
}
