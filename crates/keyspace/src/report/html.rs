//! The report as one page that needs nothing else: no scripts, no fonts, no network.

use super::charts::{self, DrawError};
use super::text::{percent, size, span, time};
use super::{Parameters, Report};
use crate::churn::PhaseBooks;
use crate::gauge::Allocator;
use std::fmt::{self, Write};

pub(super) const STYLE: &str = "
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; background: #f6f5f2; color: #1f2937;
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px }
h1 { font-size: 30px; margin: 0 0 4px } h2 { font-size: 20px; margin: 0 0 6px }
p { margin: 6px 0 12px; max-width: 76ch } .faint { color: #6b7280 } small { color: #6b7280 }
.verdict { font-size: 20px; line-height: 1.45; max-width: none; margin: 18px 0 24px }
.cards { display: grid; grid-template-columns: repeat(3, 1fr); gap: 16px; margin-bottom: 16px }
section, .card { background: #fff; border: 1px solid #e5e7eb; border-radius: 12px; padding: 20px 24px }
section { margin: 16px 0 } .card h3 { margin: 0; font-size: 15px; color: #6b7280; font-weight: 600 }
.card b { display: block; font-size: 38px; line-height: 1.2 } .bad { color: #d65a31 } .good { color: #1d6c7a }
svg { width: 100%; height: auto; display: block }
.maps { display: grid; grid-template-columns: 1fr 1fr; gap: 32px; align-items: start }
.key { display: inline-block; width: 13px; height: 13px; border-radius: 3px; margin: 0 6px -2px 14px }
.scale { display: inline-block; width: 120px; height: 13px; border-radius: 3px; margin: 0 6px -2px;
  background: linear-gradient(90deg, rgb(251,229,205), rgb(122,176,166), rgb(16,75,88)) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #e5e7eb } th { font-weight: 600 }
td + td { white-space: nowrap } th:first-child, td:first-child { text-align: left } code { background: #f3f4f6; padding: 1px 5px; border-radius: 4px }
@media (max-width: 760px) { .cards, .maps { grid-template-columns: 1fr } section { overflow-x: auto } }
";

/// The page.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn page(report: &Report) -> Result<String, DrawError> {
    let mut page = String::new();
    let title = match report.allocator {
        Allocator::Tallow => "A cache on Tallow",
        Allocator::System => "A cache on the system's allocator",
    };
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <p class=\"faint\">{}</p><p class=\"verdict\">{}</p>",
        escape(&subtitle(&report.parameters)),
        escape(&report.verdict),
    )?;
    page.push_str("<div class=\"cards\">");
    for phase in &report.phases {
        card(&mut page, phase)?;
    }
    page.push_str("</div>");
    memory_section(&mut page, report)?;
    if report.allocator == Allocator::Tallow {
        map_section(&mut page, report)?;
        class_section(&mut page, report)?;
    }
    figures_section(&mut page, report)?;
    writeln!(
        page,
        "<p><small>keyspace {} &middot; made by <code>{}</code></small></p></main></body></html>",
        report.version,
        escape(&command(report)),
    )?;
    Ok(page)
}

fn subtitle(parameters: &Parameters) -> String {
    let source = match (&parameters.workload, &parameters.trace) {
        (Some(workload), _) => format!("A cache with the figures of the real cluster {workload}"),
        (None, trace) => format!("The trace {}", trace.as_deref().unwrap_or("?")),
    };
    let goal = match (parameters.size_bytes, parameters.keys) {
        (Some(bytes), _) => format!("{} at the peak", size(bytes)),
        (None, keys) => format!("{} keys at the peak", keys.unwrap_or(0)),
    };
    format!("{source}, {goal}, seed {}.", parameters.seed)
}

fn command(report: &Report) -> String {
    let parameters = &report.parameters;
    let mut command = format!("keyspace churn --seed {}", parameters.seed);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{name} {value}"));
        }
    };
    add("workload", parameters.workload.clone());
    add("trace", parameters.trace.clone());
    add("size", parameters.size_bytes.map(|bytes| bytes.to_string()));
    add("keys", parameters.keys.map(|keys| keys.to_string()));
    add("allocator", (report.allocator == Allocator::System).then(|| "system".to_owned()));
    command
}

fn card(page: &mut String, phase: &PhaseBooks) -> Result<(), DrawError> {
    let reading = &phase.point.reading;
    let ratio = reading.fragmentation_ratio;
    let class = if ratio > 1.3 { "bad" } else { "good" };
    write!(
        page,
        "<div class=\"card\"><h3>{}</h3><b class=\"{class}\">{ratio:.2}x</b>{} of memory for {} \
         of data<br><small>{} keys</small></div>",
        phase.name,
        size(reading.rss_bytes),
        size(reading.allocated_bytes),
        thousands(phase.point.live_keys),
    )?;
    Ok(())
}

fn memory_section(page: &mut String, report: &Report) -> Result<(), DrawError> {
    write!(
        page,
        "<section><h2>Memory over time</h2><p>A cache is filled and used (<i>loaded</i>). Then \
         traffic falls and most keys reach the end of their time to live (<i>expired</i>): the data \
         shrink, but survivors are scattered over all pages, so the process does not. Healing moves \
         the survivors together and gives the empty pages back (<i>healed</i>).</p>\
         <p><span class=\"key\" style=\"background:#d65a31;margin-left:0\"></span>memory of the \
         process (RSS) <span class=\"key\" style=\"background:#1d6c7a\"></span>data allocated. \
         The gap is waste. <small>Each phase is stretched to be readable.</small></p>{}</section>",
        charts::memory(report)?
    )?;
    Ok(())
}

fn map_section(page: &mut String, report: &Report) -> Result<(), DrawError> {
    let [_, expired, healed] = &report.phases;
    let rows =
        charts::heat_map_rows(&expired.slab_map).max(charts::heat_map_rows(&healed.slab_map));
    write!(
        page,
        "<section><h2>Where the data are</h2><p>The allocator cuts memory into slabs, each for \
         objects of one size. Each square is {} in the order of their addresses: \
         empty <span class=\"scale\"></span> full.</p><div class=\"maps\">",
        match expired.slab_map.slabs_per_group {
            0 | 1 => "one slab,".to_owned(),
            slabs => format!("{slabs} neighbouring slabs,"),
        }
    )?;
    for (phase, label) in [(expired, "before healing"), (healed, "after")] {
        write!(
            page,
            "<div><p><b>{label}</b>: {} slabs</p>{}</div>",
            thousands(phase.slab_map.slabs),
            charts::heat_map(&phase.slab_map, rows)?,
        )?;
    }
    page.push_str("</div></section>");
    Ok(())
}

fn class_section(page: &mut String, report: &Report) -> Result<(), DrawError> {
    write!(
        page,
        "<section><h2>How full the slabs are, by object size</h2><p>The share of each size's slabs \
         that the program really uses, for the sizes that hold the most memory. \
         <span class=\"key\" style=\"background:#d65a31\"></span>before healing \
         <span class=\"key\" style=\"background:#1d6c7a\"></span>after</p>{}</section>",
        charts::classes(report)?
    )?;
    Ok(())
}

fn figures_section(page: &mut String, report: &Report) -> Result<(), DrawError> {
    page.push_str(
        "<section><h2>The figures</h2><table><tr><th>at the end of</th><th>loaded</th>\
         <th>expired</th><th>healed</th></tr>",
    );
    let mut row = |name: &str, figure: &dyn Fn(&PhaseBooks) -> String| {
        let cells: String =
            report.phases.iter().map(|phase| format!("<td>{}</td>", figure(phase))).collect();
        write!(page, "<tr><td>{name}</td>{cells}</tr>")
    };
    row("virtual time", &|phase| span(phase.point.virtual_seconds))?;
    row("real time", &|phase| format!("{:.1} s", phase.point.wall_ms / 1e3))?;
    row("keys", &|phase| thousands(phase.point.live_keys))?;
    row("requests so far", &|phase| thousands(phase.operations))?;
    row("requested", &|phase| size(phase.point.reading.requested_bytes))?;
    row("allocated (with rounding up)", &|phase| size(phase.point.reading.allocated_bytes))?;
    row("active (pages in use)", &|phase| size(phase.point.reading.active_bytes))?;
    row("resident (by the allocator's count)", &|phase| size(phase.point.reading.resident_bytes))?;
    row("RSS (by the kernel's count)", &|phase| size(phase.point.reading.rss_bytes))?;
    row("RSS / allocated", &|phase| format!("{:.3}", phase.point.reading.fragmentation_ratio))?;
    row("slabs", &|phase| thousands(phase.point.reading.slabs))?;
    row("in thread caches", &|phase| size(phase.point.reading.cached_bytes))?;
    row("freed, not yet given back", &|phase| size(phase.point.reading.dirty_bytes))?;
    page.push_str("</table>");
    let defrag = &report.defrag;
    if defrag.passes > 0 {
        write!(
            page,
            "<p>Healing: {} passes in {} steps took {:.2} s, no step longer than {:.2} ms. {} moved \
             in {} allocations; {} others were left where they were. Slabs of {} emptied, {} of what \
             was predicted. Hash tables rebuilt: {} less.</p>",
            defrag.passes,
            thousands(defrag.steps),
            defrag.passes_ms / 1e3,
            defrag.longest_step_us as f64 / 1e3,
            size(defrag.moved_bytes),
            thousands(defrag.hits),
            thousands(defrag.misses),
            size(defrag.released_bytes),
            percent(defrag.released_bytes as f64 / defrag.predicted_released_bytes.max(1) as f64),
            size(defrag.tables_shrunk_bytes),
        )?;
        times(page, report)?;
        gains(page, report)?;
    }
    write!(
        page,
        "<p>At the end all {} values were compared with what they must be, and are intact; {}.</p>\
         </section>",
        thousands(report.verification.keys_checked),
        escape(report.verification.audit.trim_end_matches('.')),
    )?;
    Ok(())
}

fn times(page: &mut String, report: &Report) -> fmt::Result {
    let (step, latency) = (&report.defrag.step, &report.latency);
    let queueing = &latency.queueing;
    page.push_str(
        "<table><tr><th>time of</th><th>count</th><th>median</th><th>99 %</th><th>99.9 %</th>\
         <th>longest</th></tr>",
    );
    for (name, times) in [
        ("a step of the healing", &step.times),
        ("an operation while a pass runs", &latency.during.all),
        ("an operation before", &latency.without.all),
        ("a request beside a paced pass, waiting for its steps included", &queueing.during),
        ("a request before", &queueing.without),
    ] {
        write!(page, "<tr><td>{name}</td><td>{}</td>", thousands(times.count))?;
        for ns in [times.p50_ns, times.p99_ns, times.p99_9_ns, times.max_ns] {
            write!(page, "<td>{}</td>", time(ns))?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    if queueing.during.count > 0 {
        write!(
            page,
            "<p>Requests arrive one each {} and are served by the thread that defragments, at {} % \
             of its time at most; their time runs from arrival to completion.</p>",
            time(queueing.arrive_every_ns),
            queueing.effort_percent,
        )?;
    }
    if step.over_1ms > 0 {
        write!(
            page,
            "<p>{} steps took more than a millisecond; in {} of them the kernel gave the processor \
             to another program. The longest undisturbed one took {}.</p>",
            step.over_1ms,
            step.over_1ms_preempted,
            time(step.longest_undisturbed_ns),
        )?;
    }
    Ok(())
}

fn gains(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str(
        "<table><tr><th>size class</th><th>regions moved</th><th>slabs emptied</th>\
         <th>released</th></tr>",
    );
    for gain in &report.gains {
        write!(
            page,
            "<tr><td>{} B</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            thousands(gain.region_bytes),
            thousands(gain.regions_moved),
            thousands(gain.slabs_emptied),
            size(gain.released_bytes),
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

/// `1234567` as `1 234 567`, with spaces that do not break.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_safe_to_show() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(escape("<a&\"b\">"), "&lt;a&amp;&quot;b&quot;&gt;");
    }
}
