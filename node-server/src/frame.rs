//! `vstack read-frame`: which frame of a generated clip a picture of the screen shows.
//!
//! Without an area the strip of squares is looked for: a row in which a white, a black and a white stretch of equal
//! length follow each other, as the strip's sync squares do. A black box or another picture has no such row that also
//! passes the reader's sync and parity checks.

use serde::Serialize;
use vstack_api::ErrorCode;
use vstack_media::barcode::{Area, CELLS, Picture, read_frame_number};
use vstack_media::clip::FRAMES_PER_SECOND;

use crate::args::FrameOptions;
use crate::failure::Failure;
use crate::output::Output;
use crate::picture::Image;

/// Rows between two that are looked at; the strip of the smallest video that can be read is higher.
const ROW_STEP: u32 = 4;
/// Shortest side of a square that can be read.
const LEAST_CELL_PX: u32 = 6;
/// Pixels brighter than this are white: video white is 235, and pages may dim a little.
const WHITE_FROM: u8 = 150;

#[derive(Debug, Serialize)]
struct Frame {
    frame: u16,
    position_ms: u32,
    /// Where the video is, in pixels.
    area: [f64; 4],
}

pub(crate) fn run(options: &FrameOptions, output: &Output) -> Result<(), Failure> {
    let image = Image::read(&options.picture)?;
    let picture = image.picture();
    let found = match options.area {
        Some(area) => read_frame_number(&picture, area).map(|frame| (frame, area)),
        None => find(&picture),
    };
    let Some((frame, Area { x, y, width, height })) = found else {
        let detail = format!(
            "{}: the strip of a generated clip is not in this picture",
            options.picture.display()
        );
        return Err(Failure::problem(ErrorCode::NotFound, detail));
    };
    let position_ms = u32::from(frame) * 1000 / FRAMES_PER_SECOND;
    output.say(
        &Frame {
            frame,
            position_ms,
            area: [x, y, width, height],
        },
        || format!("frame {frame}"),
    );
    Ok(())
}

/// The frame number and where the video is. Assumes 16:9, which generated clips have.
fn find(picture: &Picture<'_>) -> Option<(u16, Area)> {
    let rows = (0..picture.height).step_by(ROW_STEP as usize);
    rows.flat_map(|row| candidates(picture, row))
        .find_map(|area| Some((read_frame_number(picture, area)?, area)))
}

/// Areas whose first sync squares (white, black, white, from the second square on) lie in this row.
fn candidates(picture: &Picture<'_>, row: u32) -> Vec<Area> {
    let runs = runs(picture, row);
    let triples = runs
        .windows(3)
        .filter(|three| matches!(three, [first, _, _] if first.white));
    triples.flat_map(|three| areas_of(picture, row, three)).collect()
}

/// A stretch of pixels of one shade.
#[derive(Debug, Clone, Copy)]
struct Run {
    white: bool,
    start: u32,
    len: u32,
}

fn runs(picture: &Picture<'_>, row: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for x in 0..picture.width {
        let white = is_white(picture, x, row);
        match runs.last_mut() {
            Some(run) if run.white == white => run.len += 1,
            _ => runs.push(Run {
                white,
                start: x,
                len: 1,
            }),
        }
    }
    runs
}

fn areas_of(picture: &Picture<'_>, row: u32, three: &[Run]) -> Vec<Area> {
    let total: u32 = three.iter().map(|run| run.len).sum();
    let cell = f64::from(total) / 3.0;
    let even = three
        .iter()
        .all(|run| (f64::from(run.len) - cell).abs() <= (cell * 0.2).max(1.5));
    let Some(first) = three.first().filter(|_| even && total >= 3 * LEAST_CELL_PX) else {
        return Vec::new();
    };
    let top = top_of(picture, first.start + first.len / 2, row);
    // The edges are known to a pixel or so; over 32 squares that is a width known to 20 or so.
    let widths = (-40..=40).map(|step| cell * f64::from(CELLS) * (1.0 + f64::from(step) * 0.001));
    let area = |width: f64| {
        let square = width / f64::from(CELLS);
        let x = f64::from(first.start) - square;
        Area {
            x,
            y: f64::from(top),
            width,
            height: width * 9.0 / 16.0,
        }
    };
    widths.map(area).collect()
}

/// The first row of the white square that holds this pixel.
fn top_of(picture: &Picture<'_>, x: u32, row: u32) -> u32 {
    (0..=row)
        .rev()
        .take_while(|y| is_white(picture, x, *y))
        .last()
        .unwrap_or(row)
}

fn is_white(picture: &Picture<'_>, x: u32, y: u32) -> bool {
    let channels = picture.channels as usize;
    let start = (y as usize * picture.width as usize + x as usize) * channels;
    let colours = picture
        .pixels
        .get(start..start + channels.min(3))
        .unwrap_or_default();
    !colours.is_empty() && colours.iter().all(|value| *value >= WHITE_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_media::barcode::white_cells;

    const SCREEN: (u32, u32) = (1280, 800);

    /// A gray screen with a video in it.
    fn screen(number: u16, video: Area) -> Vec<u8> {
        let square = video.width / f64::from(CELLS);
        let white = white_cells(number);
        let shade = |x: u32, strip: bool| {
            let right = f64::from(x) - video.x;
            if !(0.0..video.width).contains(&right) {
                return 24;
            }
            let cell = (0..CELLS).rev().find(|cell| right >= f64::from(*cell) * square);
            match (strip, cell.is_some_and(|cell| white.contains(&cell))) {
                (false, _) => 120,
                (true, true) => 235,
                (true, false) => 16,
            }
        };
        let line = |strip: bool| -> Vec<u8> { (0..SCREEN.0).map(|x| shade(x, strip)).collect() };
        let (strip, rest, none) = (line(true), line(false), vec![24; SCREEN.0 as usize]);
        let row = |y: u32| match f64::from(y) - video.y {
            down if (0.0..square).contains(&down) => &strip,
            down if (0.0..video.height).contains(&down) => &rest,
            _ => &none,
        };
        (0..SCREEN.1).flat_map(|y| row(y).iter().copied()).collect()
    }

    fn found(pixels: &[u8]) -> Option<u16> {
        let picture = Picture {
            width: SCREEN.0,
            height: SCREEN.1,
            channels: 1,
            pixels,
        };
        find(&picture).map(|(frame, _)| frame)
    }

    #[test]
    fn the_strip_is_found_wherever_the_video_is() {
        for (x, y, width) in [
            (0.0, 40.0, 960.0),
            (3.0, 61.5, 971.0),
            (100.0, 0.0, 640.0),
            (0.0, 40.0, 1280.0),
            (7.3, 99.0, 333.3),
        ] {
            let video = Area {
                x,
                y,
                width,
                height: width * 9.0 / 16.0,
            };
            for number in [0, 1, 755, 1798, 65_535] {
                assert_eq!(
                    found(&screen(number, video)),
                    Some(number),
                    "frame {number} at {video:?}"
                );
            }
        }
    }

    #[test]
    fn a_black_box_has_no_frame_number() {
        assert_eq!(found(&vec![0; (SCREEN.0 * SCREEN.1) as usize]), None);
        assert_eq!(found(&vec![255; (SCREEN.0 * SCREEN.1) as usize]), None);
    }
}
