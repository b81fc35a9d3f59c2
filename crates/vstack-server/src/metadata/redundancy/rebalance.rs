//! The rebalance worker: moves parts from full nodes to empty ones, as the pure planner says, while an operator wants it.
//!
//! A move is a repair of a chunk that lacks nothing: the part is read and checked, written to its new node under a new
//! ballot, decided, and only then collected where it was. So it may stop anywhere, and readers never notice. Repair goes
//! first. What is wanted does not survive the role: after a restart nothing moves until it is applied again, and what was
//! moved counts.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_api::redundancy::{BalanceState, NodeUse, RebalanceView};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::Goal;
use vstack_core::placement::Scheme;
use vstack_core::rebalance::{Move, NodeLoad, TOLERANCE, carried_out, plan, unevenness};
use vstack_meta::{NodeRecord, Spread};

use super::Redundancy;
use super::mover::{Material, place_on};
use super::progress::{Kind, Stretch};
use crate::http::{Answer, Refusal};
use crate::metadata::fetch::read_part;
use crate::metadata::problem::refusal;
use crate::metadata::state::Metadata;

/// The longest rest between two moves; otherwise it is as long as the move was, so that viewers get half at least.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How often it is looked whether a repair that goes first has ended.
const LOOK: Duration = Duration::from_millis(500);
/// After a round in which nothing could be moved.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What the planner found.
struct Planned {
    nodes: Vec<NodeRecord>,
    loads: BTreeMap<NodeId, NodeLoad>,
    after: BTreeMap<NodeId, NodeLoad>,
    moves: Vec<Move>,
}

impl Redundancy {
    fn balance(&self) -> BalanceState {
        *self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_balance(&self, state: BalanceState) {
        *self.balance.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Ends a run that has not been paused meanwhile.
    fn balanced(&self) {
        if self.balance() == BalanceState::Moving {
            self.set_balance(BalanceState::Idle);
        }
    }
}

/// `GET /rebalance`: what would be moved now.
pub(in crate::metadata) async fn show(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    view(&metadata).await.map(Json)
}

/// `POST /rebalance/apply`.
pub(in crate::metadata) async fn apply(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    metadata.redundancy.set_balance(BalanceState::Moving);
    metadata.redundancy.wake_balance.notify_one();
    view(&metadata).await.map(Json)
}

/// `POST /rebalance/pause`: the move under way ends, no other begins.
pub(in crate::metadata) async fn pause(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    if metadata.redundancy.balance() == BalanceState::Moving {
        metadata.redundancy.set_balance(BalanceState::Paused);
    }
    view(&metadata).await.map(Json)
}

async fn view(metadata: &Metadata) -> Answer<RebalanceView> {
    let planned = planned(metadata).await?;
    let bytes_of = |loads: &BTreeMap<NodeId, NodeLoad>, node: &NodeRecord| {
        loads.get(&node.node).map_or(0, |load| load.used_bytes)
    };
    let node_use = |node: &NodeRecord| NodeUse {
        node_id: node.node,
        node_url: node.url.clone(),
        rack: node.rack.clone(),
        capacity_bytes: node.capacity_bytes,
        used_bytes: bytes_of(&planned.loads, node),
        after_bytes: bytes_of(&planned.after, node),
        takes_parts: planned.loads.get(&node.node).is_some_and(|load| load.takes_parts),
    };
    let counted = planned
        .nodes
        .iter()
        .filter(|node| planned.loads.contains_key(&node.node));
    Ok(RebalanceView {
        state: metadata.redundancy.balance(),
        nodes: counted.map(node_use).collect(),
        moves: planned.moves.len() as u64,
        move_bytes: planned.moves.iter().map(|next| next.part.size_bytes).sum(),
        uneven: unevenness(&planned.loads),
        uneven_after: unevenness(&planned.after),
        tolerance: TOLERANCE,
        work: metadata.redundancy.status().rebalance,
    })
}

/// Plans with the nodes that answer; nobody reads from the others.
async fn planned(metadata: &Metadata) -> Answer<Planned> {
    let nodes = metadata.nodes().await?;
    let Spread { used_bytes, movable } = metadata.store.spread().await.map_err(refusal)?;
    let facts = metadata.node_facts(&nodes);
    let load = |node: &NodeRecord| {
        let facts = facts.get(&node.node)?;
        let counts = node.is_member() && facts.health == NodeHealth::Healthy && node.capacity_bytes > 0;
        let load = NodeLoad {
            capacity_bytes: node.capacity_bytes,
            used_bytes: used_bytes.get(&node.node).copied().unwrap_or(0),
            domain: node.domain(),
            takes_parts: facts.takes_parts && !facts.returning,
        };
        (counts && !facts.distrusted && node.state.takes_parts()).then_some((node.node, load))
    };
    let loads: BTreeMap<NodeId, NodeLoad> = nodes.iter().filter_map(load).collect();
    let planning = metadata.platform.threads.run(move || {
        let parts: Vec<_> = movable
            .into_iter()
            .filter(|part| loads.contains_key(&part.node))
            .collect();
        let moves = plan(&loads, &parts, TOLERANCE);
        let (after, _) = carried_out(&loads, &parts, &moves);
        (loads, after, moves)
    });
    let planned = planning.await.map_err(|error| {
        Refusal(vstack_api::Problem::new(
            vstack_api::ErrorCode::Internal,
            error.to_string(),
        ))
    })?;
    let (loads, after, moves) = planned;
    Ok(Planned {
        nodes,
        loads,
        after,
        moves,
    })
}

/// Works until the role stops.
pub(in crate::metadata) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let work = async {
        loop {
            metadata.redundancy.wake_balance.notified().await;
            while metadata.redundancy.balance() == BalanceState::Moving {
                match planned(&metadata).await {
                    Ok(planned) if planned.moves.is_empty() => {
                        metadata.redundancy.balanced();
                        info!("the nodes are even");
                    }
                    Ok(planned) => round(&metadata, &planned).await,
                    Err(refusal) => {
                        warn!(problem = %refusal.0, "it cannot be seen what is to be moved");
                        sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn round(metadata: &Metadata, planned: &Planned) {
    let redundancy = &metadata.redundancy;
    let what = format!("{} parts to even out the nodes", planned.moves.len());
    info!(parts = planned.moves.len(), "moving parts to even out the nodes");
    let stretch = Stretch::begin(redundancy, Kind::Rebalance, &what, planned.moves.len() as u64);
    let mut moved = 0_u64;
    for next in &planned.moves {
        while redundancy.status().repair.active {
            sleep(LOOK).await;
        }
        if redundancy.balance() != BalanceState::Moving {
            return;
        }
        let started = Instant::now();
        let outcome = carry_out(metadata, *next, &planned.nodes).await;
        stretch.chunk_ended(&outcome);
        match outcome {
            Ok(_) => moved += 1,
            Err(reason) => warn!(chunk = %next.part.chunk, to = %next.to, reason, "a part was not moved"),
        }
        sleep(started.elapsed().min(LONGEST_REST)).await;
    }
    if moved == 0 {
        sleep(PAUSE_AFTER_FAILURE).await;
    }
}

/// Moves one part, if it is still where the plan saw it.
async fn carry_out(metadata: &Metadata, next: Move, nodes: &[NodeRecord]) -> Result<u64, String> {
    let chunk = next.part.chunk;
    let record = metadata
        .store
        .chunk(chunk)
        .await
        .map_err(|error| error.to_string())?;
    let Some(record) = record.filter(|record| record.lost.is_empty()) else {
        return Ok(0);
    };
    let parts = &record.placement.parts;
    let part = parts
        .iter()
        .find(|part| part.node == next.part.node && part.shard == next.part.shard);
    let node = nodes.iter().find(|node| node.node == next.part.node);
    let (Some(part), Some(node)) = (part.copied(), node) else {
        return Ok(0);
    };
    if parts.iter().any(|part| part.node == next.to) {
        return Ok(0);
    }
    let bytes = read_part(metadata, &record, &part, node).await;
    let bytes = bytes.ok_or("its node does not give it out; repair will see to it")?;
    let material = match record.placement.scheme {
        Scheme::Replicated => Material::copies(record.placement.digest, bytes),
        Scheme::Erasure => Material::one_shard(&record.placement, &part, bytes)?,
    };
    let base = Accepted {
        ballot: record.epoch,
        value: Value::Placed(record.placement),
    };
    let goal = Goal::repair(&base, material.contents.clone(), |other| *other == part);
    match goal {
        Some(goal) => place_on(metadata, chunk, goal, &material, Some(next.to)).await,
        None => Ok(0),
    }
}
