//! PREPARE: promise a ballot, and tell what is held of its chunk, so that it need not be sent again.
//!
//! Nothing becomes durable by it. The promise makes an overtaken proposer give up early; no rule of safety rests on it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest as _, Request};
use vstack_api::ErrorCode;
use vstack_api::wire::PrepareRequest;
use vstack_core::id::{ChunkId, SHARD_COUNT};
use vstack_core::paxos::{Grant, Held, Promise};
use vstack_store::{ObjectState, StoreError};

use super::refusals::{fenced, from_store};
use super::state::Node;
use crate::http::{Answer, StrictJson, refuse};

/// `POST /chunk/{id}/prepare`.
pub(super) async fn prepare(node: &Arc<Node>, chunk: ChunkId, request: Request) -> Answer<Json<Promise>> {
    let StrictJson(PrepareRequest { grant }) = StrictJson::from_request(request, &()).await?;
    if grant.chunk_id != chunk {
        return Err(refuse(ErrorCode::Forbidden, "the grant is for another chunk"));
    }
    node.on_disk(move |node| promise(node, &grant)).await.map(Json)
}

fn promise(node: &Node, grant: &Grant) -> Answer<Promise> {
    node.verify(grant)?;
    let objects = held(node, grant.chunk_id)?;
    let promise = node.fence().prepare(grant, node.node_id(), objects);
    promise.map_err(fenced)
}

/// What is here of a chunk, whole and in shards. Damaged objects are no use to anybody and are left out.
fn held(node: &Node, chunk: ChunkId) -> Answer<Vec<Held>> {
    let whole = chunk.whole();
    let shards = (0..SHARD_COUNT).filter_map(|shard| whole.with_shard(shard).ok());
    let mut held = Vec::new();
    for object in [whole].into_iter().chain(shards) {
        for entry in node.store.ballots(object) {
            if matches!(entry.state, ObjectState::Deleted | ObjectState::Corrupt) {
                continue;
            }
            match node.store.stat(object, Some(entry.ballot)) {
                Ok(stat) => held.push(Held {
                    object,
                    ballot: entry.ballot,
                    digest: stat.digest,
                }),
                // Deleted or found to be damaged since the line above.
                Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. } | StoreError::Unsure { .. }) => {
                }
                Err(error) => return Err(from_store(error)),
            }
        }
    }
    Ok(held)
}
