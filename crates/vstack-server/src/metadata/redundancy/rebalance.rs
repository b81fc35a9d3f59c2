//! The rebalance worker: moves parts from full nodes to empty ones, as the pure planner says, while an operator wants it.
//!
//! A move is a repair of a chunk that lacks nothing: the part is read and checked, written to its new node under a new
//! ballot, decided, and only then collected where it was. So it may stop anywhere, and readers never notice. Repair goes
//! first. What is wanted is in the catalogue: after a restart the role goes on, or stays paused.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_api::redundancy::{NodeUse, RebalanceView};
use vstack_core::id::NodeId;
use vstack_core::limits::NODE_DOWN_AFTER_MS;
use vstack_core::node::NodeHealth;
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::Goal;
use vstack_core::placement::Scheme;
use vstack_core::rebalance::{BalanceState, Move, NodeLoad, TOLERANCE, carried_out, plan, unevenness};
use vstack_meta::{Cmd, NodeRecord, Spread};

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
        *self.locked_balance()
    }

    fn locked_balance(&self) -> MutexGuard<'_, BalanceState> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metadata {
    /// From now on `balance` is wanted, if what is wanted now is one of `from`. Durable on return.
    async fn change_balance(&self, from: &[BalanceState], balance: BalanceState) -> Answer<()> {
        // Two changes at once must be kept in the order in which they are made.
        let _turn = self.redundancy.changing_balance.lock().await;
        if from.contains(&self.redundancy.balance()) {
            self.apply(Cmd::SetBalance { balance }).await?;
            *self.redundancy.locked_balance() = balance;
        }
        Ok(())
    }
}

const ANY: [BalanceState; 3] = [BalanceState::Idle, BalanceState::Moving, BalanceState::Paused];

/// `GET /rebalance`: what would be moved now.
pub(in crate::metadata) async fn show(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    view(&metadata).await.map(Json)
}

/// `POST /rebalance/apply`.
pub(in crate::metadata) async fn apply(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    metadata.change_balance(&ANY, BalanceState::Moving).await?;
    metadata.redundancy.wake_balance.notify_one();
    view(&metadata).await.map(Json)
}

/// `POST /rebalance/pause`: the move under way ends, no other begins.
pub(in crate::metadata) async fn pause(State(metadata): State<Arc<Metadata>>) -> Answer<Json<RebalanceView>> {
    metadata
        .change_balance(&[BalanceState::Moving], BalanceState::Paused)
        .await?;
    view(&metadata).await.map(Json)
}

async fn view(metadata: &Metadata) -> Answer<RebalanceView> {
    let planned = planned(metadata).await?;
    let bytes_of = |loads: &BTreeMap<NodeId, NodeLoad>, node: &NodeRecord| {
        loads.get(&node.node).map_or(0, |load| load.used_bytes)
    };
    let node_use = |node: &NodeRecord| NodeUse {
        name: node.name.clone(),
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
            // What was wanted when the role ended still is.
            while metadata.redundancy.balance() == BalanceState::Moving {
                if let Err(refusal) = step(&metadata).await {
                    warn!(problem = %refusal.0, "it cannot be seen what is to be moved");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
            metadata.redundancy.wake_balance.notified().await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Moves what the plan of this moment says, or ends the run.
async fn step(metadata: &Metadata) -> Answer<()> {
    let planned = planned(metadata).await?;
    if !planned.moves.is_empty() {
        round(metadata, &planned).await;
    } else if awaits_nodes(metadata, &planned.nodes) {
        sleep(LOOK).await;
    } else {
        // A run that was paused meanwhile stays paused.
        let (from, to) = (&[BalanceState::Moving], BalanceState::Idle);
        metadata.change_balance(from, to).await?;
        info!("the nodes are even");
    }
    Ok(())
}

/// Whether a node that could take parts or give some may only not have reported since the role started, or not have told
/// what it holds.
fn awaits_nodes(metadata: &Metadata, nodes: &[NodeRecord]) -> bool {
    let (now, just_started) = (metadata.now(), metadata.running_for_ms() < NODE_DOWN_AFTER_MS);
    nodes.iter().filter(|node| node.is_member()).any(|node| {
        let silent = node.health(now) != NodeHealth::Healthy;
        let untold = metadata.redundancy.trust.is_returning(node.node);
        (silent && just_started) || (!silent && untold)
    })
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
