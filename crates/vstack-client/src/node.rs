//! The nodes that a client knows: their names, addresses and measurements.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vstack_api::{Endpoint, StorageClient, Transport};
use vstack_core::id::NodeId;
use vstack_core::node::NodeHealth;
use vstack_core::node_name;
use vstack_core::time::UnixMillis;

use crate::clock::Clock;
use crate::policy::{Micros, NodeIndex, NodeLoad, NodeRecord, NodeRecords, Prior};

/// Colours that the player has for nodes.
const COLOURS: u16 = 5;

/// A node as events and reports name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRef {
    /// Place in the client's list, from 0; the same while the client lives.
    pub index: u16,
    /// What the catalogue calls it; the beginning of its id as long as that is not known.
    pub name: String,
    pub node_id: NodeId,
}

/// The samples behind a score, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// At most 10.
    pub latency_ms: Vec<f64>,
    /// At most 10.
    pub bandwidth_mbps: Vec<f64>,
    /// At most 20; 1 for a request that succeeded, 0 for one that failed.
    pub success_rate: Vec<u8>,
    pub last_updated: Option<UnixMillis>,
}

/// What the client knows of one node: the monitoring record that the player and `vstack play --json` export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub index: u16,
    /// As in [`NodeRef`].
    pub name: String,
    pub node_id: NodeId,
    pub node_url: String,
    pub measurements: Measurements,
    pub computed_score: f64,
    /// What it said of itself when it was pinged last; `None` for a node that does not say.
    pub load: Option<NodeLoad>,
    /// As this client sees it: down while pings get no answer, degraded while it is left alone after a failure.
    pub status: NodeHealth,
}

impl NodeView {
    /// 0 to 4.
    #[must_use]
    pub const fn colour(&self) -> u16 {
        self.index % COLOURS
    }

    /// Mean of the window.
    #[must_use]
    pub fn latency_ms(&self) -> Option<f64> {
        mean(&self.measurements.latency_ms)
    }

    /// Mean of the window.
    #[must_use]
    pub fn bandwidth_mbps(&self) -> Option<f64> {
        mean(&self.measurements.bandwidth_mbps)
    }

    /// 0 to 100; 100 before the first request.
    #[must_use]
    pub fn success_percent(&self) -> f64 {
        let samples: Vec<f64> = self
            .measurements
            .success_rate
            .iter()
            .map(|sample| f64::from(*sample))
            .collect();
        mean(&samples).unwrap_or(1.0) * 100.0
    }
}

fn mean(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() {
        None
    } else {
        Some(samples.iter().sum::<f64>() / samples.len() as f64)
    }
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    /// `None` for one that manifests name and the catalogue has not listed yet.
    name: Option<String>,
    client: StorageClient,
}

impl Node {
    fn label(&self) -> String {
        node_name::label(self.name.as_deref(), self.id)
    }
}

/// All nodes that a client has heard of: the first list by name, later ones as they come. Nodes are never taken out,
/// so an index stays.
#[derive(Debug)]
pub(crate) struct NodeTable {
    transport: Arc<dyn Transport>,
    nodes: Vec<Node>,
    /// Of nodes that are not in the list yet: how they served an earlier run.
    remembered: BTreeMap<NodeId, Prior>,
    pub(crate) records: NodeRecords,
}

impl NodeTable {
    /// `remembered` is as old as it says when the clock begins.
    pub(crate) fn new(transport: Arc<dyn Transport>, remembered: BTreeMap<NodeId, Prior>) -> Self {
        Self {
            transport,
            nodes: Vec::new(),
            remembered,
            records: NodeRecords::default(),
        }
    }

    /// Whether the node is not known, or not at this address.
    pub(crate) fn is_news(&self, id: NodeId, url: &str) -> bool {
        let known = self.nodes.iter().find(|node| node.id == id);
        let url = Endpoint::with_transport(url, Arc::clone(&self.transport));
        known.is_none_or(|node| node.client.0.base_url() != url.base_url())
    }

    /// The index of a node that is reached at `url` now; `None` when the list is full.
    pub(crate) fn register(&mut self, id: NodeId, url: &str) -> Option<NodeIndex> {
        let known = self.nodes.iter().position(|node| node.id == id);
        let index = NodeIndex(u16::try_from(known.unwrap_or(self.nodes.len())).ok()?);
        let client = StorageClient(Endpoint::with_transport(url, Arc::clone(&self.transport)));
        match known {
            None => {
                let name = None;
                self.nodes.push(Node { id, name, client });
                if let Some(prior) = self.remembered.remove(&id) {
                    self.records.record_mut(index).remember(Micros(0), prior);
                }
            }
            Some(known) if self.nodes[known].client.0.base_url() != client.0.base_url() => {
                self.nodes[known].client = client;
            }
            Some(_) => {}
        }
        Some(index)
    }

    /// Calls a node as the catalogue does now. A name belongs to one node: whoever had it before has none.
    pub(crate) fn name(&mut self, index: NodeIndex, name: Option<&str>) {
        let Some(name) = name else { return };
        for node in &mut self.nodes {
            node.name.take_if(|known| known == name);
        }
        if let Some(node) = self.nodes.get_mut(usize::from(index.0)) {
            node.name = Some(name.to_owned());
        }
    }

    /// Whether the catalogue has named all of them.
    pub(crate) fn all_named(&self) -> bool {
        self.nodes.iter().all(|node| node.name.is_some())
    }

    /// How each node serves, as of `now`, where that is known.
    pub(crate) fn priors(&self, now: Micros) -> Vec<(NodeId, Prior)> {
        let prior = |(index, node): (NodeIndex, &Node)| {
            let record = self.records.record(index)?;
            Some((node.id, record.prior(now)?))
        };
        self.indexed().filter_map(prior).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn client(&self, index: NodeIndex) -> Option<StorageClient> {
        self.nodes
            .get(usize::from(index.0))
            .map(|node| node.client.clone())
    }

    pub(crate) fn clients(&self) -> Vec<(NodeIndex, StorageClient)> {
        self.indexed()
            .map(|(index, node)| (index, node.client.clone()))
            .collect()
    }

    pub(crate) fn node_ref(&self, index: NodeIndex) -> NodeRef {
        let node = self.nodes.get(usize::from(index.0));
        NodeRef {
            index: index.0,
            name: node.map(Node::label).unwrap_or_default(),
            node_id: node.map_or(NodeId(uuid::Uuid::nil()), |node| node.id),
        }
    }

    pub(crate) fn views(&self, clock: &Clock) -> Vec<NodeView> {
        let now = clock.now();
        let view = |(index, node): (NodeIndex, &Node)| {
            let record = self.records.record(index).cloned().unwrap_or_default();
            NodeView {
                index: index.0,
                name: node.label(),
                node_id: node.id,
                node_url: node.client.0.base_url().to_owned(),
                computed_score: record.score(),
                load: record.load(),
                status: status(&record, now),
                measurements: measurements(&record, clock),
            }
        };
        self.indexed().map(view).collect()
    }

    fn indexed(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        (0..).map(NodeIndex).zip(&self.nodes)
    }
}

fn status(record: &NodeRecord, now: Micros) -> NodeHealth {
    if record.is_unanswered() {
        NodeHealth::Down
    } else if record.is_backed_off(now) {
        NodeHealth::Degraded
    } else {
        NodeHealth::Healthy
    }
}

fn measurements(record: &NodeRecord, clock: &Clock) -> Measurements {
    Measurements {
        latency_ms: record.latencies_ms().collect(),
        bandwidth_mbps: record.bandwidths_mbps().collect(),
        success_rate: record.successes().map(u8::from).collect(),
        last_updated: record.last_updated().map(|at| clock.unix(at)),
    }
}
