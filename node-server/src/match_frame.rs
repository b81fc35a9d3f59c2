//! `vstack match-frame`: whether a picture of the screen shows what FFmpeg decodes from a file at that time.
//!
//! For files without a bar code. A black box, another picture and another moment are not like any frame of the stretch;
//! where the file itself shows one shade nothing can be said, and the command fails.

use serde::Serialize;
use vstack_api::ErrorCode;
use vstack_media::barcode::Area;
use vstack_media::ffmpeg::Tools;
use vstack_media::likeness::{SAME_FROM, Sketch, sketches};

use crate::args::MatchOptions;
use crate::failure::Failure;
use crate::output::Output;
use crate::picture::Image;

#[derive(Debug, Serialize)]
struct Match {
    /// From -1 to 1; `null` if the picture or all frames are of one shade.
    likeness: Option<f64>,
    same_from: f64,
    frames: usize,
}

pub(crate) async fn run(options: &MatchOptions, output: &Output) -> Result<(), Failure> {
    let image = Image::read(&options.picture)?;
    let picture = image.picture();
    let area = options.area.unwrap_or_else(|| Area::whole(&picture));
    let shown = Sketch::of(&picture, area)
        .ok_or_else(|| Failure::Usage("the area does not lie in the picture".to_owned()))?;
    let [from_ms, to_ms] = [options.from_ms, options.to_ms];
    let frames = sketches(&Tools::default(), &options.file, from_ms, to_ms).await?;
    let likenesses = frames.iter().filter_map(|frame| shown.likeness(frame));
    let found = Match {
        likeness: likenesses.reduce(f64::max),
        same_from: SAME_FROM,
        frames: frames.len(),
    };
    match found.likeness {
        Some(likeness) if likeness >= SAME_FROM => {
            output.say(&found, || format!("the same picture: likeness {likeness:.3}"));
            Ok(())
        }
        likeness => {
            let likeness =
                likeness.map_or_else(|| "none, one shade".to_owned(), |value| format!("{value:.3}"));
            let detail = format!(
                "{}: not what {} shows from {from_ms} to {to_ms} ms ({} frames, likeness {likeness}, needs {SAME_FROM})",
                options.picture.display(),
                options.file.display(),
                found.frames,
            );
            Err(Failure::problem(ErrorCode::NotFound, detail))
        }
    }
}
