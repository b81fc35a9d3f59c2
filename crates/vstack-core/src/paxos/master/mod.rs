//! The catalogue's side of ChunkPaxos: what one row of `consensus_state` may become.
//!
//! Pure functions over one row. The catalogue reads the row, calls one of them and writes the new row and its effects
//! in the same transaction; a placement is chosen when that transaction is durable, and never earlier. The functions
//! hold rules R1 to R3 of the module above. What a single row can show is asserted: accepted never above promised, an
//! open ballot opened on the accepted epoch.
//!
//! [`open`], [`commit`], [`delete`] are the steps of a chunk's life; [`fate`] answers INVENTORY; [`restored`], [`learn`]
//! and [`next_generation`] are what a restored catalogue does before it trusts itself again.
//!
//! Left out: which nodes are chosen (the caller's, with `placement`).

mod commit;
mod inventory;
mod open;

use serde::{Deserialize, Serialize};

use super::{OpenKind, Receipt, Target};
use crate::ballot::Ballot;
use crate::id::{ChunkId, Incarnation, NodeId};
use crate::keys::ClusterKey;
use crate::placement::{Part, Placement};
use crate::time::UnixMillis;

pub use commit::{Committed, commit, missing_parts};
pub use inventory::{
    Fate, Knowledge, ReportedObject, fate, learn, next_generation, restored, restored_generation,
};
pub use open::{Deleted, OpenRequest, Opened, delete, open};

/// What a COMMIT decides. JSON: the placement, or `{"deleted":true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Deleted(Tombstone),
    Placed(Placement),
}

/// The value that ends a chunk. It is final: a chunk id is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    deleted: bool,
}

impl Value {
    pub const DELETED: Self = Self::Deleted(Tombstone { deleted: true });

    /// The placement, unless the chunk is deleted.
    #[must_use]
    pub const fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Placed(placement) => Some(placement),
            Self::Deleted(_) => None,
        }
    }
}

/// The decided value and the ballot that decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub ballot: Ballot,
    pub value: Value,
}

/// The one ballot that may commit; its number is the row's `promised`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBallot {
    /// Epoch it was opened on; 0 when nothing was accepted.
    pub base: Ballot,
    pub kind: OpenKind,
    pub owner: String,
    pub nodes: Vec<Target>,
    pub min_ack: u8,
    pub until: UnixMillis,
}

/// One row of `consensus_state`. A chunk that no OPEN has named has the default row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub promised: Ballot,
    pub accepted: Option<Accepted>,
    pub open: Option<OpenBallot>,
}

impl Row {
    /// Epoch of the decided placement; 0 when there is none.
    #[must_use]
    pub fn epoch(&self) -> Ballot {
        self.accepted
            .as_ref()
            .map_or(Ballot::PLAIN, |accepted| accepted.ballot)
    }

    /// The decided placement of a chunk that is not deleted.
    #[must_use]
    pub fn placement(&self) -> Option<&Placement> {
        self.accepted
            .as_ref()
            .and_then(|accepted| accepted.value.placement())
    }

    /// Whether the chunk has its tombstone.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        matches!(
            &self.accepted,
            Some(Accepted {
                value: Value::Deleted(_),
                ..
            })
        )
    }

    /// Whether the row could have been written by the functions of this module. A row read from disk is checked with
    /// it before they see it.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let open_on_epoch = self.open.as_ref().is_none_or(|open| open.base == self.epoch());
        let open_is_undecided = self.open.is_none() || self.promised > self.epoch();
        self.epoch() <= self.promised && open_on_epoch && open_is_undecided
    }

    fn assert_consistent(&self) {
        assert!(self.is_consistent(), "row breaks the protocol: {self:?}");
    }

    /// R3: what is given to collection is named by nothing that is decided.
    fn assert_unnamed(&self, chunk: ChunkId, garbage: &[Garbage]) {
        let named = garbage.iter().find(|garbage| self.names(chunk, garbage));
        assert!(named.is_none(), "{named:?} would be collected: {self:?}");
    }

    /// Whether the decided placement names this object.
    #[must_use]
    pub fn names(&self, chunk: ChunkId, object: &Garbage) -> bool {
        let is = |part: &Part| {
            part.node == object.node
                && part.object_ballot == object.ballot
                && part.target().object(chunk) == object.object
        };
        self.placement()
            .is_some_and(|placement| placement.parts.iter().any(is))
    }
}

/// An object that nothing committed names and nothing ever can: its node may delete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage {
    pub node: NodeId,
    /// The object: a whole chunk, or a shard.
    pub object: ChunkId,
    pub ballot: Ballot,
}

/// A receipt whose MAC is its node's. Only this form reaches a COMMIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness(Receipt);

/// A receipt that its node did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the receipt of node {node} has a foreign signature")]
pub struct ForgedReceipt {
    pub node: NodeId,
}

impl Witness {
    /// Checks the MAC.
    ///
    /// # Errors
    /// The node named in it did not sign it.
    pub fn check(receipt: Receipt, key: &ClusterKey) -> Result<Self, ForgedReceipt> {
        if receipt.verifies(&key.receipt_key(receipt.node)) {
            Ok(Self(receipt))
        } else {
            Err(ForgedReceipt { node: receipt.node })
        }
    }

    #[must_use]
    pub const fn receipt(&self) -> &Receipt {
        &self.0
    }
}

/// Why the row refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("the chunk is deleted; its id is never used again")]
    Deleted,
    #[error("a placement is committed at epoch {}", accepted.ballot)]
    AlreadyCommitted { accepted: Accepted },
    #[error("no placement is committed")]
    NothingCommitted,
    #[error("the epoch is {accepted}, not {expected}")]
    OtherEpoch { expected: Ballot, accepted: Ballot },
    #[error("{owner} is working on this chunk")]
    Leased { owner: String, until: UnixMillis },
    #[error("ballot {promised} was granted since")]
    Fenced {
        promised: Ballot,
        accepted: Option<Accepted>,
    },
    #[error("the part on node {node} is not proven: {fault}")]
    Unproven { node: NodeId, fault: Fault },
    #[error("the value does not fit what was opened: {reason}")]
    BadValue { reason: &'static str },
    #[error("{have} parts are proven and {need} are needed")]
    TooFewParts { have: usize, need: usize },
}

/// What a part lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no receipt of this ballot names it")]
    NoReceipt,
    #[error("the node was not granted")]
    NotGranted,
    #[error("the node is not registered")]
    Unregistered,
    #[error("the node's disk was replaced since")]
    OtherIncarnation,
    #[error("the receipt is for other bytes")]
    OtherBytes,
    #[error("it was carried over, and its disk is lost")]
    Lost,
}

/// What COMMIT asks about the registered nodes. A closure from a node to its present incarnation is one that knows of
/// no lost part.
pub trait Registry {
    /// The present incarnation of a registered node.
    fn incarnation(&self, node: NodeId) -> Option<Incarnation>;

    /// Whether this part of the decided placement is known to be lost: its node's disk was replaced since, or its
    /// bytes were found rotten.
    fn is_lost(&self, _part: &Part) -> bool {
        false
    }
}

impl<F: Fn(NodeId) -> Option<Incarnation>> Registry for F {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self(node)
    }
}

/// The object that `part` of `chunk` is.
#[must_use]
pub fn object_of(chunk: ChunkId, part: &Part) -> ChunkId {
    part.target().object(chunk)
}

/// Everything that a ballot may have written.
fn objects_of(chunk: ChunkId, ballot: Ballot, nodes: &[Target]) -> impl Iterator<Item = Garbage> {
    nodes.iter().map(move |target| Garbage {
        node: target.node,
        object: target.object(chunk),
        ballot,
    })
}

#[cfg(test)]
mod tests;
