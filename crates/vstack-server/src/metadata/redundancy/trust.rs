//! Which nodes count: those that lied are not trusted for a while, those that came back are compared first.
//!
//! A node that was down or restarted may have lost what it held. It is asked for its inventory at once, and until it has
//! told all of it the planner calls its parts neither good nor lost. Each is asked by itself: one that hangs while it is
//! asked keeps no other one waiting, and is asked anew when it comes back again. Who lied is kept in the catalogue, so that
//! a restart does not end a quarantine. Who returns is not: after its own start the role sees every node that it thought
//! down come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_api::ApiError;
use vstack_api::inventory::{InventorySummary, PAGE_OBJECTS};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::node::NodeHealth;
use vstack_core::repair::NodeFacts;
use vstack_core::time::UnixMillis;
use vstack_core::trust::Distrust;
use vstack_meta::{Cmd, MetaError, NodeRecord, Reply};

use crate::http::Refusal;
use crate::metadata::state::Metadata;

/// How often nodes that came back and did not yet answer are asked again.
const LOOK: Duration = Duration::from_secs(1);
/// A node that hangs is asked again after this and a second for each page of what it holds, the next time after twice as
/// long...
const PATIENCE_S: u64 = 15;
/// ...up to this: a million objects are 250 pages, each of which is answered in well under a second.
const PATIENCE_MAX_S: u64 = 600;

#[derive(Debug, Default)]
pub(in crate::metadata) struct Trust {
    distrust: Mutex<Distrust>,
    returning: Mutex<BTreeMap<NodeId, Return>>,
    wake: Notify,
}

/// A node that came back and is to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Return {
    /// How often it came back meanwhile. What it was asked before it did so last says nothing.
    times: u32,
    /// How often it has been asked since then.
    tries: u32,
    /// It is being asked.
    asked: bool,
}

impl Return {
    fn patience(self, objects: u64) -> Duration {
        let pages = objects / PAGE_OBJECTS as u64;
        let first_s = PATIENCE_S + pages;
        let s = first_s.saturating_mul(1 << self.tries.min(10));
        Duration::from_secs(s.min(PATIENCE_MAX_S.max(first_s)))
    }
}

impl Trust {
    /// With the wrong answers that were met before the role ended, the oldest first.
    pub(super) fn remembering(lies: &[(NodeId, UnixMillis)]) -> Self {
        let mut distrust = Distrust::default();
        for (node, at) in lies {
            distrust.lied(*node, *at);
        }
        Self {
            distrust: Mutex::new(distrust),
            ..Self::default()
        }
    }

    fn distrust(&self) -> MutexGuard<'_, Distrust> {
        self.distrust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returning(&self) -> MutexGuard<'_, BTreeMap<NodeId, Return>> {
        self.returning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::metadata) fn forgive(&self, node: NodeId) {
        self.distrust().forgive(node);
    }

    /// The node was down, or started again.
    pub(in crate::metadata) fn returned(&self, node: NodeId) {
        let mut returning = self.returning();
        let times = returning.get(&node).map_or(0, |before| before.times);
        let anew = Return {
            times: times + 1,
            ..Return::default()
        };
        returning.insert(node, anew);
        drop(returning);
        self.wake.notify_one();
    }

    pub(super) fn is_returning(&self, node: NodeId) -> bool {
        self.returning().contains_key(&node)
    }

    /// Nodes to be asked.
    fn unasked(&self) -> BTreeMap<NodeId, Return> {
        let mut unasked = self.returning().clone();
        unasked.retain(|_, back| !back.asked);
        unasked
    }

    fn asking(&self, node: NodeId) {
        if let Some(back) = self.returning().get_mut(&node) {
            back.asked = true;
        }
    }

    /// What it was asked at its return of this number has come to an end. Says whether that settles it.
    fn answered(&self, node: NodeId, times: u32, told: bool) -> bool {
        let mut returning = self.returning();
        let Some(back) = returning.get_mut(&node).filter(|back| back.times == times) else {
            return false;
        };
        (back.asked, back.tries) = (false, back.tries + 1);
        if told {
            returning.remove(&node);
        }
        told
    }
}

impl Metadata {
    /// Parts that this life of the node does not hold any more: nobody reads them, and they are made again. Returns how
    /// many of them counted until now.
    pub(in crate::metadata) async fn lose_parts(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        objects: Vec<(ChunkId, Ballot)>,
    ) -> Result<u64, Refusal> {
        let lost = Cmd::LoseParts {
            node,
            incarnation,
            objects,
        };
        let parts = match self.apply(lost).await? {
            Reply::Lost(parts) => parts,
            _ => 0,
        };
        if parts > 0 {
            self.counts.lost_parts.inc_by(parts);
            self.redundancy.wake_heal.notify_one();
        }
        Ok(parts)
    }

    /// A part of the node was read and had other bytes than the placement names.
    pub(in crate::metadata) async fn lied(&self, node: NodeId) {
        let now = self.now();
        self.redundancy.trust.distrust().lied(node, now);
        if let Err(error) = self.store.apply_one(Cmd::Lied { node, now }).await {
            warn!(%node, %error, "a wrong answer was not kept; a restart of this role forgets it");
        }
    }

    /// Nodes whose bytes are not trusted now.
    pub(in crate::metadata) fn distrusted(&self, nodes: &[NodeRecord]) -> BTreeSet<NodeId> {
        let members = nodes.iter().filter(|node| node.is_member()).count();
        let quarantine_ms = self.settings.redundancy.repair.quarantine_ms;
        let trust = &self.redundancy.trust;
        trust.distrust().distrusted(members, quarantine_ms, self.now())
    }

    /// What the repair planner looks at.
    pub(super) fn node_facts(&self, nodes: &[NodeRecord]) -> BTreeMap<NodeId, NodeFacts> {
        let (now, distrusted) = (self.now(), self.distrusted(nodes));
        let facts = |node: &NodeRecord| {
            let (health, distrusted) = (node.health(now), distrusted.contains(&node.node));
            let facts = NodeFacts {
                health,
                last_seen: node.last_heartbeat,
                state: node.state,
                takes_parts: health == NodeHealth::Healthy
                    && node.state.takes_parts()
                    && !distrusted
                    && !node.read_only
                    && node.disk_usage_percent < 100.0
                    && node.known_url().is_some(),
                distrusted,
                returning: self.redundancy.trust.is_returning(node.node),
            };
            (node.node, facts)
        };
        nodes.iter().map(facts).collect()
    }
}

/// Compares nodes that came back, until the role stops.
pub(in crate::metadata) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let work = async {
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(answer) = asked.next() => {
                    settle(&metadata, &answer);
                    continue;
                }
                () = metadata.redundancy.trust.wake.notified() => {}
                () = sleep(LOOK) => {}
            }
            match ask(&metadata).await {
                Ok(asks) => asked.extend(asks),
                Err(error) => debug!(%error, "nodes that came back are compared later"),
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// What came of asking a node.
struct Answer {
    node: NodeId,
    times: u32,
    told: Result<InventorySummary, ApiError>,
}

/// Asks those that are not being asked and are not down again.
async fn ask(metadata: &Metadata) -> Result<Vec<BoxFuture<'_, Answer>>, MetaError> {
    let trust = &metadata.redundancy.trust;
    let unasked = trust.unasked();
    if unasked.is_empty() {
        return Ok(Vec::new());
    }
    let (nodes, now) = (metadata.store.nodes().await?, metadata.now());
    let there = nodes
        .iter()
        .filter(|node| node.is_member() && node.health(now) != NodeHealth::Down);
    let mut asks: Vec<BoxFuture<'_, Answer>> = Vec::new();
    for record in there {
        let (Some(back), Some(url)) = (unasked.get(&record.node), record.known_url()) else {
            continue;
        };
        let (node, times) = (record.node, back.times);
        let (storage, patience) = (metadata.storage(url), back.patience(record.chunk_count));
        trust.asking(node);
        asks.push(Box::pin(async move {
            let told = storage.take_inventory(patience).await;
            Answer { node, times, told }
        }));
    }
    Ok(asks)
}

fn settle(metadata: &Metadata, answer: &Answer) {
    let Answer { node, times, told } = answer;
    let settled = metadata.redundancy.trust.answered(*node, *times, told.is_ok());
    match told {
        Ok(_) if !settled => debug!(%node, "a node came back once more while it told what it holds"),
        Ok(summary) => {
            match summary.lost {
                0 => info!(%node, objects = summary.objects, "a node is back with everything it held"),
                lost => warn!(%node, lost, "a node is back and lacks parts that it held"),
            }
            metadata.redundancy.wake_heal.notify_one();
        }
        Err(error) => debug!(%node, %error, "a node that came back does not tell what it holds yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NODE: NodeId = NodeId(Uuid::from_u128(1));

    fn asked(trust: &Trust) -> u32 {
        let times = trust.unasked()[&NODE].times;
        trust.asking(NODE);
        times
    }

    #[test]
    fn a_node_that_comes_back_while_it_is_asked_is_asked_anew_and_only_that_answer_counts() {
        let trust = Trust::default();
        trust.returned(NODE);
        let first = asked(&trust);
        assert!(trust.unasked().is_empty(), "one question at a time");
        trust.returned(NODE);
        let second = asked(&trust);
        assert!(!trust.answered(NODE, first, true), "it was asked before it went");
        assert!(trust.is_returning(NODE));
        assert!(trust.answered(NODE, second, true));
        assert!(!trust.is_returning(NODE));
    }

    #[test]
    fn a_node_that_did_not_answer_is_asked_again_with_more_patience() {
        let trust = Trust::default();
        trust.returned(NODE);
        for (patience_s, times) in [(15, 1), (30, 1), (60, 1)] {
            let back = trust.unasked()[&NODE];
            assert_eq!((back.patience(0).as_secs(), back.times), (patience_s, times));
            trust.asking(NODE);
            assert!(!trust.answered(NODE, times, false));
        }
        let tired = Return {
            tries: 40,
            ..Return::default()
        };
        assert_eq!(tired.patience(1_000_000).as_secs(), PATIENCE_MAX_S);
        assert!(tired.patience(10_000_000) > Duration::from_secs(PATIENCE_MAX_S));
    }
}
