//! What a storage node says of itself: the answer to `GET /health`. Figures for people and dashboards; nothing is decided
//! by them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};

/// Answer to a storage node's `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageHealth {
    pub node_id: NodeId,
    /// What the catalogue calls it; `null` before its first answer.
    #[serde(default)]
    pub name: Option<String>,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    pub chunk_count: u64,
    /// Seconds since the process started.
    pub uptime: u64,
    pub bytes_stored: u64,
    /// No new objects are taken; reads go on.
    pub read_only: bool,
    /// The disk error that made it so.
    #[serde(default)]
    pub read_only_reason: Option<String>,
    /// Errors of the disk since the start, besides that it is full.
    #[serde(default)]
    pub disk_errors: u64,
    pub corrupt_count: u64,
    #[serde(default)]
    pub scrub: ScrubHealth,
    #[serde(default)]
    pub compaction: CompactionHealth,
    /// Files in the node's `quarantine` folder.
    #[serde(default)]
    pub quarantined: Vec<String>,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
}

/// Where the scrub stands: the reading of every byte again and again. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubHealth {
    /// Whether a round is under way; otherwise the figures are those of the last one.
    pub running: bool,
    pub checked_bytes: u64,
    pub total_bytes: u64,
    pub round_started_ms: Option<u64>,
    pub last_ended_ms: Option<u64>,
    /// When the last round ended that found nothing.
    pub last_clean_ms: Option<u64>,
    /// Damage found since the node's folder was made.
    pub found_total: u64,
    /// What is still damaged, oldest first; the first thousand.
    pub findings: Vec<ScrubFinding>,
}

/// An object that the scrub found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubFinding {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    /// Uuid of the file, and the record's position in it.
    pub superblock: Uuid,
    pub offset: u64,
    pub reason: String,
    pub found_at_ms: u64,
}

/// What compaction did since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionHealth {
    pub running: bool,
    pub done: u64,
    pub freed_bytes: u64,
}
