//! Reading a chunk back from its parts, verified: for init segments, boxes of plain clients, conversion and repair.
//!
//! A part that is not what the placement says counts as lost from then on, so that nobody reads it again and repair
//! makes it anew. A node that does not answer proves nothing about its parts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tracing::warn;
use vstack_api::{ApiError, ErrorCode};
use vstack_core::digest::Sha256Digest;
use vstack_core::id::NodeId;
use vstack_core::paxos::master::object_of;
use vstack_core::placement::{Part, Scheme};
use vstack_erasure::{DATA_SHARDS, Layout, SHARDS, decode};
use vstack_meta::{ChunkRecord, NodeRecord};

use super::state::Metadata;
use crate::http::{Answer, refuse};

/// From the request until the headers are there. A healthy node answers in milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// For all bytes of a part, and as long again as a node may hold it back for viewers.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The bytes of a chunk with the committed hash: from the first copy that has them, or from any three shards.
pub(super) async fn chunk_bytes(
    metadata: &Metadata,
    chunk: &ChunkRecord,
    nodes: &BTreeMap<NodeId, NodeRecord>,
) -> Answer<Bytes> {
    let now = metadata.now();
    let mut parts: Vec<(&Part, &NodeRecord)> = chunk
        .placement
        .parts
        .iter()
        .filter(|part| !chunk.lost.contains(&part.node))
        .filter_map(|part| Some((part, nodes.get(&part.node)?)))
        .collect();
    // Data shards before parity: they need no decoding.
    let all: Vec<NodeRecord> = nodes.values().cloned().collect();
    let distrusted = metadata.distrusted(&all);
    let doubt = |node: &NodeRecord| (distrusted.contains(&node.node), node.health(now));
    parts.sort_by_key(|(part, node)| (doubt(node), part.shard));
    let read = match chunk.placement.scheme {
        Scheme::Replicated => from_copies(metadata, chunk, &parts).await,
        Scheme::Erasure => from_shards(metadata, chunk, &parts).await,
    };
    read.ok_or_else(|| {
        let detail = format!(
            "too few good parts of {} can be read now; see `vstack status`",
            chunk.chunk
        );
        refuse(ErrorCode::Unavailable, detail)
    })
}

async fn from_copies(
    metadata: &Metadata,
    chunk: &ChunkRecord,
    parts: &[(&Part, &NodeRecord)],
) -> Option<Bytes> {
    for (part, node) in parts {
        if let Some(bytes) = read_part(metadata, chunk, part, node).await {
            return Some(bytes);
        }
    }
    None
}

async fn from_shards(
    metadata: &Metadata,
    chunk: &ChunkRecord,
    parts: &[(&Part, &NodeRecord)],
) -> Option<Bytes> {
    let mut left = parts.iter();
    let read = |(part, node): &(&Part, &NodeRecord)| {
        let (part, node) = (**part, (*node).clone());
        async move { (part, read_part(metadata, chunk, &part, &node).await) }
    };
    let mut reads: FuturesUnordered<_> = left.by_ref().take(DATA_SHARDS).map(read).collect();
    let mut shards: [Option<Bytes>; SHARDS] = Default::default();
    while let Some((part, bytes)) = reads.next().await {
        let slot = part.shard.and_then(|shard| shards.get_mut(usize::from(shard)));
        match (bytes, slot) {
            (Some(bytes), Some(slot)) => *slot = Some(bytes),
            _ => reads.extend(left.next().map(read)),
        }
    }
    let layout = Layout::new(usize::try_from(chunk.placement.digest.size_bytes).ok()?);
    let sha256 = chunk.placement.digest.sha256;
    let decoding = metadata.platform.threads.run(move || {
        let given = std::array::from_fn(|index| shards.get(index).and_then(Option::as_deref));
        let bytes = decode(layout, given).ok()?;
        (Sha256Digest::of(&bytes) == sha256).then(|| Bytes::from(bytes))
    });
    decoding.await.ok().flatten()
}

/// One part, if it is what the placement says.
pub(super) async fn read_part(
    metadata: &Metadata,
    chunk: &ChunkRecord,
    part: &Part,
    node: &NodeRecord,
) -> Option<Bytes> {
    let url = node.known_url()?;
    let object = object_of(chunk.chunk, part);
    let size_bytes = part_bytes(chunk, part);
    let read = async {
        let answer = metadata
            .storage_behind(url)
            .get(object, Some(part.object_ballot), None, ANSWER_WITHIN)
            .await?;
        Ok::<_, ApiError>(answer.bytes(size_bytes).await?)
    };
    // A repair that viewers hold back all the time reads half a MiB a second.
    let patience = READ_WITHIN + Duration::from_secs(size_bytes >> 19);
    match tokio::time::timeout(patience, read).await {
        Ok(Ok(bytes)) if Sha256Digest::of(&bytes) == part.sha256 => return Some(bytes),
        // Not cut off on the way, which is an error of the connection: the node says that this is the part.
        Ok(Ok(bytes)) => {
            warn!(chunk = %object, node = %part.node, bytes = bytes.len(), "a part has other bytes, it counts as lost");
            // Several readers may meet it at once; it is one wrong answer.
            if lose(metadata, chunk, part, node).await {
                metadata.lied(part.node).await;
            }
        }
        Ok(Err(error)) if matches!(error.code(), ErrorCode::ChunkCorrupt | ErrorCode::ChunkNotFound) => {
            warn!(chunk = %object, node = %part.node, %error, "a part is gone or damaged, it counts as lost");
            lose(metadata, chunk, part, node).await;
        }
        Ok(Err(error)) => warn!(chunk = %object, node = %part.node, %error, "a part cannot be read"),
        Err(_) => warn!(chunk = %object, node = %part.node, "a part comes too slowly"),
    }
    None
}

fn part_bytes(chunk: &ChunkRecord, part: &Part) -> u64 {
    let size = chunk.placement.digest.size_bytes;
    match part.shard {
        None => size,
        Some(_) => Layout::new(usize::try_from(size).unwrap_or(0)).shard_bytes() as u64,
    }
}

/// Notes the loss of a part; says whether nobody had noted it before.
async fn lose(metadata: &Metadata, chunk: &ChunkRecord, part: &Part, node: &NodeRecord) -> bool {
    let objects = vec![(object_of(chunk.chunk, part), part.object_ballot)];
    match metadata.lose_parts(part.node, node.incarnation, objects).await {
        Ok(parts) => parts > 0,
        Err(refusal) => {
            warn!(problem = %refusal.0, "a lost part could not be noted");
            false
        }
    }
}

/// Reads one part of a chunk to see whether it is good; a bad one counts as lost from then on. Says whether it is good;
/// `None` when its node does not hold a part of it.
pub(super) async fn check_part(metadata: &Metadata, chunk: &ChunkRecord, node: &NodeRecord) -> Option<bool> {
    let part = chunk.placement.parts.iter().find(|part| part.node == node.node)?;
    Some(read_part(metadata, chunk, part, node).await.is_some())
}
