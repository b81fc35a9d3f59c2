//! How alike two pictures are: whether what a window shows is the frame that FFmpeg decodes there.
//!
//! Both are reduced to 64x36 cells of gray and compared by their normalised correlation (Lewis, *Fast Normalized
//! Cross-Correlation*, 1995), which does not see what scaling and colour conversion change: size, brightness, contrast.
//! It says nothing about pictures of one shade; those have no likeness.

use std::ffi::OsString;
use std::path::Path;

use crate::MediaError;
use crate::barcode::{Area, Picture, colours};
use crate::ffmpeg::{Limits, Tools, input_arguments, run};

/// Cells of a sketch, across and down.
pub const COLUMNS: u32 = 64;
pub const ROWS: u32 = 36;
const CELLS: usize = (COLUMNS * ROWS) as usize;
/// Standard deviation (of 255) under which a picture is of one shade: there, compression decides what is alike.
const LEAST_CONTRAST: f64 = 8.0;
/// From this likeness on two pictures are the same. Measured by the tests: the same frame through another scaler 0.998
/// on real videos and 0.977 on the generated clip, whose flat saturated colours depend on the colour matrix; other moments
/// of the generated clip, which change little, 0.91 at most, of real videos 0.53.
pub const SAME_FROM: f64 = 0.95;
/// Longest stretch of video that is compared.
pub const MAX_SPAN_MS: u64 = 5_000;

/// A picture reduced to its cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch(Vec<f64>);

impl Sketch {
    /// Of what `picture` (gray, RGB or RGBA) shows in `area`; `None` where the area is not inside it.
    #[must_use]
    pub fn of(picture: &Picture<'_>, area: Area) -> Option<Self> {
        let (width, height) = (area.width / f64::from(COLUMNS), area.height / f64::from(ROWS));
        let cells = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (column, row)));
        let cells = cells.map(|(column, row)| {
            let (x, y) = (
                area.x + f64::from(column) * width,
                area.y + f64::from(row) * height,
            );
            mean(picture, Area { x, y, width, height })
        });
        cells.collect::<Option<_>>().map(Self)
    }

    /// Of gray pixels of the size of a sketch.
    fn of_gray(pixels: &[u8]) -> Self {
        Self(pixels.iter().map(|value| f64::from(*value)).collect())
    }

    /// From -1 to 1, which is the same picture; `None` if one of the two is of one shade.
    #[must_use]
    pub fn likeness(&self, other: &Self) -> Option<f64> {
        let (one, two) = (self.deviations()?, other.deviations()?);
        let product: f64 = one.iter().zip(&two).map(|(a, b)| a * b).sum();
        Some(product / (norm(&one) * norm(&two)))
    }

    fn deviations(&self) -> Option<Vec<f64>> {
        let count = f64::from(COLUMNS * ROWS);
        let mean = self.0.iter().sum::<f64>() / count;
        let deviations: Vec<f64> = self.0.iter().map(|value| value - mean).collect();
        (norm(&deviations) >= LEAST_CONTRAST * count.sqrt()).then_some(deviations)
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Mean over the cell, a pixel apart.
fn mean(picture: &Picture<'_>, cell: Area) -> Option<f64> {
    let places = |start: f64, length: f64| {
        std::iter::successors(Some(start), |at| Some(at + 1.0)).take_while(move |at| *at < start + length)
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for y in places(cell.y, cell.height) {
        for x in places(cell.x, cell.width) {
            sum += luma(colours(picture, x, y)?);
            count += 1.0;
        }
    }
    (count > 0.0).then(|| sum / count)
}

/// What decoders call gray, with the weights of BT.709.
fn luma(colours: &[u8]) -> f64 {
    match *colours {
        [red, green, blue] => 0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue),
        _ => colours.first().copied().map_or(0.0, f64::from),
    }
}

/// Sketches of all frames of a file from `from_ms` to `to_ms`, at most [`MAX_SPAN_MS`] of them.
///
/// # Errors
/// FFmpeg is missing, cannot read the file, or takes too long.
pub async fn sketches(
    tools: &Tools,
    input: &Path,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<Sketch>, MediaError> {
    let span_ms = to_ms.saturating_sub(from_ms).min(MAX_SPAN_MS);
    let output = run(
        &tools.ffmpeg,
        &arguments(input, from_ms, span_ms),
        Limits::converting(MAX_SPAN_MS),
    )
    .await?;
    Ok(output.chunks_exact(CELLS).map(Sketch::of_gray).collect())
}

fn arguments(input: &Path, from_ms: u64, span_ms: u64) -> Vec<OsString> {
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let mut arguments: Vec<OsString> = vec!["-nostdin".into(), "-ss".into(), seconds(from_ms).into()];
    arguments.extend(input_arguments(input));
    let filter = format!("scale={COLUMNS}:{ROWS}:flags=area,format=gray");
    let rest = ["-t", &seconds(span_ms), "-map", "0:V:0", "-vf", &filter];
    arguments.extend(rest.into_iter().map(OsString::from));
    let format = "-fps_mode passthrough -f rawvideo pipe:1".split(' ');
    arguments.extend(format.map(OsString::from));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gray screen of 640x360 that shows `shade` in its right half, `offset` pixels down.
    fn screen(shade: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        (0..360)
            .flat_map(|y| (0..640).map(move |x| (x, y)))
            .map(|(x, y)| shade(x, y))
            .collect()
    }

    fn sketch(pixels: &[u8], area: Area) -> Option<Sketch> {
        let picture = Picture {
            width: 640,
            height: 360,
            channels: 1,
            pixels,
        };
        Sketch::of(&picture, area)
    }

    const WHOLE: Area = Area {
        x: 0.0,
        y: 0.0,
        width: 640.0,
        height: 360.0,
    };

    /// Slopes up and down, 126 pixels wide and 79 high.
    fn waves(x: u32, y: u32) -> u8 {
        let wave = |at: u32, length: u32| {
            let at = at % length;
            at.min(length - at) * 200 / length
        };
        u8::try_from(20 + wave(x, 252) + wave(y, 158)).expect("220 at most")
    }

    #[test]
    fn the_same_picture_smaller_and_darker_is_the_same() {
        let large = screen(waves);
        let small = screen(|x, y| {
            let inside = (100..420).contains(&x) && (90..270).contains(&y);
            if inside {
                waves((x - 100) * 2, (y - 90) * 2) / 2
            } else {
                0
            }
        });
        let area = Area {
            x: 100.0,
            y: 90.0,
            width: 320.0,
            height: 180.0,
        };
        let (large, small) = (sketch(&large, WHOLE).unwrap(), sketch(&small, area).unwrap());
        assert!(large.likeness(&small).unwrap() > 0.99);
    }

    #[test]
    fn another_picture_is_not() {
        let (one, other) = (screen(waves), screen(|x, y| waves(x + 60, y)));
        let (one, other) = (sketch(&one, WHOLE).unwrap(), sketch(&other, WHOLE).unwrap());
        assert!(one.likeness(&other).unwrap() < 0.9);
    }

    #[test]
    fn a_black_box_is_like_nothing() {
        let (picture, black) = (screen(waves), screen(|_, _| 0));
        let (picture, black) = (sketch(&picture, WHOLE).unwrap(), sketch(&black, WHOLE).unwrap());
        assert_eq!(picture.likeness(&black), None);
        assert_eq!(black.likeness(&black), None);
    }

    #[test]
    fn an_area_outside_the_picture_has_no_sketch() {
        let pixels = screen(waves);
        let aside = Area { x: 30.0, ..WHOLE };
        let unreal = Area {
            width: f64::NAN,
            ..WHOLE
        };
        assert!(sketch(&pixels, aside).is_none());
        assert!(sketch(&pixels, unreal).is_none());
    }
}
