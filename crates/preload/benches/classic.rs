//! Programs in the manner of the classic `malloc` benchmarks, in C, under each
//! allocator that is found: `cargo bench -p tallow-preload --bench classic`.
//!
//! ```text
//! --rounds N      rounds; medians are shown (5)
//! --only WORD     programs whose names contain it
//! --json FILE     all samples
//! CLASSIC_PEERS=name=path,...   libraries, beside those in the usual folders
//! ```
//!
//! Every allocator is a library that is loaded first; glibc's is no library. All of
//! them run a program right after each other, in another order each round, so the
//! ratios mean something on a noisy machine. They are to mimalloc, or where that is
//! missing to the best of the others than Tallow.

#[path = "../tests/preload/library.rs"]
mod library;

use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions and `make install` put libraries.
const FOLDERS: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib64",
    "/usr/local/lib",
];

/// The first file that is there counts.
const PEERS: &[(&str, &[&str])] = &[
    ("mimalloc", &["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0", "libmimalloc.so"]),
    ("jemalloc", &["libjemalloc.so.2", "libjemalloc.so"]),
    ("snmalloc", &["libsnmallocshim.so", "libsnmalloc.so"]),
    ("tcmalloc", &["libtcmalloc_minimal.so.4", "libtcmalloc_minimal.so"]),
];

const BASE: &str = "mimalloc";
const OURS: &str = "tallow";

/// Source, arguments (the first is the number of threads), and what it does.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("pair", "1", "malloc and free of 64 B"),
    ("pair", "1 mixed", "of mixed sizes, 16 kept"),
    ("cfrac", "1", "tiny numbers that live shortly"),
    ("sh", "1", "batches, freed in other orders"),
    ("sh", "2", ""),
    ("sh", "8", ""),
    ("larson", "2", "threads that hand over and exit"),
    ("larson", "8", ""),
    ("xmalloc", "2", "one half allocates, one frees"),
    ("xmalloc", "8", ""),
    ("mstress", "2", "waves of threads, exchanges"),
    ("mstress", "8", ""),
    ("cache", "2", "small blocks written by their thread"),
    ("cache", "8", ""),
    ("cache", "2 passed", "the same, after another's"),
    ("cache", "8 passed", ""),
    ("small", "1", "KiB resident with 1 MB live"),
];

struct Allocator {
    name: String,
    path: Option<PathBuf>,
}

struct Program {
    source: &'static str,
    args: &'static str,
    what: &'static str,
}

impl Program {
    fn name(&self) -> String {
        format!("{} {}", self.source, self.args)
    }

    fn threads(&self) -> &str {
        self.args.split(' ').next().unwrap_or(self.args)
    }

    /// Seconds are compared with seconds.
    fn is_timed(&self) -> bool {
        self.source != "small"
    }
}

struct Options {
    rounds: usize,
    only: String,
    json: Option<PathBuf>,
}

fn options() -> Option<Options> {
    let mut options = Options { rounds: 5, only: String::new(), json: None };
    let mut is_bench = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} wants a value"));
        match arg.as_str() {
            "--bench" => is_bench = true,
            "--rounds" => options.rounds = value().parse().expect("--rounds wants a number"),
            "--only" => options.only = value(),
            "--json" => options.json = Some(value().into()),
            _ => panic!("{arg} is none of --rounds, --only, --json"),
        }
    }
    // `cargo test --all-targets` starts it too, and wants no figures.
    is_bench.then_some(options)
}

fn allocators() -> Vec<Allocator> {
    let mut found = vec![
        Allocator { name: "glibc".into(), path: None },
        Allocator { name: OURS.into(), path: Some(library::build(None)) },
    ];
    let named = std::env::var("CLASSIC_PEERS").unwrap_or_default();
    for peer in named.split(',').filter(|peer| !peer.is_empty()) {
        let (name, path) = peer.split_once('=').expect("CLASSIC_PEERS=name=path,...");
        assert!(Path::new(path).is_file(), "CLASSIC_PEERS: {path} is not there");
        found.push(Allocator { name: name.into(), path: Some(path.into()) });
    }
    for (name, files) in PEERS {
        let all =
            files.iter().flat_map(|file| FOLDERS.iter().map(move |at| Path::new(at).join(file)));
        let path = all.into_iter().find(|path| path.is_file());
        if path.is_some() && found.iter().all(|known| known.name != *name) {
            found.push(Allocator { name: (*name).into(), path });
        }
    }
    found
}

fn compile(source: &str, folder: &Path) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new("cc")
        // No builtins: pairs of malloc and free would be left out.
        .args(["-O2", "-pthread", "-fno-builtin", "-o"])
        .arg(folder.join(source))
        .arg(home.join("benches/c").join(source).with_extension("c"))
        .status();
    assert!(done.expect("cc is installed").success(), "{source}.c");
}

/// The number that the program prints.
fn measure(folder: &Path, program: &Program, allocator: &Allocator) -> f64 {
    let mut command = Command::new(folder.join(program.source));
    command.args(program.args.split(' ')).env_remove("LD_PRELOAD");
    if let Some(path) = &allocator.path {
        command.env("LD_PRELOAD", path);
    }
    let out = command.output().expect("the program starts");
    let (text, errors) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // A library that cannot be loaded is told on stderr, and the program goes on.
    let right = out.status.success() && errors.is_empty();
    assert!(right, "{} under {}: {}\n{errors}", program.name(), allocator.name, out.status);
    text.trim().parse().expect("a number")
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Medians, allocator by allocator, and what they are compared with.
fn base(allocators: &[Allocator], medians: &[f64]) -> f64 {
    if let Some(at) = allocators.iter().position(|a| a.name == BASE) {
        return medians[at];
    }
    let others = allocators.iter().zip(medians).filter(|(a, _)| a.name != OURS);
    others.map(|(_, &m)| m).fold(f64::INFINITY, f64::min)
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

fn main() {
    let Some(options) = options() else { return };
    let folder = tempfile::TempDir::with_prefix("classic").expect("a temporary folder");
    let allocators = allocators();
    let all = PROGRAMS.iter().map(|&(source, args, what)| Program { source, args, what });
    let programs: Vec<_> = all.filter(|p| p.name().contains(&options.only)).collect();
    let mut sources: Vec<_> = programs.iter().map(|p| p.source).collect();
    sources.dedup();
    for source in sources {
        compile(source, folder.path());
    }

    // samples[program][allocator][round]
    let mut samples = vec![vec![Vec::new(); allocators.len()]; programs.len()];
    for round in 0..options.rounds {
        for (p, program) in programs.iter().enumerate() {
            eprint!("\rround {} of {}: {:<20}", round + 1, options.rounds, program.name());
            for turn in 0..allocators.len() {
                let a = (turn + round) % allocators.len();
                samples[p][a].push(measure(folder.path(), program, &allocators[a]));
            }
        }
    }
    eprintln!("\r{:40}\r", "");
    let medians: Vec<Vec<f64>> =
        samples.iter().map(|of| of.iter().map(|s| median(s)).collect()).collect();
    print!("{}", table(&allocators, &programs, &medians));
    if let Some(file) = options.json {
        let text = to_json(&allocators, &programs, &samples, &medians).to_string();
        std::fs::write(file, text).expect("the JSON file is written");
    }
}

/// The ratios of the timed programs that `wanted` takes, for each allocator.
fn means(
    allocators: &[Allocator],
    programs: &[Program],
    medians: &[Vec<f64>],
    wanted: impl Fn(&Program) -> bool,
) -> Option<Vec<f64>> {
    let rows: Vec<_> =
        programs.iter().zip(medians).filter(|(p, _)| p.is_timed() && wanted(p)).collect();
    let of = |a: usize| {
        let ratios: Vec<_> = rows.iter().map(|(_, m)| m[a] / base(allocators, m)).collect();
        geometric_mean(&ratios)
    };
    (!rows.is_empty()).then(|| (0..allocators.len()).map(of).collect())
}

fn table(allocators: &[Allocator], programs: &[Program], medians: &[Vec<f64>]) -> String {
    let mut out = String::new();
    // A `String` takes every write.
    let _ = write!(out, "| program |");
    for allocator in allocators {
        let _ = write!(out, " {} |", allocator.name);
    }
    let _ = writeln!(out, " |\n|---|{}---|", "---:|".repeat(allocators.len()));
    for (program, medians) in programs.iter().zip(medians) {
        let _ = write!(out, "| {} |", program.name());
        let base = base(allocators, medians);
        for median in medians {
            let digits = if program.is_timed() { 3 } else { 0 };
            let _ = write!(out, " {median:.digits$} ({:.2}) |", median / base);
        }
        let _ = writeln!(out, " {} |", program.what);
    }
    for threads in ["1", "2", "8", ""] {
        let wanted = |p: &Program| threads.is_empty() || p.threads() == threads;
        let Some(means) = means(allocators, programs, medians, wanted) else { continue };
        let of = if threads.is_empty() { "all".into() } else { format!("threads: {threads}") };
        let _ = write!(out, "| geometric mean, {of} |");
        for mean in means {
            let _ = write!(out, " {mean:.2} |");
        }
        let _ = writeln!(out, " |");
    }
    out
}

/// Which version it is; where it lies is the machine's.
fn file_name(allocator: &Allocator) -> Value {
    let path = allocator.path.as_deref().map(|path| path.canonicalize().unwrap_or(path.into()));
    json!(path.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy()))
}

fn to_json(
    allocators: &[Allocator],
    programs: &[Program],
    samples: &[Vec<Vec<f64>>],
    medians: &[Vec<f64>],
) -> Value {
    let by_name = |values: Vec<Value>| -> Value {
        allocators
            .iter()
            .map(|a| a.name.clone())
            .zip(values)
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let rows = programs.iter().zip(samples).zip(medians).map(|((program, samples), medians)| {
        json!({
            "program": program.name(),
            "threads": program.threads().parse::<u32>().unwrap_or(1),
            "unit": if program.is_timed() { "s" } else { "KiB" },
            "base": base(allocators, medians),
            "medians": by_name(medians.iter().map(|&m| m.into()).collect()),
            "samples": by_name(samples.iter().map(|s| s.clone().into()).collect()),
        })
    });
    let rows: Vec<_> = rows.collect();
    let means = means(allocators, programs, medians, |_| true).unwrap_or_default();
    json!({
        "allocators": by_name(allocators.iter().map(file_name).collect()),
        "programs": rows,
        "geometric_means": by_name(means.into_iter().map(Into::into).collect()),
    })
}
