//! Builds programs and runs them with the library.

use crate::library::library;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whether a program is on `PATH`; says so if not.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// A folder that goes with the test.
pub(crate) fn folder() -> TempDir {
    TempDir::with_prefix("tallow").expect("a temporary folder")
}

/// Compiles `tests/c/<source>` into `folder`; `None` without a compiler.
pub(crate) fn compile(folder: &TempDir, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (name, language) = source.split_once('.').expect("an extension");
    let compiler = if language == "c" { "cc" } else { "c++" };
    if !installed(compiler) {
        return None;
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let to = folder.path().join(name);
    let out = Command::new(compiler)
        // No builtins: what looks useless is what is tested.
        .args(["-O1", "-g", "-pthread", "-Wall", "-Wextra", "-fno-builtin"])
        .arg("-I")
        .arg(home.join("include"))
        .arg("-o")
        .arg(&to)
        .arg(home.join("tests/c").join(source))
        .args(flags)
        .output()
        .expect("the compiler runs");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && errors.is_empty(), "{source}:\n{errors}");
    Some(to)
}

/// No program takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(80);

/// A program with the library, and its statistics at exit.
pub(crate) struct Preloaded {
    command: Command,
    folder: TempDir,
}

pub(crate) fn preloaded(program: impl AsRef<OsStr>) -> Preloaded {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TALLOW_") {
            command.env_remove(name);
        }
    }
    command.env("LD_PRELOAD", library()).env("TALLOW_STATS", "1");
    // A group of its own, so that all of it can be ended.
    command.process_group(0).stdin(Stdio::null());
    Preloaded { command, folder: folder() }
}

impl Preloaded {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn input(mut self, text: &str) -> Self {
        let file = self.folder.path().join("stdin");
        fs::write(&file, text).expect("a file is written");
        self.command.stdin(File::open(file).expect("it is there"));
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Run {
        self.start().end()
    }

    /// Output goes to files: a pipe could fill up, or be kept open by a grandchild.
    pub(crate) fn start(mut self) -> Running {
        let create = |name| File::create(self.folder.path().join(name)).expect("a file is created");
        self.command.stdout(create("stdout")).stderr(create("stderr"));
        let child = self.command.spawn().expect("the program starts");
        let until = Instant::now() + PATIENCE;
        Running { child, folder: self.folder, until, what: format!("{:?}", self.command) }
    }
}

/// A program under way. Dropped, it is ended with all of its group.
pub(crate) struct Running {
    child: Child,
    folder: TempDir,
    until: Instant,
    what: String,
}

impl Running {
    pub(crate) fn end(mut self) -> Run {
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Run { status, ..self.so_far(status) };
            }
            if Instant::now() > self.until {
                let run = self.so_far(ExitStatus::from_raw(0));
                panic!("{}: not at its end in time\n{run:?}", self.what);
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn so_far(&self, status: ExitStatus) -> Run {
        let read = |name| {
            let bytes = fs::read(self.folder.path().join(name)).expect("the file is there");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Run { status, what: self.what.clone(), stdout: read("stdout"), stderr: read("stderr") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        let Ok(group) = i32::try_from(self.child.id()) else { return };
        // SAFETY: plain numbers; the group is our child's, which was not waited for.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // It was there a line ago.
        let _ = self.child.wait();
    }
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) what: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Exit status 0, and the library was in use.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "{}", self.told());
        assert!(self.was_used(), "the library was not in use\n{}", self.told());
        self
    }

    /// As `ok`, and the program's last line is `ok`.
    #[track_caller]
    pub(crate) fn said_ok(self) -> Self {
        let run = self.ok();
        assert_eq!(run.stdout.lines().last(), Some("ok"), "{}", run.told());
        run
    }

    /// Ended by `abort`.
    #[track_caller]
    pub(crate) fn aborted(self) -> Self {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{}", self.told());
        self
    }

    /// The library's lines that are not statistics.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let ours = self.stderr.lines().filter(|line| line.starts_with("tallow: "));
        ours.filter(|line| !line.starts_with("tallow: process ")).collect()
    }

    pub(crate) fn told(&self) -> String {
        let Self { status, what, stdout, stderr } = self;
        format!("{what}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }

    /// Whether a process of it has told of blocks.
    fn was_used(&self) -> bool {
        self.stderr.contains("tallow: process ")
            && self.stderr.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("allocated")
                    && words.next().and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 0.0)
            })
    }
}
