//! The line chart of reports: axes, grid, labels and a legend.

use crate::color::Rgb;
use crate::samples::{self, Point};
use crate::svg::{self, Area, DrawError, Fit};
use plotters::chart::SeriesLabelPosition;
use plotters::prelude::{ChartBuilder, Color, IntoFont, LineSeries, PathElement, ShapeStyle, TextStyle};

/// Colours around the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChartTheme {
    pub background: Rgb,
    pub ink: Rgb,
    pub dim: Rgb,
    pub grid: Rgb,
}

impl ChartTheme {
    pub const DARK: Self = Self {
        background: Rgb::new(0x15, 0x1a, 0x22),
        ink: Rgb::new(0xe8, 0xed, 0xf4),
        dim: Rgb::new(0x93, 0xa1, 0xb3),
        grid: Rgb::new(0x2a, 0x33, 0x40),
    };
    pub const LIGHT: Self = Self {
        background: Rgb::new(0xff, 0xff, 0xff),
        ink: Rgb::new(0x16, 0x1c, 0x26),
        dim: Rgb::new(0x4c, 0x58, 0x68),
        grid: Rgb::new(0xdb, 0xe1, 0xe9),
    };
}

/// One line: `points` ordered by x; a point with a number that is not finite is a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub stroke: Rgb,
    pub points: Vec<(f64, f64)>,
}

/// A whole chart. Axis labels carry the unit.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub width_px: u32,
    pub height_px: u32,
    pub theme: ChartTheme,
    pub series: Vec<Series>,
}

/// The page's font first, then what a system has.
const FONT: &str = "Inter Variable, Inter, Noto Sans, sans-serif";

/// Share of the drawn height that the legend gets; two rows of 12 px text in a 300 px chart.
const LEGEND_SHARE: f64 = 0.15;

/// Draws the chart; without any finite point the axes run from 0 to 1.
#[must_use]
pub fn line_chart(chart: &LineChart) -> String {
    let size_px = (chart.width_px, chart.height_px);
    svg::picture(&chart.title, size_px, 1, Fit::Keep, |area| draw(area, chart))
}

fn draw(area: &Area<'_>, chart: &LineChart) -> Result<(), DrawError> {
    let theme = chart.theme;
    let series: Vec<(&Series, Vec<Point>)> = chart
        .series
        .iter()
        .map(|s| (s, samples::thin(&s.points)))
        .collect();
    let drawn = || {
        series
            .iter()
            .flat_map(|(_, points)| points)
            .filter(|p| p.0.is_finite() && p.1.is_finite())
    };
    let (x_low, x_high) = samples::range(drawn().map(|p| p.0)).unwrap_or((0.0, 1.0));
    let (y_low, y_high) = samples::range(drawn().map(|p| p.1)).unwrap_or((0.0, 1.0));
    // Room for the legend above the highest line.
    let y_high = if chart.series.len() > 1 {
        y_high + (y_high - y_low) * LEGEND_SHARE
    } else {
        y_high
    };
    area.fill(&theme.background.plot())?;
    let mut context = ChartBuilder::on(area)
        .margin(16)
        .caption(&chart.title, text(17, theme.ink))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(x_low..x_high, y_low..y_high)?;
    context
        .configure_mesh()
        .bold_line_style(theme.grid.plot())
        .light_line_style(theme.grid.plot().mix(0.0))
        .axis_style(theme.dim.plot())
        .label_style(text(12, theme.dim))
        .axis_desc_style(text(13, theme.ink))
        .x_desc(&chart.x_label)
        .y_desc(&chart.y_label)
        .x_labels(10)
        .y_labels(8)
        .draw()?;
    for (series, points) in &series {
        let style = ShapeStyle::from(series.stroke.plot()).stroke_width(2);
        for (number, run) in samples::runs(points).into_iter().enumerate() {
            let line = context.draw_series(LineSeries::new(run.iter().copied(), style))?;
            // Every unbroken run is a line of its own; the legend names the series once.
            if number == 0 {
                line.label(&series.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
        }
    }
    if chart.series.len() > 1 {
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(theme.background.plot().mix(0.85))
            .border_style(theme.grid.plot())
            .label_font(text(12, theme.ink))
            .draw()?;
    }
    Ok(())
}

fn text(size_px: i32, color: Rgb) -> TextStyle<'static> {
    (FONT, size_px).into_font().color(&color.plot())
}
