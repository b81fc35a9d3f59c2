//! Rows of `chunks`, with the decided placement beside them.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::manifest::MediaFacts;
use vstack_core::placement::Placement;

use crate::apply::chunks::ChunkColumns;
use crate::codec::{Place, signed};
use crate::error::MetaError;
use crate::rows::{self, RawRow};

/// A committed chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkRecord {
    pub chunk: ChunkId,
    pub epoch: Ballot,
    pub placement: Placement,
    pub media: MediaFacts,
    /// Nodes whose part was lost with their disk.
    pub lost: BTreeSet<NodeId>,
}

/// A chunk with fewer live parts than its scheme wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderReplicated {
    pub chunk: ChunkId,
    pub missing_parts: usize,
}

/// Number, start and length of a media chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MediaTime {
    pub(crate) seq: u32,
    pub(crate) start_ms: u64,
    pub(crate) duration_ms: u64,
}

const COLUMNS: &str = "c.chunk_id, c.size_bytes, c.checksum, c.leaf_root, c.scheme, c.start_ms, c.duration_ms, c.keyframes_ms, \
     c.fragments, c.row_sum";

/// Reads [`COLUMNS`], of which the first is the row's column `first`.
fn read_columns(row: &SqlRow<'_>, first: usize) -> rusqlite::Result<(ChunkColumns, i64)> {
    let columns = ChunkColumns {
        chunk_id: row.get(first)?,
        size_bytes: row.get(first + 1)?,
        checksum: row.get(first + 2)?,
        leaf_root: row.get(first + 3)?,
        scheme: row.get(first + 4)?,
        start_ms: row.get(first + 5)?,
        duration_ms: row.get(first + 6)?,
        keyframes_ms: row.get(first + 7)?,
        fragments: row.get(first + 8)?,
    };
    Ok((columns, row.get(first + 9)?))
}

fn checked((columns, row_sum): (ChunkColumns, i64)) -> Result<ChunkColumns, MetaError> {
    Place {
        table: "chunks",
        key: &columns.chunk_id,
    }
    .check_sum(row_sum, columns.sum())?;
    Ok(columns)
}

fn decode_media(columns: &ChunkColumns) -> Result<MediaFacts, MetaError> {
    let place = Place {
        table: "chunks",
        key: &columns.chunk_id,
    };
    Ok(MediaFacts {
        start_ms: place.unsigned(columns.start_ms)?,
        duration_ms: place.unsigned(columns.duration_ms)?,
        keyframes_ms: place.json(&columns.keyframes_ms)?,
        fragments: place.json(&columns.fragments)?,
    })
}

/// The checked columns of one chunk.
pub(crate) fn media_facts(
    connection: &Connection,
    chunk: ChunkId,
) -> Result<Option<ChunkColumns>, MetaError> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM chunks c WHERE chunk_id = ?1"))?
        .query_row([chunk.to_string()], |row| read_columns(row, 0))
        .optional()?;
    found.map(checked).transpose()
}

/// One chunk, if it is committed and not deleted.
pub(crate) fn find_chunk(connection: &Connection, chunk: ChunkId) -> Result<Option<ChunkRecord>, MetaError> {
    let Some(columns) = media_facts(connection, chunk)? else {
        return Ok(None);
    };
    let row = rows::read_row(connection, chunk)?;
    let lost = lost_parts(connection, "chunk_id = ?1", &chunk.to_string())?;
    let lost = lost.into_iter().map(|(_, node)| node).collect();
    record(&columns, &row, lost).map(Some)
}

fn record(
    columns: &ChunkColumns,
    row: &vstack_core::paxos::master::Row,
    lost: BTreeSet<NodeId>,
) -> Result<ChunkRecord, MetaError> {
    let place = Place {
        table: "chunks",
        key: &columns.chunk_id,
    };
    let placement = row
        .placement()
        .ok_or_else(|| place.corrupt("no placement is decided for it"))?;
    let chunk: ChunkId = place.parsed(&columns.chunk_id)?;
    let media = decode_media(columns)?;
    Ok(ChunkRecord {
        chunk,
        epoch: row.epoch(),
        placement: placement.clone(),
        media,
        lost,
    })
}

/// (chunk, node) of the parts that were lost with a disk.
fn lost_parts(
    connection: &Connection,
    condition: &'static str,
    key: &str,
) -> Result<BTreeSet<(String, NodeId)>, MetaError> {
    let sql = format!(
        "SELECT chunk_id, node_id FROM chunk_replicas JOIN storage_nodes USING (node_url)
         WHERE chunk_replicas.status = 'failed' AND {condition}"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let rows = query.query_map([key], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (chunk, node) = row?;
        let node = Place {
            table: "chunk_replicas",
            key: &chunk,
        }
        .parsed(&node)?;
        Ok((chunk, node))
    })
    .collect()
}

/// All committed chunks of a video, by kind, track and number.
pub(crate) fn chunks_of(connection: &Connection, video: VideoId) -> Result<Vec<ChunkRecord>, MetaError> {
    let key = video.to_string();
    let lost = lost_parts(connection, "chunk_id >= ?1 || '-' AND chunk_id < ?1 || '.'", &key)?;
    let mut lost_by_chunk = std::collections::BTreeMap::<String, BTreeSet<NodeId>>::new();
    for (chunk, node) in lost {
        lost_by_chunk.entry(chunk).or_default().insert(node);
    }
    let decisions: Vec<String> = rows::ROW_COLUMNS
        .split(", ")
        .map(|column| format!("s.{column}"))
        .collect();
    let sql = format!(
        "SELECT {}, {COLUMNS} FROM chunks c JOIN consensus_state s ON s.chunk_id = c.chunk_id
         WHERE c.video_id = ?1 ORDER BY c.kind, c.track, c.sequence_num",
        decisions.join(", ")
    );
    let mut query = connection.prepare_cached(&sql)?;
    let mut found = query.query([&key])?;
    let mut chunks = Vec::new();
    while let Some(row) = found.next()? {
        let columns = checked(read_columns(row, rows::ROW_COLUMN_COUNT)?)?;
        let decided = RawRow::read(row)?.decode()?;
        let lost = lost_by_chunk.remove(&columns.chunk_id).unwrap_or_default();
        chunks.push(record(&columns, &decided, lost)?);
    }
    Ok(chunks)
}

/// Times of the main track's media chunks, by number.
pub(crate) fn media_times(connection: &Connection, video: VideoId) -> Result<Vec<MediaTime>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT sequence_num, start_ms, duration_ms FROM chunks
         WHERE video_id = ?1 AND kind = ?2 AND track = 0 ORDER BY sequence_num",
    )?;
    let key = video.to_string();
    let place = Place {
        table: "chunks",
        key: &key,
    };
    let rows = query.query_map((&key, ChunkKind::Media as u8), |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (seq, start, duration) = row?;
        Ok(MediaTime {
            seq: place.small(seq)?,
            start_ms: place.unsigned(start)?,
            duration_ms: place.unsigned(duration)?,
        })
    })
    .collect()
}

/// Chunks that wait for repair, those that miss most first.
pub(crate) fn under_replicated(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<UnderReplicated>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT chunk_id, missing_parts FROM chunks WHERE missing_parts > 0 ORDER BY missing_parts DESC LIMIT ?1",
    )?;
    let rows = query.query_map([signed(limit as u64)?], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    rows.map(|row| {
        let (chunk, missing) = row?;
        let place = Place {
            table: "chunks",
            key: &chunk,
        };
        Ok(UnderReplicated {
            chunk: place.parsed(&chunk)?,
            missing_parts: place.small(missing)?,
        })
    })
    .collect()
}
