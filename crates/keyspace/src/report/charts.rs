//! The charts of the page, each a piece of SVG.

use super::Report;
use super::text::{size, span};
use crate::churn::Phase;
use crate::gauge::{ClassUse, SlabMap};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What went wrong while drawing.
pub type DrawError = Box<dyn std::error::Error + Send + Sync>;

pub(super) const INK: RGBColor = RGBColor(31, 41, 55);
pub(super) const FAINT_INK: RGBColor = RGBColor(107, 114, 128);
pub(super) const GRID: RGBColor = RGBColor(229, 231, 235);
pub(super) const RSS: RGBColor = RGBColor(214, 90, 49);
pub(super) const ALLOCATED: RGBColor = RGBColor(29, 108, 122);
pub(super) const ALLOCATED_FILL: RGBColor = RGBColor(201, 224, 226);
pub(super) const FONT: &str = "sans-serif";
pub(super) const MIB: f64 = (1 << 20) as f64;

/// The share of the chart's width that each phase gets, in percent. In real time the healing would
/// be a hair, in virtual time it takes none.
const PHASE_WIDTHS: [f64; 3] = [42.0, 34.0, 24.0];

/// Squares in a row of the heat map.
const MAP_COLUMNS: usize = 40;
/// Classes shown in the utilisation chart, those with the most bytes.
const MAX_CLASSES: usize = 16;

/// Memory over the run: RSS and allocated bytes, with the phases marked.
pub fn memory(report: &Report) -> Result<String, DrawError> {
    draw((1040, 400), |root| {
        let points = &report.timeline;
        let most = points.iter().map(|p| p.reading.rss_bytes.max(p.reading.allocated_bytes)).max();
        let top = most.unwrap_or(0) as f64 / MIB * 1.18;
        let places = places(points);
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(16)
            .set_label_area_size(LabelAreaPosition::Left, 74)
            .set_label_area_size(LabelAreaPosition::Bottom, 30)
            .build_cartesian_2d(0.0..100.0, 0.0..top.max(1.0))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&|mib| format!("{mib:.0} MiB"))
            .label_style((FONT, 13).into_font().color(&FAINT_INK))
            .draw()?;
        let series = |bytes: fn(&crate::churn::Point) -> u64| {
            points.iter().zip(&places).map(move |(p, x)| (*x, bytes(p) as f64 / MIB))
        };
        let rss = |p: &crate::churn::Point| p.reading.rss_bytes;
        let allocated = |p: &crate::churn::Point| p.reading.allocated_bytes;
        chart.draw_series(
            AreaSeries::new(series(rss), 0.0, RSS.mix(0.16)).border_style(RSS.stroke_width(3)),
        )?;
        chart.draw_series(
            AreaSeries::new(series(allocated), 0.0, ALLOCATED_FILL)
                .border_style(ALLOCATED.stroke_width(3)),
        )?;
        // The phases: a line at each end, the name and the span of virtual time above.
        let mut x0 = 0.0;
        let mut begun_seconds = 0.0;
        for (phase, width) in Phase::ALL.into_iter().zip(PHASE_WIDTHS) {
            let x1 = x0 + width;
            let last = points.iter().rfind(|point| point.phase == phase);
            let ended_seconds = last.map_or(begun_seconds, |point| point.virtual_seconds);
            if phase != Phase::Healed {
                chart.draw_series(DashedLineSeries::new(
                    [(x1, 0.0), (x1, top)],
                    4,
                    4,
                    FAINT_INK.stroke_width(1),
                ))?;
            }
            let named = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
            let small = (FONT, 12).into_font().color(&FAINT_INK);
            let centre = Pos::new(HPos::Center, VPos::Top);
            let middle = f64::midpoint(x0, x1);
            let took = match phase {
                Phase::Healed => "the clock stands still".to_owned(),
                _ => format!("{} of virtual time", span(ended_seconds - begun_seconds)),
            };
            chart.draw_series([
                Text::new(phase.to_string(), (middle, top * 0.985), named.pos(centre)),
                Text::new(took, (middle, top * 0.925), small.pos(centre)),
            ])?;
            (x0, begun_seconds) = (x1, ended_seconds);
        }
        Ok(())
    })
}

/// Where each point stands, from 0 to 100: evenly in its phase's part of the chart, the last point
/// of a phase at its end.
fn places(points: &[crate::churn::Point]) -> Vec<f64> {
    let mut places = Vec::with_capacity(points.len());
    let mut left = 0.0;
    for (phase, width) in Phase::ALL.into_iter().zip(PHASE_WIDTHS) {
        let count = points.iter().filter(|point| point.phase == phase).count();
        // The first phase has a first point of its own, later ones go on from the one before.
        let (first, parts) = if left > 0.0 { (1, count) } else { (0, count.saturating_sub(1)) };
        places.extend((0..count).map(|i| left + width * (i + first) as f64 / parts.max(1) as f64));
        left += width;
    }
    places
}

/// Utilisation per size class, before and after the healing.
pub fn classes(report: &Report) -> Result<String, DrawError> {
    let [_, before, after] = report.phases.each_ref().map(|phase| &phase.classes);
    let rows = largest_classes(before, after);
    let height = 64 + 30 * rows.len() as u32;
    draw((1040, height), |root| {
        let faint = (FONT, 13).into_font().color(&FAINT_INK);
        let dark = (FONT, 13).into_font().color(&INK);
        let right = Pos::new(HPos::Right, VPos::Center);
        let left = Pos::new(HPos::Left, VPos::Center);
        let (x0, width) = (110, 560.0);
        let x_of = |share: f64| x0 + (share.clamp(0.0, 1.0) * width) as i32;
        for quarter in 0..=4 {
            let x = x_of(f64::from(quarter) / 4.0);
            root.draw(&PathElement::new([(x, 34), (x, height as i32 - 12)], GRID))?;
            let label = format!("{} %", quarter * 25);
            let centre = Pos::new(HPos::Center, VPos::Center);
            root.draw(&Text::new(label, (x, 20), faint.clone().pos(centre)))?;
        }
        for (row, region_bytes) in rows.iter().enumerate() {
            let y = 42 + 30 * row as i32;
            let class_of = |classes: &[ClassUse]| {
                let class = classes.iter().find(|class| class.region_bytes == *region_bytes);
                class.map_or((0.0, 0), |class| (class.utilisation, class.slabs_bytes))
            };
            let (used_before, bytes_before) = class_of(before);
            let (used_after, bytes_after) = class_of(after);
            let label = format!("{region_bytes} B");
            root.draw(&Text::new(label, (x0 - 10, y + 10), dark.clone().pos(right)))?;
            let bar = |y: i32, share: f64, colour: RGBColor| {
                Rectangle::new([(x0, y), (x_of(share).max(x0 + 1), y + 9)], colour.filled())
            };
            root.draw(&bar(y, used_before, RSS))?;
            root.draw(&bar(y + 11, used_after, ALLOCATED))?;
            let slabs =
                format!("{} in slabs before, {} after", size(bytes_before), size(bytes_after));
            root.draw(&Text::new(slabs, (x_of(1.0) + 18, y + 10), faint.clone().pos(left)))?;
        }
        Ok(())
    })
}

/// The region sizes whose slabs take the most bytes, before or after, in order of size.
fn largest_classes(before: &[ClassUse], after: &[ClassUse]) -> Vec<u64> {
    let mut sizes: Vec<(u64, u64)> =
        before.iter().chain(after).map(|class| (class.slabs_bytes, class.region_bytes)).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut rows = Vec::new();
    for (_, region_bytes) in sizes {
        if rows.len() < MAX_CLASSES && !rows.contains(&region_bytes) {
            rows.push(region_bytes);
        }
    }
    rows.sort_unstable();
    rows
}

/// One square per group of slabs in address order, darker the fuller. Room is left for `rows` rows,
/// so that two maps side by side compare.
pub fn heat_map(map: &SlabMap, rows: usize) -> Result<String, DrawError> {
    const SQUARE: i32 = 12;
    let size = ((MAP_COLUMNS as i32 * SQUARE) as u32, (rows.max(1) as i32 * SQUARE) as u32);
    draw(size, |root| {
        for (index, occupancy) in map.occupancy.iter().enumerate() {
            let x = (index % MAP_COLUMNS) as i32 * SQUARE;
            let y = (index / MAP_COLUMNS) as i32 * SQUARE;
            let corner = (x + SQUARE - 1, y + SQUARE - 1);
            root.draw(&Rectangle::new([(x, y), corner], heat(*occupancy).filled()))?;
        }
        Ok(())
    })
}

/// Rows that `map` takes.
pub fn heat_map_rows(map: &SlabMap) -> usize {
    map.occupancy.len().div_ceil(MAP_COLUMNS)
}

/// From a pale sand (empty) to a deep teal (full).
pub fn heat(occupancy: f32) -> RGBColor {
    const STOPS: [(f32, f32, f32); 3] =
        [(251.0, 229.0, 205.0), (122.0, 176.0, 166.0), (16.0, 75.0, 88.0)];
    let place = occupancy.clamp(0.0, 1.0) * 2.0;
    let (low, part) = if place < 1.0 { (0, place) } else { (1, place - 1.0) };
    let (a, b) = (STOPS[low], STOPS[low + 1]);
    let between = |a: f32, b: f32| (a + (b - a) * part).round() as u8;
    RGBColor(between(a.0, b.0), between(a.1, b.1), between(a.2, b.2))
}

pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws on a fresh canvas and returns the SVG, scaling with the page.
pub(super) fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&Canvas<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&root)?;
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_runs_from_pale_to_dark() {
        assert_eq!(heat(0.0), RGBColor(251, 229, 205));
        assert_eq!(heat(0.5), RGBColor(122, 176, 166));
        assert_eq!(heat(1.0), RGBColor(16, 75, 88));
        assert_eq!(heat(7.0), heat(1.0));
    }

    #[test]
    fn the_largest_classes_of_either_side_are_shown() {
        let class = |region_bytes, slabs_bytes| ClassUse {
            region_bytes,
            slabs: 1,
            slabs_bytes,
            utilisation: 1.0,
        };
        let before: Vec<ClassUse> = (1..=20).map(|n| class(n * 16, n * 1000)).collect();
        let rows = largest_classes(&before, &[class(64, 999_999), class(320, 1)]);
        assert_eq!(rows.len(), MAX_CLASSES);
        assert!(rows.contains(&64) && rows.contains(&320) && !rows.contains(&48));
        assert!(rows.is_sorted());
    }

    #[test]
    fn a_map_has_a_square_per_group() {
        let map = SlabMap { slabs: 90, slabs_per_group: 2, occupancy: vec![0.5; 45] };
        assert_eq!(heat_map_rows(&map), 2);
        let svg = heat_map(&map, 2).expect("drawn");
        assert_eq!(svg.matches("<rect").count(), 45);
    }
}
