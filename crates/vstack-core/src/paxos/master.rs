//! The catalogue's side of ChunkPaxos: what one row of `consensus_state` may become.
//!
//! Pure functions over one row. The catalogue reads the row, calls one of them and writes the new row and its effects
//! in the same transaction; a placement is chosen when that transaction is durable, and never earlier. The functions
//! hold rules R1 to R3 of the module above. What a single row can show is asserted: accepted never above promised, an
//! open ballot opened on the accepted epoch.
//!
//! Left out: which nodes are chosen (the caller's, with `placement`), and inventories.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{OpenKind, Receipt};
use crate::ballot::Ballot;
use crate::id::{ChunkId, Incarnation, NodeId};
use crate::keys::ClusterKey;
use crate::limits::REPLICA_COUNT;
use crate::placement::{Part, Placement, Scheme};
use crate::time::UnixMillis;

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
    pub nodes: Vec<NodeId>,
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
}

/// What OPEN asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    pub kind: OpenKind,
    pub owner: String,
    /// Refuse unless this is the epoch. An upload always expects that there is none.
    pub expect_epoch: Option<Ballot>,
    /// The nodes chosen for the new parts; none for a deletion or an abort.
    pub nodes: Vec<NodeId>,
    pub min_ack: u8,
    /// Generation of this life of the catalogue.
    pub generation: u64,
    pub now: UnixMillis,
    pub lease_ms: u64,
}

/// A ballot was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub row: Row,
    pub ballot: Ballot,
    /// The placement it was opened on.
    pub base: Option<Accepted>,
    /// What the ballot that this one replaced may have left.
    pub garbage: Vec<Garbage>,
}

/// Message 1: raises the ballot, which kills the open one for ever.
///
/// # Errors
/// The chunk is deleted, decided otherwise than expected, or leased to another owner.
pub fn open(chunk: ChunkId, row: &Row, request: &OpenRequest) -> Result<Opened, Conflict> {
    row.assert_consistent();
    check_may_open(row, request)?;
    let ballot = row.promised.next(request.generation);
    assert!(ballot > row.promised, "a ballot is granted once");
    let garbage = match &row.open {
        Some(open) => objects_of(chunk, row.promised, &open.nodes).collect(),
        None => Vec::new(),
    };
    // Nothing can be committed under an abort; it only kills.
    let open = (request.kind != OpenKind::Abort).then(|| OpenBallot {
        base: row.epoch(),
        kind: request.kind,
        owner: request.owner.clone(),
        nodes: request.nodes.clone(),
        min_ack: request.min_ack,
        until: request.now + request.lease_ms,
    });
    let opened = Row {
        promised: ballot,
        accepted: row.accepted.clone(),
        open,
    };
    opened.assert_consistent();
    Ok(Opened {
        row: opened,
        ballot,
        base: row.accepted.clone(),
        garbage,
    })
}

fn check_may_open(row: &Row, request: &OpenRequest) -> Result<(), Conflict> {
    let kills = matches!(request.kind, OpenKind::Delete | OpenKind::Abort);
    if row.is_deleted() && request.kind != OpenKind::Delete {
        return Err(Conflict::Deleted);
    }
    match (request.kind, &row.accepted) {
        (OpenKind::Upload, Some(accepted)) => {
            return Err(Conflict::AlreadyCommitted {
                accepted: accepted.clone(),
            });
        }
        (OpenKind::Repair | OpenKind::Convert, None) => return Err(Conflict::NothingCommitted),
        _ => {}
    }
    if let Some(expected) = request.expect_epoch
        && expected != row.epoch()
    {
        return Err(Conflict::OtherEpoch {
            expected,
            accepted: row.epoch(),
        });
    }
    match &row.open {
        // Leases keep proposers from duelling; no rule of safety reads them.
        Some(open) if !kills && open.owner != request.owner && open.until > request.now => {
            Err(Conflict::Leased {
                owner: open.owner.clone(),
                until: open.until,
            })
        }
        _ => Ok(()),
    }
}

/// A value is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub row: Row,
    pub accepted: Accepted,
    /// The same COMMIT was decided before; nothing changed.
    pub replayed: bool,
    pub garbage: Vec<Garbage>,
    /// Parts that the placement lacks to what its scheme wants.
    pub missing_parts: usize,
}

/// Message 4: decides `value` under `ballot`. `live` tells a registered node's present incarnation.
///
/// # Errors
/// A newer ballot was granted (R1), or a part is not proven (R2). A repeat of a decided COMMIT is no error; the stored
/// value wins.
pub fn commit(
    chunk: ChunkId,
    row: &Row,
    ballot: Ballot,
    value: &Value,
    witnesses: &[Witness],
    live: impl Fn(NodeId) -> Option<Incarnation>,
) -> Result<Committed, Conflict> {
    row.assert_consistent();
    if let Some(accepted) = &row.accepted
        && accepted.ballot == ballot
    {
        return Ok(replay(row, accepted));
    }
    let open = match &row.open {
        Some(open) if ballot == row.promised => open,
        _ => {
            return Err(Conflict::Fenced {
                promised: row.promised,
                accepted: row.accepted.clone(),
            });
        }
    };
    let proof = Proof {
        chunk,
        ballot,
        open,
        base: row.placement(),
        witnesses,
        live: &live,
    };
    proof.check(value)?;
    let accepted = Accepted {
        ballot,
        value: value.clone(),
    };
    let garbage = left_behind(chunk, ballot, open, row.placement(), value.placement());
    let decided = Row {
        promised: row.promised,
        accepted: Some(accepted.clone()),
        open: None,
    };
    decided.assert_consistent();
    let missing_parts = value.placement().map_or(0, missing_parts);
    Ok(Committed {
        row: decided,
        accepted,
        replayed: false,
        garbage,
        missing_parts,
    })
}

fn replay(row: &Row, accepted: &Accepted) -> Committed {
    Committed {
        row: row.clone(),
        accepted: accepted.clone(),
        replayed: true,
        garbage: Vec::new(),
        missing_parts: accepted.value.placement().map_or(0, missing_parts),
    }
}

/// What a chunk's end leaves: its row, and everything it ever placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub row: Row,
    pub garbage: Vec<Garbage>,
}

/// OPEN for deletion and COMMIT of the tombstone in one step. A chunk that is deleted already stays as it is.
///
/// # Errors
/// Never for a row that is consistent; the type is that of the steps it is made of.
pub fn delete(chunk: ChunkId, row: &Row, request: &OpenRequest) -> Result<Deleted, Conflict> {
    if row.is_deleted() && row.open.is_none() {
        return Ok(Deleted {
            row: row.clone(),
            garbage: Vec::new(),
        });
    }
    let request = OpenRequest {
        kind: OpenKind::Delete,
        nodes: Vec::new(),
        min_ack: 0,
        ..request.clone()
    };
    let opened = open(chunk, row, &request)?;
    let decided = commit(chunk, &opened.row, opened.ballot, &Value::DELETED, &[], |_| None)?;
    let garbage = opened.garbage.into_iter().chain(decided.garbage).collect();
    Ok(Deleted {
        row: decided.row,
        garbage,
    })
}

/// Parts that `placement` lacks to what its scheme wants.
#[must_use]
pub fn missing_parts(placement: &Placement) -> usize {
    let want = match placement.scheme {
        Scheme::Replicated => REPLICA_COUNT,
        Scheme::Erasure => crate::id::SHARD_COUNT.into(),
    };
    want.saturating_sub(placement.parts.len())
}

/// The object that `part` of `chunk` is.
#[must_use]
pub fn object_of(chunk: ChunkId, part: &Part) -> ChunkId {
    match part.shard {
        Some(shard) => chunk.with_shard(shard).unwrap_or(chunk),
        None => chunk.whole(),
    }
}

fn objects_of(chunk: ChunkId, ballot: Ballot, nodes: &[NodeId]) -> impl Iterator<Item = Garbage> {
    nodes.iter().map(move |&node| Garbage {
        node,
        object: chunk.whole(),
        ballot,
    })
}

/// R3: everything that the old value named, or that this ballot may have written, and that the new value does not name.
fn left_behind(
    chunk: ChunkId,
    ballot: Ballot,
    open: &OpenBallot,
    old: Option<&Placement>,
    new: Option<&Placement>,
) -> Vec<Garbage> {
    let garbage = |part: &Part| Garbage {
        node: part.node,
        object: object_of(chunk, part),
        ballot: part.object_ballot,
    };
    let objects = |placement: Option<&Placement>| -> BTreeSet<Garbage> {
        placement
            .into_iter()
            .flat_map(|placement| placement.parts.iter().map(garbage))
            .collect()
    };
    let mut left = objects(old);
    left.extend(objects_of(chunk, ballot, &open.nodes));
    let kept = objects(new);
    left.difference(&kept).copied().collect()
}

/// What a COMMIT brings to prove its value.
struct Proof<'a> {
    chunk: ChunkId,
    ballot: Ballot,
    open: &'a OpenBallot,
    base: Option<&'a Placement>,
    witnesses: &'a [Witness],
    live: &'a dyn Fn(NodeId) -> Option<Incarnation>,
}

impl Proof<'_> {
    fn check(&self, value: &Value) -> Result<(), Conflict> {
        match (self.open.kind, value) {
            (OpenKind::Delete, Value::Deleted(_)) => Ok(()),
            (OpenKind::Delete, Value::Placed(_)) => Err(Conflict::BadValue {
                reason: "a deletion was opened",
            }),
            (_, Value::Deleted(_)) => Err(Conflict::BadValue {
                reason: "no deletion was opened",
            }),
            (_, Value::Placed(placement)) => self.check_placement(placement),
        }
    }

    fn check_placement(&self, placement: &Placement) -> Result<(), Conflict> {
        let bad = |reason| Err(Conflict::BadValue { reason });
        if self.base.is_some_and(|base| base.digest != placement.digest) {
            return bad("a chunk never changes its bytes");
        }
        let nodes: BTreeSet<_> = placement.parts.iter().map(|part| part.node).collect();
        if nodes.len() != placement.parts.len() {
            return bad("two parts are on one node");
        }
        if !shards_fit(placement) {
            return bad("the parts do not fit the scheme");
        }
        placement
            .parts
            .iter()
            .try_for_each(|part| self.check_part(placement, part))?;
        let (have, need) = (placement.parts.len(), usize::from(self.open.min_ack).max(1));
        if have < need {
            Err(Conflict::TooFewParts { have, need })
        } else {
            Ok(())
        }
    }

    /// R2: carried over unchanged from the base, or proven by a receipt of this ballot and of the node's present life.
    fn check_part(&self, placement: &Placement, part: &Part) -> Result<(), Conflict> {
        let carried = self
            .base
            .is_some_and(|base| base.scheme == placement.scheme && base.parts.contains(part));
        if carried {
            return Ok(());
        }
        let unproven = |fault| {
            Err(Conflict::Unproven {
                node: part.node,
                fault,
            })
        };
        if part.object_ballot != self.ballot {
            return unproven(Fault::NoReceipt);
        }
        if !self.open.nodes.contains(&part.node) {
            return unproven(Fault::NotGranted);
        }
        let Some(incarnation) = (self.live)(part.node) else {
            return unproven(Fault::Unregistered);
        };
        let object = object_of(self.chunk, part);
        let mut found = Fault::NoReceipt;
        for receipt in self.witnesses.iter().map(Witness::receipt) {
            if (receipt.chunk_id, receipt.ballot, receipt.node) != (object, self.ballot, part.node) {
                continue;
            }
            if receipt.incarnation != incarnation {
                found = Fault::OtherIncarnation;
            } else if !proves_bytes(placement, part, receipt) {
                found = Fault::OtherBytes;
            } else {
                return Ok(());
            }
        }
        unproven(found)
    }
}

fn proves_bytes(placement: &Placement, part: &Part, receipt: &Receipt) -> bool {
    let same_part = (receipt.digest.sha256, receipt.digest.leaf_root) == (part.sha256, part.leaf_root);
    same_part && (placement.scheme == Scheme::Erasure || receipt.digest == placement.digest)
}

/// Full copies have no shard number and the chunk's own hash; shards have distinct numbers.
fn shards_fit(placement: &Placement) -> bool {
    let digest = &placement.digest;
    match placement.scheme {
        Scheme::Replicated => placement.parts.iter().all(|part| {
            part.shard.is_none() && part.sha256 == digest.sha256 && part.leaf_root == digest.leaf_root
        }),
        Scheme::Erasure => {
            let shards: BTreeSet<_> = placement.parts.iter().filter_map(|part| part.shard).collect();
            shards.len() == placement.parts.len()
                && shards.iter().all(|&shard| shard < crate::id::SHARD_COUNT)
        }
    }
}

#[cfg(test)]
#[path = "master_tests.rs"]
mod tests;
