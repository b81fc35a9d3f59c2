//! Rows of `videos`, and everything that a manifest is made of.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};
use vstack_core::id::{NodeId, VideoId};
use vstack_core::manifest::{Container, Track, VideoStatus};
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use super::chunks::{ChunkRecord, chunks_of};
use super::nodes::{NodeRecord, all_nodes};
use crate::apply::videos::VideoColumns;
use crate::codec::{Place, from_word, signed};
use crate::error::MetaError;

/// A video's own row.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRecord {
    pub video: VideoId,
    pub title: String,
    pub duration_sec: f64,
    /// Media chunks of the main track; 0 until it is active.
    pub total_chunks: u32,
    pub created_at: UnixMillis,
    pub status: VideoStatus,
    pub container: Container,
    pub codecs: String,
    pub tracks: Vec<Track>,
    pub views: u64,
    /// How often lately.
    pub popularity: Popularity,
    /// Number of its last catalogue object; 0 when there was none.
    pub catalogue_seq: u32,
}

/// What a manifest is made of, read in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestSource {
    pub video: VideoRecord,
    /// Bytes of the init segment, if they were kept.
    pub init_data: Option<Vec<u8>>,
    /// By kind, track and number.
    pub chunks: Vec<ChunkRecord>,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
}

pub(crate) fn find_video(connection: &Connection, video: VideoId) -> Result<Option<VideoRecord>, MetaError> {
    let key = video.to_string();
    let found = connection
        .prepare_cached(
            "SELECT video_id, title, duration_sec, total_chunks, created_at, status, container, codecs, tracks, row_sum,
               views, views_recent, views_at, catalogue_seq FROM videos WHERE video_id = ?1",
        )?
        .query_row([&key], |row| {
            let columns = VideoColumns {
                video_id: row.get(0)?,
                title: row.get(1)?,
                duration_sec: row.get(2)?,
                total_chunks: row.get(3)?,
                created_at: row.get(4)?,
                status: row.get(5)?,
                container: row.get(6)?,
                codecs: row.get(7)?,
                tracks: row.get(8)?,
            };
            let counted = Counted {
                views: row.get(10)?,
                recent: row.get(11)?,
                at: row.get(12)?,
                catalogue_seq: row.get(13)?,
            };
            Ok((columns, row.get(9)?, counted))
        })
        .optional()?;
    found
        .map(|(columns, row_sum, counted)| decode(columns, row_sum, counted))
        .transpose()
}

/// Columns that change without deciding anything, so that no checksum covers them.
struct Counted {
    views: i64,
    recent: f64,
    at: i64,
    catalogue_seq: i64,
}

fn decode(columns: VideoColumns, row_sum: i64, counted: Counted) -> Result<VideoRecord, MetaError> {
    let place = Place {
        table: "videos",
        key: &columns.video_id,
    };
    place.check_sum(row_sum, columns.sum())?;
    Ok(VideoRecord {
        video: place.parsed(&columns.video_id)?,
        duration_sec: columns.duration_sec,
        total_chunks: place.small(columns.total_chunks)?,
        created_at: UnixMillis(place.unsigned(columns.created_at)?),
        status: from_word(place, &columns.status)?,
        container: from_word(place, &columns.container)?,
        tracks: place.json(&columns.tracks)?,
        views: place.unsigned(counted.views)?,
        popularity: Popularity {
            score: counted.recent,
            at: UnixMillis(place.unsigned(counted.at)?),
        },
        catalogue_seq: place.small(counted.catalogue_seq)?,
        title: columns.title,
        codecs: columns.codecs,
    })
}

/// `None` for a video that never was or is deleted.
pub(crate) fn manifest_source(
    connection: &mut Connection,
    video: VideoId,
) -> Result<Option<ManifestSource>, MetaError> {
    let snapshot = connection.transaction()?;
    let record = match find_video(&snapshot, video)? {
        Some(record) if record.status != VideoStatus::Deleted => record,
        _ => return Ok(None),
    };
    let init_data = snapshot
        .prepare_cached("SELECT init_data FROM videos WHERE video_id = ?1")?
        .query_row([video.to_string()], |row| row.get(0))?;
    let chunks = chunks_of(&snapshot, video)?;
    let nodes = all_nodes(&snapshot)?
        .into_iter()
        .map(|node| (node.node, node))
        .collect();
    Ok(Some(ManifestSource {
        video: record,
        init_data,
        chunks,
        nodes,
    }))
}

/// Videos that nobody finished and to which nothing was added since `before`.
pub(crate) fn abandoned(
    connection: &Connection,
    before: UnixMillis,
    limit: usize,
) -> Result<Vec<VideoId>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT video_id FROM videos v
         WHERE status = 'uploading' AND created_at < ?1
           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.video_id = v.video_id AND c.created_at >= ?1)
         ORDER BY created_at LIMIT ?2",
    )?;
    let found = query.query_map((signed(before.0)?, signed(limit as u64)?), |row| row.get(0))?;
    let found: Vec<String> = found.collect::<Result<_, _>>()?;
    let parsed = |id: &String| {
        Place {
            table: "videos",
            key: id,
        }
        .parsed(id)
    };
    found.iter().map(parsed).collect()
}

/// A video whose copy on the nodes is older than the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsaved {
    pub source: ManifestSource,
    /// Changes since it was last written; to be handed to [`crate::Cmd::CatalogueSaved`].
    pub changes: u64,
}

/// Videos whose catalogue object is to be written again, the longest waiting first: those that were last written before
/// `before`, and those that became active since they were first written.
pub(crate) fn unsaved(
    connection: &mut Connection,
    before: UnixMillis,
    limit: usize,
) -> Result<Vec<Unsaved>, MetaError> {
    let found: Vec<(String, i64)> = {
        let mut query = connection.prepare_cached(
            "SELECT video_id, unsaved FROM videos
             WHERE unsaved > 0 AND status <> 'deleted'
               AND max(saved_at, CASE status WHEN 'active' THEN 0 ELSE created_at END) <= ?1
             ORDER BY saved_at LIMIT ?2",
        )?;
        let rows = query.query_map((signed(before.0)?, signed(limit as u64)?), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        rows.collect::<Result<_, _>>()?
    };
    let mut waiting = Vec::new();
    for (id, changes) in found {
        let place = Place {
            table: "videos",
            key: &id,
        };
        if let Some(source) = manifest_source(connection, place.parsed(&id)?)? {
            let changes = place.unsigned(changes)?;
            waiting.push(Unsaved { source, changes });
        }
    }
    Ok(waiting)
}
