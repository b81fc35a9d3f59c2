//! Messages 1 and DELETE: what raises a row's ballot, and so kills the ballot that was open.

use super::commit::commit;
use super::inventory::Knowledge;
use super::{Accepted, Conflict, Garbage, OpenBallot, Row, Value, objects_of};
use crate::ballot::Ballot;
use crate::id::{ChunkId, Incarnation, NodeId};
use crate::paxos::{OpenKind, Replaced, Target};
use crate::time::UnixMillis;

/// What OPEN asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    pub kind: OpenKind,
    pub owner: String,
    /// Refuse unless this is the epoch. An upload always expects that there is none.
    pub expect_epoch: Option<Ballot>,
    /// The nodes chosen for the new parts; none for a deletion or an abort.
    pub nodes: Vec<Target>,
    /// Fewest parts of the placement, carried-over ones included; never below what the scheme demands.
    pub min_ack: u8,
    /// Generation of this life of the catalogue.
    pub generation: u64,
    pub now: UnixMillis,
    pub lease_ms: u64,
    /// While the catalogue may lack decisions, nothing that an earlier life of it granted is collected.
    pub knowledge: Knowledge,
}

/// A ballot was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub row: Row,
    pub ballot: Ballot,
    /// The placement it was opened on.
    pub base: Option<Accepted>,
    /// The ballot that was open until now and can never be decided any more: its nodes may hold bytes to adopt.
    pub replaced: Option<Replaced>,
    /// What that ballot may have left (R3: it became uncommittable in this same step).
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
    let replaced = row.open.as_ref().map(|open| Replaced {
        ballot: row.promised,
        nodes: open.nodes.clone(),
    });
    let garbage = match &replaced {
        Some(old) if request.knowledge == Knowledge::Complete => {
            objects_of(chunk, old.ballot, &old.nodes).collect()
        }
        _ => Vec::new(),
    };
    row.assert_unnamed(chunk, &garbage);
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
        replaced,
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
    let decided = commit(
        chunk,
        &opened.row,
        opened.ballot,
        &Value::DELETED,
        &[],
        |_: NodeId| None::<Incarnation>,
    )?;
    let garbage = opened.garbage.into_iter().chain(decided.garbage).collect();
    Ok(Deleted {
        row: decided.row,
        garbage,
    })
}
