//! What a caller of this crate is told when something cannot be done.

use vstack_api::{ApiError, ErrorCode};
use vstack_core::id::ChunkId;

/// Why a cluster, a video or a chunk cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The catalogue refused or did not answer.
    #[error(transparent)]
    Catalogue(#[from] ApiError),
    /// The manifest contradicts itself or a limit.
    #[error("the manifest of this video cannot be used: {reason}")]
    BadManifest { reason: String },
    /// Every replica failed, again and again.
    #[error("none of the {replicas} nodes that hold {chunk_id} delivers it; the last one: {last}")]
    Unobtainable {
        chunk_id: ChunkId,
        replicas: usize,
        last: String,
    },
    /// The video has no such chunk.
    #[error("the video has {total} chunks; there is no chunk {seq}")]
    NoSuchChunk { seq: u32, total: u32 },
    /// The manifest names bytes that the chunk does not have.
    #[error("chunk {seq} has {size_bytes} bytes, fewer than the manifest says")]
    TooShort { seq: u32, size_bytes: usize },
    /// The session was closed while somebody waited.
    #[error("the video was closed")]
    Closed,
}

impl ClientError {
    /// The code of the closed list that fits best.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Catalogue(error) => error.code(),
            Self::BadManifest { .. } | Self::TooShort { .. } => ErrorCode::ManifestInconsistent,
            Self::Unobtainable { .. } => ErrorCode::Unavailable,
            Self::NoSuchChunk { .. } => ErrorCode::ChunkNotFound,
            Self::Closed => ErrorCode::Cancelled,
        }
    }
}
