//! The one error body of all roles: `application/problem+json` (RFC 9457) with a code from a closed list.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::Committed;

macro_rules! error_codes {
    ($($variant:ident $text:literal $status:literal $retryable:literal $title:literal),+ $(,)?) => {
        /// Every code that a role answers with. The text is stable; scripts may match on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode { $(#[doc = $title] #[serde(rename = $text)] $variant),+ }

        impl ErrorCode {
            /// All codes, for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The HTTP status it comes with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// Whether the same request can succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable),+ }
            }

            /// What went wrong, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
        }
    };
}

error_codes! {
    // Input
    BadRequest "bad_request" 400 false "The request cannot be understood",
    BadChunkId "bad_chunk_id" 400 false "The chunk id is malformed",
    BadVideoId "bad_video_id" 400 false "The video id is malformed",
    LengthMismatch "length_mismatch" 400 false "The body is not as long as declared",
    LengthRequired "length_required" 411 false "The request needs a length",
    EmptyChunk "empty_chunk" 400 false "A chunk has at least one byte",
    TooLarge "too_large" 413 false "The body is larger than the limit",
    UnsupportedMediaType "unsupported_media_type" 415 false "The body has another content type than expected",
    RangeNotSatisfiable "range_not_satisfiable" 416 false "The range lies outside the chunk",
    SingleRangeOnly "single_range_only" 416 false "Only one range can be asked for",
    IdempotencyConflict "idempotency_conflict" 422 false "The same key was used for another request",
    UpgradeRequired "upgrade_required" 426 false "The caller is of a newer version than this role",
    MisdirectedHost "misdirected_host" 421 false "The Host header names another machine",
    InvalidField "invalid_field" 422 false "A field has a value that is not allowed",
    HashMismatch "hash_mismatch" 422 false "The bytes do not have the announced hash",
    // Access
    Unauthorized "unauthorized" 401 false "The caller is not known",
    Forbidden "forbidden" 403 false "The caller may not do this",
    BadSignature "bad_signature" 403 false "The signature does not fit",
    UrlExpired "url_expired" 403 false "The signed address has expired",
    // State
    NotFound "not_found" 404 false "There is no such thing here",
    ChunkNotFound "chunk_not_found" 404 false "This node does not hold the chunk",
    VideoNotFound "video_not_found" 404 false "There is no such video",
    JobNotFound "job_not_found" 404 false "There is no such job",
    MethodNotAllowed "method_not_allowed" 405 false "This address does not take that method",
    Conflict "conflict" 409 false "Other bytes are stored under this id",
    ChunkDeleted "chunk_deleted" 409 false "The object was deleted; its id is never written again",
    Committed "committed" 409 false "The chunk belongs to a video; delete the video instead",
    Fenced "fenced" 409 false "A newer ballot was opened",
    NotEnoughReplicas "not_enough_replicas" 409 true "Too few nodes hold the chunk",
    NotEnoughNodes "not_enough_nodes" 409 true "The cluster has too few nodes for this",
    ChunksMissing "chunks_missing" 409 false "Chunks are missing",
    DuplicateNode "duplicate_node" 409 false "Another node has this identity",
    NodeRolledBack "node_rolled_back" 409 false "The node started from an older copy of its data",
    NodeRemoved "node_removed" 409 false "The node was removed from the cluster",
    OnlyHolder "only_holder" 409 false "Chunks would be lost with this node",
    Locked "locked" 423 true "Another owner is working on this chunk",
    TraceDiffers "trace_differs" 422 false "The same facts lead to other actions",
    ManifestInconsistent "manifest_inconsistent" 422 false "The chunks do not make one video",
    // Ingest
    EmptyFile "empty_file" 422 false "The file is empty",
    UnsupportedFormat "unsupported_format" 422 false "The file is not a video that V-Stack reads",
    IncompleteUpload "incomplete_upload" 422 false "The file is cut off",
    NoVideo "no_video" 422 false "The file has no picture",
    ProtectedContent "protected_content" 422 false "The file is encrypted",
    UnsupportedCodec "unsupported_codec" 422 false "The video is coded in a way that cannot be decoded here",
    OverLimit "over_limit" 422 false "The file is over a limit",
    TimedOut "timed_out" 504 true "It took too long",
    FfmpegMissing "ffmpeg_missing" 500 false "FFmpeg is not installed",
    FfmpegFailed "ffmpeg_failed" 500 false "FFmpeg failed",
    Cancelled "cancelled" 409 false "It was cancelled",
    // Service
    ChunkCorrupt "chunk_corrupt" 500 true "The stored bytes are damaged on this node",
    MetadataCorrupt "metadata_corrupt" 500 false "The catalogue is damaged",
    Internal "internal" 500 true "Something went wrong inside",
    Unavailable "unavailable" 503 true "The service cannot answer now",
    DiskError "disk_error" 503 true "The disk reported an error",
    Unreachable "unreachable" 503 true "The server does not answer",
    NodeFull "node_full" 507 false "The node has no room",
    MetadataFull "metadata_full" 507 true "The disk of the catalogue is full",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:vstack:error:{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: ErrorCode,
    /// This occurrence, in a sentence, with the next step where there is one.
    pub detail: String,
    pub retryable: bool,
    #[serde(default)]
    pub request_id: String,
    /// With `committed` and `fenced`: what is decided about the chunk, so that a proposer can compare its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Box<Committed>>,
    /// With `locked`: how long the other owner's lease still runs. Also the header `Retry-After`, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

impl Problem {
    /// A problem with this occurrence's own sentence. The server fills in the request id.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:vstack:error:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            retryable: code.retryable(),
            request_id: String::new(),
            decided: None,
            retry_after_ms: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_survive_json() {
        let texts: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for &code in ErrorCode::ALL {
            let problem = Problem::new(code, "why");
            let json = serde_json::to_string(&problem).unwrap();
            assert!(json.contains(&format!("\"code\":\"{code}\"")), "{json}");
            assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
        }
    }
}
