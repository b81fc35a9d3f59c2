//! Everything a session decides, with its reason, for the player's panel, for logs and for tests.

use serde::{Deserialize, Serialize};
use vstack_core::time::UnixMillis;

use crate::node::NodeRef;
use crate::policy::{CancelReason, DropReason, Failure, Need};

/// One decision or fact of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionEvent {
    pub at: UnixMillis,
    /// Since the session was opened.
    pub session_ms: u64,
    #[serde(flatten)]
    pub kind: EventKind,
    /// The same as a sentence.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A chunk is asked for.
    Requested {
        seq: u32,
        node: NodeRef,
        score: f64,
        need: Need,
        shared: bool,
    },
    /// It came, and its SHA-256 is right.
    Delivered {
        seq: u32,
        node: NodeRef,
        bytes: u64,
        elapsed_ms: u64,
        mbps: f64,
    },
    /// An attempt brought nothing usable. `detect_ms`: from the last sign of life to this event.
    Failed {
        seq: u32,
        node: NodeRef,
        failure: Failure,
        detect_ms: u64,
        wasted_bytes: u64,
    },
    /// The chunk goes on from another node.
    Failover {
        seq: u32,
        from: NodeRef,
        to: NodeRef,
        failure: Failure,
    },
    /// The same node is asked again, since it is the best there is.
    Retried {
        seq: u32,
        node: NodeRef,
        failure: Failure,
    },
    Cancelled {
        seq: u32,
        node: NodeRef,
        why: CancelReason,
        wasted_bytes: u64,
    },
    Dropped {
        seq: u32,
        why: DropReason,
    },
    /// All replicas failed in several rounds; the search goes on.
    Unobtainable {
        seq: u32,
        replicas: usize,
    },
    RefillStarted {
        buffer_ms: u64,
    },
    RefillStopped {
        buffer_ms: u64,
    },
    /// A replica was not where the manifest says, so the manifest was read again.
    ManifestRead {
        moved_chunks: usize,
        error: Option<String>,
    },
    Sought {
        position_ms: u64,
    },
    FirstFrame {
        startup_ms: u64,
    },
    StallStarted,
    StallEnded {
        stall_ms: u64,
    },
}

impl EventKind {
    /// Whether the viewer's log shows it: what went wrong and what was done about it, not each request.
    #[must_use]
    pub const fn is_notable(&self) -> bool {
        matches!(
            self,
            Self::Failover { .. }
                | Self::Retried { .. }
                | Self::Unobtainable { .. }
                | Self::ManifestRead { .. }
                | Self::FirstFrame { .. }
                | Self::StallStarted
                | Self::StallEnded { .. }
        )
    }

    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Requested { seq, node, score, .. } => {
                format!("chunk {seq} is asked for at {}, score {score:.1}", node.name)
            }
            Self::Delivered {
                seq,
                node,
                elapsed_ms,
                mbps,
                ..
            } => {
                format!(
                    "{} delivered chunk {seq} in {elapsed_ms} ms, {mbps:.1} Mbit/s",
                    node.name
                )
            }
            Self::Failed {
                seq, node, failure, ..
            } => format!("{} {failure}: chunk {seq} is not there yet", node.name),
            Self::Failover {
                seq,
                from,
                to,
                failure,
            } => {
                format!("{} {failure}: chunk {seq} goes on from {}", from.name, to.name)
            }
            Self::Retried { seq, node, failure } => {
                format!("{} {failure}: it is asked again for chunk {seq}", node.name)
            }
            Self::Cancelled { seq, node, .. } => {
                format!("chunk {seq} from {} is no longer needed", node.name)
            }
            Self::Dropped { seq, .. } => format!("chunk {seq} leaves the buffer"),
            Self::Unobtainable { seq, replicas } => {
                format!(
                    "none of the {replicas} nodes that hold chunk {seq} delivers it; they are asked again"
                )
            }
            Self::RefillStarted { buffer_ms } => format!("{} ahead: filling", seconds(*buffer_ms)),
            Self::RefillStopped { buffer_ms } => format!("{} ahead: enough", seconds(*buffer_ms)),
            Self::ManifestRead {
                moved_chunks,
                error: None,
            } => {
                format!("the manifest was read again: {moved_chunks} chunks have moved")
            }
            Self::ManifestRead {
                error: Some(error), ..
            } => format!("the manifest cannot be read again: {error}"),
            Self::Sought { position_ms } => format!("jump to {}", seconds(*position_ms)),
            Self::FirstFrame { startup_ms } => format!("first picture after {}", seconds(*startup_ms)),
            Self::StallStarted => "playback waits for data".to_owned(),
            Self::StallEnded { stall_ms } => format!("playback goes on after {}", seconds(*stall_ms)),
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}
