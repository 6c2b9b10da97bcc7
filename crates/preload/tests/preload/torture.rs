//! Threads, forks and libraries, all at once.

use crate::support::{Kind, compile, folder, of_each_kind, preloaded};

of_each_kind! {
    threads_forks_and_libraries_that_come_and_go
    children_allocate_by_default
    children_allocate_beside_the_janitor
    children_allocate_with_filled_blocks
    children_allocate_with_one_arena_and_no_decay
    forks_get_on_with_streams
}

fn threads_forks_and_libraries_that_come_and_go(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "torture.c", &[]) else { return };
    let Some(plugin) = compile(&folder, "plugin.c", &["-shared", "-fPIC"]) else { return };
    preloaded(kind, program).args([plugin]).run().said_ok();
}

/// A child of a process whose other threads were allocating.
fn children_allocate(kind: Kind, settings: &[(&str, &str)]) {
    let folder = folder();
    let Some(program) = compile(&folder, "fork.c", &[]) else { return };
    let mut program = preloaded(kind, program);
    for (name, value) in settings {
        program = program.env(name, value);
    }
    program.run().said_ok();
}

fn children_allocate_by_default(kind: Kind) {
    children_allocate(kind, &[]);
}

fn children_allocate_beside_the_janitor(kind: Kind) {
    children_allocate(kind, &[("TALLOW_JANITOR", "1"), ("TALLOW_DECAY_MS", "10")]);
}

fn children_allocate_with_filled_blocks(kind: Kind) {
    children_allocate(kind, &[("TALLOW_FILL", "zero")]);
}

fn children_allocate_with_one_arena_and_no_decay(kind: Kind) {
    children_allocate(kind, &[("TALLOW_ARENAS", "1"), ("TALLOW_DECAY_MS", "0")]);
}

fn forks_get_on_with_streams(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "streams.c", &[]) else { return };
    preloaded(kind, program).run().said_ok();
}
