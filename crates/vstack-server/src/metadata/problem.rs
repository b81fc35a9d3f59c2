//! The catalogue's refusals as codes of the wire.

use vstack_api::{ErrorCode, Problem};
use vstack_core::paxos::master::Conflict;
use vstack_meta::MetaError;

use crate::http::Refusal;

pub(super) fn refusal(error: MetaError) -> Refusal {
    Refusal(problem(&error))
}

pub(super) fn problem(error: &MetaError) -> Problem {
    let code = match error {
        MetaError::VideoNotFound { .. } => ErrorCode::VideoNotFound,
        MetaError::VideoExists { .. } | MetaError::VideoState { .. } => ErrorCode::Conflict,
        MetaError::ChunksMissing { .. } => ErrorCode::ChunksMissing,
        MetaError::Inconsistent { .. } => ErrorCode::ManifestInconsistent,
        MetaError::DuplicateNode { .. } => ErrorCode::DuplicateNode,
        MetaError::UnknownNode { .. } => ErrorCode::NotFound,
        MetaError::Conflict(conflict) => conflict_code(conflict),
        MetaError::Busy | MetaError::Database { .. } => ErrorCode::Unavailable,
        MetaError::NotACatalogue { .. } | MetaError::NewerVersion { .. } | MetaError::Corrupt { .. } => {
            ErrorCode::MetadataCorrupt
        }
    };
    Problem::new(code, error.to_string())
}

const fn conflict_code(conflict: &Conflict) -> ErrorCode {
    match conflict {
        Conflict::Deleted => ErrorCode::ChunkDeleted,
        Conflict::AlreadyCommitted { .. } => ErrorCode::Committed,
        Conflict::NothingCommitted => ErrorCode::ChunksMissing,
        Conflict::OtherEpoch { .. } | Conflict::Fenced { .. } => ErrorCode::Fenced,
        Conflict::Leased { .. } => ErrorCode::Locked,
        Conflict::Unproven { .. } | Conflict::TooFewParts { .. } => ErrorCode::NotEnoughReplicas,
        Conflict::BadValue { .. } => ErrorCode::InvalidField,
    }
}
