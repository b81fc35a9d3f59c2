//! Tells the catalogue every 2 s that the node lives, where it is, and how full.
//!
//! The first heartbeat registers the node. A catalogue that does not answer changes nothing for the node's readers; it
//! is noted once when it goes and once when it is back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vstack_api::wire::{Generation, Heartbeat, HeartbeatAnswer};
use vstack_api::{ApiError, ErrorCode, MetadataClient};
use vstack_core::limits::{HEARTBEAT_MS, PROTOCOL_VERSION};

use super::refusals::from_store;
use super::state::Node;
use crate::http::Answer;

pub(super) async fn run(node: Arc<Node>, catalogue: MetadataClient, stop: CancellationToken) {
    let metadata_url = catalogue.0.base_url();
    let mut ticks = interval(Duration::from_millis(HEARTBEAT_MS));
    // After a stall of the machine one heartbeat says as much as ten.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<bool> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(heartbeat) = current(&node).await else {
            continue;
        };
        let sent = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            sent = catalogue.heartbeat(node.node_id(), &heartbeat) => sent,
        };
        match &sent {
            Ok(_) if last != Some(true) => info!(%metadata_url, "registered with the catalogue"),
            Err(error) if last != Some(false) => {
                warn!(%metadata_url, %error, "the catalogue does not take heartbeats")
            }
            _ => {}
        }
        last = Some(sent.is_ok());
        note_standing(&node, &sent);
        if let Ok(answer) = sent {
            note_name(&node, answer.name);
            note_generation(&node, answer.generation).await;
        }
    }
}

/// Whether the catalogue takes this node for the one it knows. Silence changes nothing.
fn note_standing(node: &Node, sent: &Result<HeartbeatAnswer, ApiError>) {
    let reason = match sent {
        Ok(_) => None,
        Err(ApiError::Refused(problem)) if shuts_out(problem.code) => Some(problem.detail.clone()),
        Err(_) => return,
    };
    if node.set_shut_out(reason.clone()) {
        match reason {
            Some(reason) => error!(
                reason,
                "the catalogue shut this node out, it only reads from now on"
            ),
            None => info!("the catalogue takes this node again, it writes"),
        }
    }
}

const fn shuts_out(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NodeRolledBack | ErrorCode::DuplicateNode | ErrorCode::NodeRemoved
    )
}

/// A name that another node has is its operator's to sort out; it is said once.
fn note_name(node: &Node, name: Option<String>) {
    let Some(name) = name else { return };
    if !node.set_called(name.clone()) {
        return;
    }
    match &node.name {
        Some(wanted) if *wanted != name => warn!(
            wanted,
            name, "another node has the name that this one was given, so it is called otherwise"
        ),
        _ => info!(name, "the catalogue calls this node by its name"),
    }
}

/// Writes down which life of the catalogue grants now. A failing disk is the store's to report.
async fn note_generation(node: &Arc<Node>, generation: Option<Generation>) {
    let Some(generation) = generation.filter(|generation| generation.verifies(&node.grant_key)) else {
        return;
    };
    let noted = node
        .on_disk(move |node| node.store.note_generation(generation.number).map_err(from_store))
        .await;
    if let Err(refusal) = noted {
        warn!(detail = %refusal.0.detail, "the catalogue's generation could not be written down");
    }
}

async fn current(node: &Arc<Node>) -> Answer<Heartbeat> {
    let stats = node.on_disk(|node| Ok(node.store.stats())).await?;
    let identity = node.store.identity();
    let message = Heartbeat::canonical(
        identity.node_id,
        &node.url,
        identity.incarnation,
        identity.boot_epoch,
    );
    Ok(Heartbeat {
        url: node.url.clone(),
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk_usage: stats.disk_used_percent,
        chunk_count: stats.chunk_count,
        read_only: stats.read_only.is_some() || node.shut_out().is_some(),
        corrupt_count: stats.corrupt_count,
        highest_generation: node.store.generation(),
        protocol: PROTOCOL_VERSION,
        clock_ms: Some(node.clock.now().0),
        capacity_bytes: stats.stored_bytes.saturating_add(stats.disk_available_bytes),
        rack: node.rack.clone(),
        name: node.name.clone(),
        mac: node.receipt_key.sign(&message),
    })
}
