//! Pictures of the screen, read from PNG files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use png::{ColorType, Decoder, Transformations};
use vstack_media::barcode::{Area, Picture};

use crate::failure::Failure;

/// A decoded PNG of 8 bits a channel.
pub(crate) struct Image {
    width: u32,
    height: u32,
    channels: u32,
    pixels: Vec<u8>,
}

impl Image {
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let bad = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", file.display()));
        let opened = File::open(file).map_err(|error| bad(&error))?;
        let mut decoder = Decoder::new(BufReader::new(opened));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|error| bad(&error))?;
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| bad(&"the picture is too large"))?;
        let mut pixels = vec![0; size];
        let facts = reader.next_frame(&mut pixels).map_err(|error| bad(&error))?;
        let channels = match facts.color_type {
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
            ColorType::Grayscale => 1,
            ColorType::GrayscaleAlpha | ColorType::Indexed => {
                return Err(bad(&"this kind of PNG is not read here"));
            }
        };
        Ok(Self {
            width: facts.width,
            height: facts.height,
            channels,
            pixels,
        })
    }

    pub(crate) fn picture(&self) -> Picture<'_> {
        Picture {
            width: self.width,
            height: self.height,
            channels: self.channels,
            pixels: &self.pixels,
        }
    }
}

/// An area as an option gives it: four numbers, joined by commas.
pub(crate) fn area_of(text: &str) -> Result<Area, String> {
    let sides: Result<Vec<f64>, _> = text.split(',').map(str::parse).collect();
    match sides.as_deref() {
        Ok(&[x, y, width, height]) => Ok(Area { x, y, width, height }),
        _ => Err("four numbers, joined by commas".to_owned()),
    }
}
