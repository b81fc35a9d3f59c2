//! The collector: deletes what the catalogue has let go, by signed orders to the nodes.
//!
//! What is queued can never be committed again (R3), so an order may be late, lost or repeated without harm. Nodes that
//! are down keep their objects until they are back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use vstack_api::consensus::ConsensusChange;
use vstack_api::{ApiError, ErrorCode};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_core::paxos::DeleteOrder;
use vstack_meta::{Cmd, Collectable, MetaError, NodeRecord};

use super::state::Metadata;

/// Pause when nothing is due.
const IDLE: Duration = Duration::from_secs(1);
/// Objects taken at once.
const BATCH: usize = 256;
/// Until an object of a node that is down or refuses is tried again.
const RETRY_MS: u64 = 30_000;

/// Works until the role stops.
pub(super) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    loop {
        let found = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            found = round(&metadata) => found,
        };
        let more = found.unwrap_or_else(|error| {
            warn!(%error, "the collector cannot read its queue");
            false
        });
        if !more {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(IDLE) => {}
            }
        }
    }
}

/// One batch; `true` when there may be more.
async fn round(metadata: &Metadata) -> Result<bool, MetaError> {
    let due = metadata.store.collectable(metadata.now(), BATCH).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let full = due.len() == BATCH;
    let nodes = metadata.store.nodes().await?;
    let nodes: BTreeMap<NodeId, &NodeRecord> = nodes.iter().map(|node| (node.node, node)).collect();
    let mut by_node: BTreeMap<NodeId, Vec<Collectable>> = BTreeMap::new();
    for object in due {
        by_node.entry(object.node).or_default().push(object);
    }
    let work = by_node
        .into_iter()
        .map(|(node, objects)| collect_on(metadata, nodes.get(&node).copied(), objects));
    let (mut done, mut later) = (Vec::new(), Vec::new());
    for (gone, kept) in join_all(work).await {
        done.extend(gone);
        later.extend(kept);
    }
    let not_before = metadata.now() + RETRY_MS;
    let commands = vec![
        Cmd::CollectDone { objects: done },
        Cmd::CollectLater {
            objects: later,
            not_before,
        },
    ];
    for outcome in metadata.store.apply(commands).await {
        outcome?;
    }
    Ok(full)
}

/// What is gone from the node, and what is to be tried again.
async fn collect_on(
    metadata: &Metadata,
    node: Option<&NodeRecord>,
    objects: Vec<Collectable>,
) -> (Vec<Collectable>, Vec<Collectable>) {
    let Some(url) = node
        .filter(|node| node.health(metadata.now()) != NodeHealth::Down)
        .and_then(NodeRecord::known_url)
    else {
        return (Vec::new(), objects);
    };
    let storage = metadata.storage(url);
    let key = metadata.key.grant_key();
    let (mut done, mut later) = (Vec::new(), Vec::new());
    let mut objects = objects.into_iter();
    for object in objects.by_ref() {
        let order = DeleteOrder::signed(&key, object.object, object.ballot, object.node);
        metadata.counts.delete_obj.inc();
        match storage.delete(&order).await {
            Ok(()) => {
                let (about, node) = ((object.object, Some(object.ballot)), object.node);
                let now = metadata.now();
                metadata
                    .events
                    .tell(now, about, || ConsensusChange::Collected { node });
                done.push(object);
            }
            Err(error) if error.code() == ErrorCode::ChunkNotFound => done.push(object),
            Err(error) => {
                later.push(object);
                if !matches!(error, ApiError::Refused(_)) {
                    debug!(%url, %error, "a node does not answer the collector");
                    break;
                }
                warn!(object = %object.object, ballot = %object.ballot, %url, %error, "a node does not delete");
            }
        }
    }
    later.extend(objects);
    (done, later)
}
