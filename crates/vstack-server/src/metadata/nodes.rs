//! Nodes and uploaders: heartbeats, lists, states, and the judgement of silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_api::ErrorCode;
use vstack_api::wire::{Generation, Heartbeat, HeartbeatAnswer, NodeAction, NodeDetail, NodeEntry};
use vstack_core::id::NodeId;
use vstack_core::limits::{CLOCK_SKEW_MS, HEARTBEAT_MS, MAX_LABEL_BYTES, PROTOCOL_VERSION};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::node_name::{NODE_NAME_RULE, is_node_name, order};
use vstack_core::rendezvous::is_label;
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, MetaError, NodeChange, NodeParts, NodeRecord, NodeReport, Reply};

use super::input::{self, NodePath};
use super::problem::refusal;
use super::state::Metadata;
use super::videos::rfc3339;
use crate::http::{Answer, StrictJson, refuse};

/// Chunks that `GET /under-replicated` lists.
const UNDER_REPLICATED_SHOWN: usize = 1_000;

pub(super) async fn heartbeat(
    State(metadata): State<Arc<Metadata>>,
    NodePath(node): NodePath,
    StrictJson(heartbeat): StrictJson<Heartbeat>,
) -> Answer<Json<HeartbeatAnswer>> {
    // The key of a node is derived from its id: whoever signs with it was given this identity by the cluster.
    if !heartbeat.verifies(node, &metadata.key.receipt_key(node)) {
        let detail =
            "the heartbeat is not signed with this node's key; start it with this cluster's key file";
        return Err(refuse(ErrorCode::BadSignature, detail));
    }
    check_heartbeat(&heartbeat)?;
    let now = metadata.now();
    let mut warnings = warnings(node, &heartbeat, now);
    let report = NodeReport {
        node,
        url: heartbeat.url.clone(),
        incarnation: heartbeat.incarnation,
        boot_epoch: heartbeat.boot_epoch,
        version: heartbeat.version,
        disk_usage_percent: heartbeat.disk_usage,
        chunk_count: heartbeat.chunk_count,
        read_only: heartbeat.read_only,
        highest_generation: heartbeat.highest_generation,
        capacity_bytes: heartbeat.capacity_bytes,
        rack: heartbeat.rack.clone(),
        name: heartbeat.name.clone(),
    };
    let reply = metadata.apply(Cmd::Heartbeat { report, now }).await?;
    let (mut generation, mut name) = (None, None);
    if let Reply::Heartbeat(reply) = reply {
        let signed = |number| Generation::signed(&metadata.key.grant_key(), number);
        generation = reply.generation.map(signed);
        if let Some(told) = reply.generation {
            metadata.announced.note(node, told, heartbeat.highest_generation);
        }
        if reply.before.is_none() {
            info!(%node, name = reply.named.name, url = %heartbeat.url, "node registered");
        }
        if reply.returned {
            metadata.redundancy.trust.returned(node);
        }
        if reply.lost_parts > 0 {
            warn!(%node, parts = reply.lost_parts, "node came back with another disk, its parts are lost");
        }
        if reply.named.refused {
            warnings.push("name_taken".to_owned());
        }
        name = Some(reply.named.name);
    }
    let clock_ms = now.0;
    Ok(Json(HeartbeatAnswer {
        warnings,
        clock_ms,
        generation,
        name,
    }))
}

/// What is odd about a heartbeat that is taken. Nothing is ordered by a node's clock, so it does not keep it out.
fn warnings(node: NodeId, heartbeat: &Heartbeat, now: UnixMillis) -> Vec<String> {
    let off_ms = heartbeat.clock_ms.map_or(0, |clock| clock.abs_diff(now.0));
    if off_ms <= CLOCK_SKEW_MS {
        return Vec::new();
    }
    debug!(%node, off_ms, "a node's clock is far off");
    vec!["clock_skew".to_owned()]
}

fn check_heartbeat(heartbeat: &Heartbeat) -> Answer<()> {
    /// Largest number that a column holds.
    const MAX: u64 = i64::MAX as u64;
    if heartbeat.protocol > PROTOCOL_VERSION {
        let detail = format!(
            "the node speaks version {} of the calls and this role version {PROTOCOL_VERSION}; upgrade the metadata \
             role first",
            heartbeat.protocol
        );
        return Err(refuse(ErrorCode::UpgradeRequired, detail));
    }
    input::role_url("url", &heartbeat.url)?;
    if !(0.0..=100.0).contains(&heartbeat.disk_usage) {
        return input::invalid("disk_usage", "it is a percentage");
    }
    if heartbeat.chunk_count > MAX || heartbeat.boot_epoch > MAX {
        return input::invalid("chunk_count, boot_epoch", "no node has counted that far");
    }
    if heartbeat.version.len() > 100 {
        return input::invalid("version", "it is too long");
    }
    if heartbeat.capacity_bytes > MAX {
        return input::invalid("capacity_bytes", "no disk is that large");
    }
    if heartbeat.rack.as_deref().is_some_and(|rack| !is_label(rack)) {
        return input::invalid("rack", format!("it is a word of at most {MAX_LABEL_BYTES} bytes"));
    }
    if heartbeat.name.as_deref().is_some_and(|name| !is_node_name(name)) {
        return input::invalid("name", NODE_NAME_RULE);
    }
    Ok(())
}

pub(super) async fn all(State(metadata): State<Arc<Metadata>>) -> Answer<Json<Vec<NodeEntry>>> {
    let nodes = metadata.nodes().await?;
    let members = nodes.iter().filter(|node| node.is_member());
    Ok(Json(listed(&metadata, &nodes, members)))
}

pub(super) async fn show(
    State(metadata): State<Arc<Metadata>>,
    NodePath(node): NodePath,
) -> Answer<Json<NodeDetail>> {
    let parts = metadata.store.node_parts(node).await.map_err(refusal)?;
    detail(&metadata, node, parts).await.map(Json)
}

async fn detail(metadata: &Metadata, node: NodeId, parts: NodeParts) -> Answer<NodeDetail> {
    let nodes = metadata.nodes().await?;
    let record = nodes.iter().find(|record| record.node == node);
    let record = record.ok_or_else(|| refusal(MetaError::UnknownNode { node }))?;
    Ok(NodeDetail {
        entry: entry(record, &metadata.distrusted(&nodes), metadata.now()),
        parts: parts.live,
        only_holder_of: parts.only_holder_of,
        lost_parts: parts.lost,
    })
}

/// Query of a change.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChangeQuery {
    force: bool,
}

pub(super) async fn change(
    State(metadata): State<Arc<Metadata>>,
    path: Result<Path<(String, NodeAction)>, PathRejection>,
    query: Result<Query<ChangeQuery>, QueryRejection>,
) -> Answer<Json<NodeDetail>> {
    let bad = |text: String| refuse(ErrorCode::BadRequest, text);
    let Path((node, action)) = path.map_err(|rejection| bad(rejection.body_text()))?;
    let Query(ChangeQuery { force }) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let node: NodeId = node.parse().map_err(|error| bad(format!("{error}")))?;
    let change = match action {
        NodeAction::Activate => NodeChange::State(NodeState::Active),
        NodeAction::Drain => NodeChange::State(NodeState::Draining),
        NodeAction::Maintenance => NodeChange::State(NodeState::Maintenance),
        NodeAction::Remove => NodeChange::Remove { force },
        NodeAction::Replace => NodeChange::Replace { force },
        NodeAction::Readopt => NodeChange::Readopt,
    };
    let now = metadata.now();
    let reply = metadata.apply(Cmd::ChangeNode { node, change, now }).await?;
    if action == NodeAction::Readopt {
        metadata.redundancy.trust.forgive(node);
    }
    metadata.redundancy.wake_heal.notify_one();
    detail(&metadata, node, reply.node().unwrap_or_default())
        .await
        .map(Json)
}

pub(super) async fn healthy(State(metadata): State<Arc<Metadata>>) -> Answer<Json<Vec<NodeEntry>>> {
    let now = metadata.now();
    let nodes = metadata.nodes().await?;
    let healthy = nodes
        .iter()
        .filter(|node| node.is_member() && node.health(now) == NodeHealth::Healthy);
    Ok(Json(listed(&metadata, &nodes, healthy)))
}

/// By name.
fn listed<'a>(
    metadata: &Metadata,
    nodes: &[NodeRecord],
    chosen: impl Iterator<Item = &'a NodeRecord>,
) -> Vec<NodeEntry> {
    let (distrusted, now) = (metadata.distrusted(nodes), metadata.now());
    let mut entries: Vec<NodeEntry> = chosen.map(|node| entry(node, &distrusted, now)).collect();
    entries.sort_by(|a, b| order(&a.label()).cmp(&order(&b.label())));
    entries
}

fn entry(node: &NodeRecord, distrusted: &BTreeSet<NodeId>, now: UnixMillis) -> NodeEntry {
    NodeEntry {
        node_id: node.node,
        name: node.name.clone(),
        node_url: node.url.clone(),
        disk_usage: node.disk_usage_percent,
        last_seen: rfc3339(node.last_heartbeat),
        silent_ms: now.since(node.last_heartbeat),
        chunk_count: node.chunk_count,
        status: node.health(now),
        state: node.state,
        read_only: node.read_only,
        capacity_bytes: node.capacity_bytes,
        rack: node.rack.clone(),
        quarantined: distrusted.contains(&node.node),
        incarnation: node.incarnation,
        boot_epoch: node.boot_epoch,
        version: node.version.clone(),
    }
}

/// Chunks that wait for repair, those that miss most first.
pub(super) async fn under_replicated(State(metadata): State<Arc<Metadata>>) -> Answer<Json<Vec<Value>>> {
    let chunks = metadata
        .store
        .under_replicated(UNDER_REPLICATED_SHOWN)
        .await
        .map_err(refusal)?;
    let item = |chunk: &vstack_meta::UnderReplicated| json!({ "chunk_id": chunk.chunk, "missing_parts": chunk.missing_parts });
    Ok(Json(chunks.iter().map(item).collect()))
}

/// Keeps the column `status` up to date and says when a node changes, until the role stops.
pub(super) async fn judge(metadata: Arc<Metadata>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS / 2));
    let mut seen: BTreeMap<NodeId, NodeHealth> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = metadata.now();
        let Ok(nodes) = metadata.store.nodes().await else {
            continue;
        };
        let health: BTreeMap<_, _> = nodes.iter().map(|node| (node.node, node.health(now))).collect();
        // A clock that went back makes a silent node look alive; judging sets that right.
        let in_the_future = nodes.iter().any(|node| node.last_heartbeat > now);
        if health == seen && !in_the_future {
            continue;
        }
        for (node, health) in &health {
            if let Some(before) = seen.get(node)
                && before != health
            {
                info!(%node, before = before.as_str(), now = health.as_str(), "node changed");
            }
        }
        // The column is for people who look into the file; readers judge by the heartbeat.
        if metadata.apply(Cmd::JudgeNodes { now }).await.is_ok() {
            seen = health;
        }
    }
}
