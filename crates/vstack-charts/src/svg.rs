//! The outer `<svg>` element: what `plotters` cannot write, a name for screen readers and a stretchable size.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// How the picture fills a box whose shape is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Width and height stretch apart: right for a line without text.
    Stretch,
    /// Keeps its shape: text must not be squeezed.
    Keep,
}

/// Draws into a canvas `detail` times finer than the picture, since `plotters` rounds to whole units.
///
/// A failed drawing gives the empty frame: writing to a string has no way to fail, and a missing curve must not
/// take the node card with it.
pub(crate) fn picture(
    title: &str,
    size_px: (u32, u32),
    detail: u32,
    fit: Fit,
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> String {
    let canvas = (
        size_px.0.max(1).saturating_mul(detail),
        size_px.1.max(1).saturating_mul(detail),
    );
    let mut drawn = String::new();
    let outcome = {
        let area = SVGBackend::with_string(&mut drawn, canvas).into_drawing_area();
        draw(&area).and_then(|()| area.present())
    };
    let body = if outcome.is_ok() { body_of(&drawn) } else { "" };
    let keep = if fit == Fit::Stretch {
        " preserveAspectRatio=\"none\""
    } else {
        ""
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\"{keep}>\n<title>{}</title>\n{body}</svg>\n",
        size_px.0.max(1),
        size_px.1.max(1),
        canvas.0,
        canvas.1,
        escape(title),
    )
}

/// What stands between `plotters`' own `<svg …>` and `</svg>`.
fn body_of(drawn: &str) -> &str {
    let after_open = drawn.split_once('>').map_or("", |(_, rest)| rest);
    after_open
        .rsplit_once("</svg>")
        .map_or("", |(body, _)| body)
        .trim_start()
}

/// Text as it may stand inside an element. Characters that XML 1.0 forbids are dropped.
pub(crate) fn escape(text: &str) -> String {
    let allowed = |c: &char| !c.is_control() || matches!(c, '\t' | '\n');
    text.chars()
        .filter(allowed)
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                other => out.push(other),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_open_an_element() {
        let svg = picture("</title><script>&\u{7}", (10, 10), 1, Fit::Keep, |_| Ok(()));
        assert!(
            svg.contains("<title>&lt;/title&gt;&lt;script&gt;&amp;</title>"),
            "{svg}"
        );
    }

    #[test]
    fn a_picture_without_size_still_has_one_pixel() {
        let svg = picture("t", (0, 0), 4, Fit::Stretch, |_| Ok(()));
        assert!(
            svg.contains("width=\"1\" height=\"1\" viewBox=\"0 0 4 4\" preserveAspectRatio=\"none\""),
            "{svg}"
        );
    }
}
