//! Message 4, COMMIT: the one step that decides (R1 to R3).

use std::collections::BTreeSet;

use super::{Accepted, Conflict, Fault, Garbage, OpenBallot, Registry, Row, Value, Witness, objects_of};
use crate::ballot::Ballot;
use crate::id::{ChunkId, SHARD_COUNT};
use crate::paxos::{OpenKind, Receipt};
use crate::placement::{Part, Placement, Scheme};

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

/// Message 4: decides `value` under `ballot`. `nodes` knows the registered nodes.
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
    nodes: impl Registry,
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
        nodes: &nodes,
    };
    proof.check(value)?;
    let accepted = Accepted {
        ballot,
        value: value.clone(),
    };
    // What R1 implies, and what the proof and the collection below build upon.
    assert!(
        ballot > row.epoch() && open.base == row.epoch(),
        "an overtaken ballot commits: {row:?}"
    );
    let garbage = left_behind(chunk, ballot, open, row.placement(), value.placement());
    let decided = Row {
        promised: row.promised,
        accepted: Some(accepted.clone()),
        open: None,
    };
    decided.assert_consistent();
    decided.assert_unnamed(chunk, &garbage);
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

/// Parts that `placement` lacks to what its scheme wants.
#[must_use]
pub fn missing_parts(placement: &Placement) -> usize {
    placement
        .scheme
        .part_count()
        .saturating_sub(placement.parts.len())
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
        object: part.target().object(chunk),
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
    nodes: &'a dyn Registry,
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
        if !parts_fit(placement) {
            return bad("the parts do not fit the scheme");
        }
        if self.base.is_some_and(|base| changes_a_shard(base, placement)) {
            return bad("a shard never changes its bytes");
        }
        placement
            .parts
            .iter()
            .try_for_each(|part| self.check_part(placement, part))?;
        let need = usize::from(self.open.min_ack).max(placement.scheme.least_parts());
        let have = placement.parts.len();
        if have < need {
            Err(Conflict::TooFewParts { have, need })
        } else {
            Ok(())
        }
    }

    /// R2: carried over unchanged from the base, or proven by a receipt of this ballot and of the node's present life.
    fn check_part(&self, placement: &Placement, part: &Part) -> Result<(), Conflict> {
        let unproven = |fault| {
            Err(Conflict::Unproven {
                node: part.node,
                fault,
            })
        };
        let carried = self
            .base
            .is_some_and(|base| base.scheme == placement.scheme && base.parts.contains(part));
        if carried {
            return match self.nodes.is_lost(part) {
                true => unproven(Fault::Lost),
                false => Ok(()),
            };
        }
        if part.object_ballot != self.ballot {
            return unproven(Fault::NoReceipt);
        }
        if !self.open.nodes.contains(&part.target()) {
            return unproven(Fault::NotGranted);
        }
        let Some(incarnation) = self.nodes.incarnation(part.node) else {
            return unproven(Fault::Unregistered);
        };
        let object = part.target().object(self.chunk);
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
fn parts_fit(placement: &Placement) -> bool {
    let digest = &placement.digest;
    match placement.scheme {
        Scheme::Replicated => placement.parts.iter().all(|part| {
            part.shard.is_none() && part.sha256 == digest.sha256 && part.leaf_root == digest.leaf_root
        }),
        Scheme::Erasure => {
            let shards: BTreeSet<_> = placement.parts.iter().filter_map(|part| part.shard).collect();
            shards.len() == placement.parts.len() && shards.iter().all(|&shard| shard < SHARD_COUNT)
        }
    }
}

/// The encoding is the same every time, so that a shard that is made again has the bytes it had.
fn changes_a_shard(base: &Placement, placement: &Placement) -> bool {
    let differs = |old: &Part, new: &Part| old.shard == new.shard && old.sha256 != new.sha256;
    let both_coded = (base.scheme, placement.scheme) == (Scheme::Erasure, Scheme::Erasure);
    let mut pairs = base
        .parts
        .iter()
        .flat_map(|old| placement.parts.iter().map(move |new| (old, new)));
    both_coded && pairs.any(|(old, new)| differs(old, new))
}
