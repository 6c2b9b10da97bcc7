//! What befalls a process from outside: the end of its address space, of its data, of its
//! mappings, of its cgroup; forks, signals, and threads at all moments. Each case is a process
//! of its own (`CASE=name` runs one, `--skip name` all the others).

#[path = "ordeals/limits.rs"]
mod limits;
#[path = "ordeals/signals.rs"]
mod signals;
#[path = "ordeals/threads.rs"]
mod threads;
#[path = "ordeals/work.rs"]
mod work;

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// What a case does in its own process, and how that must end.
struct Case {
    name: &'static str,
    run: fn(),
    ends: Ends,
}

#[derive(Clone, Copy)]
enum Ends {
    Well,
    /// With this code, by `exit`.
    With(i32),
    /// By abort, with this line on stderr.
    Aborting(&'static str),
    /// Killed by the system.
    Killed,
}

const fn well(name: &'static str, run: fn()) -> Case {
    Case { name, run, ends: Ends::Well }
}

const CASES: &[Case] = &[
    well("address_space_ends", limits::address_space_ends),
    well("data_ends", limits::data_ends),
    well("mappings_end", limits::mappings_end),
    well("forks_under_load", threads::forks_under_load),
    well("signals_that_do_nothing", signals::that_do_nothing),
    well("signals_that_touch_errno", signals::that_touch_errno),
    well("a_hundred_thousand_threads", threads::a_hundred_thousand),
    well("destructors_that_allocate", threads::destructors_that_allocate),
    Case { name: "exit_with_threads", run: threads::exit_with_threads, ends: Ends::With(7) },
    Case { name: "main_returns_with_threads", run: threads::keep_busy, ends: Ends::Well },
    Case {
        name: "the_last_line_gets_through",
        run: signals::the_last_line_gets_through,
        ends: Ends::Aborting("tallow: double free of 0x"),
    },
];
/// Where memory cgroups can be made: beside a limit, and against one without it.
const IN_CGROUP: &[Case] = &[
    well("limited_below_its_cgroup", limits::limited_below_its_cgroup),
    Case {
        name: "not_limited_in_its_cgroup",
        run: limits::not_limited_in_its_cgroup,
        ends: Ends::Killed,
    },
];

fn child(case: &Case) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env("CASE", case.name);
    command
}

fn check(case: &Case, output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    let (code, signal) = (output.status.code(), output.status.signal());
    let fine = match case.ends {
        Ends::Well => code == Some(0),
        Ends::With(wanted) => code == Some(wanted),
        Ends::Aborting(line) => {
            signal == Some(libc::SIGABRT) && text.starts_with(line) && text.ends_with('\n')
        }
        Ends::Killed => signal == Some(libc::SIGKILL),
    };
    assert!(fine, "{}: {}\n{text}", case.name, output.status);
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

fn main() {
    if env::args().any(|arg| arg == "--list") {
        return;
    }
    if let Some(name) = env::var_os("CASE") {
        let case = CASES.iter().chain(IN_CGROUP).find(|case| case.name == name).expect("a case");
        (case.run)();
        work::balanced();
        return;
    }
    // As a test runner does it: `--skip NAME`.
    let args: Vec<String> = env::args().collect();
    let wanted =
        |case: &&Case| !args.windows(2).any(|pair| pair[0] == "--skip" && pair[1] == case.name);
    for case in CASES.iter().filter(wanted) {
        // Ends differ from one time to the next.
        let runs = if matches!(case.ends, Ends::With(_)) { 30 } else { 1 };
        for _ in 0..runs {
            let output = match case.ends {
                Ends::Aborting(_) => signals::output_read_late(&mut child(case)),
                _ => child(case).output(),
            };
            check(case, &output.expect("a child process"));
        }
        println!("test {} ... ok", case.name);
    }
    match limits::Cgroup::new(96 << 20) {
        Some(cgroup) => {
            for case in IN_CGROUP.iter().filter(wanted) {
                let output = cgroup.run(&mut child(case)).expect("a child process");
                check(case, &output);
                println!("test {} ... ok", case.name);
            }
        }
        None => println!("no memory cgroup can be made here: {} cases left out", IN_CGROUP.len()),
    }
}
