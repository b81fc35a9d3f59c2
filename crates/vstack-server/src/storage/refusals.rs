//! From the store's and the acceptor's reasons to the closed list of codes.

use tracing::error;
use vstack_api::ErrorCode;
use vstack_core::paxos::acceptor::Refusal as Refused;
use vstack_store::StoreError;

use crate::http::{Refusal, refuse};

/// *Unknown*, *corrupt* and *not now* stay three different answers. Damage is logged here, where it is answered.
pub(super) fn from_store(reason: StoreError) -> Refusal {
    let code = match &reason {
        StoreError::NotFound { .. } => ErrorCode::ChunkNotFound,
        StoreError::Corrupt {
            chunk,
            ballot,
            superblock,
            offset,
            reason,
        } => {
            error!(%chunk, %ballot, superblock, offset, reason, "chunk is corrupt");
            ErrorCode::ChunkCorrupt
        }
        StoreError::Conflict { .. } => ErrorCode::Conflict,
        StoreError::Deleted { .. } => ErrorCode::ChunkDeleted,
        StoreError::Full { .. } => ErrorCode::NodeFull,
        StoreError::Disk(_) | StoreError::ReadOnly(_) => ErrorCode::DiskError,
        StoreError::Unsure { .. } | StoreError::Stopped => ErrorCode::Unavailable,
        StoreError::Invalid { .. } => ErrorCode::BadRequest,
        StoreError::Locked { .. } | StoreError::BadFolder { .. } => ErrorCode::Internal,
    };
    refuse(code, reason.to_string())
}

pub(super) fn fenced(reason: Refused) -> Refusal {
    let code = match &reason {
        Refused::Fenced { .. } => ErrorCode::Fenced,
        Refused::NotGranted | Refused::OtherObject => ErrorCode::Forbidden,
        Refused::OtherBytes { .. } => ErrorCode::Conflict,
        Refused::Deleted => ErrorCode::ChunkDeleted,
        Refused::SourceMissing | Refused::Unknown => ErrorCode::ChunkNotFound,
        Refused::SourceDiffers { .. } => ErrorCode::HashMismatch,
        Refused::Committed => {
            let detail = "only objects that belong to a video are left here; delete the video to remove them";
            return refuse(ErrorCode::Committed, detail);
        }
    };
    refuse(code, reason.to_string())
}
