//! The poster: one JPEG of a typical picture near the start.

use std::path::Path;

use bytes::Bytes;

use crate::MediaError;
use crate::ffmpeg::{Limits, Tools, poster_arguments, run};

/// Where the search for a typical picture starts: past most fades from black.
const POSTER_AT_MS: u64 = 3_000;

/// Makes the poster of an uploaded file.
///
/// # Errors
/// FFmpeg is missing, fails, or gives no picture.
pub async fn poster(
    tools: &Tools,
    input: &Path,
    video_index: usize,
    duration_ms: u64,
) -> Result<Bytes, MediaError> {
    // A short video has its middle there instead.
    let at_ms = POSTER_AT_MS.min(duration_ms / 2);
    let arguments = poster_arguments(input, video_index, at_ms);
    let jpeg = run(
        &tools.ffmpeg,
        &arguments,
        Limits::converting(duration_ms.min(60_000)),
    )
    .await?;
    if jpeg.starts_with(&[0xff, 0xd8]) {
        Ok(jpeg)
    } else {
        Err(MediaError::Ffmpeg {
            reason: "no picture could be decoded".to_owned(),
            stderr_tail: Vec::new(),
        })
    }
}
