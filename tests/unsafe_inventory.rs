//! `docs/unsafe.md` lists every file with `unsafe` in it, how much, and why. This
//! counts again, so that the list cannot say something else than the code, and counts
//! the dependencies, of which there are to be few.

mod scan;

use scan::{code_of, each_file, src, strip_tests};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What of `unsafe` a file has, outside of tests and models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    blocks: usize,
    impls: usize,
    fns: usize,
}

/// Counts the uses of the word by what follows it. A type of a function, which has no
/// name, is none.
fn count(code: &str) -> Count {
    let mut out = Count::default();
    let mut words = code
        .split_inclusive(|c: char| !c.is_alphanumeric() && c != '_')
        .flat_map(|piece| {
            let end = piece.find(|c: char| !c.is_alphanumeric() && c != '_');
            let (word, sign) = piece.split_at(end.unwrap_or(piece.len()));
            [word, sign]
        })
        .filter(|piece| !piece.trim().is_empty())
        .peekable();
    while let Some(word) = words.next() {
        if word != "unsafe" {
            continue;
        }
        match words.next().unwrap_or("") {
            "{" => out.blocks += 1,
            "impl" | "trait" => out.impls += 1,
            mut next => {
                while next == "extern" || next == "\"" || next == "C" {
                    next = words.next().unwrap_or("");
                }
                let named = words.peek().is_some_and(|w| *w != "(");
                // A block of foreign functions counts as one.
                if next == "fn" && named || next == "{" {
                    out.fns += 1;
                }
            }
        }
    }
    out
}

/// The count of each file below a folder that has any, by its path from the root.
fn counted(dir: &Path, root: &Path) -> BTreeMap<String, Count> {
    let mut shipped = BTreeSet::new();
    each_file(dir, "", &mut |_, source| {
        shipped.insert(source.to_owned());
    });
    let mut out = BTreeMap::new();
    for path in files(dir) {
        let source = fs::read_to_string(&path).expect("a readable file");
        let found = count(&strip_tests(&code_of(&source)).0);
        if found != Count::default() && shipped.contains(&source) {
            let name = path.strip_prefix(root).expect("a file below the root");
            out.insert(name.to_string_lossy().into_owned(), found);
        }
    }
    out
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out
}

fn row(file: &str, count: Count, why: &str) -> String {
    format!("| `{file}` | {} | {} | {} | {why} |", count.blocks, count.impls, count.fns)
}

/// What is wrong with the table, as lines to put right.
fn faults(table: &str, counted: &BTreeMap<String, Count>) -> Vec<String> {
    let mut out = Vec::new();
    let mut listed = BTreeMap::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", file, blocks, impls, fns, why, ""] = cells[..] else { continue };
        let Some(file) = file.strip_prefix('`').and_then(|f| f.strip_suffix('`')) else { continue };
        let number = |cell: &str| cell.parse().unwrap_or(usize::MAX);
        let told = Count { blocks: number(blocks), impls: number(impls), fns: number(fns) };
        if why.is_empty() {
            out.push(format!("{file}: no reason given"));
        }
        listed.insert(file, (told, why));
    }
    for (file, &is) in counted {
        match listed.remove(file.as_str()) {
            None => out.push(format!("add: {}", row(file, is, "(why)"))),
            Some((told, why)) if told != is => {
                out.push(format!("was {told:?}, make it: {}", row(file, is, why)));
            }
            Some(_) => {}
        }
    }
    out.extend(listed.keys().map(|file| format!("strike out: {file} has no `unsafe`")));
    let sum = counted.values().fold(Count::default(), |sum, c| Count {
        blocks: sum.blocks + c.blocks,
        impls: sum.impls + c.impls,
        fns: sum.fns + c.fns,
    });
    let total = format!(
        "{} blocks, {} impls and {} functions in {} files",
        sum.blocks,
        sum.impls,
        sum.fns,
        counted.len()
    );
    if !table.contains(&total) {
        out.push(format!("the sum is: {total}"));
    }
    out
}

fn root() -> PathBuf {
    src().parent().expect("a folder").to_owned()
}

#[test]
fn the_list_of_unsafe_code_is_what_there_is() {
    let counted = counted(&src(), &root());
    let table = fs::read_to_string(root().join("docs/unsafe.md")).expect("docs/unsafe.md");
    let faults = faults(&table, &counted);
    assert!(faults.is_empty(), "docs/unsafe.md:\n{}", faults.join("\n"));
    assert!(counted.len() > 15, "only {} files seen", counted.len());
}

#[test]
fn a_wrong_list_is_found_out() {
    let code = "unsafe impl Send for A {}\nunsafe extern \"C\" fn f() { unsafe { g() } }\n\
                type F = unsafe fn(u8);\nunsafe fn h() {}\n";
    let is = count(&code_of(code));
    assert_eq!(is, Count { blocks: 1, impls: 1, fns: 2 });
    assert_eq!(count(&code_of("// unsafe {}\nlet s = \"unsafe { }\";")), Count::default());
    let stripped = strip_tests("struct A {\n#[cfg(loom)]\nb: u8,\n}\nunsafe impl Send for A {}").0;
    assert_eq!(count(&stripped).impls, 1);
    let counted = BTreeMap::from([("src/a.rs".to_owned(), is)]);
    let good =
        format!("1 blocks, 1 impls and 2 functions in 1 files\n{}", row("src/a.rs", is, "w"));
    assert_eq!(faults(&good, &counted), Vec::<String>::new());
    for (bad, told) in [
        (good.replace("| 2 |", "| 3 |"), "make it: | `src/a.rs` | 1 | 1 | 2 | w |"),
        (good.replace("src/a.rs", "src/b.rs"), "strike out: src/b.rs"),
        (good.replace("| w |", "| |"), "no reason given"),
        (good.replace("1 blocks", "7 blocks"), "the sum is: 1 blocks"),
        (String::new(), "add: | `src/a.rs` | 1 | 1 | 2 |"),
    ] {
        let found = faults(&bad, &counted).join("\n");
        assert!(found.contains(told), "{bad}: {found}");
    }
}

/// The dependencies that every user of the library gets, from the manifest.
fn dependencies(manifest: &str) -> Vec<(&str, bool)> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let section = section.split("\n[").next().unwrap_or("");
    let mut reason = false;
    let mut out = Vec::new();
    for line in section.lines() {
        if line.starts_with('#') {
            reason = true;
        } else if let Some((name, rest)) = line.split_once('=') {
            if !rest.contains("optional = true") {
                out.push((name.trim(), reason));
            }
            // The optional ones of a group share their reason.
            reason = rest.contains("optional = true") && reason;
        }
    }
    out
}

#[test]
fn dependencies_are_few_and_each_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let found = dependencies(&manifest);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    assert!((1..=5).contains(&found.len()), "{names:?}: five at most");
    for (name, reason) in &found {
        assert!(reason, "{name}: say above it in Cargo.toml what it is for");
    }
    let planted =
        "\n[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n# For c.\nc = { optional = true }\n";
    assert_eq!(dependencies(planted), [("a", true), ("b", false)]);
}
