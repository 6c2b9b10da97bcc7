//! `keyspace load` on the command line.

use super::{PhaseBar, create, ignore_closed_pipe};
use anyhow::Context;
use clap::Args;
use keyspace::load::{self, ActiveDefrag, Address, Config};
use keyspace::report::load::{LoadReport, page, write_summary};
use keyspace::workload::Cluster;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args)]
pub(super) struct LoadArgs {
    /// The server: HOST:PORT, or the path of a unix socket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6379")]
    connect: Address,
    /// Its password.
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,
    /// The real cluster whose figures the requests follow (see `churn --list-workloads`).
    #[arg(long, value_name = "NAME", default_value = "twitter-12")]
    workload: String,
    /// Keys at the peak, such as 100000, 100K or 1M.
    #[arg(long, value_name = "COUNT", default_value = "1M", value_parser = count)]
    keys: u64,
    /// Share of the keys that expires, such as 80% or 0.8.
    #[arg(long, value_name = "SHARE", default_value = "80%", value_parser = share)]
    expire_share: f64,
    /// Seed of every random choice: the same seed sends the same requests.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Connections that the load comes over.
    #[arg(long, value_name = "COUNT", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Requests sent on each before the replies are read.
    #[arg(long, value_name = "COUNT", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pipeline: u16,
    /// Seconds over which the TTLs run out.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds that the server has to heal.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    heal_seconds: Duration,
    /// Active defragmentation: on for the healing, off throughout, or as the server has it.
    #[arg(long, value_enum, default_value = "yes")]
    activedefrag: ActiveDefrag,
    /// Delete what the server holds first (FLUSHALL). Without this it must be empty.
    #[arg(long)]
    flush: bool,
    /// Write all figures as JSON to this file, or to standard output for "-".
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts to this file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Drives the server and reports.
pub(super) fn load(args: LoadArgs) -> anyhow::Result<()> {
    let config = Config {
        address: args.connect,
        password: args.password,
        cluster: args.workload.parse::<&'static Cluster>()?,
        keys: args.keys,
        expire_share: args.expire_share,
        seed: args.seed,
        connections: usize::from(args.connections),
        pipeline: usize::from(args.pipeline),
        expire: args.seconds,
        heal: args.heal_seconds,
        activedefrag: args.activedefrag,
        flush: args.flush,
    };
    let json_on_stdout = args.json.as_deref() == Some(Path::new("-"));
    let mut out: Box<dyn Write> =
        if json_on_stdout { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    // Opened before the run: a wrong path should not cost a minute.
    let json_file = match &args.json {
        Some(path) if !json_on_stdout => Some(create(path)?),
        _ => None,
    };
    let report_file = args.report.as_deref().map(create).transpose()?;

    let mut bar = PhaseBar::default();
    let outcome = load::run(&config, &mut |phase, done| bar.show(phase, done))?;
    let report = LoadReport::new(&config, outcome);
    ignore_closed_pipe(write_summary(&mut *out, &report))?;
    let json = serde_json::to_string_pretty(&report)?;
    if json_on_stdout {
        ignore_closed_pipe(writeln!(io::stdout(), "{json}"))?;
    }
    if let (Some(mut file), Some(path)) = (json_file, &args.json) {
        writeln!(file, "{json}").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let (Some(mut file), Some(path)) = (report_file, &args.report) {
        let page =
            page(&report).map_err(|error| anyhow::anyhow!("cannot draw the charts: {error}"))?;
        file.write_all(page.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        ignore_closed_pipe(writeln!(out, "The page is in {}.", path.display()))?;
    }
    Ok(())
}

/// `1M` and the like: thousands and millions.
fn count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        },
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.filter(|number| *number > 0).ok_or_else(|| "give a number, such as 100K or 1M".into())
}

/// `80%` or `0.8`.
fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(digits) => digits.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    number
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "give a share from 0% to 100%".into())
}

/// Seconds, with fractions.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    number.map(Duration::from_secs_f64).ok_or_else(|| "give seconds, such as 30 or 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shares() {
        assert_eq!((count("1M"), count("20k"), count("7")), (Ok(1_000_000), Ok(20_000), Ok(7)));
        assert_eq!((share("80%"), share("0.25")), (Ok(0.8), Ok(0.25)));
        for wrong in ["", "0", "M", "-1", "99999999999999999999M"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "101%", "80", "NaN"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("1e99").is_err() && seconds("-1").is_err());
    }
}
