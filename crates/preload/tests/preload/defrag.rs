//! The defragmentation hint, by a program that is linked against the library.

use crate::support::{Kind, compile, folder, of_each_kind, preloaded};

of_each_kind! {
    a_program_that_moves_its_blocks_needs_less_than_half
    children_are_not_kept_waiting_for_a_pass
}

fn a_program_that_moves_its_blocks_needs_less_than_half(kind: Kind) {
    let folder = folder();
    let library = kind.library().to_str().expect("a path of text");
    let Some(program) = compile(&folder, "defrag.c", &[library]) else { return };
    preloaded(kind, &program).run().said_ok();
    // Linked, it needs no `LD_PRELOAD`.
    preloaded(kind, &program).env("LD_PRELOAD", "").run().said_ok();
}

fn children_are_not_kept_waiting_for_a_pass(kind: Kind) {
    let folder = folder();
    let library = kind.library().to_str().expect("a path of text");
    let Some(program) = compile(&folder, "passes.c", &[library]) else { return };
    preloaded(kind, program).run().said_ok();
}
