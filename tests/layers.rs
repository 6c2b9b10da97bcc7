//! The floors of `src/lib.rs`: each module uses its own floor and lower ones;
//! one door to the system, one file with the atomics, and no `unsafe` where
//! only numbers are at work. The table in the crate's documentation is read,
//! so that it cannot say something else than what is checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Modules without a floor: documentation, and the crate's face.
const NO_FLOOR: [&str; 2] = ["design", ""];
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

/// The code of a file: comments, strings and character literals are blanked,
/// line ends kept, so that positions still tell the line.
fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => {
                bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n)
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                source[at..].find("*/").map_or(bytes.len(), |n| at + n + 2)
            }
            b'"' => end_of_string(bytes, at),
            // A character, not a lifetime.
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => end_of_char(bytes, at + 3),
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at + 3,
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn end_of_char(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|&b| b == b'\'').map_or(bytes.len(), |n| from + n + 1)
}

/// Whether an attribute keeps what follows out of the library as it is shipped.
fn only_for_tests(attribute: &str) -> bool {
    let bare = attribute.replace("not(test)", "").replace("not(loom)", "");
    bare.starts_with("#[cfg(") && has_word(&bare, |w| w == "test" || w == "loom")
}

fn has_word(code: &str, is: impl Fn(&str) -> bool) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(is)
}

/// Blanks the items behind attributes of tests and models; returns the names of
/// the modules among them that have a file of their own.
fn strip_tests(code: &str) -> (String, Vec<String>) {
    let (mut out, mut files) = (code.to_owned(), Vec::new());
    let mut from = 0;
    while let Some(start) = out[from..].find("#[cfg(").map(|n| from + n) {
        let Some(close) = out[start..].find(']').map(|n| start + n + 1) else { break };
        from = close;
        if !only_for_tests(&out[start..close]) {
            continue;
        }
        let end = end_of_item(&out, close);
        let item = &out[close..end];
        if let Some(name) = item.trim().strip_suffix(';').and_then(|i| i.split("mod ").nth(1)) {
            files.push(name.trim().to_owned());
        }
        let blank: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
        from = start;
    }
    (out, files)
}

/// Behind the item that starts at `from`: its `;`, or the brace that ends it.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    // `use a::{b, c};` goes on to its semicolon.
                    let rest = code[from + i + 1..].trim_start();
                    let more = usize::from(rest.starts_with(';'));
                    return code.len() - rest.len() + more;
                }
            }
            ';' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
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

/// Calls `f` with the module path and the source of each file, but for those
/// that only tests and models declare.
fn each_file(dir: &Path, module: &str, f: &mut dyn FnMut(&str, &str)) {
    let own = ["lib.rs", "mod.rs"].map(|name| dir.join(name)).into_iter().find(|p| p.exists());
    let mut hidden = Vec::new();
    if let Some(own) = own {
        let source = fs::read_to_string(own).expect("a readable file");
        hidden = strip_tests(&code_of(&source)).1;
        f(module, &source);
    }
    let mut entries: Vec<_> = fs::read_dir(dir)
        .expect("a readable folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().and_then(|s| s.to_str()).expect("a plain name").to_owned();
        if ["lib", "mod"].contains(&stem.as_str()) || hidden.contains(&stem) {
            continue;
        }
        let inner = if module.is_empty() { stem } else { format!("{module}::{stem}") };
        if path.is_dir() {
            // A folder without `mod.rs` belongs to the file of its name, whose
            // declarations say what is hidden in it.
            let beside = fs::read_to_string(path.with_extension("rs")).unwrap_or_default();
            let declared = strip_tests(&code_of(&beside)).1;
            each_file(&path, &inner, &mut |name, source| {
                let child = name.strip_prefix(&inner).unwrap_or("").trim_start_matches("::");
                if !declared.iter().any(|d| d == child) {
                    f(name, source);
                }
            });
        } else if path.extension().is_some_and(|e| e == "rs") {
            f(&inner, &fs::read_to_string(&path).expect("a readable file"));
        }
    }
}

fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
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
