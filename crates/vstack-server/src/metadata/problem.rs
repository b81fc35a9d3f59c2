//! The catalogue's refusals as codes of the wire.

use vstack_api::wire::Committed;
use vstack_api::{ErrorCode, Problem};
use vstack_core::id::ChunkId;
use vstack_core::paxos::master::{Accepted, Conflict, missing_parts};
use vstack_core::time::UnixMillis;
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
        MetaError::RolledBack { .. } => ErrorCode::NodeRolledBack,
        MetaError::NodeRemoved { .. } => ErrorCode::NodeRemoved,
        MetaError::OnlyHolder { .. } => ErrorCode::OnlyHolder,
        MetaError::UnknownNode { .. } => ErrorCode::NotFound,
        MetaError::OtherVideo { .. } | MetaError::OtherCreation { .. } => ErrorCode::IdempotencyConflict,
        MetaError::Full { .. } => ErrorCode::MetadataFull,
        MetaError::Conflict(conflict) => conflict_code(conflict),
        MetaError::Busy | MetaError::Restored | MetaError::Database { .. } => ErrorCode::Unavailable,
        MetaError::NotACatalogue { .. }
        | MetaError::NewerVersion { .. }
        | MetaError::Damaged { .. }
        | MetaError::Corrupt { .. } => ErrorCode::MetadataCorrupt,
    };
    Problem::new(code, error.to_string())
}

/// As [`problem`], about a chunk: with what is decided, or until when somebody else has it.
pub(super) fn chunk_problem(error: &MetaError, chunk: ChunkId, now: UnixMillis) -> Problem {
    let MetaError::Conflict(conflict) = error else {
        return problem(error);
    };
    let (accepted, until) = match conflict {
        Conflict::AlreadyCommitted { accepted } => (Some(accepted), None),
        Conflict::Fenced { accepted, .. } => (accepted.as_ref(), None),
        Conflict::Leased { until, .. } => (None, Some(*until)),
        _ => (None, None),
    };
    Problem {
        decided: accepted.and_then(|accepted| decided(chunk, accepted)),
        retry_after_ms: until.map(|until| u32::try_from(until.since(now)).unwrap_or(u32::MAX)),
        ..problem(error)
    }
}

fn decided(chunk: ChunkId, accepted: &Accepted) -> Option<Box<Committed>> {
    let value = accepted.value.placement()?;
    Some(Box::new(Committed {
        chunk_id: chunk,
        epoch: accepted.ballot,
        value: value.clone(),
        under_replicated: missing_parts(value) > 0,
    }))
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
