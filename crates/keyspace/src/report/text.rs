//! The report on a terminal, and the list of workloads.

use super::Report;
use crate::churn::{Phase, Point};
use crate::workload::CLUSTERS;
use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use std::io::{self, Write};

/// Points of the timeline shown for each phase, its end included.
const ROWS_PER_PHASE: usize = 4;

/// Bytes for people: `231.0 MiB`, `1.02 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let digits = if bytes >= 1 << 30 { 2 } else { 1 };
    format!("{:.digits$}", ByteSize::b(bytes).display().iec())
}

/// A share for people: `22 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A span of virtual time for people: `5.6 d`.
#[must_use]
pub fn span(seconds: f64) -> String {
    for (unit_seconds, unit) in [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")] {
        if seconds >= unit_seconds {
            return format!("{:.1} {unit}", seconds / unit_seconds);
        }
    }
    format!("{seconds:.0} s")
}

/// A short time for people: `1.2 us`, `0.51 ms`.
#[must_use]
pub fn time(ns: u64) -> String {
    if ns < 100_000 {
        format!("{:.1} us", ns as f64 / 1e3)
    } else {
        format!("{:.2} ms", ns as f64 / 1e6)
    }
}

/// Writes timeline, healing and verdict.
///
/// # Errors
/// What the writer says.
pub fn write_summary(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}\n", timeline(report))?;
    let defrag = &report.defrag;
    if defrag.passes > 0 {
        writeln!(
            out,
            "Defragmentation: {} passes, {} steps, {} moved in {} allocations ({} of the plan), \
             {} of slabs emptied ({} of the prediction).",
            defrag.passes,
            defrag.steps,
            size(defrag.moved_bytes),
            defrag.hits,
            percent(defrag.moved_bytes as f64 / defrag.predicted_bytes.max(1) as f64),
            size(defrag.released_bytes),
            percent(defrag.released_bytes as f64 / defrag.predicted_released_bytes.max(1) as f64),
        )?;
        let (step, latency) = (&defrag.step, &report.latency);
        writeln!(
            out,
            "Steps, tables included: 99.9 % within {}, the longest {} (undisturbed by other \
             programs: {}).\nOperations: 99 % within {} while a pass ran, within {} before.",
            time(step.times.p99_9_ns),
            time(step.times.max_ns),
            time(step.longest_undisturbed_ns),
            time(latency.during.all.p99_ns),
            time(latency.without.all.p99_ns),
        )?;
        let queueing = &latency.queueing;
        if queueing.during.count > 0 {
            writeln!(
                out,
                "Requests, one each {}, from arrival to completion: 99 % within {} beside a pass at \
                 {} % of a processor (they wait for its steps), within {} before.",
                time(queueing.arrive_every_ns),
                time(queueing.during.p99_ns),
                queueing.effort_percent,
                time(queueing.without.p99_ns),
            )?;
        }
    }
    writeln!(
        out,
        "Checked: {} values are intact; {}.",
        report.verification.keys_checked,
        report.verification.audit.trim_end_matches('.'),
    )?;
    writeln!(out, "\n{}", report.verdict)
}

/// The timeline as a table: the end of each phase and a few points on the way.
fn timeline(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "phase",
        "clock",
        "keys",
        "used",
        "allocated",
        "RSS",
        "ratio",
        "slabs",
        "cached",
        "dirty",
    ]);
    for phase in Phase::ALL {
        let points: Vec<&Point> =
            report.timeline.iter().filter(|point| point.phase == phase).collect();
        let shown = ROWS_PER_PHASE.min(points.len());
        for row in 1..=shown {
            let point = points[points.len() * row / shown - 1];
            let reading = &point.reading;
            let name = if row == shown { phase.to_string() } else { String::new() };
            table.add_row([
                name,
                span(point.virtual_seconds),
                point.live_keys.to_string(),
                size(point.used_bytes),
                size(reading.allocated_bytes),
                size(reading.rss_bytes),
                format!("{:.2}", reading.fragmentation_ratio),
                reading.slabs.to_string(),
                size(reading.cached_bytes),
                size(reading.dirty_bytes),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// All workloads, as a table with its source.
#[must_use]
pub fn workloads() -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["name", "kind", "key B", "value B", "one-hit", "skew", "TTLs", "operations"]);
    for cluster in &CLUSTERS {
        let ttls = cluster
            .ttls
            .iter()
            .take(3)
            .map(|(ttl, share)| format!("{} {}", percent(*share), span(f64::from(*ttl))));
        let mut ttls = ttls.collect::<Vec<_>>().join(", ");
        if cluster.ttls.len() > 3 {
            ttls.push_str(", ...");
        }
        let ops =
            cluster.ops.iter().map(|(op, share)| format!("{} {}", percent(*share), op.name()));
        table.add_row([
            cluster.name(),
            cluster.category.to_string(),
            cluster.key_bytes_mean.to_string(),
            cluster.value_bytes_mean.to_string(),
            percent(cluster.one_hit_wonder_share),
            format!("{:.2}", cluster.zipf_alpha),
            ttls,
            ops.collect::<Vec<_>>().join(", "),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{table}\n\nSource: public statistics of Twitter's cache traces, March 2020 (CC BY 4.0); \
         Yang, Yue, Vinayak, OSDI 2020.\nkey B, value B: mean sizes; one-hit: keys touched only \
         once; skew: Zipf exponent of popularity, 0 is uniform.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        for (seconds, text) in
            [(30.0, "30 s"), (240.0, "4.0 min"), (3600.0, "1.0 h"), (1_209_600.0, "14.0 d")]
        {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [(0, "0 B"), (1536, "1.5 KiB"), (1_100_000_000, "1.02 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn the_list_has_every_workload() {
        let list = workloads();
        for cluster in &CLUSTERS {
            assert!(list.contains(&cluster.name()), "{}", cluster.name());
        }
        assert!(list.contains("27 % 14.0 d"), "{list}");
    }
}
