//! Reads the library's own source: the code without comments and tests, file by file.

use std::fs;
use std::path::Path;

/// The code of a file: comments, strings and character literals are blanked,
/// line ends kept, so that positions still tell the line.
pub fn code_of(source: &str) -> String {
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

pub fn has_word(code: &str, is: impl Fn(&str) -> bool) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(is)
}

/// Blanks the items behind attributes of tests and models; returns the names of
/// the modules among them that have a file of their own.
pub fn strip_tests(code: &str) -> (String, Vec<String>) {
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
    if is_field(&code[from..]) {
        return end_of_field(code, from);
    }
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

/// Whether an item is a field with its value or its type.
fn is_field(item: &str) -> bool {
    let item = item.trim_start();
    let name = ["pub(crate)", "pub(super)", "pub"].iter().find_map(|p| item.strip_prefix(p));
    let rest = name
        .unwrap_or(item)
        .trim_start()
        .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    rest.starts_with(':') && !rest.starts_with("::")
}

/// Behind the comma of the field that starts at `from`, or at the brace behind the last.
fn end_of_field(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[from..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 0 => return from + i,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => return from + i + 1,
            _ => {}
        }
    }
    code.len()
}

/// Calls `f` with the module path and the source of each file, but for those
/// that only tests and models declare.
pub fn each_file(dir: &Path, module: &str, f: &mut dyn FnMut(&str, &str)) {
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
                let below = name.strip_prefix(&inner).unwrap_or("").trim_start_matches("::");
                let child = below.split("::").next().unwrap_or("");
                if !declared.iter().any(|d| d == child) {
                    f(name, source);
                }
            });
        } else if path.extension().is_some_and(|e| e == "rs") {
            f(&inner, &fs::read_to_string(&path).expect("a readable file"));
        }
    }
}

pub fn src() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
