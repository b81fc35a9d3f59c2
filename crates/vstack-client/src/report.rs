//! What a session has come to: the figures by which players are compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vstack_core::id::VideoId;

use crate::config::PolicyName;
use crate::node::{NodeRef, NodeView};
use crate::policy::Failure;

/// The last line of `vstack play --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    pub video_id: VideoId,
    pub client_id: Uuid,
    /// The one that decided last.
    pub policy: PolicyName,
    /// Times that another one took over.
    pub policy_changes: u32,
    /// Since the session was opened.
    pub session_ms: u64,
    /// Every chunk of the video was delivered and verified at least once.
    pub complete: bool,
    /// Chunks delivered at least once, and chunks of the video.
    pub chunks: u32,
    pub total_chunks: u32,
    /// From opening to the first picture; `None` when there was none.
    pub startup_ms: Option<u64>,
    pub stalls: u32,
    pub stall_ms: u64,
    /// Over the time of playing, as long as the end of the video did not limit it.
    pub avg_buffer_s: f64,
    /// As `avg_buffer_s`: for a twentieth of that time the buffer was lower.
    pub p5_buffer_s: f64,
    /// As `avg_buffer_s`.
    pub min_buffer_s: f64,
    /// Verified.
    pub bytes: u64,
    /// Received and of no use: of attempts that failed or were cancelled, and blocks of chunks that were given up.
    pub wasted_bytes: u64,
    /// Asked for although another request was running for them; part of `bytes` where they were right.
    pub hedged_bytes: u64,
    pub requests: u64,
    /// 1.0 when every request brought a chunk; more where chunks are fetched as ranges.
    pub requests_per_chunk: f64,
    /// By node name.
    pub bytes_by_node: BTreeMap<String, u64>,
    /// What each brought of these bytes, in percent.
    #[serde(default)]
    pub share_percent_by_node: BTreeMap<String, f64>,
    pub failovers: u64,
    /// Chunks, or blocks of them, that came with the right length and the wrong hash. None of their bytes were handed out.
    pub hash_failures: u64,
    pub prefetch: Prefetched,
    /// For each jump: until the chunk at the new place was there.
    pub seek_ms: Vec<u64>,
    /// At most 1000, the latest; `requests` and `failovers` count all.
    pub faults: Vec<Fault>,
    pub nodes: Vec<NodeView>,
}

/// How much of all it is, in percent; 0 of nothing.
#[must_use]
pub fn share_percent(bytes: u64, of_bytes: u64) -> f64 {
    if of_bytes == 0 {
        0.0
    } else {
        bytes as f64 / of_bytes as f64 * 100.0
    }
}

/// What was fetched before anybody asked for it; beside the session's other figures, not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prefetched {
    pub requests: u64,
    /// Brought whole and verified.
    pub bytes: u64,
    /// Put into this session's buffer when playback came near; this session fetched them in advance, or one before it.
    pub used_bytes: u64,
    /// Of downloads that were stopped, and of chunks that made room for others. What is neither used nor wasted lies ready.
    pub wasted_bytes: u64,
}

/// The faults of one kind on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSummary {
    pub node: NodeRef,
    /// The latest of them, in words.
    pub failure: String,
    pub times: u64,
    /// From the node's last sign of life to the decision to leave it: the median, and the longest.
    pub detect_p50_ms: u64,
    pub detect_max_ms: u64,
    pub wasted_bytes: u64,
}

impl FaultSummary {
    /// One for each node and kind among these, by node.
    #[must_use]
    pub fn of(faults: &[Fault]) -> Vec<Self> {
        let mut kinds: BTreeMap<(u16, &str), Vec<&Fault>> = BTreeMap::new();
        for fault in faults {
            let kind = (fault.node.index, fault.failure.kind());
            kinds.entry(kind).or_default().push(fault);
        }
        kinds
            .values()
            .filter_map(|faults| Self::together(faults))
            .collect()
    }

    fn together(faults: &[&Fault]) -> Option<Self> {
        let last = faults.last()?;
        let mut detect: Vec<u64> = faults.iter().map(|fault| fault.detect_ms).collect();
        detect.sort_unstable();
        Some(Self {
            node: last.node.clone(),
            failure: last.failure.to_string(),
            times: faults.len() as u64,
            detect_p50_ms: *detect.get(detect.len() / 2)?,
            detect_max_ms: *detect.last()?,
            wasted_bytes: faults.iter().map(|fault| fault.wasted_bytes).sum(),
        })
    }
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Since the session was opened.
    pub at_ms: u64,
    pub node: NodeRef,
    pub seq: u32,
    pub failure: Failure,
    /// From the node's last sign of life in this attempt to the decision to leave it.
    pub detect_ms: u64,
    pub wasted_bytes: u64,
    /// From the decision until another attempt delivered the chunk; `None` while none has.
    pub recovered_ms: Option<u64>,
    /// Who delivered it then.
    pub recovered_by: Option<NodeRef>,
}
