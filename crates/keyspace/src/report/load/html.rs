//! The report as one page that needs nothing else.

use super::super::charts::DrawError;
use super::super::html::{STYLE, escape, thousands};
use super::super::text::{percent, size, time};
use super::{LoadReport, charts, defrag_answer};
use crate::load::PhaseEnd;
use std::fmt::{self, Write};

/// The page.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn page(report: &LoadReport) -> Result<String, DrawError> {
    let (server, parameters) = (&report.server, &report.parameters);
    let title = format!("{} {} under churn", server.name, server.version);
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <p class=\"faint\">{} keys with the figures of the real cluster {}, {} of which expire, \
         seed {}. Allocator: {}.</p><p class=\"verdict\">{}</p><div class=\"cards\">",
        thousands(parameters.keys),
        parameters.workload,
        percent(parameters.expire_share),
        parameters.seed,
        escape(&server.allocator),
        escape(&report.verdict),
        title = escape(&title),
    )?;
    for phase in &report.phases {
        card(&mut page, phase)?;
    }
    write!(
        page,
        "</div><section><h2>Memory over time</h2><p>Keys are set and used (<i>loaded</i>); most of \
         them reach the end of their time to live within seconds (<i>expired</i>); then the server \
         has time to give back what it holds too much (<i>healed</i>), while a light load goes \
         on.</p><p><span class=\"key\" style=\"background:#d65a31;margin-left:0\"></span>memory of \
         the process ({}) <span class=\"key\" style=\"background:#1d6c7a\"></span>used_memory of \
         INFO</p>{}</section>\
         <section><h2>Their ratio</h2>{}</section>",
        escape(&server.rss_source.to_string()),
        charts::memory(report)?,
        charts::ratio(report)?,
    )?;
    figures(&mut page, report)?;
    writeln!(
        page,
        "<p><small>keyspace {} &middot; made by <code>{}</code></small></p></main></body></html>",
        report.version,
        escape(&command(report)),
    )?;
    Ok(page)
}

fn card(page: &mut String, phase: &PhaseEnd) -> fmt::Result {
    let point = &phase.point;
    let class = if point.ratio > 1.3 { "bad" } else { "good" };
    write!(
        page,
        "<div class=\"card\"><h3>{}</h3><b class=\"{class}\">{:.2}x</b>{} of memory for {} of \
         data<br><small>{} keys</small></div>",
        phase.name,
        point.ratio,
        size(point.rss_bytes),
        size(point.used_memory_bytes),
        thousands(point.keys),
    )
}

fn figures(page: &mut String, report: &LoadReport) -> fmt::Result {
    page.push_str(
        "<section><h2>The figures</h2><table><tr><th>at the end of</th><th>loaded</th>\
         <th>expired</th><th>healed</th></tr>",
    );
    let mut row = |name: &str, figure: &dyn Fn(&PhaseEnd) -> String| {
        let cells: String =
            report.phases.iter().map(|phase| format!("<td>{}</td>", figure(phase))).collect();
        write!(page, "<tr><td>{name}</td>{cells}</tr>")
    };
    row("time", &|phase| format!("{:.1} s", phase.point.wall_ms / 1e3))?;
    row("requests so far", &|phase| thousands(phase.requests))?;
    row("keys", &|phase| thousands(phase.point.keys))?;
    row("expired so far", &|phase| thousands(phase.point.expired_keys))?;
    row("used_memory", &|phase| size(phase.point.used_memory_bytes))?;
    row("RSS", &|phase| size(phase.point.rss_bytes))?;
    row("RSS / used_memory", &|phase| format!("{:.3}", phase.point.ratio))?;
    row("allocations moved", &|phase| thousands(phase.point.active_defrag_hits))?;
    row("GET, half within", &|phase| time(phase.get.p50_ns))?;
    row("GET, 99 % within", &|phase| time(phase.get.p99_ns))?;
    row("GET, 99.9 % within", &|phase| time(phase.get.p99_9_ns))?;
    row("GET, the longest", &|phase| time(phase.get.max_ns))?;
    page.push_str("</table>");
    if let Some(answer) = defrag_answer(&report.healing) {
        write!(page, "<p>{}.</p>", escape(&answer))?;
    }
    write!(
        page,
        "<p>At the end all {} values were read and compared with what they must be, and are \
         intact.</p></section>",
        thousands(report.verification.keys_checked),
    )
}

/// How to repeat the run.
fn command(report: &LoadReport) -> String {
    let it = &report.parameters;
    format!(
        "keyspace load --connect {} --workload {} --keys {} --expire-share {} --seed {} \
         --connections {} --pipeline {} --seconds {} --heal-seconds {} --activedefrag {}",
        report.server.address,
        it.workload,
        it.keys,
        percent(it.expire_share).replace(' ', ""),
        it.seed,
        it.connections,
        it.pipeline,
        it.expire_seconds,
        it.heal_seconds,
        it.activedefrag,
    )
}
