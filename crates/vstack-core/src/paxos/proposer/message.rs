//! What a proposer is told and what it asks for: the messages of ChunkPaxos, and how they fail.

use std::collections::BTreeSet;

use crate::ballot::Ballot;
use crate::id::NodeId;
use crate::paxos::master::Accepted;
use crate::paxos::{Grant, OpenKind, Promise, Receipt, Replaced};
use crate::placement::Placement;
use crate::time::UnixMillis;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin. Given once, first.
    Start,
    /// OPEN was granted.
    Granted {
        grant: Grant,
        /// The ballot that this one replaced, as the catalogue tells.
        replaced: Option<Replaced>,
    },
    OpenFailed(Failure),
    /// A node answered PREPARE.
    Promised(Promise),
    /// A node answered ACCEPT or ADOPT.
    Stored(Receipt),
    /// PREPARE, ACCEPT or ADOPT of `ballot` failed on `node`.
    StoreFailed {
        node: NodeId,
        ballot: Ballot,
        failure: Failure,
    },
    /// COMMIT was answered: this is decided.
    Committed(Accepted),
    CommitFailed {
        ballot: Ballot,
        failure: Failure,
    },
    /// A time asked for by [`Output::WakeAt`] has come.
    Wake,
}

/// Why a step failed, as far as the next step depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or one that may be better next time. The outcome is unknown; the same is sent again.
    Transient { reason: String },
    /// This node will not take it: full, other bytes, not the node it should be.
    Permanent { reason: String },
    /// The object to adopt is not there any more.
    SourceMissing,
    /// A newer ballot was opened.
    Fenced,
    /// Another owner holds the lease.
    Locked { until: UnixMillis },
    /// The catalogue does not find as many healthy nodes as asked.
    NotEnoughNodes { reason: String },
    /// The chunk is decided already.
    Decided(Accepted),
    /// Nothing that this proposer can do will help.
    Refused { reason: String },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Open {
        kind: OpenKind,
        /// Refuse unless this is the epoch; `None` for an upload, which expects that there is none.
        expect_epoch: Option<Ballot>,
        /// The parts to find nodes for, one each, in this order: `None` is a full copy.
        parts: Vec<Option<u8>>,
        /// Nodes that failed, and nodes that hold a kept part.
        exclude: BTreeSet<NodeId>,
        /// Fewest parts of the placement, kept ones included.
        min_ack: u8,
    },
    /// Ask what the node holds. It may be a node of the replaced ballot that the grant does not name.
    Prepare { node: NodeId, grant: Grant },
    /// Send the bytes of `grant.target_on(node)` under the grant.
    Accept { node: NodeId, grant: Grant },
    /// The node holds the bytes under `from`: name them under the grant too.
    Adopt {
        node: NodeId,
        grant: Grant,
        from: Ballot,
    },
    Commit {
        ballot: Ballot,
        value: Placement,
        receipts: Vec<Receipt>,
    },
    /// Give [`Input::Wake`] at this time. An earlier one may still come and does no harm.
    WakeAt(UnixMillis),
    /// For the log and the user: this node is not asked again.
    GaveUpOn { node: NodeId, reason: String },
    /// Decided; nothing follows.
    Done {
        accepted: Accepted,
        under_replicated: bool,
    },
    /// Not decided by this proposer; nothing follows.
    Failed { reason: String },
}

impl Failure {
    /// What to tell the user.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Transient { reason }
            | Self::Permanent { reason }
            | Self::NotEnoughNodes { reason }
            | Self::Refused { reason } => reason,
            Self::SourceMissing => "the object to adopt is gone".to_owned(),
            Self::Fenced => "a newer ballot was opened".to_owned(),
            Self::Locked { .. } => "another owner is working on the chunk".to_owned(),
            Self::Decided(accepted) => format!("epoch {} is decided", accepted.ballot),
        }
    }
}
