//! How wrong programs end.

use crate::support::{Kind, Run, compile, folder, preloaded};
use std::collections::HashMap;

fn runs(kind: Kind, source: &str, ways: &[&str]) -> Option<HashMap<String, Run>> {
    let folder = folder();
    let program = compile(&folder, source, &["-Wno-use-after-free", "-Wno-free-nonheap-object"])?;
    let run = |way: &&str| ((*way).to_owned(), preloaded(kind, &program).args([way]).run());
    Some(ways.iter().map(run).collect())
}

/// One line, and no more of the program.
fn stopped(run: &Run, start: &str) {
    run.aborted();
    assert_eq!(run.stdout, "", "{}", run.told());
    let [line] = run.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", run.told()) };
    assert!(line.starts_with(start) && line.ends_with("; aborting"), "{}", run.told());
}

/// Soon enough: before the program is over.
#[test]
fn a_wrong_free_ends_the_program_with_one_line() {
    let ways = [
        ("twice", "tallow: double free of "),
        // Of a slab that may be gone: then it is a block no more.
        ("late", "tallow: "),
        ("large", "tallow: free of "),
        ("stack", "tallow: free of "),
        ("inside", "tallow: free of "),
    ];
    for kind in [Kind::Plain, Kind::Hardened] {
        let Some(runs) = runs(kind, "wrong.c", &ways.map(|(way, _)| way)) else { return };
        for (way, start) in ways {
            stopped(&runs[way], start);
        }
    }
}

/// In its handler of `SIGABRT`, with whatever lock held.
#[test]
fn a_program_that_ends_may_allocate_and_reallocate() {
    for kind in [Kind::Plain, Kind::Hardened] {
        let Some(runs) = runs(kind, "ending.c", &["-"]) else { return };
        let run = &runs["-"];
        run.aborted();
        assert_eq!(run.stdout, "told\n", "{}", run.told());
        let [line] = run.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", run.told()) };
        assert!(line.starts_with("tallow: double free of "), "{}", run.told());
    }
}

const DOUBLE: &str = "tallow: double free of ";
const NONE: &str = "tallow: free of ";
const WRITTEN: &str = "tallow: write after free: byte ";

/// Hardened: in the wrong call itself.
#[test]
fn attacks_are_stopped_in_the_wrong_call() {
    let ways = [
        ("twice", DOUBLE),
        ("twice_with_others_between", DOUBLE),
        ("twice_by_another_thread", DOUBLE),
        ("twice_after_reuse", DOUBLE),
        ("twice_large", NONE),
        ("twice_huge", NONE),
        ("inside", NONE),
        ("inside_large", NONE),
        ("inside_realloc", NONE),
        ("stack", NONE),
        ("data", NONE),
        ("mapping", NONE),
        ("stack_realloc", NONE),
        ("resized_after_free", DOUBLE),
        ("resized_after_free_to_another_class", DOUBLE),
        ("resized_after_free_large", NONE),
        ("resized_after_free_huge", NONE),
        ("written_at_the_start", WRITTEN),
        ("written_in_the_middle", WRITTEN),
        ("written_at_the_end", WRITTEN),
        ("written_then_zeroed", WRITTEN),
    ];
    let Some(runs) = runs(Kind::Hardened, "attack.c", &ways.map(|(way, _)| way)) else { return };
    for (way, start) in ways {
        stopped(&runs[way], start);
    }
}

/// Sampled: by the processor, with where it was, and where the block came from and went.
#[test]
fn attacks_on_sampled_blocks_are_faults_with_backtraces() {
    let ways = [
        ("read_after_free", &["accessed", "allocated", "freed"][..]),
        ("beyond_the_end", &["accessed", "allocated"]),
        ("before_the_start", &["accessed"]),
    ];
    let Some(runs) = runs(Kind::Sampled, "attack.c", &ways.map(|(way, _)| way)) else { return };
    for (way, words) in ways {
        let run = &runs[way];
        run.faulted();
        assert_eq!(run.stdout, "", "{}", run.told());
        for word in words {
            let frames = run.stderr.lines().filter(|line| line.contains(word)).count();
            assert!(frames > 0, "{way}: no {word}\n{}", run.told());
        }
        assert!(run.stderr.contains(" attack+0x"), "{way}: not where\n{}", run.told());
    }
}

/// Each of them is one that goes on, or goes wrong later, in the plain library.
#[test]
fn the_attacks_that_only_the_hardened_library_stops() {
    let ways = ["twice", "inside", "written_at_the_start", "read_after_free"];
    let Some(runs) = runs(Kind::Plain, "attack.c", &ways) else { return };
    for way in ways {
        assert_eq!(runs[way].stdout, "went on\n", "{}", runs[way].told());
    }
}
