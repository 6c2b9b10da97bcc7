//! What is in the environment, and what comes of it.

use super::block::Block;
use super::{TALLOW, balanced, same_as};
use std::alloc::{GlobalAlloc, Layout};
use std::env;
use std::ffi::{OsStr, c_int};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use tallow::{Fill, Tallow, raw};

const NAMES: [&str; 8] = [
    "TALLOW_DECAY_MS",
    "TALLOW_MAGAZINE_BYTES",
    "TALLOW_ARENAS",
    "TALLOW_HUGE_PAGES",
    "TALLOW_PREFAULT",
    "TALLOW_FILL",
    "TALLOW_ZERO_ON_FREE",
    "TALLOW_GUARD_SAMPLE",
];
/// Whether the allocator is built with the feature of that name.
const HARDENED: bool = cfg!(feature = "hardened");
/// What a value of two bytes can stand for, so that values need not be guessed.
const VALUES: [&str; 12] =
    ["never", "0", "1", "junk", "zero", "none", "system", "blocks", "dense", "always", "4", "1000"];

/// The variable that a byte stands for: those of the hardened mode from 128 on.
fn name_of(byte: u8) -> usize {
    const EVERYWHERE: usize = 6;
    match usize::from(byte) {
        n if n < 128 => n % EVERYWHERE,
        n => EVERYWHERE + n % (NAMES.len() - EVERYWHERE),
    }
}

/// What a text says, by rules written down a second time; `None`: nothing.
struct Meaning {
    decay: Option<Option<u64>>,
    fill: Option<Option<Fill>>,
    known: bool,
}

fn whole_number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.bytes().try_fold(0u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))
}

fn meaning(name: &str, value: &[u8]) -> Meaning {
    let text = str::from_utf8(value).ok();
    let is = |all: &[&str]| text.is_some_and(|text| all.contains(&text));
    let number = text.and_then(whole_number);
    let mut out = Meaning { decay: None, fill: None, known: false };
    match name {
        "TALLOW_DECAY_MS" => {
            out.decay = if is(&["never"]) { Some(None) } else { number.map(Some) };
            out.known = out.decay.is_some();
        }
        "TALLOW_MAGAZINE_BYTES" => out.known = number.is_some(),
        "TALLOW_ARENAS" => out.known = number.is_some_and(|n| (1..=4).contains(&n)),
        "TALLOW_HUGE_PAGES" => {
            out.known = is(&["system", "blocks", "dense", "always", "never"]);
        }
        "TALLOW_PREFAULT" => out.known = is(&["0", "1"]),
        // Of the hardened mode, and nobody's without it.
        "TALLOW_ZERO_ON_FREE" => out.known = !HARDENED || is(&["0", "1"]),
        "TALLOW_GUARD_SAMPLE" => {
            out.known = !HARDENED || number.is_some_and(|n| u32::try_from(n).is_ok());
        }
        _ => {
            let fills = [("none", None), ("junk", Some(Fill::Junk)), ("zero", Some(Fill::Zero))];
            out.fill = fills.iter().find(|(name, _)| text == Some(name)).map(|(_, fill)| *fill);
            out.known = out.fill.is_some();
        }
    }
    out
}

/// Runs `f` with stderr caught; returns what was written to it.
fn stderr_of(f: impl FnOnce()) -> Vec<u8> {
    unsafe extern "C" {
        fn dup(fd: c_int) -> c_int;
        fn dup2(from: c_int, to: c_int) -> c_int;
        fn memfd_create(name: *const std::ffi::c_char, flags: u32) -> c_int;
    }
    // SAFETY: the name is a C string.
    let fd = unsafe { memfd_create(c"stderr".as_ptr(), 0) };
    assert!(fd >= 0, "no memfd");
    // SAFETY: nobody else knows the new descriptor.
    let mut file = unsafe { File::from_raw_fd(fd) };
    // SAFETY: plain numbers; `kept` is closed below.
    let kept = unsafe { dup(2) };
    // SAFETY: as above.
    assert!(kept >= 0 && unsafe { dup2(file.as_raw_fd(), 2) } == 2, "stderr cannot be caught");
    f();
    // SAFETY: as above.
    assert_eq!(unsafe { dup2(kept, 2) }, 2);
    // SAFETY: nobody else knows it.
    drop(unsafe { File::from_raw_fd(kept) });
    let mut text = Vec::new();
    file.rewind().expect("a file");
    file.read_to_end(&mut text).expect("a file");
    text
}

fn first_byte(size: usize) -> u8 {
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    // SAFETY: the layout has a size.
    let block = std::hint::black_box(unsafe { TALLOW.alloc(layout) });
    assert!(!block.is_null());
    // SAFETY: in the block; only read when the allocator has filled it.
    let byte = unsafe { block.read() };
    // SAFETY: allocated just now with this layout.
    unsafe { TALLOW.dealloc(block, layout) };
    byte
}

/// The bytes as texts with zeros between them, each a variable and its value. They are put into the environment and
/// into effect: each value that means nothing is named in one line, those that mean something
/// have the effect that can be seen, and blocks are right whatever is in effect.
///
/// # Panics
/// When anything is wrong.
pub fn settings(data: &[u8]) {
    let before = tallow::stats();
    let mut wanted: [Option<&[u8]>; NAMES.len()] = [None; NAMES.len()];
    for text in data.split(|&b| b == 0) {
        let Some((&which, value)) = text.split_first() else { continue };
        let value = match value {
            [b'=', n] => VALUES[usize::from(*n) % VALUES.len()].as_bytes(),
            other => other,
        };
        wanted[name_of(which)] = Some(value);
    }
    let mut wrong = Vec::new();
    let (mut decay, mut fill) = (Some(10_000), None);
    for (name, value) in NAMES.iter().zip(wanted) {
        let Some(value) = value else {
            // SAFETY: no other thread looks at the environment.
            unsafe { env::remove_var(name) };
            continue;
        };
        // SAFETY: as above.
        unsafe { env::set_var(name, OsStr::from_bytes(value)) };
        let meaning = meaning(name, value);
        decay = meaning.decay.unwrap_or(decay);
        fill = meaning.fill.unwrap_or(fill);
        if !meaning.known {
            wrong.push(*name);
        }
    }
    let builder = Tallow::builder().environment(true);
    let text = stderr_of(|| raw::configure(&builder));
    check_lines(&text, &wrong);
    check_effect(decay, fill);
    balanced();
    // None of it holds for the next input.
    raw::configure(&Tallow::builder());
    tallow::purge();
    balanced();
    same_as(&before);
}

/// One line for each, however long its value is, and nothing else.
fn check_lines(text: &[u8], wrong: &[&str]) {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), wrong.len(), "{wrong:?}: {text:?}");
    for (line, name) in lines.iter().zip(wrong) {
        assert!(line.starts_with(&format!("tallow: {name}=")), "{name}: {line:?}");
        assert!(line.ends_with('\n') && line.len() <= 1000, "{name}: {line:?}");
    }
}

fn check_effect(decay: Option<u64>, fill: Option<Fill>) {
    for size in [24, 3000, 100_000, 2 << 20] {
        let byte = first_byte(size);
        match fill {
            Some(Fill::Junk) => assert_eq!(byte, 0xA5, "{size}"),
            Some(Fill::Zero) => assert_eq!(byte, 0, "{size}"),
            None => {}
        }
    }
    let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
    tallow::purge();
    let blocks: Vec<Block> =
        (0..200).filter_map(|i| Block::new(layout(i * 40 + 1), i % 2 == 0, i)).collect();
    assert_eq!(blocks.len(), 200);
    blocks.into_iter().for_each(Block::free);
    Block::new(layout(500_000), false, 1).expect("memory").free();
    let dirty = tallow::stats().dirty_bytes;
    match decay {
        Some(0) => assert_eq!(dirty, 0, "at once"),
        None => assert!(dirty >= 500_000, "never"),
        Some(_) => {}
    }
}
