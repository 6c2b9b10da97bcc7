//! The command line.

mod load;

use crate::switch;
use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keyspace::churn::{self, Config, Goal, Phase, Plan, Recorder, Source};
use keyspace::gauge::Allocator;
use keyspace::machine;
use keyspace::report::{self, Report};
use keyspace::server;
use keyspace::workload::Cluster;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

/// The size of the store where none is given.
const DEFAULT_SIZE: &str = "1GiB";

/// A small in-memory keyspace that shows what the Tallow allocator does for a cache.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fill a cache, let most of it expire, then heal the fragmentation and show what that did.
    Churn(ChurnArgs),
    /// Serve the keyspace to Redis clients.
    #[command(after_help = server::parameters())]
    Serve(ServeArgs),
    /// Do the same as churn to any Redis-compatible server, over the wire.
    Load(load::LoadArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// A file in redis.conf syntax; what is given here goes over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run on this allocator [default: tallow]
    #[arg(long, value_enum, hide_default_value = true)]
    allocator: Option<Allocator>,
    /// Any parameter of redis.conf as `--name value`: --port 6379 (0 for a free one), --bind
    /// 127.0.0.1, --unixsocket PATH, --maxmemory 100mb, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "--NAME VALUE")]
    parameters: Vec<String>,
}

#[derive(Args)]
struct ChurnArgs {
    /// The real cluster whose figures the requests follow.
    #[arg(long, value_name = "NAME", default_value = "twitter-52")]
    workload: String,
    /// Replay this trace instead (CSV: timestamp, key, key bytes, value bytes, client, operation, ttl).
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    trace: Option<PathBuf>,
    /// Memory of the store at its peak, such as 512MB or 3GiB.
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_SIZE)]
    size: ByteSize,
    /// Keys at the peak, instead of a size.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["size", "trace"],
          value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Seed of every random choice: the same seed gives the same books.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Run on this allocator [default: tallow]
    #[arg(long, value_enum, hide_default_value = true)]
    allocator: Option<Allocator>,
    /// Write all figures as JSON to this file, or to standard output for "-".
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts to this file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// List the workloads and stop.
    #[arg(long)]
    list_workloads: bool,
}

/// Reads the command line and does what it says.
pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Churn(args) => churn(args),
        Command::Serve(args) => serve(args),
        Command::Load(args) => load::load(args),
    }
}

fn serve(mut args: ServeArgs) -> anyhow::Result<()> {
    // Options of this program's own may stand between parameters, which take all that follows.
    let mut words = std::mem::take(&mut args.parameters).into_iter();
    let mut parameters = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--config" => args.config = words.next().map(PathBuf::from),
            "--allocator" => {
                let name = words.next().unwrap_or_default();
                let wanted = Allocator::from_str(&name, true);
                args.allocator = Some(wanted.map_err(|why| anyhow::anyhow!("--allocator: {why}"))?);
            }
            _ => parameters.push(word),
        }
    }
    let allocator = settle_allocator(args.allocator)?;
    server::serve(&server::Options { allocator, config: args.config, parameters })
}

fn churn(args: ChurnArgs) -> anyhow::Result<()> {
    if args.list_workloads {
        return ignore_closed_pipe(io::stdout().write_all(report::workloads().as_bytes()));
    }
    let allocator = settle_allocator(args.allocator)?;
    let config = Config {
        source: match args.trace {
            Some(path) => Source::Trace(path),
            None => Source::Cluster(args.workload.parse::<&'static Cluster>()?),
        },
        goal: args.keys.map_or(Goal::Bytes(args.size.as_u64()), Goal::Keys),
        seed: args.seed,
        allocator,
    };
    let json_on_stdout = args.json.as_deref() == Some(Path::new("-"));
    let mut out: Box<dyn Write> =
        if json_on_stdout { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    let plan = config.plan();
    announce(&mut out, &config, plan)?;
    check_memory(plan)?;
    // Opened before the run: a wrong path should not cost a minute.
    let json_file = match &args.json {
        Some(path) if !json_on_stdout => Some(create(path)?),
        _ => None,
    };
    let report_file = args.report.as_deref().map(create).transpose()?;

    let mut bar = PhaseBar::default();
    let mut progress = |phase, done| bar.show(phase, done);
    let run = churn::run(&config, Recorder::new(allocator, &mut progress))?;
    let report = Report::new(&config, run);
    ignore_closed_pipe(report::write_summary(&mut *out, &report))?;
    if json_on_stdout {
        ignore_closed_pipe(write_json(&mut io::stdout().lock(), &report))?;
    }
    if let (Some(mut file), Some(path)) = (json_file, &args.json) {
        write_json(&mut file, &report)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let (Some(mut file), Some(path)) = (report_file, &args.report) {
        let page = report::page(&report)
            .map_err(|error| anyhow::anyhow!("cannot draw the charts: {error}"))?;
        file.write_all(page.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        ignore_closed_pipe(writeln!(out, "The page is in {}.", path.display()))?;
    }
    Ok(())
}

/// Makes sure that this process runs on the allocator wanted, by starting it again if need be.
fn settle_allocator(wanted: Option<Allocator>) -> anyhow::Result<Allocator> {
    if let Some(value) = std::env::var_os(switch::VARIABLE)
        && value != "tallow"
        && value != "system"
    {
        bail!("{} is {value:?}; set it to tallow or system, or unset it", switch::VARIABLE);
    }
    let chosen = switch::chosen();
    let Some(wanted) = wanted.filter(|wanted| *wanted != chosen) else { return Ok(chosen) };
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut again = Process::new(program);
    again.args(std::env::args_os().skip(1)).env(switch::VARIABLE, wanted.to_string());
    let error = std::os::unix::process::CommandExt::exec(&mut again);
    Err(error).context("cannot start again on the other allocator")
}

fn announce(out: &mut dyn Write, config: &Config, plan: Plan) -> anyhow::Result<()> {
    let what = match &config.source {
        Source::Cluster(cluster) => {
            format!("about {} keys with the figures of {}", plan.keys, cluster.name())
        }
        Source::Trace(path) => format!("the trace {}", path.display()),
    };
    let available = match machine::available_bytes() {
        Some(bytes) => format!("{} are available", report::size(bytes)),
        None => "how much is available, this system does not say".to_owned(),
    };
    ignore_closed_pipe(writeln!(
        out,
        "Churn on the {} allocator: {what}, {} at the peak. This will take up to {} of memory; \
         {available}.\n",
        config.allocator,
        report::size(plan.store_bytes),
        report::size(plan.process_bytes),
    ))
}

fn check_memory(plan: Plan) -> anyhow::Result<()> {
    match machine::available_bytes() {
        Some(available) if available < plan.process_bytes => bail!(
            "this run needs {} of memory and only {} are available; choose a smaller --size (or \
             fewer --keys), or free some memory",
            report::size(plan.process_bytes),
            report::size(available),
        ),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| {
        format!("cannot write {}; choose a file in a writable folder", path.display())
    })
}

fn write_json(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    writeln!(out, "{text}")
}

/// Whoever reads the output may have seen enough.
fn ignore_closed_pipe(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the output"),
    }
}

/// A progress bar per phase, on a terminal only. It draws when it is told something, without a
/// thread of its own, and is gone at the end of its phase, so that it leaves no trace in the books.
#[derive(Default)]
struct PhaseBar {
    bar: Option<ProgressBar>,
}

impl PhaseBar {
    fn show(&mut self, phase: Phase, done: Option<f64>) {
        const PARTS: u64 = 1000;
        if !io::stderr().is_terminal() {
            return;
        }
        let Some(done) = done else {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let bar = self.bar.get_or_insert_with(|| {
            let style =
                ProgressStyle::with_template("{prefix:>8} [{bar:40}] {percent:>3} %  {elapsed}")
                    .map(|style| style.progress_chars("=> "));
            let bar = ProgressBar::with_draw_target(Some(PARTS), ProgressDrawTarget::stderr());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(phase.to_string());
            bar
        });
        bar.set_position((done.clamp(0.0, 1.0) * PARTS as f64) as u64);
    }
}
