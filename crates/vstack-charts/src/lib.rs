//! Samples in, SVG text out, drawn with `plotters`.
//!
//! Two pictures: [`sparkline`] for the node cards of the player (no text in it, so it needs no font), and
//! [`line_chart`] with axes for reports. Both are pure: the same samples and style give the same bytes, at most
//! [`MAX_POINTS`] points are drawn for a series, and a sample that is not a finite number is a gap in the line.
//! Every picture says what it is to a screen reader (`role="img"` and a `<title>`).
//! Left out: reading samples from anywhere, animation, and interaction, which belong to the page.

mod color;
mod line;
mod samples;
mod spark;
mod svg;

pub use color::{NODE_COLORS, Rgb};
pub use line::{ChartTheme, LineChart, Series, line_chart};
pub use samples::MAX_POINTS;
pub use spark::{SparkStyle, sparkline};
