//! C++'s operators.

use crate::support::{Kind, compile, folder, of_each_kind, preloaded};

of_each_kind! {
    the_operators_with_exceptions_and_handlers
    nothrow_new_never_throws
    a_part_in_cxx_of_a_program_in_c
}

const FLAGS: &[&str] = &["-std=c++17"];

fn the_operators_with_exceptions_and_handlers(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "cxx.cpp", FLAGS) else { return };
    preloaded(kind, program).run().said_ok();
}

fn nothrow_new_never_throws(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "cxx.cpp", FLAGS) else { return };
    preloaded(kind, program).args(["quiet"]).run().said_ok();
}

/// Operators that a program replaces, and those that forward to them.
#[test]
fn what_is_not_replaced_forwards_to_what_is() {
    let sets: [&[&str]; 8] = [
        &["-DSINGLE"],
        &["-DARRAY"],
        &["-DALIGNED"],
        &["-DALIGNED_ARRAY"],
        &["-DSINGLE", "-DALIGNED"],
        &["-DSINGLE", "-DARRAY"],
        &["-DARRAY", "-DALIGNED_ARRAY"],
        &["-DSINGLE", "-DARRAY", "-DALIGNED", "-DALIGNED_ARRAY"],
    ];
    for set in sets {
        let folder = folder();
        // That there is no sized `delete` beside the plain one is what is tested.
        let flags = [FLAGS, set, &["-Wno-sized-deallocation"]].concat();
        let Some(program) = compile(&folder, "replaced.cpp", &flags) else { return };
        for kind in [Kind::Plain, Kind::Hardened, Kind::Sampled] {
            preloaded(kind, &program).run().said_ok();
        }
        // The C++ library's own operators do the same.
        preloaded(Kind::Plain, &program).env("LD_PRELOAD", "").run().said_ok_without();
    }
}

/// Nothing of C++ is in the program's own scope then.
fn a_part_in_cxx_of_a_program_in_c(kind: Kind) {
    let folder = folder();
    let Some(program) = compile(&folder, "host.c", &[]) else { return };
    let flags = [FLAGS, &["-shared", "-fPIC"]].concat();
    let Some(guest) = compile(&folder, "guest.cpp", &flags) else { return };
    preloaded(kind, program).args([guest]).run().said_ok();
}
