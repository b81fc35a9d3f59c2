//! The sparkline of a node card: one line, optionally over a filled area, without axes or text.

use crate::color::{NODE_COLORS, Rgb};
use crate::samples::{self, Point};
use crate::svg::{self, Area, DrawError, Fit};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{Cartesian2d, ChartBuilder, ChartContext, Circle, Polygon};
use plotters::prelude::{Color, PathElement, SVGBackend, ShapeStyle};

/// Canvas units for one CSS pixel: `plotters` rounds to whole units, at 1 a slow curve would climb in steps.
const DETAIL: u32 = 8;

/// How a sparkline looks. Start from [`SparkStyle::for_node`] or [`SparkStyle::new`] and change fields.
#[derive(Debug, Clone, PartialEq)]
pub struct SparkStyle {
    /// What a screen reader says: name the node, the quantity and its unit.
    pub title: String,
    pub width_px: u32,
    pub height_px: u32,
    pub stroke: Rgb,
    pub stroke_width_px: u32,
    /// Opacity of the area under the line, 0 to 1; 0 draws none.
    pub fill_opacity: f64,
    /// A thin line along the bottom where samples are missing (the node was down). `None` leaves the gap empty.
    pub gap: Option<Rgb>,
    /// Fixed ends of the vertical axis; where one is `None` the samples decide.
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl SparkStyle {
    /// 300 x 38 pixels, the chart of a node card, over a faint area, from zero up.
    #[must_use]
    pub fn new(title: impl Into<String>, stroke: Rgb) -> Self {
        Self {
            title: title.into(),
            width_px: 300,
            height_px: 38,
            stroke,
            stroke_width_px: 2,
            fill_opacity: 0.16,
            gap: Some(Rgb::new(0xff, 0x6b, 0x6b)),
            min: Some(0.0),
            max: None,
        }
    }

    /// The style of the node with this colour index; an index past the palette starts it again.
    #[must_use]
    pub fn for_node(title: impl Into<String>, color_index: usize) -> Self {
        Self::new(title, NODE_COLORS[color_index % NODE_COLORS.len()])
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws `samples`, oldest first, at even distances over the whole width. A sample that is not finite is a gap.
#[must_use]
pub fn sparkline(samples: &[f64], style: &SparkStyle) -> String {
    let points = samples::thin(&numbered(samples));
    let last_x = as_x(samples.len().saturating_sub(1));
    let size_px = (style.width_px, style.height_px);
    svg::picture(&style.title, size_px, DETAIL, Fit::Stretch, |area| {
        draw(area, &points, last_x, style)
    })
}

fn numbered(samples: &[f64]) -> Vec<Point> {
    samples
        .iter()
        .enumerate()
        .map(|(at, value)| (as_x(at), *value))
        .collect()
}

/// Sample numbers stay far below 2^32; past that the curve would end early, which is better than a wrong one.
fn as_x(at: usize) -> f64 {
    f64::from(u32::try_from(at).unwrap_or(u32::MAX))
}

fn draw(area: &Area<'_>, points: &[Point], last_x: f64, style: &SparkStyle) -> Result<(), DrawError> {
    let (low, high) = vertical(points, style);
    let margin = style.stroke_width_px.saturating_mul(DETAIL);
    let mut chart = ChartBuilder::on(area)
        .margin_top(margin)
        .margin_bottom(margin)
        .build_cartesian_2d(0.0..last_x.max(1.0), low..high)?;
    if let Some(color) = style.gap {
        draw_gaps(&mut chart, points, last_x, low, &color)?;
    }
    // A fixed end of the axis cuts the curve off instead of letting it leave the picture.
    let inside: Vec<Point> = points.iter().map(|(x, y)| (*x, y.clamp(low, high))).collect();
    for run in samples::runs(&inside) {
        draw_run(&mut chart, run, low, style)?;
    }
    Ok(())
}

fn vertical(points: &[Point], style: &SparkStyle) -> (f64, f64) {
    let fixed = style.min.into_iter().chain(style.max);
    let (low, high) = samples::range(points.iter().map(|p| p.1).chain(fixed)).unwrap_or((0.0, 1.0));
    let low = style.min.filter(|min| min.is_finite()).unwrap_or(low);
    let high = style.max.filter(|max| max.is_finite()).unwrap_or(high);
    // An end that the caller fixed on the wrong side of the other one: a flat line, not a failure.
    if high > low {
        (low, high)
    } else {
        (low, low + 1.0 + low.abs() * 0.1)
    }
}

fn draw_run(chart: &mut Chart<'_, '_>, run: &[Point], low: f64, style: &SparkStyle) -> Result<(), DrawError> {
    let color = style.stroke.plot();
    let line = ShapeStyle::from(color).stroke_width(style.stroke_width_px.saturating_mul(DETAIL));
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    if run.len() == 1 {
        // A line of one point is invisible; a dot says that there was an answer.
        let radius = style.stroke_width_px.saturating_mul(DETAIL);
        chart.draw_series([Circle::new(*first, radius, ShapeStyle::from(color).filled())])?;
        return Ok(());
    }
    if style.fill_opacity > 0.0 {
        let floor = [(last.0, low), (first.0, low)];
        let outline: Vec<Point> = run.iter().copied().chain(floor).collect();
        chart.draw_series([Polygon::new(
            outline,
            color.mix(style.fill_opacity.min(1.0)).filled(),
        )])?;
    }
    chart.draw_series([PathElement::new(run.to_vec(), line)])?;
    Ok(())
}

fn draw_gaps(
    chart: &mut Chart<'_, '_>,
    points: &[Point],
    last_x: f64,
    low: f64,
    color: &Rgb,
) -> Result<(), DrawError> {
    let line = ShapeStyle::from(color.plot().mix(0.7)).stroke_width(DETAIL);
    let bars = samples::gaps(points, 0.0, last_x);
    chart.draw_series(
        bars.into_iter()
            .map(|(from, to)| PathElement::new(vec![(from, low), (to, low)], line)),
    )?;
    Ok(())
}
