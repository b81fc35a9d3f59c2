//! What the catalogue knows of a node's objects: the rows behind what the node reports, and the parts it should hold.

use rusqlite::{Connection, Transaction};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::paxos::master::Row;

use super::nodes::find_node;
use crate::codec::Place;
use crate::error::MetaError;
use crate::rows;

/// What is asked about one page of a node's inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryQuery {
    pub node: NodeId,
    /// Videos from the first to the last whose parts are expected; no end where there is none.
    pub videos: (Option<VideoId>, Option<VideoId>),
    /// Whole chunks whose rows are wanted.
    pub chunks: Vec<ChunkId>,
}

/// The catalogue's side of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryView {
    /// In the order of the asked chunks; the default row for one that no OPEN has named.
    pub rows: Vec<Row>,
    /// Objects that committed placements have on the node and that are not known to be lost.
    pub expected: Vec<(ChunkId, Ballot)>,
}

/// What the cluster lacks and has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Chunks with fewer parts than their scheme wants, and the parts they lack in all.
    pub chunks: u64,
    pub parts: u64,
    /// Parts of committed placements that their node lost.
    pub lost_parts: u64,
    /// Objects that wait to be collected.
    pub collectable: u64,
}

pub(crate) fn view(
    transaction: &Transaction<'_>,
    query: &InventoryQuery,
) -> Result<InventoryView, MetaError> {
    let rows = query
        .chunks
        .iter()
        .map(|&chunk| rows::read_row(transaction, chunk));
    Ok(InventoryView {
        rows: rows.collect::<Result<_, _>>()?,
        expected: expected(transaction, query)?,
    })
}

fn expected(connection: &Connection, query: &InventoryQuery) -> Result<Vec<(ChunkId, Ballot)>, MetaError> {
    let Some(node) = find_node(connection, query.node)? else {
        return Err(MetaError::UnknownNode { node: query.node });
    };
    // '-' and '.' stand around everything that begins with a video's id and a hyphen; '~' is behind every id.
    let (first, last) = query.videos;
    let first = first.map_or_else(String::new, |video| format!("{video}-"));
    let last = last.map_or_else(|| "~".to_owned(), |video| format!("{video}."));
    let mut found = connection.prepare_cached(
        "SELECT chunk_id, ballot_number, shard_index FROM chunk_replicas
         WHERE node_url = ?1 AND chunk_id >= ?2 AND chunk_id < ?3 AND status = 'active'",
    )?;
    let columns = found.query_map((&node.url, first, last), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    columns
        .map(|row| {
            let (chunk, ballot, shard) = row?;
            let place = Place {
                table: "chunk_replicas",
                key: &chunk,
            };
            let whole: ChunkId = place.parsed(&chunk)?;
            let object = match shard {
                rows::WHOLE => whole,
                shard => whole
                    .with_shard(place.small(shard)?)
                    .map_err(|error| place.corrupt(error.to_string()))?,
            };
            Ok((object, place.ballot(ballot)?))
        })
        .collect()
}

pub(crate) fn losses(connection: &Connection) -> Result<Losses, MetaError> {
    let (chunks, parts): (i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(missing_parts), 0) FROM chunks WHERE missing_parts > 0",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let lost: i64 = connection
        .prepare_cached("SELECT count(*) FROM chunk_replicas WHERE status = 'failed'")?
        .query_row([], |row| row.get(0))?;
    let place = Place {
        table: "chunks",
        key: "",
    };
    Ok(Losses {
        chunks: place.unsigned(chunks)?,
        parts: place.unsigned(parts)?,
        lost_parts: place.unsigned(lost)?,
        collectable: super::collections_waiting(connection)?,
    })
}
