//! What the redundancy policy and the repair planner look at.

use rusqlite::{Connection, Row as SqlRow};
use vstack_core::cost::PlacedChunks;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::placement::Scheme;
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use super::chunks::{ChunkRecord, find_chunk};
use crate::codec::{Place, from_word, json_column, signed};
use crate::error::MetaError;

/// An active video, as far as redundancy goes. Only media chunks are ever converted.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRedundancy {
    pub video: VideoId,
    pub title: String,
    pub created_at: UnixMillis,
    pub popularity: Popularity,
    /// Of its media chunks, each counted once.
    pub size_bytes: u64,
    /// Its media chunks.
    pub chunks: u64,
    /// Those of them that are erasure-coded, and their bytes.
    pub erasure_chunks: u64,
    pub erasure_bytes: u64,
    pub pin: Option<Scheme>,
    pub converted_at: Option<UnixMillis>,
}

/// All active videos that have media chunks.
pub(crate) fn videos(connection: &Connection) -> Result<Vec<VideoRedundancy>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT v.video_id, v.title, v.created_at, v.views_recent, v.views_at, r.pin, r.converted_at, count(*),
           sum(c.size_bytes), sum(c.scheme <> 'rep'), sum(c.size_bytes * (c.scheme <> 'rep'))
         FROM videos v JOIN chunks c ON c.video_id = v.video_id AND c.kind = ?1
           LEFT JOIN video_redundancy r ON r.video_id = v.video_id
         WHERE v.status = 'active' GROUP BY v.video_id",
    )?;
    let mut found = query.query([ChunkKind::Media as u8])?;
    let mut videos = Vec::new();
    while let Some(row) = found.next()? {
        videos.push(video(row)?);
    }
    Ok(videos)
}

fn video(row: &SqlRow<'_>) -> Result<VideoRedundancy, MetaError> {
    let key: String = row.get(0)?;
    let place = Place {
        table: "video_redundancy",
        key: &key,
    };
    let number = |column: usize| -> Result<u64, MetaError> { place.unsigned(row.get(column)?) };
    let pin: Option<String> = row.get(5)?;
    let converted_at: Option<i64> = row.get(6)?;
    Ok(VideoRedundancy {
        video: place.parsed(&key)?,
        title: row.get(1)?,
        created_at: UnixMillis(number(2)?),
        popularity: Popularity {
            score: row.get(3)?,
            at: UnixMillis(number(4)?),
        },
        pin: pin.map(|word| from_word(place, &word)).transpose()?,
        converted_at: converted_at
            .map(|ms| place.unsigned(ms).map(UnixMillis))
            .transpose()?,
        chunks: number(7)?,
        size_bytes: number(8)?,
        erasure_chunks: number(9)?,
        erasure_bytes: number(10)?,
    })
}

/// All committed chunks of active videos, those together that lie on the same nodes in the same mode. Parts that are known
/// to be lost do not count. Reads every row of the placements: for operators who ask, not for workers.
pub(crate) fn placed(connection: &Connection) -> Result<Vec<PlacedChunks>, MetaError> {
    let mut query = connection.prepare_cached(
        "WITH placed AS (
           SELECT c.video_id, c.kind = ?1 AS is_media, c.scheme, c.size_bytes,
             (SELECT group_concat(n.node_id ORDER BY n.node_id)
              FROM chunk_replicas r JOIN storage_nodes n ON n.node_url = r.node_url
              WHERE r.chunk_id = c.chunk_id AND r.status = 'active') AS nodes
           FROM chunks c JOIN videos v ON v.video_id = c.video_id WHERE v.status = 'active')
         SELECT video_id, is_media, scheme, coalesce(nodes, ''), count(*), sum(size_bytes) FROM placed
         GROUP BY video_id, is_media, scheme, nodes",
    )?;
    let mut found = query.query([ChunkKind::Media as u8])?;
    let mut placed = Vec::new();
    while let Some(row) = found.next()? {
        placed.push(placed_chunks(row)?);
    }
    Ok(placed)
}

fn placed_chunks(row: &SqlRow<'_>) -> Result<PlacedChunks, MetaError> {
    let (key, scheme, nodes): (String, String, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
    let place = Place {
        table: "chunks",
        key: &key,
    };
    let nodes = nodes.split(',').filter(|node| !node.is_empty());
    Ok(PlacedChunks {
        video: place.parsed(&key)?,
        is_media: row.get(1)?,
        scheme: from_word(place, &scheme)?,
        nodes: nodes.map(|node| place.parsed(node)).collect::<Result<_, _>>()?,
        chunks: place.unsigned(row.get(4)?)?,
        size_bytes: place.unsigned(row.get(5)?)?,
    })
}

/// A chunk that lacks parts or has some on nodes that may not answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AtRisk {
    pub record: ChunkRecord,
    /// Of its video.
    pub popularity: Popularity,
}

/// A page of the chunks that lack parts or have parts on `nodes`; those that may lack most first. Both schemes have two
/// parts to spare.
pub(crate) fn at_risk(
    connection: &mut Connection,
    nodes: &[NodeId],
    (offset, limit): (usize, usize),
) -> Result<Vec<AtRisk>, MetaError> {
    let snapshot = connection.transaction()?;
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    let mut query = snapshot.prepare_cached(
        "WITH doubtful AS (
           SELECT r.chunk_id, count(*) AS parts FROM chunk_replicas r
           WHERE r.status = 'active' AND r.node_url IN
             (SELECT node_url FROM storage_nodes WHERE node_id IN (SELECT value FROM json_each(?1)))
           GROUP BY r.chunk_id)
         SELECT c.chunk_id, v.views_recent, v.views_at
         FROM chunks c JOIN videos v ON v.video_id = c.video_id LEFT JOIN doubtful d ON d.chunk_id = c.chunk_id
         WHERE c.missing_parts > 0 OR d.parts > 0
         ORDER BY c.missing_parts + coalesce(d.parts, 0) DESC, c.chunk_id LIMIT ?2 OFFSET ?3",
    )?;
    let page = (json_column(&names), signed(limit as u64)?, signed(offset as u64)?);
    let rows = query.query_map(page, |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, f64>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (key, score, at) = row?;
        let place = Place {
            table: "chunks",
            key: &key,
        };
        let chunk: ChunkId = place.parsed(&key)?;
        let at = UnixMillis(place.unsigned(at)?);
        if let Some(record) = find_chunk(&snapshot, chunk)? {
            found.push(AtRisk {
                record,
                popularity: Popularity { score, at },
            });
        }
    }
    Ok(found)
}
