//! Reading and writing single rows of `consensus_state` and the projections of what they decide.
//!
//! `accepted_value` decides. `chunks.checksum` and `chunk_replicas` repeat it for queries and are rewritten in the
//! transaction that decides; [`crate::check`] compares them.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::paxos::master::{Accepted, Garbage, OpenBallot, Row};
use vstack_core::paxos::{OpenKind, Target};
use vstack_core::time::UnixMillis;

use crate::codec::{Place, RowSum, ballot_column, from_word, json_column, signed};
use crate::error::MetaError;

/// `chunk_replicas.shard_index` of a full copy.
pub(crate) const WHOLE: i64 = 255;

/// The columns of `consensus_state` as SQLite has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawRow {
    pub(crate) chunk_id: String,
    promised: i64,
    accepted: i64,
    value: Option<String>,
    base: Option<i64>,
    kind: Option<String>,
    owner: Option<String>,
    nodes: Option<String>,
    min_ack: Option<i64>,
    until: Option<i64>,
    row_sum: i64,
}

/// Column list that [`RawRow::read`] expects.
pub(crate) const ROW_COLUMNS: &str = "chunk_id, promised_ballot, accepted_ballot, accepted_value, open_base, open_kind, \
     open_owner, open_nodes, open_min_ack, open_until_ms, row_sum";

/// Columns in [`ROW_COLUMNS`].
pub(crate) const ROW_COLUMN_COUNT: usize = 11;

impl RawRow {
    pub(crate) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            chunk_id: row.get(0)?,
            promised: row.get(1)?,
            accepted: row.get(2)?,
            value: row.get(3)?,
            base: row.get(4)?,
            kind: row.get(5)?,
            owner: row.get(6)?,
            nodes: row.get(7)?,
            min_ack: row.get(8)?,
            until: row.get(9)?,
            row_sum: row.get(10)?,
        })
    }

    fn of(chunk: ChunkId, row: &Row) -> Result<Self, MetaError> {
        let open = row.open.as_ref();
        let mut raw = Self {
            chunk_id: chunk.to_string(),
            promised: ballot_column(row.promised)?,
            accepted: ballot_column(row.epoch())?,
            value: row.accepted.as_ref().map(|accepted| json_column(&accepted.value)),
            base: open.map(|open| ballot_column(open.base)).transpose()?,
            kind: open.map(|open| open.kind.as_str().to_owned()),
            owner: open.map(|open| open.owner.clone()),
            nodes: open.map(|open| json_column(&open.nodes)),
            min_ack: open.map(|open| open.min_ack.into()),
            until: open.map(|open| signed(open.until.0)).transpose()?,
            row_sum: 0,
        };
        raw.row_sum = raw.sum().finish();
        Ok(raw)
    }

    fn sum(&self) -> RowSum {
        let optional = |number: Option<i64>| number.map(|number| number.to_string());
        RowSum::default()
            .text(&self.chunk_id)
            .number(self.promised)
            .number(self.accepted)
            .optional(self.value.as_deref())
            .optional(optional(self.base).as_deref())
            .optional(self.kind.as_deref())
            .optional(self.owner.as_deref())
            .optional(self.nodes.as_deref())
            .optional(optional(self.min_ack).as_deref())
            .optional(optional(self.until).as_deref())
    }

    /// Checks the row and turns it into the protocol's form.
    pub(crate) fn decode(&self) -> Result<Row, MetaError> {
        let place = Place {
            table: "consensus_state",
            key: &self.chunk_id,
        };
        place.check_sum(self.row_sum, self.sum())?;
        let accepted = match &self.value {
            None => None,
            Some(text) => Some(Accepted {
                ballot: place.ballot(self.accepted)?,
                value: place.json(text)?,
            }),
        };
        let row = Row {
            promised: place.ballot(self.promised)?,
            accepted,
            open: self.decode_open(place)?,
        };
        let same_epoch = row.epoch() == place.ballot(self.accepted)?;
        if row.is_consistent() && same_epoch {
            Ok(row)
        } else {
            Err(place.corrupt("it breaks the protocol"))
        }
    }

    fn decode_open(&self, place: Place<'_>) -> Result<Option<OpenBallot>, MetaError> {
        let (Some(base), Some(kind), Some(owner), Some(nodes), Some(min_ack), Some(until)) = (
            self.base,
            &self.kind,
            &self.owner,
            &self.nodes,
            self.min_ack,
            self.until,
        ) else {
            return Ok(None);
        };
        Ok(Some(OpenBallot {
            base: place.ballot(base)?,
            kind: from_word::<OpenKind>(place, kind)?,
            owner: owner.clone(),
            nodes: place.json::<Vec<Target>>(nodes)?,
            min_ack: place.small(min_ack)?,
            until: UnixMillis(place.unsigned(until)?),
        }))
    }

    fn phase(&self) -> &'static str {
        match (&self.kind, &self.value) {
            (Some(_), _) => "accept",
            (None, Some(_)) => "committed",
            (None, None) => "none",
        }
    }
}

/// The row of `chunk`; the default one when no OPEN has named it.
pub(crate) fn read_row(connection: &Connection, chunk: ChunkId) -> Result<Row, MetaError> {
    let sql = format!("SELECT {ROW_COLUMNS} FROM consensus_state WHERE chunk_id = ?1");
    let raw = connection
        .prepare_cached(&sql)?
        .query_row([chunk.to_string()], RawRow::read)
        .optional()?;
    raw.map_or_else(|| Ok(Row::default()), |raw| raw.decode())
}

/// Replaces the row of `chunk`, if its promise is still `expected`.
pub(crate) fn write_row(
    connection: &Connection,
    chunk: ChunkId,
    expected: Ballot,
    row: &Row,
) -> Result<(), MetaError> {
    let raw = RawRow::of(chunk, row)?;
    // The condition repeats what the pure function checked, so that the swap holds in SQL as well.
    let changed = connection
        .prepare_cached(
            "INSERT INTO consensus_state(chunk_id, promised_ballot, accepted_ballot, accepted_value, phase, open_base,
               open_kind, open_owner, open_nodes, open_min_ack, open_until_ms, row_sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT(chunk_id) DO UPDATE SET promised_ballot = ?2, accepted_ballot = ?3, accepted_value = ?4,
               phase = ?5, open_base = ?6, open_kind = ?7, open_owner = ?8, open_nodes = ?9, open_min_ack = ?10,
               open_until_ms = ?11, row_sum = ?12
             WHERE promised_ballot = ?13",
        )?
        .execute(params![
            raw.chunk_id,
            raw.promised,
            raw.accepted,
            raw.value,
            raw.phase(),
            raw.base,
            raw.kind,
            raw.owner,
            raw.nodes,
            raw.min_ack,
            raw.until,
            raw.row_sum,
            ballot_column(expected)?,
        ])?;
    assert!(
        changed == 1,
        "one writer owns the catalogue, yet {chunk} changed under it"
    );
    Ok(())
}

/// Queues objects for collection from `not_before` on.
pub(crate) fn queue_garbage(
    connection: &Connection,
    garbage: impl IntoIterator<Item = Garbage>,
    not_before: UnixMillis,
) -> Result<(), MetaError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO gc_queue(node_id, chunk_id, object_ballot, not_before_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
    )?;
    for Garbage { node, object, ballot } in garbage {
        let columns = (
            node.to_string(),
            object.to_string(),
            ballot_column(ballot)?,
            signed(not_before.0)?,
        );
        insert.execute(columns)?;
    }
    Ok(())
}

/// Ids of all chunks that have an open ballot.
pub(crate) fn open_chunks(connection: &Connection) -> Result<Vec<ChunkId>, MetaError> {
    let mut query =
        connection.prepare_cached("SELECT chunk_id FROM consensus_state WHERE open_kind IS NOT NULL")?;
    let ids = query.query_map([], |row| row.get::<_, String>(0))?;
    ids.map(|id| {
        let id = id?;
        let place = Place {
            table: "consensus_state",
            key: &id,
        };
        place.parsed(&id)
    })
    .collect()
}

/// Ids of all chunks of a video that an OPEN has ever named, decided or not.
pub(crate) fn chunks_of_video(connection: &Connection, video: &str) -> Result<Vec<ChunkId>, MetaError> {
    // '.' follows '-', so the range holds exactly the ids that start with the video's and a hyphen.
    let mut query = connection.prepare_cached(
        "SELECT chunk_id FROM consensus_state WHERE chunk_id >= ?1 || '-' AND chunk_id < ?1 || '.'",
    )?;
    let ids = query.query_map([video], |row| row.get::<_, String>(0))?;
    ids.map(|id| {
        let id = id?;
        Place {
            table: "consensus_state",
            key: &id,
        }
        .parsed(&id)
    })
    .collect()
}

/// Removes the projections of a chunk that has no placement any more.
pub(crate) fn drop_projection(connection: &Connection, chunk: ChunkId) -> Result<(), MetaError> {
    let mut delete = connection.prepare_cached("DELETE FROM chunks WHERE chunk_id = ?1")?;
    delete.execute([chunk.to_string()])?;
    Ok(())
}
