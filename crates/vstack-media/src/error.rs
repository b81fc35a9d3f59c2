//! Why a file does not become a video, in stable codes and plain words.

use std::io;

use crate::split::SplitError;

/// Why ingest refuses or fails. [`MediaError::code`] is stable; the text says what was found.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("The file is empty.")]
    EmptyFile,
    #[error("This is {detected}, not a video that can be stored.")]
    UnsupportedFormat { detected: String },
    #[error("The file is not complete: {detail}.")]
    IncompleteUpload { detail: String },
    #[error("There is no picture in it: {detected}.")]
    NoVideo { detected: String },
    #[error("The file is encrypted ({scheme}); protected content cannot be stored.")]
    ProtectedContent { scheme: String },
    #[error("{stream} cannot be decoded: {codec}.")]
    UnsupportedCodec { stream: &'static str, codec: String },
    #[error("The file exceeds a limit: {what} {actual}, at most {limit}.")]
    OverLimit {
        what: &'static str,
        actual: String,
        limit: String,
    },
    #[error("{what} took longer than {limit_sec} s and was stopped.")]
    TimedOut { what: &'static str, limit_sec: u64 },
    #[error("{program} was not found; install it with: sudo apt-get install -y ffmpeg")]
    FfmpegMissing { program: String },
    /// It ended by itself with an error, or its output did not hold what the input promised.
    #[error("FFmpeg could not convert the file: {reason}")]
    Ffmpeg {
        reason: String,
        stderr_tail: Vec<String>,
    },
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error("{doing}: {cause}")]
    Io { doing: &'static str, cause: io::Error },
}

impl MediaError {
    /// The stable code of the failure, from the closed list of the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyFile => "empty_file",
            Self::UnsupportedFormat { .. } => "unsupported_format",
            Self::IncompleteUpload { .. } => "incomplete_upload",
            Self::NoVideo { .. } => "no_video",
            Self::ProtectedContent { .. } => "protected_content",
            Self::UnsupportedCodec { .. } => "unsupported_codec",
            Self::OverLimit { .. } | Self::Split(SplitError::GroupTooLarge { .. }) => "over_limit",
            Self::TimedOut { .. } => "timed_out",
            Self::FfmpegMissing { .. } => "ffmpeg_missing",
            Self::Ffmpeg { .. } | Self::Split(_) => "ffmpeg_failed",
            Self::Io { .. } => "internal",
        }
    }

    /// The last lines that FFmpeg wrote, where it failed.
    #[must_use]
    pub fn stderr_tail(&self) -> &[String] {
        match self {
            Self::Ffmpeg { stderr_tail, .. } => stderr_tail,
            _ => &[],
        }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { doing, cause }
    }
}
