//! Links GCC's unwinder into the library, where it is there to be linked: a shared
//! one costs every program that is started with it 0.1 MB.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `cc` is the linker of this machine, and of no other.
    if std::env::var("TARGET") != std::env::var("HOST") {
        return;
    }
    let answer = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let found = answer.ok().and_then(|out| String::from_utf8(out.stdout).ok());
    // A compiler that does not have it gives the bare name back.
    if let Some(folder) = found.as_deref().map(|path| Path::new(path.trim()))
        && folder.is_absolute()
        && let Some(folder) = folder.parent()
    {
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
