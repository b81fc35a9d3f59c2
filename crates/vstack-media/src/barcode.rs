//! The frame number in the picture: how a test knows that what it sees is the video, and which moment of it.
//!
//! Generated clips carry a strip along the top edge: 32 cells, each 1/32 of the picture wide and 1/18 high (40x40 px at
//! 720p). From the left: `BWBWB` (sync), 16 bits of the frame number with the highest first, a bit that makes their
//! parity even, its complement, `BWBW` (sync), five black. White is 1. A black box, another picture or a torn strip has
//! no number.

/// Cells of the strip, over the whole width.
pub const CELLS: u32 = 32;
/// The strip's height is this part of the picture's.
pub const STRIP_ROWS: u32 = 18;
/// First cell of the frame number.
pub const FIRST_BIT: u32 = 5;
/// Bits of the frame number.
pub const BITS: u32 = 16;
/// The cell with the parity bit; the next one has its complement.
pub const PARITY: u32 = FIRST_BIT + BITS;
/// Cells that are white in every frame.
pub const WHITE_SYNC: [u32; 4] = [1, 3, 24, 26];

/// Cells that are black in every frame.
const BLACK_SYNC: [u32; 10] = [0, 2, 4, 23, 25, 27, 28, 29, 30, 31];
/// White and black cells must be this far apart (of 255). Video black and white are 16 and 235 at worst.
const LEAST_CONTRAST: i32 = 100;

/// Pixels in memory, row by row from the top.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    pub width: u32,
    pub height: u32,
    /// Bytes of a pixel: 1 gray, 3 RGB, 4 RGBA (or any order with three colours first).
    pub channels: u32,
    pub pixels: &'a [u8],
}

/// Where the video is in a picture, in pixels. Fractions are legal: pages scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    /// The whole of a picture.
    #[must_use]
    pub fn whole(picture: &Picture<'_>) -> Self {
        Self {
            x: 0.0,
            y: 0.0,
            width: f64::from(picture.width),
            height: f64::from(picture.height),
        }
    }

    /// The largest area of the given proportions in the middle of this one: where a letterboxed video is.
    #[must_use]
    pub fn fitted(self, video_width: u32, video_height: u32) -> Self {
        let scale =
            (self.width / f64::from(video_width.max(1))).min(self.height / f64::from(video_height.max(1)));
        let (width, height) = (f64::from(video_width) * scale, f64::from(video_height) * scale);
        Self {
            x: self.x + (self.width - width) / 2.0,
            y: self.y + (self.height - height) / 2.0,
            width,
            height,
        }
    }
}

/// The frame number (of 16 bits) that the strip at the top of `area` shows; `None` when it is not there.
#[must_use]
pub fn read_frame_number(picture: &Picture<'_>, area: Area) -> Option<u16> {
    let cells: Vec<i32> = (0..CELLS)
        .map(|cell| cell_brightness(picture, area, cell))
        .collect::<Option<_>>()?;
    let of = |indices: &[u32]| -> Vec<i32> {
        indices
            .iter()
            .filter_map(|cell| cells.get(*cell as usize).copied())
            .collect()
    };
    let darkest_white = of(&WHITE_SYNC).into_iter().min()?;
    let brightest_black = of(&BLACK_SYNC).into_iter().max()?;
    if darkest_white - brightest_black < LEAST_CONTRAST {
        return None;
    }
    let quarter = (darkest_white - brightest_black) / 4;
    let bit = |cell: u32| match *cells.get(cell as usize)? {
        bright if bright >= darkest_white - quarter => Some(1),
        dark if dark <= brightest_black + quarter => Some(0),
        _ => None,
    };
    let number = (FIRST_BIT..PARITY).try_fold(0u16, |number, cell| Some(number << 1 | bit(cell)?))?;
    let parity = u16::from(number.count_ones() % 2 == 1);
    (bit(PARITY)? == parity && bit(PARITY + 1)? == 1 - parity).then_some(number)
}

/// Mean brightness over the middle of a cell; `None` outside the picture or where the middle is not of one shade.
fn cell_brightness(picture: &Picture<'_>, area: Area, cell: u32) -> Option<i32> {
    /// Most that two pixels in the middle of a cell may differ: compression blurs, another picture does more.
    const LARGEST_SPREAD: i32 = 90;
    let cell_width = area.width / f64::from(CELLS);
    let cell_height = area.height / f64::from(STRIP_ROWS);
    let samples: Vec<i32> = [(0.35, 0.35), (0.65, 0.35), (0.5, 0.5), (0.35, 0.65), (0.65, 0.65)]
        .iter()
        .map(|(across, down)| {
            let x = area.x + (f64::from(cell) + across) * cell_width;
            brightness(picture, x, area.y + down * cell_height)
        })
        .collect::<Option<_>>()?;
    let spread = samples.iter().max()? - samples.iter().min()?;
    (spread <= LARGEST_SPREAD).then(|| samples.iter().sum::<i32>() / 5)
}

fn brightness(picture: &Picture<'_>, x: f64, y: f64) -> Option<i32> {
    let colours = colours(picture, x, y)?;
    let sum: i32 = colours.iter().map(|value| i32::from(*value)).sum();
    sum.checked_div(i32::try_from(colours.len()).ok()?)
}

/// One gray value or three colours; `None` outside the picture.
pub(crate) fn colours<'a>(picture: &Picture<'a>, x: f64, y: f64) -> Option<&'a [u8]> {
    let (x, y) = (pixel(x, picture.width)?, pixel(y, picture.height)?);
    let channels = picture.channels as usize;
    let start = (y * picture.width as usize + x) * channels;
    let pixel = picture.pixels.get(start..start + channels)?;
    Some(&pixel[..channels.min(3)])
}

fn pixel(position: f64, size: u32) -> Option<usize> {
    if !(0.0..f64::from(size)).contains(&position) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie in the picture"
    )]
    Some(position as usize)
}

/// Cells that are white for a frame number, as the strip's drawer and tests need them.
#[must_use]
pub fn white_cells(number: u16) -> Vec<u32> {
    let bits = (0..BITS)
        .filter(|bit| number >> (BITS - 1 - bit) & 1 == 1)
        .map(|bit| FIRST_BIT + bit);
    let parity = if number.count_ones() % 2 == 1 {
        PARITY
    } else {
        PARITY + 1
    };
    WHITE_SYNC.into_iter().chain(bits).chain([parity]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 180;

    fn drawn(number: u16) -> Vec<u8> {
        let white = white_cells(number);
        let pixel = |x: u32, y: u32| {
            if y >= HEIGHT / STRIP_ROWS {
                return u8::try_from((x + y) % 256).unwrap();
            }
            if white.contains(&(x * CELLS / WIDTH)) {
                235
            } else {
                16
            }
        };
        (0..HEIGHT)
            .flat_map(|y| (0..WIDTH).map(move |x| (x, y)))
            .map(|(x, y)| pixel(x, y))
            .collect()
    }

    fn picture(pixels: &[u8]) -> Picture<'_> {
        Picture {
            width: WIDTH,
            height: HEIGHT,
            channels: 1,
            pixels,
        }
    }

    fn read(pixels: &[u8]) -> Option<u16> {
        let picture = picture(pixels);
        read_frame_number(&picture, Area::whole(&picture))
    }

    proptest! {
        // A case draws a whole picture, which takes milliseconds in a debug build.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_number_is_read_back(number: u16) {
            prop_assert_eq!(read(&drawn(number)), Some(number));
        }

        #[test]
        fn noise_has_no_number(seed: u64) {
            let mut state = seed | 1;
            let mut next = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state.to_le_bytes()[0] };
            let noise: Vec<u8> = (0..WIDTH * HEIGHT).map(|_| next()).collect();
            prop_assert_eq!(read(&noise), None);
        }

        #[test]
        fn one_turned_bit_is_noticed(number: u16, cell in FIRST_BIT..PARITY + 2) {
            let mut pixels = drawn(number);
            for (index, pixel) in (0..).zip(&mut pixels) {
                let (x, y) = (index % WIDTH, index / WIDTH);
                if y < HEIGHT / STRIP_ROWS && x * CELLS / WIDTH == cell {
                    *pixel = 251 - *pixel;
                }
            }
            prop_assert_eq!(read(&pixels), None);
        }
    }

    #[test]
    fn a_black_a_white_and_a_gray_box_have_no_number() {
        for shade in [0, 16, 128, 255] {
            assert_eq!(
                read(&vec![shade; (WIDTH * HEIGHT) as usize]),
                None,
                "shade {shade}"
            );
        }
    }

    #[test]
    fn the_strip_of_a_wrong_area_has_no_number() {
        let pixels = drawn(12_345);
        let picture = picture(&pixels);
        let shifted = Area {
            x: 15.0,
            y: 0.0,
            width: 600.0,
            height: 360.0,
        };
        assert_eq!(read_frame_number(&picture, shifted), None);
        let outside = Area {
            x: 100.0,
            y: 0.0,
            width: 640.0,
            height: 360.0,
        };
        assert_eq!(read_frame_number(&picture, outside), None);
    }

    #[test]
    fn a_letterboxed_video_lies_in_the_middle() {
        let area = Area {
            x: 10.0,
            y: 20.0,
            width: 1000.0,
            height: 1000.0,
        };
        let fitted = area.fitted(1280, 720);
        assert_eq!(
            (fitted.x, fitted.y, fitted.width, fitted.height),
            (10.0, 238.75, 1000.0, 562.5)
        );
    }
}
