//! Failures as sentences with a next step. The only place where codes become words for the user.

use vstack_api::{ApiError, ErrorCode};
use vstack_client::ClientError;

use crate::dto::UiError;
use crate::player::PlayerError;

impl UiError {
    /// A failure that no role reported.
    pub(crate) fn new(code: &str, message: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            next_step: next_step.into(),
        }
    }

    fn of_code(code: ErrorCode, message: String) -> Self {
        Self::new(code.as_str(), sentence(&message), next_step(code))
    }
}

impl From<ApiError> for UiError {
    fn from(error: ApiError) -> Self {
        let problem = error.into_problem();
        Self::of_code(problem.code, problem.to_string())
    }
}

impl From<ClientError> for UiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Catalogue(error) => error.into(),
            other => Self::of_code(other.code(), other.to_string()),
        }
    }
}

impl From<PlayerError> for UiError {
    fn from(error: PlayerError) -> Self {
        let (code, next) = match &error {
            PlayerError::Feed { .. } => (
                "chunk_unavailable",
                "Check that the storage nodes run, then press play: it goes on where it was.",
            ),
            PlayerError::MissingDecoder { .. } => (
                "missing_decoder",
                "Install it: sudo apt install gstreamer1.0-libav gstreamer1.0-plugins-good gstreamer1.0-plugins-bad",
            ),
            PlayerError::MissingElement { .. } => (
                "missing_element",
                "Install GStreamer's plug-ins: sudo apt install gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
                 gstreamer1.0-gtk3",
            ),
            PlayerError::Broken { .. } => (
                "broken_video",
                "Press play to try again. If it stays, the file may be damaged: upload it once more.",
            ),
            PlayerError::Library(_) | PlayerError::State | PlayerError::Seek { .. } => {
                ("playback", "Open the video again. If it stays, restart V-Stack.")
            }
        };
        Self::new(code, sentence(&error.to_string()), next)
    }
}

/// With a capital in front and a full stop behind.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters
        .next()
        .map(|first| first.to_uppercase().collect())
        .unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn next_step(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unreachable | ErrorCode::TimedOut | ErrorCode::Unavailable => {
            "Check that the cluster runs and that this computer reaches it. V-Stack keeps trying."
        }
        ErrorCode::VideoNotFound
        | ErrorCode::NotFound
        | ErrorCode::ChunkNotFound
        | ErrorCode::JobNotFound => "Look into the library again; it may have been deleted.",
        ErrorCode::NotEnoughNodes | ErrorCode::NotEnoughReplicas => {
            "Start more storage nodes, then try again."
        }
        ErrorCode::NodeFull | ErrorCode::DiskError => {
            "Make room on the storage nodes, or delete videos that nobody needs any more."
        }
        ErrorCode::FfmpegMissing => "Install FFmpeg where the uploader runs: sudo apt install ffmpeg",
        ErrorCode::UnsupportedFormat | ErrorCode::NoVideo | ErrorCode::EmptyFile => {
            "Choose a video file, such as MP4, MKV, WebM, MOV or AVI."
        }
        ErrorCode::UnsupportedCodec | ErrorCode::FfmpegFailed => {
            "Convert the file with another program, to H.264 for example, and upload it again."
        }
        ErrorCode::IncompleteUpload => "The file seems to be cut off. Get a whole copy and upload it again.",
        ErrorCode::ProtectedContent => {
            "Protected files cannot be played here. Choose one without copy protection."
        }
        ErrorCode::OverLimit | ErrorCode::TooLarge => "Choose a smaller or shorter file.",
        ErrorCode::InvalidField => "Change what you typed and try again.",
        ErrorCode::ManifestInconsistent | ErrorCode::ChunkCorrupt | ErrorCode::MetadataCorrupt => {
            "The stored video is damaged. Delete it and upload it again."
        }
        ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::BadSignature | ErrorCode::UrlExpired => {
            "Ask whoever runs the cluster for access."
        }
        _ => "Try again. If it stays, the logs of the cluster say more.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_api::Problem;

    #[test]
    fn every_code_has_a_sentence_and_a_next_step() {
        for &code in ErrorCode::ALL {
            let refused = ApiError::Refused(Box::new(Problem::new(code, "the reason")));
            let error = UiError::from(refused);
            assert_eq!(error.code, code.as_str());
            assert!(error.message.ends_with("the reason."), "{}", error.message);
            assert!(
                error.next_step.len() > 10 && error.message.starts_with(char::is_uppercase),
                "{error:?}"
            );
        }
    }
}
