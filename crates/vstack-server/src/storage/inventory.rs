//! INVENTORY: tells the catalogue what is here, and deletes what it orders.
//!
//! At every start, once a day, and when an operator asks (`POST /inventory`). Page by page, so that a million objects
//! cost no memory; what goes wrong is tried again until the whole was told. Objects that came in meanwhile may be told
//! or not: the catalogue asks before it calls anything lost.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_api::inventory::{
    InventoryDetails, InventoryPage, InventorySummary, ObjectAge, ObjectName, PAGE_OBJECTS,
};
use vstack_api::{ErrorCode, MetadataClient};
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::paxos::DeleteOrder;
use vstack_core::paxos::acceptor::Removal;
use vstack_store::{DeleteReason, ObjectState, StoreError};

use super::chunks::ordered_removal;
use super::refusals::from_store;
use super::state::Node;
use crate::http::{Answer, refuse};

/// A tenth of a day is added at random, so that the nodes of a cluster do not all come at once for ever.
pub(super) const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Until an inventory that broke off is begun again; the catalogue may be starting.
const RETRY: Duration = Duration::from_secs(5);

/// Tells everything at the start and then once in `period`, until the role stops.
pub(super) async fn run(node: Arc<Node>, period: Duration, stop: CancellationToken) {
    let telling = async {
        loop {
            match tell(&node).await {
                Ok(summary) => {
                    info!(?summary, "the catalogue has heard what is here");
                    sleep(period.mul_f64(node.platform.chance.between(1.0..1.1))).await;
                }
                Err(refusal) => {
                    debug!(problem = %refusal.0, "the inventory broke off");
                    sleep(RETRY).await;
                }
            }
        }
    };
    stop.run_until_cancelled_owned(telling).await;
}

/// `POST /inventory`: tells everything now.
pub(super) async fn order(State(node): State<Arc<Node>>) -> Answer<Json<InventorySummary>> {
    tell(&node).await.map(Json)
}

async fn tell(node: &Arc<Node>) -> Answer<InventorySummary> {
    let Some(catalogue) = &node.catalogue else {
        let detail = "this node was started without --metadata-url and knows no catalogue";
        return Err(refuse(ErrorCode::Unavailable, detail));
    };
    let mut summary = InventorySummary::default();
    let mut after = None;
    loop {
        let upto = tell_page(node, catalogue, after, &mut summary).await?;
        if upto.is_none() {
            return Ok(summary);
        }
        after = upto;
    }
}

/// Tells the page behind `after`; returns where it ended, or nothing when it was the last one.
async fn tell_page(
    node: &Arc<Node>,
    catalogue: &MetadataClient,
    after: Option<ObjectName>,
    summary: &mut InventorySummary,
) -> Answer<Option<ObjectName>> {
    let (objects, upto) = node.on_disk(move |node| Ok(page(node, after))).await?;
    summary.pages += 1;
    summary.objects += objects.len() as u64;
    let page = InventoryPage::signed(&node.receipt_key, life(node), (after, upto), objects);
    let answer = catalogue.inventory(node.node_id(), &page).await?;
    summary.deleted += carry_out(node, answer.orders).await?;
    if answer.missing.is_empty() && answer.ages_of.is_empty() {
        return Ok(upto);
    }
    let (missing, ages_of) = (answer.missing, answer.ages_of);
    let (lost, ages) = node
        .on_disk(move |node| Ok((lost_of(node, missing)?, ages(node, &ages_of)?)))
        .await?;
    summary.lost += lost.len() as u64;
    if !lost.is_empty() {
        warn!(
            objects = lost.len(),
            "the catalogue expects objects that are not here"
        );
    }
    let details = InventoryDetails::signed(&node.receipt_key, life(node), lost, ages);
    let answer = catalogue.inventory_details(node.node_id(), &details).await?;
    summary.deleted += carry_out(node, answer.orders).await?;
    Ok(upto)
}

pub(super) fn life(node: &Node) -> (NodeId, Incarnation) {
    let identity = node.store.identity();
    (identity.node_id, identity.incarnation)
}

/// What can be read of the next entries of the index, and the last of them if there may be more.
fn page(node: &Node, after: Option<ObjectName>) -> (Vec<ObjectName>, Option<ObjectName>) {
    let after = after.map(|name| (name.object, name.ballot));
    let entries = node.store.objects(after, PAGE_OBJECTS);
    let name = |chunk: ChunkId, ballot| ObjectName {
        object: chunk,
        ballot,
    };
    let full = entries.len() == PAGE_OBJECTS;
    let upto = entries
        .last()
        .filter(|_| full)
        .map(|last| name(last.chunk, last.ballot));
    let readable = entries
        .iter()
        .filter(|entry| !matches!(entry.state, ObjectState::Deleted | ObjectState::Corrupt));
    (
        readable.map(|entry| name(entry.chunk, entry.ballot)).collect(),
        upto,
    )
}

/// Of the objects that the catalogue misses, those that are not here or not readable now. One that cannot be judged now
/// (a disk that does not answer) is not lost.
fn lost_of(node: &Node, missing: Vec<ObjectName>) -> Answer<Vec<ObjectName>> {
    let mut lost = Vec::new();
    for name in missing {
        match node.store.stat(name.object, Some(name.ballot)) {
            Ok(_) | Err(StoreError::Unsure { .. }) => {}
            Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => lost.push(name),
            Err(error) => return Err(from_store(error)),
        }
    }
    Ok(lost)
}

fn ages(node: &Node, objects: &[ObjectName]) -> Answer<Vec<ObjectAge>> {
    let mut ages = Vec::new();
    for name in objects {
        match node.store.stat(name.object, Some(name.ballot)) {
            Ok(stat) => ages.push(ObjectAge {
                object: name.object,
                ballot: name.ballot,
                stored_at_ms: stat.stored_at,
            }),
            Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. } | StoreError::Unsure { .. }) => {}
            Err(error) => return Err(from_store(error)),
        }
    }
    Ok(ages)
}

/// Deletes by signed orders, like those that come as DELETE. Returns how many objects went.
pub(super) async fn carry_out(node: &Arc<Node>, orders: Vec<DeleteOrder>) -> Answer<u64> {
    let mut deleted = 0;
    for order in orders {
        let (chunk, ballot) = (order.chunk_id, order.ballot);
        let outcome = node
            .on_disk(move |node| {
                if ordered_removal(node, chunk, ballot, &order)? == Removal::Nothing {
                    return Ok(None);
                }
                let (done, outcome) = oneshot::channel();
                node.store
                    .delete(chunk, ballot, DeleteReason::Order, move |result| {
                        drop(done.send(result));
                    });
                Ok(Some(outcome))
            })
            .await?;
        if let Some(outcome) = outcome {
            outcome
                .await
                .unwrap_or(Err(StoreError::Stopped))
                .map_err(from_store)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
