//! The report on a terminal.

use super::super::text::{size, time};
use super::{LoadReport, defrag_answer, of_phase};
use crate::churn::Phase;
use crate::load::Point;
use comfy_table::{CellAlignment, Table, presets};
use std::io::{self, Write};

/// Readings shown for each phase, its end included.
const ROWS_PER_PHASE: usize = 5;

/// Writes timeline, latencies and verdict.
///
/// # Errors
/// What the writer says.
pub fn write_summary(out: &mut dyn Write, report: &LoadReport) -> io::Result<()> {
    let server = &report.server;
    writeln!(
        out,
        "{} {} at {}, allocator {}; RSS is {}.\n",
        server.name, server.version, server.address, server.allocator, server.rss_source,
    )?;
    writeln!(out, "{}\n\n{}\n", timeline(report), latencies(report))?;
    if let Some(answer) = defrag_answer(&report.healing) {
        writeln!(out, "{answer}.")?;
    }
    writeln!(out, "Checked: {} values are intact.", report.verification.keys_checked)?;
    writeln!(out, "\n{}", report.verdict)
}

/// The timeline as a table: the end of each phase and a few readings on the way.
fn timeline(report: &LoadReport) -> Table {
    let mut table = table(&["phase", "time", "keys", "used_memory", "RSS", "ratio", "defrag %"]);
    let mut add = |name: &str, point: &Point| {
        table.add_row([
            name.to_owned(),
            format!("{:.1} s", point.wall_ms / 1e3),
            point.keys.to_string(),
            size(point.used_memory_bytes),
            size(point.rss_bytes),
            format!("{:.2}", point.ratio),
            point.active_defrag_running.to_string(),
        ]);
    };
    for phase in Phase::ALL {
        let points = of_phase(report, phase);
        let shown = ROWS_PER_PHASE.min(points.len());
        for row in 1..=shown {
            let name = if row == shown { phase.to_string() } else { String::new() };
            add(&name, points[points.len() * row / shown - 1]);
        }
    }
    if let Some(point) = &report.healing.purged {
        add("purged", point);
    }
    table
}

fn latencies(report: &LoadReport) -> Table {
    let mut table = table(&["GET, one each ms", "count", "p50", "p99", "p99.9", "longest"]);
    for phase in &report.phases {
        let get = &phase.get;
        let mut row = vec![phase.name.to_string(), get.count.to_string()];
        row.extend([get.p50_ns, get.p99_ns, get.p99_9_ns, get.max_ns].map(time));
        table.add_row(row);
    }
    table
}

/// An empty table whose columns but the first are right-aligned.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
