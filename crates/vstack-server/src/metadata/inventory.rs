//! INVENTORY: what becomes of the objects that a node reports, and which parts it should hold and does not.
//!
//! Orders are given for what nothing committed names and nothing ever can ([`master::fate`]). Facts about ballots only
//! grow, so a page may be late or told twice without harm. A part that a page lacks is asked for once more: it was
//! committed on the node's receipt, so a node that looks *after* it was expected, and does not find it, has lost it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use tracing::{info, warn};
use vstack_api::ErrorCode;
use vstack_api::inventory::{InventoryAnswer, InventoryDetails, InventoryPage, ObjectName, PAGE_OBJECTS};
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::paxos::DeleteOrder;
use vstack_core::paxos::master::{Fate, Knowledge, ReportedObject, Row, fate};
use vstack_core::time::UnixMillis;
use vstack_meta::InventoryQuery;

use super::input::{NodePath, invalid};
use super::problem::refusal;
use super::state::Metadata;
use crate::http::{Answer, StrictJson, refuse};

/// `POST /nodes/{node_id}/inventory`.
pub(super) async fn page(
    State(metadata): State<Arc<Metadata>>,
    NodePath(node): NodePath,
    StrictJson(page): StrictJson<InventoryPage>,
) -> Answer<Json<InventoryAnswer>> {
    let signed = page.verifies(node, &metadata.key.receipt_key(node));
    check_sender(&metadata, node, page.incarnation, signed).await?;
    check_page(&page)?;
    metadata.counts.inventory.inc();
    let reported = |name: &ObjectName| ReportedObject {
        object: name.object,
        ballot: name.ballot,
        // Young until its age is told.
        stored_at: metadata.now(),
    };
    let objects: Vec<_> = page.objects.iter().map(reported).collect();
    let knowledge = metadata.store.behind().await.map_err(refusal)?.knowledge();
    let judged = judge(&metadata, node, &page, &objects, knowledge).await?;
    if !judged.orders.is_empty() || !judged.missing.is_empty() {
        let (garbage, missing) = (judged.orders.len(), judged.missing.len());
        info!(%node, objects = page.objects.len(), garbage, missing, "a page of an inventory has something to settle");
    }
    Ok(Json(judged))
}

/// `POST /nodes/{node_id}/inventory/details`.
pub(super) async fn details(
    State(metadata): State<Arc<Metadata>>,
    NodePath(node): NodePath,
    StrictJson(details): StrictJson<InventoryDetails>,
) -> Answer<Json<InventoryAnswer>> {
    let signed = details.verifies(node, &metadata.key.receipt_key(node));
    check_sender(&metadata, node, details.incarnation, signed).await?;
    if !details.lost.is_empty() {
        let objects = details
            .lost
            .iter()
            .map(|name| (name.object, name.ballot))
            .collect();
        let parts = metadata.lose_parts(node, details.incarnation, objects).await?;
        if parts > 0 {
            warn!(%node, parts, "a node lacks parts that it had; they are lost and wait for repair");
        }
    }
    let aged: Vec<_> = details
        .ages
        .iter()
        .map(|age| ReportedObject {
            object: age.object,
            ballot: age.ballot,
            stored_at: age.stored_at_ms,
        })
        .collect();
    let chunks = chunks_of(aged.iter().map(|object| object.object));
    let rows = rows(&metadata, node, &chunks).await?;
    let knowledge = metadata.store.behind().await.map_err(refusal)?.knowledge();
    let fates = fates((node, &rows), &aged, (metadata.now(), knowledge));
    let orders = fates
        .filter(|(_, fate)| *fate == Fate::Garbage)
        .map(|(object, _)| order(&metadata, node, object));
    Ok(Json(InventoryAnswer {
        orders: orders.collect(),
        ..InventoryAnswer::default()
    }))
}

async fn check_sender(
    metadata: &Metadata,
    node: NodeId,
    incarnation: Incarnation,
    signed: bool,
) -> Answer<()> {
    if !signed {
        let detail = "the inventory is not signed with this node's key";
        return Err(refuse(ErrorCode::BadSignature, detail));
    }
    let known = metadata
        .nodes()
        .await?
        .into_iter()
        .find(|known| known.node == node);
    match known {
        Some(known) if known.incarnation == incarnation => Ok(()),
        Some(_) => Err(refuse(
            ErrorCode::DuplicateNode,
            "another data folder reports as this node",
        )),
        None => Err(refuse(
            ErrorCode::NotFound,
            "this node has not registered; its heartbeat does",
        )),
    }
}

/// A page that is not in order could hide that something is missing.
fn check_page(page: &InventoryPage) -> Answer<()> {
    if page.objects.len() > PAGE_OBJECTS {
        return invalid("objects", format!("a page has at most {PAGE_OBJECTS}"));
    }
    if !page.objects.is_sorted() {
        return invalid("objects", "they are not in order");
    }
    let inside = |name: &ObjectName| {
        page.after.is_none_or(|after| after < *name) && page.upto.is_none_or(|upto| *name <= upto)
    };
    if page.objects.iter().all(inside) {
        Ok(())
    } else {
        invalid("objects", "one lies outside of the page's span")
    }
}

async fn judge(
    metadata: &Metadata,
    node: NodeId,
    page: &InventoryPage,
    objects: &[ReportedObject],
    knowledge: Knowledge,
) -> Answer<InventoryAnswer> {
    let chunks = chunks_of(objects.iter().map(|object| object.object));
    let query = InventoryQuery {
        node,
        videos: (
            page.after.map(|name| name.object.video()),
            page.upto.map(|name| name.object.video()),
        ),
        chunks: chunks.clone(),
    };
    let view = metadata.store.inventory(query).await.map_err(refusal)?;
    let rows: BTreeMap<_, _> = chunks.into_iter().zip(view.rows).collect();
    let mut answer = InventoryAnswer::default();
    for (object, fate) in fates((node, &rows), objects, (metadata.now(), knowledge)) {
        match fate {
            Fate::Garbage => answer.orders.push(order(metadata, node, object)),
            Fate::Young => answer.ages_of.push(ObjectName {
                object: object.object,
                ballot: object.ballot,
            }),
            Fate::Named | Fate::InFlight | Fate::Kept => {}
        }
    }
    let told: BTreeSet<_> = page.objects.iter().copied().collect();
    let expected = view
        .expected
        .into_iter()
        .map(|(object, ballot)| ObjectName { object, ballot });
    answer.missing = expected
        .filter(|name| {
            page.after.is_none_or(|after| after < *name) && page.upto.is_none_or(|upto| *name <= upto)
        })
        .filter(|name| !told.contains(name))
        .collect();
    Ok(answer)
}

async fn rows(metadata: &Metadata, node: NodeId, chunks: &[ChunkId]) -> Answer<BTreeMap<ChunkId, Row>> {
    let Some(first) = chunks.first() else {
        return Ok(BTreeMap::new());
    };
    let query = InventoryQuery {
        node,
        // Nothing lies between a video and itself; what is expected is not asked here.
        videos: (Some(first.video()), Some(first.video())),
        chunks: chunks.to_vec(),
    };
    let view = metadata.store.inventory(query).await.map_err(refusal)?;
    Ok(chunks.iter().copied().zip(view.rows).collect())
}

fn chunks_of(objects: impl Iterator<Item = ChunkId>) -> Vec<ChunkId> {
    let whole: BTreeSet<_> = objects.map(|object| object.whole()).collect();
    whole.into_iter().collect()
}

fn fates<'a>(
    (node, rows): (NodeId, &'a BTreeMap<ChunkId, Row>),
    objects: &'a [ReportedObject],
    at: (UnixMillis, Knowledge),
) -> impl Iterator<Item = (&'a ReportedObject, Fate)> {
    objects.iter().filter_map(move |object| {
        let chunk = object.object.whole();
        let row = rows.get(&chunk)?;
        Some((object, fate(chunk, row, node, object, at)))
    })
}

fn order(metadata: &Metadata, node: NodeId, object: &ReportedObject) -> DeleteOrder {
    DeleteOrder::signed(&metadata.key.grant_key(), object.object, object.ballot, node)
}
