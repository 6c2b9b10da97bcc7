//! The defragmentation hint, by a program that is linked against the library.

use crate::library::library;
use crate::support::{compile, folder, preloaded};

#[test]
fn a_program_that_moves_its_blocks_needs_less_than_half() {
    let folder = folder();
    let library = library().to_str().expect("a path of text");
    let Some(program) = compile(&folder, "defrag.c", &[library]) else { return };
    preloaded(&program).run().said_ok();
    // Linked, it needs no `LD_PRELOAD`.
    preloaded(&program).env("LD_PRELOAD", "").run().said_ok();
}
