//! `vstack make-clip`: the clip of demo and tests.

use serde::Serialize;
use vstack_api::ErrorCode;
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::Tools;

use crate::args::ClipOptions;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Clip {
    file: String,
    seconds: u32,
    size_bytes: u64,
}

/// The file appears under its name when it is complete.
pub(crate) async fn run(options: ClipOptions, output: &Output) -> Result<(), Failure> {
    let spec = if options.small {
        ClipSpec::small(options.seconds)
    } else {
        ClipSpec::hd(options.seconds)
    };
    let unfinished = options.file.with_extension("unfinished");
    generate(&Tools::default(), &spec, &unfinished).await?;
    let renamed = std::fs::rename(&unfinished, &options.file).and_then(|()| std::fs::metadata(&options.file));
    let file = options.file.display().to_string();
    let facts =
        renamed.map_err(|error| Failure::problem(ErrorCode::DiskError, format!("{file}: {error}")))?;
    let clip = Clip {
        file,
        seconds: options.seconds,
        size_bytes: facts.len(),
    };
    output.say(&clip, || {
        format!("{}: {} s, {} bytes", clip.file, clip.seconds, clip.size_bytes)
    });
    Ok(())
}
