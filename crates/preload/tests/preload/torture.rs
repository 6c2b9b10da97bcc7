//! Threads, forks and libraries, all at once.

use crate::support::{compile, folder, preloaded};

#[test]
fn threads_forks_and_libraries_that_come_and_go() {
    let folder = folder();
    let Some(program) = compile(&folder, "torture.c", &[]) else { return };
    let Some(plugin) = compile(&folder, "plugin.c", &["-shared", "-fPIC"]) else { return };
    preloaded(program).args([plugin]).run().said_ok();
}

/// A child of a process whose other threads were allocating.
fn children_allocate(settings: &[(&str, &str)]) {
    let folder = folder();
    let Some(mut program) = compile(&folder, "fork.c", &[]).map(preloaded) else { return };
    for (name, value) in settings {
        program = program.env(name, value);
    }
    program.run().said_ok();
}

#[test]
fn children_allocate_by_default() {
    children_allocate(&[]);
}

#[test]
fn children_allocate_beside_the_janitor() {
    children_allocate(&[("TALLOW_JANITOR", "1"), ("TALLOW_DECAY_MS", "10")]);
}

#[test]
fn children_allocate_with_filled_blocks() {
    children_allocate(&[("TALLOW_FILL", "zero")]);
}

#[test]
fn children_allocate_with_one_arena_and_no_decay() {
    children_allocate(&[("TALLOW_ARENAS", "1"), ("TALLOW_DECAY_MS", "0")]);
}
