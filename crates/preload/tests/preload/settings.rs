//! `TALLOW_*` in the environment.

use crate::support::{Kind, Run, compile, folder, of_each_kind, preloaded};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

of_each_kind! {
    a_value_that_is_not_understood_is_worth_one_line
    a_value_that_is_understood_is_not_mentioned
    what_is_switched_on_by_no_switch_stays_off
    blocks_are_filled
    without_decay_memory_goes_back_at_once
    the_janitor_works_while_the_program_sleeps_and_ends_with_it
    signals_are_the_programs
    statistics_go_to_stderr_and_nowhere_else
}

fn run(kind: Kind, source: &str, arg: &str, settings: &[(&str, &str)]) -> Option<Run> {
    let folder = folder();
    let mut program = preloaded(kind, compile(&folder, source, &[])?).args(arg.split(' '));
    for (name, value) in settings {
        program = program.env(name, value);
    }
    Some(program.run())
}

fn run_with(kind: Kind, settings: &[(&str, &str)]) -> Option<Run> {
    run(kind, "fill.c", "-", settings)
}

fn a_value_that_is_not_understood_is_worth_one_line(kind: Kind) {
    let mut wrong = vec![
        ("TALLOW_JANITOR", "yes"),
        ("TALLOW_ARENAS", "9"),
        ("TALLOW_DECAY_MS", "abc"),
        ("TALLOW_HUGE_PAGES", "x"),
        ("TALLOW_PREFAULT", "2"),
        ("TALLOW_FILL", "x"),
        ("TALLOW_MAGAZINE_BYTES", "-1"),
    ];
    let hardened = [("TALLOW_ZERO_ON_FREE", "on"), ("TALLOW_GUARD_SAMPLE", "-1")];
    if kind != Kind::Plain {
        wrong.extend(hardened);
    }
    for &setting in &wrong {
        let Some(run) = run_with(kind, &[setting]) else { return };
        let run = run.said_ok();
        let [line] = run.lines()[..] else { panic!("not one line: {}", run.told()) };
        assert!(
            line.starts_with(&format!("tallow: {}={} is not ", setting.0, setting.1)),
            "{line}"
        );
    }
    let Some(run) = run_with(kind, &wrong) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines().len(), wrong.len(), "{}", run.told());
    if kind == Kind::Plain {
        // Nothing that this library knows.
        let Some(run) = run_with(kind, &hardened) else { return };
        assert_eq!(run.said_ok().lines(), [""; 0]);
    }
}

fn what_is_switched_on_by_no_switch_stays_off(kind: Kind) {
    for value in ["yes", "on", "", "2", "0"] {
        let Some(run) = run_with(kind, &[("TALLOW_STATS", value)]) else { return };
        assert_eq!(run.stdout, "ok\n", "{}", run.told());
        let line = format!("tallow: TALLOW_STATS={value} is not 0 or 1; it is ignored\n");
        let wanted = if value == "0" { "" } else { &line };
        assert_eq!(run.stderr, wanted, "{}", run.told());
    }
}

fn a_value_that_is_understood_is_not_mentioned(kind: Kind) {
    let right = [
        ("TALLOW_JANITOR", "0"),
        ("TALLOW_ZERO_ON_FREE", "1"),
        ("TALLOW_GUARD_SAMPLE", "0"),
        ("TALLOW_PREFAULT", "1"),
        ("TALLOW_ARENAS", "1"),
        ("TALLOW_DECAY_MS", "never"),
        ("TALLOW_HUGE_PAGES", "always"),
        ("TALLOW_FILL", "none"),
        ("TALLOW_MAGAZINE_BYTES", "1000"),
    ];
    let Some(run) = run_with(kind, &right) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines(), [""; 0]);
}

fn blocks_are_filled(kind: Kind) {
    for fill in ["junk", "zero"] {
        let Some(run) = run(kind, "fill.c", fill, &[("TALLOW_FILL", fill)]) else { return };
        run.said_ok();
    }
}

fn without_decay_memory_goes_back_at_once(kind: Kind) {
    let Some(run) = run(kind, "giving.c", "0", &[("TALLOW_DECAY_MS", "0")]) else { return };
    run.said_ok();
}

fn the_janitor_works_while_the_program_sleeps_and_ends_with_it(kind: Kind) {
    let settings = [("TALLOW_JANITOR", "1"), ("TALLOW_DECAY_MS", "200")];
    let Some(run) = run(kind, "giving.c", "300000 fork", &settings) else { return };
    let run = run.said_ok();
    assert_eq!(run.lines(), [""; 0]);
    // Parent and child.
    assert_eq!(run.stderr.matches("tallow: process ").count(), 2, "{}", run.told());
}

fn signals_are_the_programs(kind: Kind) {
    let settings = [("TALLOW_JANITOR", "1"), ("TALLOW_DECAY_MS", "100")];
    let Some(run) = run(kind, "sigwait.c", "-", &settings) else { return };
    run.said_ok();
}

fn statistics_go_to_stderr_and_nowhere_else(kind: Kind) {
    let folder = folder();
    let data = folder.path().join("data");
    let Some(program) = compile(&folder, "closing.c", &[]) else { return };
    let run = preloaded(kind, program).args([&data]).run();
    assert!(run.status.success(), "{}", run.told());
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("ok\n", ""), "{}", run.told());
    assert_eq!(fs::read(data).expect("the program's file"), b"", "{}", run.told());
}

/// A program that runs with more rights than its user, which only root can make here.
#[test]
fn where_rights_are_raised_the_environment_says_nothing() {
    let folder = folder();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a file of ours");
    };
    open(folder.path(), 0o755);
    // Whoever the program runs as must be able to read the library, which is linked: the
    // loader ignores `LD_PRELOAD` there.
    let library = folder.path().join("libtallow.so");
    fs::copy(Kind::Plain.library(), &library).expect("a copy");
    open(&library, 0o755);
    let library = library.to_str().expect("a path of text");
    let Some(program) = compile(&folder, "secure.c", &[library]) else { return };
    let run = || {
        let run = preloaded(Kind::Plain, &program).env("LD_PRELOAD", "");
        run.env("TALLOW_JANITOR", "?").env("TALLOW_FILL", "?").run()
    };
    let free = run();
    assert_eq!(free.stdout, "secure 0\nok\n", "{}", free.told());
    assert_eq!(free.ok().lines().len(), 2);

    const NOBODY: u32 = 65534;
    if chown(&program, Some(NOBODY), None).is_err() {
        println!("skipped: a program cannot be given away here");
        return;
    }
    open(&program, 0o4755);
    let raised = run();
    if raised.stdout.starts_with("secure 0") {
        println!("skipped: rights are not raised here");
        return;
    }
    assert_eq!(raised.stdout, "secure 1\nok\n", "{}", raised.told());
    assert_eq!(raised.stderr, "", "{}", raised.told());
}
