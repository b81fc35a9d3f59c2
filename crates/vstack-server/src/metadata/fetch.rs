//! Reading a chunk back from its replicas, verified: the role needs init segments and, for plain clients, boxes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;
use vstack_api::ErrorCode;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::NodeId;
use vstack_core::paxos::master::object_of;
use vstack_meta::{ChunkRecord, NodeRecord};

use super::state::Metadata;
use crate::http::{Answer, refuse};

/// From the request until the headers are there. A healthy node answers in milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// For all bytes of a chunk.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The bytes of a replicated chunk, from the first replica that has them with the committed hash.
pub(super) async fn chunk_bytes(
    metadata: &Metadata,
    chunk: &ChunkRecord,
    nodes: &BTreeMap<NodeId, NodeRecord>,
) -> Answer<Bytes> {
    let now = metadata.now();
    let mut replicas: Vec<_> = chunk
        .placement
        .parts
        .iter()
        .filter(|part| part.shard.is_none() && !chunk.lost.contains(&part.node))
        .filter_map(|part| Some((part, nodes.get(&part.node)?)))
        .collect();
    replicas.sort_by_key(|(_, node)| node.health(now));
    for (part, node) in replicas {
        let Some(url) = node.known_url() else { continue };
        let object = object_of(chunk.chunk, part);
        let read = async {
            let answer = metadata
                .storage(url)
                .get(object, Some(part.object_ballot), None, ANSWER_WITHIN)
                .await?;
            Ok::<_, vstack_api::ApiError>(answer.bytes(chunk.placement.digest.size_bytes).await?)
        };
        match tokio::time::timeout(READ_WITHIN, read).await {
            Ok(Ok(bytes)) if Sha256Digest::of(&bytes) == part.sha256 => return Ok(bytes),
            Ok(Ok(_)) => {
                warn!(chunk = %chunk.chunk, node = %part.node, "a replica has other bytes, trying another")
            }
            Ok(Err(error)) => {
                warn!(chunk = %chunk.chunk, node = %part.node, %error, "a replica cannot be read")
            }
            Err(_) => warn!(chunk = %chunk.chunk, node = %part.node, "a replica sends too slowly"),
        }
    }
    let detail = format!(
        "no replica of {} can be read now; see `vstack status`",
        chunk.chunk
    );
    Err(refuse(ErrorCode::Unavailable, detail))
}
