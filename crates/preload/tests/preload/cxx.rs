//! C++'s operators.

use crate::support::{compile, folder, preloaded};

const FLAGS: &[&str] = &["-std=c++17"];

#[test]
fn the_operators_with_exceptions_and_handlers() {
    let folder = folder();
    let Some(program) = compile(&folder, "cxx.cpp", FLAGS) else { return };
    preloaded(program).run().said_ok();
}

#[test]
fn nothrow_new_never_throws() {
    let folder = folder();
    let Some(program) = compile(&folder, "cxx.cpp", FLAGS) else { return };
    preloaded(program).args(["quiet"]).run().said_ok();
}
