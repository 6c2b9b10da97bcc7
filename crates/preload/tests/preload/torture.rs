//! Threads, forks and libraries, all at once.

use crate::support::{compile, folder, preloaded};

#[test]
fn threads_forks_and_libraries_that_come_and_go() {
    let folder = folder();
    let Some(program) = compile(&folder, "torture.c", &[]) else { return };
    let Some(plugin) = compile(&folder, "plugin.c", &["-shared", "-fPIC"]) else { return };
    preloaded(program).args([plugin]).run().said_ok();
}
