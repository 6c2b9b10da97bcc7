//! Ways to know which keys have expired, compared: dead keys, time, memory, longest slice.
//!
//! ```text
//! cargo bench -p keyspace --bench expiry -- [--keys 1000000] [--rounds 3]
//! ```
//! What the ways are, and what is measured of them: `src/server/db/trial.rs`. Each figure is the
//! least of the rounds: the one that whatever else runs on the machine has disturbed least.

use comfy_table::{CellAlignment, Table, presets};
use keyspace::server::expiry_trial::{Figures, run};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

type Figure = fn(&Figures) -> f64;

/// Titles, figures, and their digits behind the point.
const COLUMNS: &[(&str, Figure, usize)] = &[
    ("dead, mean %", |it| it.dead_percent, 2),
    ("at most %", |it| it.most_dead_percent, 2),
    ("ns to expire", |it| it.expire_ns, 0),
    ("ns to set", |it| it.set_ns, 0),
    ("index bytes/key", |it| it.index_bytes, 1),
    ("longest slice us", |it| it.longest_us, 0),
    ("burst: over after ms", |it| it.burst_ms as f64, 0),
    ("longest slice us", |it| it.burst_longest_us, 0),
];

fn main() {
    let (keys, rounds) = (option("--keys", 1_000_000), option("--rounds", 3));
    let rounds: Vec<Vec<Figures>> = (0..rounds).map(|_| run(keys)).collect();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([""].into_iter().chain(COLUMNS.iter().map(|column| column.0)));
    for (way, first) in rounds[0].iter().enumerate() {
        let mut row = vec![first.name.to_owned()];
        for (_, figure, digits) in COLUMNS {
            let all = rounds.iter().map(|ways| figure(&ways[way]));
            row.push(format!("{:.*}", *digits, all.fold(f64::MAX, f64::min)));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{keys} keys with an expiry, a quarter of them for days:\n{table}");
}

/// The number that follows `name` on the command line.
fn option(name: &str, default: u64) -> u64 {
    let value = std::env::args().skip_while(|arg| arg != name).nth(1);
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {text:?}"))
    })
}
