//! What the player's page shows of a session, at one moment.

use serde::{Deserialize, Serialize};
use vstack_core::time::UnixMillis;

/// The state of a session now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSnapshot {
    pub position_ms: u64,
    /// Verified time ahead of the playhead, without a gap.
    pub buffer_ms: u64,
    pub startup_ms: Option<u64>,
    pub stalls: u32,
    pub stall_ms: u64,
    /// By time; neighbours from the same node in the same state are one span.
    pub spans: Vec<Span>,
    /// One for each node of the cluster, by index.
    pub lanes: Vec<Lane>,
    /// One for each node of the cluster, by index.
    pub nodes: Vec<NodeCount>,
    /// The latest last; at most 100.
    pub log: Vec<LogLine>,
}

/// A stretch of the video and the node it came, or is coming, from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub start_ms: u64,
    pub end_ms: u64,
    pub node_index: u16,
    pub state: SpanState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanState {
    /// Verified and held.
    Buffered,
    Fetching,
    /// It was held and has left the buffer.
    Played,
}

/// The last 30 s of one node's transfers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    pub node_index: u16,
    pub bars: Vec<LaneBar>,
}

/// One transfer. Times from 0 (30 s ago) to 1 (now).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LaneBar {
    pub start: f64,
    pub end: f64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Running,
    Failed,
    /// Stopped by the client, through no fault of the node.
    Cancelled,
}

/// What one node did in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeCount {
    pub node_index: u16,
    /// That it brought alone, or the largest part of.
    pub chunks: u64,
    pub bytes: u64,
    pub failures: u64,
    pub running: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub at: UnixMillis,
    pub text: String,
}
