//! Redundancy over the wire: what an operator chooses, what is going on, and where a video's parts are.

use serde::{Deserialize, Serialize};
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::placement::Scheme;
pub use vstack_core::rebalance::BalanceState;
use vstack_core::redundancy::Why;

/// How a video is to be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedundancyChoice {
    /// Three full copies.
    Replicated,
    /// Five shards, of which any three suffice.
    Erasure,
    /// As the policy decides.
    Auto,
}

impl RedundancyChoice {
    #[must_use]
    pub const fn pin(self) -> Option<Scheme> {
        match self {
            Self::Replicated => Some(Scheme::Replicated),
            Self::Erasure => Some(Scheme::Erasure),
            Self::Auto => None,
        }
    }

    #[must_use]
    pub const fn of_pin(pin: Option<Scheme>) -> Self {
        match pin {
            Some(Scheme::Replicated) => Self::Replicated,
            Some(Scheme::Erasure) => Self::Erasure,
            None => Self::Auto,
        }
    }

    /// The word of the API and the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Erasure => "erasure",
            Self::Auto => "auto",
        }
    }
}

/// Body of `PUT /video/{video_id}/redundancy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRedundancy {
    pub mode: RedundancyChoice,
}

/// One part of a chunk in the map of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPlace {
    pub node_id: NodeId,
    /// `None`: a full copy.
    pub shard: Option<u8>,
    pub state: PartWord,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartWord {
    Good,
    /// Its node has just come back and is being compared.
    Checking,
    /// Its node is to be emptied.
    Leaving,
    /// Its node is silent, and waited for.
    Away,
    /// Its node has been silent for too long, or gave out wrong bytes lately.
    Missing,
    /// Gone or corrupt.
    Lost,
}

/// A chunk in the map of a video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPlaces {
    pub chunk_id: ChunkId,
    pub mode: String,
    pub size_bytes: u64,
    pub parts: Vec<PartPlace>,
}

/// Answer to `GET` and `PUT /video/{video_id}/redundancy`: chunks x nodes, and what the policy thinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoRedundancyView {
    pub video_id: VideoId,
    pub title: String,
    /// What is stored now: `replicated`, `erasure`, or `mixed` in the middle of a conversion.
    pub mode: String,
    /// What an operator fixed.
    pub choice: RedundancyChoice,
    /// What it should be.
    pub wanted: String,
    pub why: Why,
    pub reason: String,
    /// Views, decayed to now.
    pub popularity: f64,
    pub hot_above: f64,
    /// Media chunks, and those of them that have the wanted mode.
    pub chunks: u64,
    pub chunks_done: u64,
    pub size_bytes: u64,
    pub stored_bytes: u64,
    /// Media chunks in order, then the others.
    pub map: Vec<ChunkPlaces>,
}

/// A conversion or repair under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Work {
    pub active: bool,
    /// What is worked on, for people.
    pub what: String,
    pub done: u64,
    pub total: u64,
    /// Since this work began.
    pub moved_bytes: u64,
    pub bytes_per_second: f64,
    pub eta_ms: Option<u64>,
    /// Why the last attempt failed; empty while all is well.
    pub trouble: String,
    /// Chunks since the role's start.
    pub finished_total: u64,
    pub failed_total: u64,
}

/// A stretch of a video that cannot be played any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataLoss {
    pub video_id: VideoId,
    pub title: String,
    pub chunk_id: ChunkId,
    pub from_sec: f64,
    pub to_sec: f64,
}

/// Answer to `GET /redundancy`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RedundancyStatus {
    pub conversion: Work,
    pub repair: Work,
    #[serde(default)]
    pub rebalance: Work,
    /// Chunks whose parts are away and waited for.
    pub waiting: u64,
    /// Chunks that lack parts which no node can take.
    pub degraded: u64,
    /// Chunks that cannot be read until a silent node is back.
    pub unreadable: u64,
    pub data_loss: Vec<DataLoss>,
    /// What the operator should do; empty when nothing.
    pub advice: String,
}

/// How full a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUse {
    pub node_id: NodeId,
    #[serde(default)]
    pub name: Option<String>,
    pub node_url: String,
    pub rack: Option<String>,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// When the plan is carried out.
    pub after_bytes: u64,
    pub takes_parts: bool,
}

/// Answer to `GET /rebalance` and to every change of it: the plan as of now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RebalanceView {
    pub state: BalanceState,
    /// Nodes that answer and are wanted.
    pub nodes: Vec<NodeUse>,
    /// Parts to be moved, and their bytes.
    pub moves: u64,
    pub move_bytes: u64,
    /// By how much the node furthest from the cluster's use differs from it: 0.1 is a tenth more or less.
    pub uneven: f64,
    pub uneven_after: f64,
    /// Up to this, nothing is moved.
    pub tolerance: f64,
    pub work: Work,
}

/// Body of `POST /chunk/{chunk_id}/suspect`: a reader got something wrong from this node. It is checked, not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspectPart {
    pub node_id: NodeId,
}
