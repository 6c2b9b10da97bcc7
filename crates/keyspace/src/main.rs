//! `keyspace`: shows what the Tallow allocator does for a cache.

mod cli;
mod switch;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: switch::Switch = switch::Switch::new();

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyspace: {error:#}");
            ExitCode::FAILURE
        }
    }
}
