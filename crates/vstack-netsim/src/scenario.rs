//! What there is, and what happens to it.

use serde::Serialize;
use vstack_client::policy::{ChunkSpec, Micros, NodeIndex, Part, Shape};

use crate::Random;

/// What happens to a node at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Its bandwidth is this from now on, Mbit/s.
    Bandwidth(f64),
    /// It accepts and never answers (stopped, or cut off), or goes on.
    Stalled(bool),
    /// It refuses connections and has dropped those there were, or is back.
    Dead(bool),
    /// It sends wrong bytes, or right ones again.
    Corrupt(bool),
}

/// A node, and what happens to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodePlan {
    pub mbps: f64,
    pub rtt_ms: f64,
    /// In order of time, seconds.
    pub changes: Vec<(f64, Change)>,
}

impl NodePlan {
    #[must_use]
    pub const fn new(mbps: f64, rtt_ms: f64) -> Self {
        Self {
            mbps,
            rtt_ms,
            changes: Vec::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, at_sec: f64, change: Change) -> Self {
        self.changes.push((at_sec, change));
        self
    }
}

/// A test of the policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// `B4`
    pub id: &'static str,
    pub name: String,
    pub nodes: Vec<NodePlan>,
    pub clients: usize,
    /// Clients arrive evenly by lot within this time.
    pub arrivals_sec: f64,
    pub chunks: u32,
    pub chunk_bytes: u64,
    pub chunk_sec: f64,
    /// Chunk sizes differ by up to this share.
    pub size_spread: f64,
    /// Copies of each chunk, or shards.
    pub parts: usize,
    /// 1: copies; 3: shards.
    pub needed: u8,
    /// As fast as possible, instead of at the pace of playback.
    pub bulk: bool,
    /// Each node's bandwidth wanders by this (deviation of its logarithm).
    pub noise: f64,
    /// Time since the first picture, and the chunk to jump to; seconds.
    pub seeks: Vec<(f64, u32)>,
    /// A run ends here at the latest.
    pub limit_sec: f64,
    /// When the fault begins, if there is one.
    pub fault_sec: Option<f64>,
}

impl Scenario {
    /// Five minutes of 1.6 Mbit/s in chunks of 10 s, one viewer, three copies of each.
    #[must_use]
    pub fn new(id: &'static str, name: impl Into<String>, nodes: Vec<NodePlan>) -> Self {
        let fault = |node: &NodePlan| node.changes.first().map(|(at, _)| *at);
        let fault_sec = nodes.iter().filter_map(fault).reduce(f64::min);
        Self {
            id,
            name: name.into(),
            nodes,
            clients: 1,
            arrivals_sec: 0.0,
            chunks: 30,
            chunk_bytes: 2_000_000,
            chunk_sec: 10.0,
            size_spread: 0.2,
            parts: 3,
            needed: 1,
            bulk: false,
            noise: 0.0,
            seeks: Vec::new(),
            limit_sec: 900.0,
            fault_sec,
        }
    }

    /// The same with the nodes in another order, drawn by `seed`: no policy may live off who comes first.
    #[must_use]
    pub fn permuted(&self, seed: u64) -> Self {
        let mut permuted = self.clone();
        Random::new(seed ^ 0x5eed).shuffle(&mut permuted.nodes);
        permuted
    }

    /// The chunks as `client` finds them in the manifest, where chunk sizes are drawn by `seed`.
    #[must_use]
    pub fn chunk_specs(&self, seed: u64, client: usize) -> Vec<ChunkSpec> {
        let mut random = Random::new(seed);
        let at = |seq: u32| seconds(f64::from(seq) * self.chunk_sec);
        let spec = |seq: u32| ChunkSpec {
            start: at(seq),
            end: at(seq + 1),
            shape: self.shape(seq as usize + client, random.unit()),
        };
        (0..self.chunks).map(spec).collect()
    }

    fn shape(&self, turn: usize, lot: f64) -> Shape {
        let spread = if self.bulk { 0.0 } else { self.size_spread };
        let bytes = self.chunk_bytes as f64 * (1.0 + spread * (2.0 * lot - 1.0));
        let chunk_bytes = seconds(bytes / 1e6).0;
        let parts = self.parts.min(self.nodes.len());
        let part = |place: usize| Part {
            node: NodeIndex(u16::try_from((turn + place) % self.nodes.len()).unwrap_or(0)),
            shard: (self.needed > 1).then(|| u8::try_from(place).unwrap_or(0)),
        };
        Shape {
            chunk_bytes,
            part_bytes: chunk_bytes.div_ceil(u64::from(self.needed)),
            needed: self.needed,
            parts: (0..parts).map(part).collect(),
        }
    }
}

/// As a length of time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..4e15 in the line itself"
)]
pub(crate) fn seconds(seconds: f64) -> Micros {
    Micros((seconds * 1e6).clamp(0.0, 4e15) as u64)
}
