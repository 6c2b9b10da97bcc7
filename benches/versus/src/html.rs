//! The report as one page that needs nothing else: no scripts, no fonts, no network.

use crate::run::Allocator;
use crate::summary::{Metric, Report, Row};
use crate::table::figure;
use crate::workloads::Group;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write;

/// What went wrong while drawing.
pub type DrawError = Box<dyn std::error::Error + Send + Sync>;

const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT_INK: RGBColor = RGBColor(107, 114, 128);
const TALLOW: RGBColor = RGBColor(214, 90, 49);
const PEER: RGBColor = RGBColor(122, 166, 172);
const FONT: &str = "sans-serif";
/// Height of a bar with its margin.
const BAR: i32 = 20;
const WIDTH: i32 = 400;
const LABELS: i32 = 112;
const FIGURES: i32 = 64;

const STYLE: &str = "
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; background: #f6f5f2; color: #1f2937;
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 64px }
h1 { font-size: 30px; margin: 0 0 4px } h2 { font-size: 20px; margin: 32px 0 10px }
h3 { font-size: 15px; margin: 0 } small, .faint { color: #6b7280 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 14px }
.card { background: #fff; border: 1px solid #e5e7eb; border-radius: 12px; padding: 14px 16px }
.card small { display: block; line-height: 1.35; margin: 2px 0 8px; min-height: 2.7em }
b.bad { color: #d65a31 } b.good { color: #1d6c7a } .card b { float: right }
svg { width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100%; background: #fff; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 6px 10px; border: 1px solid #e5e7eb }
th:first-child, td:first-child { text-align: left }
";

/// The page.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn page(report: &Report) -> Result<String, DrawError> {
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tallow versus</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>{STYLE}</style></head><body><main><h1>Tallow against other allocators</h1>\
         <p class=\"faint\">Medians of {} rounds{}, each workload in a process of its own, in turns; \
         Linux {}, {} processors. Less is better everywhere. The number at the right of a card is \
         Tallow's figure divided by that of the best peer.</p>",
        report.rounds,
        if report.quick { " at small sizes" } else { "" },
        escape(&report.kernel),
        report.processors,
    )?;
    means(&mut page, report)?;
    for group in Group::ALL {
        cards(&mut page, report, &format!("{group}"), Metric::Figure, |row| row.group == group)?;
    }
    for metric in [Metric::PeakRss, Metric::FinalRss] {
        cards(&mut page, report, metric.title(), metric, |_| true)?;
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

fn means(page: &mut String, report: &Report) -> Result<(), DrawError> {
    page.push_str(
        "<h2>Tallow divided by each peer, geometric means (below 1: Tallow is better)</h2>\
         <table><tr><th>rows</th>",
    );
    for allocator in &report.allocators {
        write!(page, "<th>{allocator}</th>")?;
    }
    page.push_str("<th>best of each row</th></tr>");
    for means in &report.means {
        write!(page, "<tr><td>{}</td>", means.title)?;
        for ratio in means.to.iter().chain([&means.to_best]) {
            let text = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            write!(page, "<td>{text}</td>")?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    Ok(())
}

/// A section with a card for each chosen row.
fn cards(
    page: &mut String,
    report: &Report,
    title: &str,
    metric: Metric,
    chosen: impl Fn(&Row) -> bool,
) -> Result<(), DrawError> {
    let mut rows = report.rows.iter().filter(|row| chosen(row)).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    write!(page, "<h2>{}</h2><div class=\"grid\">", escape(title))?;
    for row in rows {
        let unit = if metric == Metric::Figure { row.unit.to_string() } else { "MiB".to_owned() };
        let ratio = row.ratio_to_best(metric).map_or_else(String::new, |ratio| {
            let class = if ratio > 1.0 { "bad" } else { "good" };
            format!("<b class=\"{class}\">{ratio:.2}</b>")
        });
        write!(
            page,
            "<div class=\"card\">{ratio}<h3>{}, {unit}</h3><small>{}</small>{}</div>",
            escape(&row.name),
            escape(row.about),
            bars(row, metric)?,
        )?;
    }
    page.push_str("</div>");
    Ok(())
}

/// A bar for each allocator.
fn bars(row: &Row, metric: Metric) -> Result<String, DrawError> {
    let values: Vec<_> = row.cells.iter().map(|c| (c.allocator, c.median(metric))).collect();
    let most = values.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let size = (WIDTH as u32, (BAR * values.len() as i32) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let style = |colour: RGBColor, side| {
            (FONT, 13).into_font().color(&colour).pos(Pos::new(side, VPos::Center))
        };
        for (place, (allocator, value)) in (0..).zip(values) {
            let middle = place * BAR + BAR / 2;
            let label = style(INK, HPos::Right);
            root.draw(&Text::new(allocator.to_string(), (LABELS - 8, middle), label))?;
            let room = f64::from(WIDTH - LABELS - FIGURES);
            let length = value.map_or(0, |value| (value / most.max(1e-12) * room) as i32).max(1);
            let colour = if allocator == Allocator::Tallow { TALLOW } else { PEER };
            let corners = [(LABELS, middle - 7), (LABELS + length, middle + 7)];
            root.draw(&Rectangle::new(corners, colour.filled()))?;
            let text = value.map_or_else(|| "failed".to_owned(), |value| figure(metric, value));
            let at = (LABELS + length + 6, middle);
            root.draw(&Text::new(text, at, style(FAINT_INK, HPos::Left)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
