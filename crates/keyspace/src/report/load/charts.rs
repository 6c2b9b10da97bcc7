//! The charts of the page: memory and ratio over real time, with the phases marked.

use super::super::charts::{
    ALLOCATED, ALLOCATED_FILL, DrawError, FAINT_INK, FONT, GRID, INK, MIB, RSS, draw,
};
use super::LoadReport;
use crate::load::Point;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// RSS and used_memory.
pub fn memory(report: &LoadReport) -> Result<String, DrawError> {
    let points = &report.timeline;
    let most = points.iter().map(|it| it.rss_bytes.max(it.used_memory_bytes)).max().unwrap_or(0);
    let top = (most as f64 / MIB * 1.15).max(1.0);
    over_time(report, top, &|mib| format!("{mib:.0} MiB"), |chart| {
        let series = |bytes: fn(&Point) -> u64| {
            points.iter().map(move |it| (it.wall_ms / 1e3, bytes(it) as f64 / MIB))
        };
        chart.draw_series(
            AreaSeries::new(series(|it| it.rss_bytes), 0.0, RSS.mix(0.16))
                .border_style(RSS.stroke_width(3)),
        )?;
        chart.draw_series(
            AreaSeries::new(series(|it| it.used_memory_bytes), 0.0, ALLOCATED_FILL)
                .border_style(ALLOCATED.stroke_width(3)),
        )?;
        Ok(())
    })
}

/// Their ratio, from the moment on when the server holds a tenth of what it will hold: before, it
/// says nothing.
pub fn ratio(report: &LoadReport) -> Result<String, DrawError> {
    let most = report.timeline.iter().map(|it| it.used_memory_bytes).max().unwrap_or(0);
    let points: Vec<&Point> =
        report.timeline.iter().skip_while(|it| it.used_memory_bytes < most / 10).collect();
    let top = points.iter().map(|it| it.ratio).fold(1.0, f64::max) * 1.15;
    over_time(report, top, &|ratio| format!("{ratio:.1}x"), |chart| {
        let series = points.iter().map(|it| (it.wall_ms / 1e3, it.ratio));
        chart.draw_series(LineSeries::new(series, INK.stroke_width(3)))?;
        Ok(())
    })
}

/// A chart over real time up to `top`, with a line at the end of each phase.
fn over_time(
    report: &LoadReport,
    top: f64,
    label: &dyn Fn(&f64) -> String,
    paint: impl FnOnce(&mut Chart<'_, '_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    draw((1040, 340), |root| {
        let end = report.timeline.last().map_or(1.0, |point| point.wall_ms / 1e3).max(0.1);
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(16)
            .set_label_area_size(LabelAreaPosition::Left, 74)
            .set_label_area_size(LabelAreaPosition::Bottom, 30)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(6)
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .y_label_formatter(label)
            .label_style((FONT, 13).into_font().color(&FAINT_INK))
            .draw()?;
        paint(&mut chart)?;
        let mut begun = 0.0;
        for phase in &report.phases {
            let ended = phase.point.wall_ms / 1e3;
            let line = [(ended, 0.0), (ended, top)];
            chart.draw_series(DashedLineSeries::new(line, 4, 4, FAINT_INK.stroke_width(1)))?;
            let named = (FONT, 15).into_font().style(FontStyle::Bold).color(&INK);
            let place = (begun + 0.004 * end, top * 0.985);
            chart.draw_series([Text::new(phase.name.to_string(), place, named)])?;
            begun = ended;
        }
        Ok(())
    })
}
