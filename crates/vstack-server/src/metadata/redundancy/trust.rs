//! Which nodes count: those that lied are not trusted for a while, those that came back are compared first.
//!
//! A node that was down or restarted may have lost what it held. It is asked for its inventory at once, and until it has
//! told all of it the planner calls its parts neither good nor lost. Nothing here survives the role: after its own start
//! it sees every node that it thought down come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_core::repair::NodeFacts;
use vstack_core::time::UnixMillis;
use vstack_core::trust::Distrust;
use vstack_meta::{MetaError, NodeRecord};

use crate::metadata::state::Metadata;

/// How often nodes that came back and did not yet answer are asked again.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(in crate::metadata) struct Trust {
    distrust: Mutex<Distrust>,
    returning: Mutex<BTreeSet<NodeId>>,
    wake: Notify,
}

impl Trust {
    fn distrust(&self) -> MutexGuard<'_, Distrust> {
        self.distrust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returning(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.returning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of the node was read and had other bytes than the placement names.
    pub(in crate::metadata) fn lied(&self, node: NodeId, now: UnixMillis) {
        self.distrust().lied(node, now);
    }

    pub(in crate::metadata) fn forgive(&self, node: NodeId) {
        self.distrust().forgive(node);
    }

    /// The node was down, or started again.
    pub(in crate::metadata) fn returned(&self, node: NodeId) {
        self.returning().insert(node);
        self.wake.notify_one();
    }

    pub(super) fn is_returning(&self, node: NodeId) -> bool {
        self.returning().contains(&node)
    }
}

impl Metadata {
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
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = metadata.redundancy.trust.wake.notified() => {}
            }
            if let Err(error) = round(&metadata).await {
                debug!(%error, "nodes that came back are compared later");
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn round(metadata: &Metadata) -> Result<(), MetaError> {
    let trust = &metadata.redundancy.trust;
    let returning = trust.returning().clone();
    if returning.is_empty() {
        return Ok(());
    }
    let (nodes, now) = (metadata.store.nodes().await?, metadata.now());
    let asked = nodes.iter().filter(|node| {
        returning.contains(&node.node) && node.is_member() && node.health(now) != NodeHealth::Down
    });
    let inventories = asked
        .filter_map(|node| Some((node.node, node.known_url()?)))
        .map(async |(node, url)| (node, metadata.storage(url).take_inventory().await));
    for (node, told) in futures::future::join_all(inventories).await {
        match told {
            Ok(summary) => {
                trust.returning().remove(&node);
                match summary.lost {
                    0 => info!(%node, objects = summary.objects, "a node is back with everything it held"),
                    lost => warn!(%node, lost, "a node is back and lacks parts that it held"),
                }
                metadata.redundancy.wake_heal.notify_one();
            }
            Err(error) => debug!(%node, %error, "a node that came back does not tell what it holds yet"),
        }
    }
    Ok(())
}
