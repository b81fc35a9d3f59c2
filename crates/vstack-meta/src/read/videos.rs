//! Rows of `videos`, and everything that a manifest is made of.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};
use vstack_core::id::{NodeId, VideoId};
use vstack_core::manifest::{Container, Track, VideoStatus};
use vstack_core::time::UnixMillis;

use super::chunks::{ChunkRecord, chunks_of};
use super::nodes::{NodeRecord, all_nodes};
use crate::apply::videos::VideoColumns;
use crate::codec::{Place, from_word};
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
               views FROM videos WHERE video_id = ?1",
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
            Ok((columns, row.get(9)?, row.get(10)?))
        })
        .optional()?;
    found
        .map(|(columns, row_sum, views)| decode(columns, row_sum, views))
        .transpose()
}

fn decode(columns: VideoColumns, row_sum: i64, views: i64) -> Result<VideoRecord, MetaError> {
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
        views: place.unsigned(views)?,
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
