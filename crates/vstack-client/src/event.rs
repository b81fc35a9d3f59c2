//! Everything a session decides, with its reason, for the player's panel, for logs and for tests.

use serde::{Deserialize, Serialize};
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use crate::config::PolicyName;
use crate::node::NodeRef;
use crate::policy::prefetch::{Hint, PauseReason};
use crate::policy::{BlockRange, CancelReason, DropReason, Failure, Need};

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
    /// A chunk, or some of its blocks, are asked for.
    Requested {
        seq: u32,
        node: NodeRef,
        /// `None`: the whole chunk.
        blocks: Option<BlockRange>,
        score: f64,
        need: Need,
        shared: bool,
        /// Another request is running for these bytes.
        hedge: bool,
        /// Until playback needs them; 0 while it waits.
        slack_ms: u64,
    },
    /// It came, and its SHA-256 is right; of blocks, each was judged for itself.
    Delivered {
        seq: u32,
        node: NodeRef,
        blocks: Option<BlockRange>,
        bytes: u64,
        elapsed_ms: u64,
        mbps: f64,
    },
    /// All blocks of a chunk are there and its SHA-256 is right. `node` brought most of it.
    Completed {
        seq: u32,
        node: NodeRef,
        bytes: u64,
    },
    /// The beginning of a chunk may be played before the rest is there.
    PrefixReady {
        seq: u32,
        bytes: u64,
    },
    /// A block does not match its leaf hash; it is asked for elsewhere.
    BadBlock {
        seq: u32,
        node: NodeRef,
        block: u32,
    },
    /// All blocks of a chunk match their hashes, and the chunk does not match its own.
    Contradicted {
        seq: u32,
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
    /// Another policy decides from now on.
    PolicyChanged {
        from: PolicyName,
        to: PolicyName,
    },
    /// A chunk that may be needed soon is fetched in advance.
    PrefetchStarted {
        chunk_id: ChunkId,
        why: Hint,
        bytes: u64,
    },
    /// It lies ready.
    Prefetched {
        chunk_id: ChunkId,
        node: NodeRef,
        bytes: u64,
        elapsed_ms: u64,
    },
    /// Playback comes first, or nobody hints at it any more.
    PrefetchStopped {
        chunk_id: ChunkId,
        why: PauseReason,
        wasted_bytes: u64,
    },
    PrefetchFailed {
        chunk_id: ChunkId,
        error: String,
    },
    /// Playback needs a chunk that lies ready.
    PrefetchUsed {
        seq: u32,
        bytes: u64,
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
        if let Self::Cancelled { why, .. } = self {
            return matches!(why, CancelReason::Silent | CancelReason::Overdue);
        }
        if let Self::ManifestRead { moved_chunks, error } = self {
            return *moved_chunks > 0 || error.is_some();
        }
        matches!(
            self,
            Self::Failover { .. }
                | Self::Retried { .. }
                | Self::Unobtainable { .. }
                | Self::BadBlock { .. }
                | Self::Contradicted { .. }
                | Self::PolicyChanged { .. }
                | Self::FirstFrame { .. }
                | Self::StallStarted
                | Self::StallEnded { .. }
        )
    }

    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Requested {
                seq,
                node,
                blocks,
                score,
                hedge,
                ..
            } => {
                let (what, again) = (piece(*seq, *blocks), if *hedge { " once more" } else { "" });
                format!("{what} asked for{again} at {}, score {score:.1}", node.name)
            }
            Self::Delivered {
                seq,
                node,
                blocks,
                elapsed_ms,
                mbps,
                ..
            } => {
                let what = piece(*seq, *blocks);
                format!(
                    "{} delivered {what} in {elapsed_ms} ms, {mbps:.1} Mbit/s",
                    node.name
                )
            }
            Self::Completed { seq, node, .. } => {
                format!("chunk {seq} is whole, most of it from {}", node.name)
            }
            Self::PrefixReady { seq, bytes } => {
                format!("the first {} KiB of chunk {seq} can be played", bytes / 1024)
            }
            Self::BadBlock { seq, node, block } => {
                format!(
                    "{} sent a wrong block {block} of chunk {seq}: it comes from elsewhere",
                    node.name
                )
            }
            Self::Contradicted { seq } => {
                format!("chunk {seq} is not what the manifest says, though its blocks are")
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
            Self::Cancelled { seq, node, why, .. } => cancelled(*seq, &node.name, *why),
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
            Self::PolicyChanged { from, to } => format!("{to} decides from now on, and no longer {from}"),
            Self::Sought { position_ms } => format!("jump to {}", seconds(*position_ms)),
            Self::FirstFrame { startup_ms } => format!("first picture after {}", seconds(*startup_ms)),
            Self::StallStarted => "playback waits for data".to_owned(),
            Self::StallEnded { stall_ms } => format!("playback goes on after {}", seconds(*stall_ms)),
            of_prefetching => of_prefetching.prefetch_sentence(),
        }
    }

    fn prefetch_sentence(&self) -> String {
        match self {
            Self::PrefetchStarted { chunk_id, why, .. } => {
                let why = match why {
                    Hint::Pointer => "the pointer rests there",
                    Hint::Resume => "the viewer may go on there",
                    Hint::Next => "it comes next",
                };
                format!("{chunk_id} is fetched in advance: {why}")
            }
            Self::Prefetched {
                chunk_id,
                node,
                elapsed_ms,
                ..
            } => format!("{chunk_id} lies ready, from {} in {elapsed_ms} ms", node.name),
            Self::PrefetchStopped { chunk_id, why, .. } => {
                let why = match why {
                    PauseReason::Needed => "playback waits for data",
                    PauseReason::Level => "playback comes first",
                    PauseReason::Unhinted => "it is no longer likely",
                };
                format!("{chunk_id} is not fetched in advance: {why}")
            }
            Self::PrefetchFailed { chunk_id, error } => {
                format!("{chunk_id} cannot be fetched in advance: {error}")
            }
            Self::PrefetchUsed { seq, .. } => format!("chunk {seq} lay ready"),
            other => format!("{other:?}"),
        }
    }
}

fn piece(seq: u32, blocks: Option<BlockRange>) -> String {
    match blocks {
        None => format!("chunk {seq}"),
        Some(range) if range.len() == 1 => format!("block {} of chunk {seq}", range.first),
        Some(range) => format!("blocks {} to {} of chunk {seq}", range.first, range.end - 1),
    }
}

fn cancelled(seq: u32, node: &str, why: CancelReason) -> String {
    match why {
        CancelReason::OutsideWindow => format!("chunk {seq} from {node} is no longer needed"),
        CancelReason::Silent => format!("{node} went silent: the rest of chunk {seq} comes from others"),
        CancelReason::Overdue => {
            format!("{node} is far slower than it was: the rest of chunk {seq} comes from others")
        }
        CancelReason::Overtaken => format!("others were faster than {node} with chunk {seq}"),
        CancelReason::Distrusted => {
            format!("{node} sent wrong bytes: nothing more of chunk {seq} is taken from it")
        }
        CancelReason::Moved => format!("chunk {seq} is no longer where {node} has it"),
        CancelReason::PolicyChanged => format!("chunk {seq} from {node} is given up for another policy"),
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}
