//! What a proposer asks of a storage node, and what the node's answer or silence means to it. Uploads, repairs and
//! conversions share this.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use vstack_api::wire::PutAnswer;
use vstack_api::{ApiError, ErrorCode, StorageClient};
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::paxos::Grant;
use vstack_core::paxos::proposer::{Failure, Input};

/// A node that accepts a connection and then says nothing (stopped, or its disk hangs) is given up on after this and a
/// second for each MiB: slower than any disk or link that could serve video.
const PUT_PATIENCE: Duration = Duration::from_secs(10);
/// A node that does not say in this time what it holds is sent the bytes like any other.
const PREPARE_PATIENCE: Duration = Duration::from_secs(3);

/// An object that a node is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) object: ChunkId,
    pub(crate) digest: ChunkDigest,
    /// The node holds these bytes under an earlier ballot: ADOPT, and not ACCEPT.
    pub(crate) from: Option<Ballot>,
    pub(crate) bytes: Bytes,
}

pub(crate) async fn prepare(client: StorageClient, node: NodeId, grant: Grant) -> Input {
    let ballot = grant.ballot;
    match timeout(PREPARE_PATIENCE, client.prepare(grant)).await {
        Ok(Ok(promise)) => Input::Promised(promise),
        Ok(Err(error)) => store_failed(node, ballot, node_failure(error)),
        Err(_) => store_failed(node, ballot, silent()),
    }
}

/// ACCEPT, or ADOPT of what the node holds.
pub(crate) async fn store(client: StorageClient, node: NodeId, grant: Grant, wanted: Wanted) -> Input {
    let Wanted {
        object,
        digest,
        from,
        bytes,
    } = wanted;
    let ballot = grant.ballot;
    let stored = async {
        match from {
            Some(from) => client.adopt(grant, object, from, Some(digest.sha256)).await,
            None => client.put(&grant, object, bytes).await,
        }
    };
    let failure = match timeout(
        PUT_PATIENCE + Duration::from_secs(digest.size_bytes >> 20),
        stored,
    )
    .await
    {
        Ok(Ok(PutAnswer {
            receipt: Some(receipt),
            ..
        })) => return Input::Stored(receipt),
        Ok(Ok(PutAnswer { receipt: None, .. })) => Failure::Permanent {
            reason: "it stored the bytes without a receipt".to_owned(),
        },
        Ok(Err(error)) => node_failure(error),
        Err(_) => silent(),
    };
    store_failed(node, ballot, failure)
}

/// Nothing can be asked of this node.
pub(crate) fn unknown_address(node: NodeId, ballot: Ballot) -> Input {
    let failure = Failure::Permanent {
        reason: "its address is not known".to_owned(),
    };
    store_failed(node, ballot, failure)
}

const fn store_failed(node: NodeId, ballot: Ballot, failure: Failure) -> Input {
    Input::StoreFailed {
        node,
        ballot,
        failure,
    }
}

fn silent() -> Failure {
    Failure::Transient {
        reason: "it does not answer".to_owned(),
    }
}

fn node_failure(error: ApiError) -> Failure {
    let problem = error.into_problem();
    let reason = problem.detail;
    match problem.code {
        ErrorCode::Fenced => Failure::Fenced,
        ErrorCode::ChunkNotFound => Failure::SourceMissing,
        _ if problem.retryable => Failure::Transient { reason },
        _ => Failure::Permanent { reason },
    }
}
