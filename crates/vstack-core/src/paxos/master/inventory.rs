//! Message 6, INVENTORY: what becomes of an object that a node reports; and how a catalogue that was restored or
//! rebuilt catches up before it lets anything be deleted.
//!
//! A catalogue that may lack decisions of its earlier life ([`Knowledge::Behind`]) names nothing as garbage: what it
//! does not know may be an acknowledged placement. It is complete again when every node was heard and every placement
//! found there was [`learn`]ed.

use super::{Accepted, Garbage, Row};
use crate::ballot::Ballot;
use crate::id::{ChunkId, NodeId};
use crate::limits::UNKNOWN_OBJECT_GRACE_MS;
use crate::time::UnixMillis;

/// Whether the catalogue can have forgotten decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Knowledge {
    /// It continues its own durable life, or has reconciled with every node since.
    #[default]
    Complete,
    /// It was restored from a backup or rebuilt, and not every node was heard yet.
    Behind,
}

/// One object as its node reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedObject {
    /// A whole chunk, or a shard.
    pub object: ChunkId,
    pub ballot: Ballot,
    /// When the node wrote it, by its own clock. Used for the grace alone, never for an order.
    pub stored_at: UnixMillis,
}

/// What becomes of a reported object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The decided placement names it.
    Named,
    /// Its ballot is open and may still be decided.
    InFlight,
    /// A plain client's, or one that the catalogue never granted, and not yet 24 hours old.
    Young,
    /// Nothing is collected while the catalogue may be behind.
    Kept,
    /// Nothing names it and nothing ever can.
    Garbage,
}

/// Decides about what `node` reports of `chunk`, whose row is `row` (the default row when it has none).
#[must_use]
pub fn fate(
    chunk: ChunkId,
    row: &Row,
    node: NodeId,
    reported: &ReportedObject,
    (now, knowledge): (UnixMillis, Knowledge),
) -> Fate {
    let ReportedObject { object, ballot, .. } = *reported;
    let named = row.names(chunk, &Garbage { node, object, ballot });
    // A ballot above the highest granted one was granted by a life of the catalogue that was lost since. It can never
    // be decided, for a new life grants above it, but what it means is not known here.
    let unknown = ballot > row.promised;
    let young = now.since(reported.stored_at) < UNKNOWN_OBJECT_GRACE_MS;
    if named {
        Fate::Named
    } else if knowledge == Knowledge::Behind {
        Fate::Kept
    } else if ballot == row.promised && row.open.is_some() {
        Fate::InFlight
    } else if (unknown || ballot.is_plain()) && young {
        Fate::Young
    } else {
        Fate::Garbage
    }
}

/// A row as a catalogue that was restored from a backup takes it: no ballot of the lost life is open any more.
///
/// The lost life may have decided that ballot, replaced what it decided and deleted its objects. A late repeat of its
/// COMMIT would name them again; its number is still the highest that the row knows, so that rule R1 alone would let it
/// pass. A restart without a restore keeps what is open.
#[must_use]
pub fn restored(row: &Row) -> Row {
    Row {
        open: None,
        ..row.clone()
    }
}

/// The row after the nodes showed a decision that a restored catalogue lacks; `None` when it has nothing to learn.
///
/// An open ballot was opened on what is now known to be outdated; it dies, and its proposer is fenced.
#[must_use]
pub fn learn(row: &Row, found: &Accepted) -> Option<Row> {
    row.assert_consistent();
    if row.is_deleted() || found.ballot <= row.epoch() {
        return None;
    }
    let learned = Row {
        promised: row.promised.max(found.ballot),
        accepted: Some(found.clone()),
        open: None,
    };
    learned.assert_consistent();
    Some(learned)
}

/// More starts of the catalogue than there are between a backup and its use.
const RESTORE_LEAP: u64 = 1 << 10;
/// 2025-01-01, and steps of five minutes since: 22 bits of them last for 40 years.
const RESTORE_ERA_MS: u64 = 1_735_689_600_000;
const RESTORE_STEP_MS: u64 = 300_000;

/// The least generation of a catalogue that was restored from a backup of generation `stored`: one that neither the
/// lost life can have reached without telling any node, nor an earlier restore of the same backup.
#[must_use]
pub const fn restored_generation(stored: u64, now: UnixMillis) -> u64 {
    let by_time = now.since(UnixMillis(RESTORE_ERA_MS)) / RESTORE_STEP_MS;
    let by_count = stored + RESTORE_LEAP;
    if by_time > by_count { by_time } else { by_count }
}

/// The generation of a new life of the catalogue: above the one it stored and above all that any node ever saw, so
/// that a backup restored in between cannot grant a ballot twice.
///
/// That holds only when every life makes its generation known to the nodes before its first grant. A life that granted
/// and was lost before any node saw its generation would be followed by one of the same number, whose objects the first
/// one's late orders delete.
#[must_use]
pub fn next_generation(stored: u64, seen_by_nodes: impl IntoIterator<Item = u64>) -> u64 {
    seen_by_nodes.into_iter().fold(stored, u64::max) + 1
}
