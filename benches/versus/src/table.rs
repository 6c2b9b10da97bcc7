//! The tables for a terminal, in Markdown so that they can be pasted.

use crate::pairs::PairReport;
use crate::run::Allocator;
use crate::summary::{Metric, Report, Row};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::{self, Display, Write};

const MIB: f64 = (1 << 20) as f64;

/// Every table of the report, and what failed.
///
/// # Errors
/// None, as strings take all.
pub fn all(report: &Report) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for metric in Metric::ALL {
        writeln!(text, "{}\n\n{}\n", metric.title(), metric_table(report, metric))?;
    }
    writeln!(text, "Tallow divided by each peer, geometric means (below 1: Tallow is better)\n")?;
    writeln!(text, "{}", means_table(report))?;
    for (row, allocator, reason) in report.failures() {
        writeln!(text, "\nFAILED: {row} on {allocator}: {reason}")?;
    }
    Ok(text)
}

/// The table of a run in pairs, and what failed.
///
/// # Errors
/// None, as strings take all.
pub fn pairs(report: &PairReport) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let peers = report.rows.first().map_or(&[][..], |row| &row.against);
    let mut head = vec!["workload".to_owned()];
    head.extend(peers.iter().map(|against| against.peer.to_string()));
    head.push("best peer".to_owned());
    let rows = report.rows.iter().map(|row| {
        let ratios = row.against.iter().map(|against| or_dash(against.ratio));
        let best = or_dash(row.best_peer().map(|(peer, _)| peer));
        [row.name.clone()].into_iter().chain(ratios).chain([best]).collect()
    });
    writeln!(
        text,
        "Tallow's time divided by the other's, both at once (below 1: Tallow is better): median of \
         {} rounds, with the interval of 95 %\n\n{}",
        report.rounds,
        table(head, rows)
    )?;
    for (row, peer, reason) in report.failures() {
        writeln!(text, "\nFAILED: {row} beside {peer}: {reason}")?;
    }
    Ok(text)
}

fn metric_table(report: &Report, metric: Metric) -> Table {
    let mut head = vec!["workload".to_owned(), "unit".to_owned()];
    head.extend(report.allocators.iter().map(Allocator::to_string));
    head.extend(["best peer", "tallow/best"].map(str::to_owned));
    if metric == Metric::Figure {
        head.push("spread".to_owned());
    }
    let rows = report.rows.iter().map(|row| metric_row(row, metric));
    table(head, rows)
}

fn metric_row(row: &Row, metric: Metric) -> Vec<String> {
    let unit = if metric == Metric::Figure { row.unit.to_string() } else { "MiB".to_owned() };
    let mut line = vec![row.name.clone(), unit];
    line.extend(row.cells.iter().map(|cell| match cell.median(metric) {
        Some(value) => figure(metric, value),
        None if cell.failure.is_none() => "-".to_owned(),
        None => "failed".to_owned(),
    }));
    line.push(or_dash(row.best_peer(metric).map(|(peer, _)| peer)));
    line.push(or_dash(row.ratio_to_best(metric).map(|ratio| format!("{ratio:.2}"))));
    if metric == Metric::Figure {
        line.push(or_dash(row.spread().map(|spread| format!("{:.0} %", spread * 100.0))));
    }
    line
}

fn means_table(report: &Report) -> Table {
    let mut head = vec!["rows".to_owned()];
    head.extend(report.allocators.iter().map(Allocator::to_string));
    head.push("best of each row".to_owned());
    let rows = report.means.iter().map(|means| {
        let ratios = means.to.iter().chain([&means.to_best]);
        let ratios = ratios.map(|ratio| or_dash(ratio.map(|ratio| format!("{ratio:.2}"))));
        [means.title.to_owned()].into_iter().chain(ratios).collect()
    });
    table(head, rows)
}

fn table(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let columns = head.len();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(head);
    table.add_rows(rows);
    for column in 1..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A figure for people: three digits or so.
#[must_use]
pub fn figure(metric: Metric, value: f64) -> String {
    let value = if metric == Metric::Figure { value } else { value / MIB };
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}
