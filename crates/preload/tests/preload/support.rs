//! Builds programs and runs them with the library.

use crate::library::build;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the library is built as, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// With the feature `hardened`.
    Hardened,
    /// The same, and every block lies between guard pages as long as there are some.
    Sampled,
}

impl Kind {
    /// The library, built by the first who asks.
    pub(crate) fn library(self) -> &'static Path {
        static PLAIN: OnceLock<PathBuf> = OnceLock::new();
        static HARDENED: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Plain => PLAIN.get_or_init(|| build(None)),
            Self::Hardened | Self::Sampled => HARDENED.get_or_init(|| build(Some("hardened"))),
        }
    }

    /// How much of so much work is done: a block that is sampled takes calls of the system.
    pub(crate) fn part_of(self, work: u32) -> u32 {
        if self == Self::Sampled { work / 5 } else { work }
    }
}

/// Makes tests of functions that take a [`Kind`], one for each kind.
macro_rules! of_each_kind {
    ($($name:ident)*) => {
        of_each_kind! { plain Plain: $($name)* }
        of_each_kind! { hardened Hardened: $($name)* }
        of_each_kind! { sampled Sampled: $($name)* }
    };
    ($module:ident $kind:ident: $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::$name(crate::support::Kind::$kind);
                }
            )*
        }
    };
}
pub(crate) use of_each_kind;

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

/// No program takes so long, whatever else the machine does: the slowest take a minute, beside some
/// others on two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A program with the library, and its statistics at exit.
pub(crate) struct Preloaded {
    command: Command,
    folder: TempDir,
}

pub(crate) fn preloaded(kind: Kind, program: impl AsRef<OsStr>) -> Preloaded {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TALLOW_") {
            command.env_remove(name);
        }
    }
    command.env("LD_PRELOAD", kind.library()).env("TALLOW_STATS", "1");
    if kind == Kind::Sampled {
        command.env("TALLOW_GUARD_SAMPLE", "1");
    }
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

    /// As `said_ok`, of a program that does without the library.
    #[track_caller]
    pub(crate) fn said_ok_without(self) {
        assert!(self.status.success(), "{}", self.told());
        assert!(!self.was_used(), "the library was in use\n{}", self.told());
        assert_eq!(self.stdout.lines().last(), Some("ok"), "{}", self.told());
    }

    /// Ended by `abort`.
    #[track_caller]
    pub(crate) fn aborted(&self) {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{}", self.told());
    }

    /// Ended by an access to memory that is not to be touched.
    #[track_caller]
    pub(crate) fn faulted(&self) {
        assert_eq!(self.status.signal(), Some(libc::SIGSEGV), "{}", self.told());
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
                // What it holds at its end, or what a thread's cache keeps of that.
                matches!(words.next(), Some("allocated" | "cached"))
                    && words.next().and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 0.0)
            })
    }
}
