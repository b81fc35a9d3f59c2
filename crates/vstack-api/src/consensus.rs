//! What ChunkPaxos cost since a role started: requests by kind, and the chunks that they decided.
//!
//! One request and its answer are two one-way messages. Requests are counted where they are sent; a repeated one counts
//! again. OPEN and COMMIT carry many chunks each, so a chunk's share of them is requests divided by items.

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::paxos::{OpenKind, Target};

use crate::error::ErrorCode;

/// One thing that happened to agreement, as `GET /consensus/events` of the catalogue tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusEvent {
    /// From 1, since the role started and somebody listened; a gap is what a slow listener missed.
    pub number: u64,
    /// By the catalogue's clock.
    pub at_ms: u64,
    pub chunk_id: ChunkId,
    /// The ballot that it is about; absent where none was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballot: Option<Ballot>,
    #[serde(flatten)]
    pub change: ConsensusChange,
}

/// What happened. PREPARE and ACCEPT go to the nodes; the catalogue learns of them by what COMMIT proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ConsensusChange {
    /// A ballot was granted.
    Opened {
        kind: OpenKind,
        owner: String,
        nodes: Vec<Target>,
    },
    /// A newer ballot was granted: this one can never be decided any more.
    Fenced { by: Ballot },
    /// A node's receipt came with COMMIT.
    Accepted { node: NodeId },
    /// The placement is decided and durable.
    Decided {
        nodes: Vec<Target>,
        under_replicated: bool,
    },
    /// OPEN or COMMIT was refused.
    Refused { code: ErrorCode, detail: String },
    /// A node confirmed that the object of this ballot is gone.
    Collected { node: NodeId },
}

/// Requests that carry several chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batched {
    pub requests: u64,
    /// Chunks in them.
    pub items: u64,
}

impl Batched {
    /// Requests for one chunk.
    #[must_use]
    pub fn each(self) -> f64 {
        if self.items == 0 {
            0.0
        } else {
            self.requests as f64 / self.items as f64
        }
    }
}

/// Chunks that were decided in one way, and the requests to nodes that this took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathCounts {
    pub chunks: u64,
    /// Ballots opened for them: 1 each on the fast path.
    pub ballots: u64,
    pub prepare: u64,
    pub accept: u64,
    pub adopt: u64,
}

/// Answer to an uploader's `GET /consensus`: it is the proposer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProposerCounts {
    /// One ballot, nobody asked what they hold.
    pub fast: PathCounts,
    /// PREPARE was sent or a second ballot was opened: resumed, overtaken, or a node was replaced.
    pub contended: PathCounts,
    /// Asked for and found decided already.
    pub known: PathCounts,
    /// Given up.
    pub failed: PathCounts,
    pub open: Batched,
    pub commit: Batched,
}

/// Answer to the metadata role's `GET /consensus`: it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CatalogueCounts {
    pub open: Batched,
    pub commit: Batched,
    /// Placements decided, repeats not counted.
    pub decided: u64,
    /// COMMITs refused, since a newer ballot was opened or a part was not proven.
    pub refused: u64,
    /// Sent by the role itself: ADOPT for plain clients, and the collector's orders.
    pub adopt: u64,
    pub delete_obj: u64,
    /// Pages of nodes' inventories.
    pub inventory: u64,
    pub state: CatalogueState,
}

/// What the cluster lacks and has too much of, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CatalogueState {
    /// Chunks with fewer parts than their scheme wants.
    pub under_replicated_chunks: u64,
    /// Parts that they lack in all.
    pub missing_parts: u64,
    /// Parts of placements in force that their node lost.
    pub lost_parts: u64,
    /// Objects that wait to be collected.
    pub waiting_collection: u64,
}
