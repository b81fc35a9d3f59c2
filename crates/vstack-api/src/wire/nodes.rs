//! Storage nodes: their heartbeats, how they are listed, and what their operator does to them.

use serde::{Deserialize, Serialize};
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::keys::{Canonical, DerivedKey, Mac};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::node_name;

/// Body of `POST /nodes/{node_id}/heartbeat`. Unknown fields are ignored, so that a newer node can report more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub url: String,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    pub chunk_count: u64,
    #[serde(default)]
    pub read_only: bool,
    /// Objects that are known to be damaged.
    #[serde(default)]
    pub corrupt_count: u64,
    /// Highest generation of the catalogue that this node has seen in a grant.
    #[serde(default)]
    pub highest_generation: u64,
    /// Version of the calls that the node speaks.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// What the node's clock says, in milliseconds since 1970. Only to be told when it is far off.
    #[serde(default)]
    pub clock_ms: Option<u64>,
    /// Bytes of parts that the node may hold in all: those that it holds, and the room that is left.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// What fails together with this node, in its operator's words; its host where nobody named it.
    #[serde(default)]
    pub rack: Option<String>,
    /// What its operator calls it; the catalogue numbers a node that nobody named.
    #[serde(default)]
    pub name: Option<String>,
    pub mac: Mac,
}

const fn first_protocol() -> u32 {
    1
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatAnswer {
    /// Taken, but odd: `clock_skew`; `name_taken` when another node that lives is called as this one would be.
    pub warnings: Vec<String>,
    /// The catalogue's clock.
    pub clock_ms: u64,
    /// The life of the catalogue that grants now; absent while it grants nothing.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// What the node is called in this cluster.
    pub name: Option<String>,
}

/// A generation of the catalogue, signed with the grant key. A node writes the highest one down: a catalogue that was
/// restored from a backup goes above all that its nodes have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub number: u64,
    pub mac: Mac,
}

impl Generation {
    #[must_use]
    pub fn signed(key: &DerivedKey, number: u64) -> Self {
        let mac = key.sign(&Self::canonical(number));
        Self { number, mac }
    }

    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        key.verifies(&Self::canonical(self.number), &self.mac)
    }

    fn canonical(number: u64) -> Canonical {
        Canonical::new("vstack.generation.1").number(number)
    }
}

impl Heartbeat {
    /// What the MAC covers: who, where, which life. The figures are free to change.
    #[must_use]
    pub fn canonical(node: NodeId, url: &str, incarnation: Incarnation, boot_epoch: u64) -> Canonical {
        let message = Canonical::new("vstack.heartbeat.1")
            .uuid(node.0)
            .bytes(url.as_bytes());
        message.uuid(incarnation.0).number(boot_epoch)
    }

    /// Whether `key`, the receipt key of `node`, signed it.
    #[must_use]
    pub fn verifies(&self, node: NodeId, key: &DerivedKey) -> bool {
        key.verifies(
            &Self::canonical(node, &self.url, self.incarnation, self.boot_epoch),
            &self.mac,
        )
    }
}

/// A node as `GET /nodes` and `GET /nodes/healthy` list it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub node_id: NodeId,
    /// What it is called everywhere; no two nodes have the same. `null` until its first heartbeat here.
    #[serde(default)]
    pub name: Option<String>,
    pub node_url: String,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    /// RFC 3339, UTC.
    pub last_seen: String,
    /// Silence so far.
    pub silent_ms: u64,
    pub chunk_count: u64,
    pub status: NodeHealth,
    /// What its operator wants of it.
    #[serde(default)]
    pub state: NodeState,
    pub read_only: bool,
    /// It gave out wrong bytes several times lately: what it holds counts for nothing until this is over.
    #[serde(default)]
    pub quarantined: bool,
    /// Bytes of parts that it may hold in all; 0 when it has not said.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// What fails together with it; `null`: its host.
    #[serde(default)]
    pub rack: Option<String>,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
}

impl NodeEntry {
    /// Its name, or the beginning of its id where it has none.
    #[must_use]
    pub fn label(&self) -> String {
        node_name::label(self.name.as_deref(), self.node_id)
    }
}

/// Answer to `GET /nodes/{node_id}` and to every change of a node's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDetail {
    #[serde(flatten)]
    pub entry: NodeEntry,
    /// Parts of committed chunks that lie there and count.
    pub parts: u64,
    /// Chunks that could not be read without it.
    pub only_holder_of: u64,
    /// Parts that this change declared lost; they are to be replaced.
    #[serde(default)]
    pub lost_parts: u64,
}

/// What `POST /nodes/{node_id}/{action}` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeAction {
    Activate,
    Drain,
    Maintenance,
    Remove,
    Replace,
    Readopt,
}

impl NodeAction {
    /// The word in the address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Readopt => "readopt",
        }
    }
}
