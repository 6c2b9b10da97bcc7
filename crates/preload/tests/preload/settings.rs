//! `TALLOW_*` in the environment, and how wrong programs end.

use crate::support::{Run, compile, folder, preloaded};

fn run(source: &str, arg: &str, settings: &[(&str, &str)]) -> Option<Run> {
    let folder = folder();
    let mut program = preloaded(compile(&folder, source, &[])?).args(arg.split(' '));
    for (name, value) in settings {
        program = program.env(name, value);
    }
    Some(program.run())
}

#[test]
fn a_value_that_is_not_understood_is_worth_one_line() {
    let wrong = [
        ("TALLOW_ARENAS", "9"),
        ("TALLOW_DECAY_MS", "abc"),
        ("TALLOW_HUGE_PAGES", "x"),
        ("TALLOW_FILL", "x"),
        ("TALLOW_MAGAZINE_BYTES", "-1"),
    ];
    for setting in wrong {
        let Some(run) = run("fill.c", "-", &[setting]) else { return };
        let run = run.said_ok();
        let [line] = run.lines()[..] else { panic!("not one line: {}", run.told()) };
        assert!(
            line.starts_with(&format!("tallow: {}={} is not ", setting.0, setting.1)),
            "{line}"
        );
    }
    let Some(run) = run("fill.c", "-", &wrong) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines().len(), wrong.len(), "{}", run.told());
}

#[test]
fn a_value_that_is_understood_is_not_mentioned() {
    let right = [
        ("TALLOW_ARENAS", "1"),
        ("TALLOW_DECAY_MS", "never"),
        ("TALLOW_HUGE_PAGES", "always"),
        ("TALLOW_FILL", "none"),
        ("TALLOW_MAGAZINE_BYTES", "1000"),
    ];
    let Some(run) = run("fill.c", "-", &right) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines(), [""; 0]);
}

#[test]
fn blocks_are_filled() {
    for fill in ["junk", "zero"] {
        let Some(run) = run("fill.c", fill, &[("TALLOW_FILL", fill)]) else { return };
        run.said_ok();
    }
}

#[test]
fn without_decay_memory_goes_back_at_once() {
    let Some(run) = run("giving.c", "0", &[("TALLOW_DECAY_MS", "0")]) else { return };
    run.said_ok();
}

#[test]
fn the_janitor_works_while_the_program_sleeps_and_ends_with_it() {
    let settings = [("TALLOW_JANITOR", "1"), ("TALLOW_DECAY_MS", "200")];
    let Some(run) = run("giving.c", "20000 fork", &settings) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines(), [""; 0]);
    // Parent and child.
    assert_eq!(run.stderr.matches("tallow: process ").count(), 2, "{}", run.told());
}

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
    for (way, start) in ways {
        let Some(run) = run("wrong.c", way, &[]) else { return };
        let run = run.aborted();
        assert_eq!(run.stdout, "", "{way}");
        let [line] = run.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", run.told()) };
        assert!(line.starts_with(start) && line.ends_with("; aborting"), "{way}: {line}");
    }
}
