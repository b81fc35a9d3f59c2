//! The repair worker: asks the pure planner what to make again, and does it, the most endangered chunks first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_api::redundancy::{DataLoss, RedundancyStatus};
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::manifest::ms_to_seconds;
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::paxos::master::{Accepted, Value};
use vstack_core::paxos::proposer::Goal;
use vstack_core::placement::Scheme;
use vstack_core::repair::{ChunkFacts, NodeFacts, Plan, Task, plan};
use vstack_core::time::UnixMillis;
use vstack_meta::{AtRisk, Behind, ChunkRecord, MetaError, NodeRecord};

use super::mover::{Material, place};
use super::progress::{Kind, Stretch};
use crate::metadata::fetch::chunk_bytes;
use crate::metadata::state::Metadata;

const LOOK: Duration = Duration::from_secs(1);
/// Chunks repaired at the same time: enough to keep a link busy, few enough to leave room for viewers.
const AT_ONCE: usize = 4;
/// Repairs between two looks, so that what has become urgent comes first soon.
const BATCH: usize = 64;
/// Chunks read from the catalogue at once.
const PAGE: usize = 2_048;
/// Until a chunk whose repair failed is tried again.
const RETRY_MS: u64 = 10_000;
/// Lost stretches that are listed.
const LOSSES_SHOWN: usize = 1_000;

/// Works until the role stops.
pub(in crate::metadata) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let work = async {
        let mut healer = Healer {
            metadata: &metadata,
            not_before: BTreeMap::new(),
            told: RedundancyStatus::default(),
        };
        loop {
            match healer.round().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => debug!(%error, "it cannot be seen what is to be repaired"),
            }
            tokio::select! {
                biased;
                () = sleep(LOOK) => {}
                () = metadata.redundancy.wake_heal.notified() => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

struct Healer<'a> {
    metadata: &'a Metadata,
    not_before: BTreeMap<ChunkId, UnixMillis>,
    /// The last state that was logged.
    told: RedundancyStatus,
}

/// What a look found.
struct Look {
    plan: Plan,
    records: BTreeMap<ChunkId, ChunkRecord>,
    nodes: BTreeMap<NodeId, NodeRecord>,
}

impl Healer<'_> {
    /// One look and some of the work; `true` when there may be more to do at once.
    async fn round(&mut self) -> Result<bool, MetaError> {
        let Some(look) = self.look().await? else {
            self.tell(&Plan::default(), Vec::new());
            return Ok(false);
        };
        let losses = self.losses(&look).await?;
        self.tell(&look.plan, losses);
        let now = self.metadata.now();
        self.not_before.retain(|_, time| *time > now);
        let due: Vec<&Task> = look
            .plan
            .tasks
            .iter()
            .filter(|task| !self.not_before.contains_key(&task.chunk))
            .collect();
        if due.is_empty() {
            return Ok(false);
        }
        let what = format!("{} chunks lack parts", due.len());
        let stretch = Stretch::begin(&self.metadata.redundancy, Kind::Repair, &what, due.len() as u64);
        let mut repairs: Vec<BoxFuture<'_, (ChunkId, Result<u64, String>)>> = Vec::new();
        for task in due.iter().take(BATCH) {
            if let Some(record) = look.records.get(&task.chunk) {
                let repaired = repair(self.metadata, task, record, &look.nodes);
                repairs.push(Box::pin(async move { (task.chunk, repaired.await) }));
            }
        }
        let began = Instant::now();
        let ended: Vec<(ChunkId, Result<u64, String>)> = stream::iter(repairs)
            .buffer_unordered(AT_ONCE)
            .inspect(|(_, outcome)| stretch.chunk_ended(outcome))
            .collect()
            .await;
        drop(stretch);
        let read = |chunk: &ChunkId| Some(look.records.get(chunk)?.placement.digest.size_bytes);
        let good = ended.iter().filter(|(_, outcome)| outcome.is_ok());
        let read_bytes = good.filter_map(|(chunk, _)| read(chunk)).sum();
        self.metadata
            .redundancy
            .measured(Kind::Repair, read_bytes, began.elapsed());
        self.metadata.keep_speed(Kind::Repair).await;
        let mut repaired = 0;
        for (chunk, outcome) in ended {
            match outcome {
                Ok(_) => repaired += 1,
                Err(reason) => {
                    warn!(%chunk, reason, "a chunk was not repaired, it is tried again");
                    self.not_before.insert(chunk, self.metadata.now() + RETRY_MS);
                }
            }
        }
        if repaired > 0 {
            info!(repaired, "chunks have all their parts again");
        }
        Ok(repaired > 0)
    }

    /// `None` when every chunk is whole on nodes that answer.
    async fn look(&self) -> Result<Option<Look>, MetaError> {
        let store = &self.metadata.store;
        if store.behind().await? != Behind::No {
            return Ok(None);
        }
        let (nodes, now) = (store.nodes().await?, self.metadata.now());
        let node_facts = self.metadata.node_facts(&nodes);
        let is_doubtful = |facts: &NodeFacts| {
            let away = facts.health == NodeHealth::Down || facts.state != NodeState::Active;
            away || facts.distrusted || facts.returning
        };
        let doubtful = node_facts.iter().filter(|(_, facts)| is_doubtful(facts));
        let doubtful: Vec<NodeId> = doubtful.map(|(node, _)| *node).collect();
        if doubtful.is_empty() && store.under_replicated(1).await?.is_empty() {
            return Ok(None);
        }
        let mut found: Vec<AtRisk> = Vec::new();
        loop {
            let page = store.at_risk(doubtful.clone(), found.len(), PAGE).await?;
            let full = page.len() == PAGE;
            found.extend(page);
            if !full {
                break;
            }
        }
        let half_life_ms = self.metadata.settings.view_half_life_ms;
        let facts: Vec<ChunkFacts> = found
            .iter()
            .map(|risk| chunk_facts(risk, now, half_life_ms))
            .collect();
        let settings = self.metadata.settings.redundancy.repair;
        Ok(Some(Look {
            plan: plan(&facts, &node_facts, settings, now),
            records: found
                .into_iter()
                .map(|risk| (risk.record.chunk, risk.record))
                .collect(),
            nodes: nodes.into_iter().map(|node| (node.node, node)).collect(),
        }))
    }

    /// What is lost, in the words of those who would watch it.
    async fn losses(&self, look: &Look) -> Result<Vec<DataLoss>, MetaError> {
        let mut losses = Vec::new();
        for chunk in look.plan.data_loss.iter().take(LOSSES_SHOWN) {
            let (Some(record), Some(video)) = (
                look.records.get(chunk),
                self.metadata.store.video(chunk.video()).await?,
            ) else {
                continue;
            };
            let (start, length) = (record.media.start_ms, record.media.duration_ms);
            losses.push(DataLoss {
                video_id: chunk.video(),
                title: video.video.title,
                chunk_id: *chunk,
                from_sec: ms_to_seconds(start),
                to_sec: ms_to_seconds(start + length),
            });
        }
        Ok(losses)
    }

    fn tell(&mut self, plan: &Plan, data_loss: Vec<DataLoss>) {
        let now = RedundancyStatus {
            waiting: plan.waiting as u64,
            degraded: plan.degraded.len() as u64,
            unreadable: plan.unreadable.len() as u64,
            advice: advice(plan),
            data_loss,
            ..RedundancyStatus::default()
        };
        if now != self.told {
            for loss in now
                .data_loss
                .iter()
                .filter(|loss| !self.told.data_loss.contains(loss))
            {
                tracing::error!(video = %loss.title, from_s = loss.from_sec, to_s = loss.to_sec, chunk = %loss.chunk_id,
                    "data_loss: too few parts of this stretch exist anywhere");
            }
            if !now.advice.is_empty() && now.advice != self.told.advice {
                warn!(
                    degraded = now.degraded,
                    unreadable = now.unreadable,
                    "{}",
                    now.advice
                );
            }
            self.told = now.clone();
        }
        self.metadata.redundancy.change(|status| {
            status.waiting = now.waiting;
            status.degraded = now.degraded;
            status.unreadable = now.unreadable;
            status.data_loss = now.data_loss;
            status.advice = now.advice;
        });
    }
}

fn advice(plan: &Plan) -> String {
    let loss = (!plan.data_loss.is_empty()).then(|| {
        format!(
            "data_loss: {} chunks cannot be made again; restore the videos or delete them",
            plan.data_loss.len()
        )
    });
    let silent = (!plan.unreadable.is_empty()).then(|| {
        format!(
            "{} chunks cannot be read until a silent node is back",
            plan.unreadable.len()
        )
    });
    let degraded = (!plan.degraded.is_empty()).then(|| {
        format!(
            "degraded, add a node: {} chunks lack parts that no node can take (3 copies need a fourth node to heal, shards a sixth)",
            plan.degraded.len()
        )
    });
    let all: Vec<String> = [loss, silent, degraded].into_iter().flatten().collect();
    all.join("; ")
}

fn chunk_facts(risk: &AtRisk, now: UnixMillis, half_life_ms: u64) -> ChunkFacts {
    let record = &risk.record;
    ChunkFacts {
        chunk: record.chunk,
        scheme: record.placement.scheme,
        parts: record.placement.parts.clone(),
        lost: record.lost.clone(),
        popularity: risk.popularity.decayed(now, half_life_ms),
    }
}

/// Reads the chunk from its good parts, verified, and places those that are missing. Kept parts are not touched.
async fn repair(
    metadata: &Metadata,
    task: &Task,
    record: &ChunkRecord,
    nodes: &BTreeMap<NodeId, NodeRecord>,
) -> Result<u64, String> {
    let bytes = chunk_bytes(metadata, record, nodes)
        .await
        .map_err(|refusal| refusal.0.detail)?;
    let digest = record.placement.digest;
    let material = match record.placement.scheme {
        Scheme::Replicated => Material::copies(digest, bytes),
        Scheme::Erasure => Material::shards(metadata.platform.threads, digest, bytes).await?,
    };
    let base = Accepted {
        ballot: record.epoch,
        value: Value::Placed(record.placement.clone()),
    };
    let goal = Goal::repair(&base, material.contents.clone(), |part| {
        task.replace.contains(part)
    });
    match goal {
        Some(goal) => place(metadata, task.chunk, goal, &material).await,
        None => Ok(0),
    }
}
