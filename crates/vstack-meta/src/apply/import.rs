//! Taking over what a catalogue object says, into a catalogue that was restored or rebuilt.
//!
//! Placements are facts that were committed once: of two, the one with the higher epoch is the later. A chunk or video
//! that this catalogue knows as deleted stays deleted. An open ballot of the chunk is killed: it was opened on a value
//! that turns out to be replaced.

use rusqlite::{Connection, params};
use vstack_core::manifest::VideoStatus;
use vstack_core::paxos::master::{self, Accepted, Value};
use vstack_core::placement::Part;
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use super::chunks::Projection;
use super::nodes::expect_node;
use super::videos::write;
use crate::command::Imported;
use crate::error::MetaError;
use crate::object::{CatalogueObject, PlacedChunk};
use crate::read::nodes::find_node;
use crate::read::videos::{VideoRecord, find_video};
use crate::rows;

pub(super) fn import(
    connection: &Connection,
    object: &CatalogueObject,
    seq: u32,
    now: UnixMillis,
) -> Result<Imported, MetaError> {
    let known = find_video(connection, object.video_id)?;
    if known
        .as_ref()
        .is_some_and(|video| video.status == VideoStatus::Deleted)
    {
        return Ok(Imported::default());
    }
    let new_video = known.is_none();
    if known.is_none_or(|video| video.catalogue_seq <= seq) {
        write(connection, &library_fields(object))?;
        let (id, views) = (
            object.video_id.to_string(),
            i64::try_from(object.views).unwrap_or(0),
        );
        connection.execute(
            "UPDATE videos SET catalogue_seq = ?2, views = max(views, ?3) WHERE video_id = ?1",
            params![id, seq, views],
        )?;
    }
    let mut chunks = 0;
    for placed in &object.chunks {
        chunks += u32::from(import_chunk(connection, object, placed, now)?);
    }
    Ok(Imported { new_video, chunks })
}

fn library_fields(object: &CatalogueObject) -> VideoRecord {
    VideoRecord {
        video: object.video_id,
        title: object.title.clone(),
        duration_sec: object.duration_sec,
        total_chunks: object.total_chunks,
        created_at: object.created_at,
        status: object.status,
        container: object.container,
        codecs: object.codecs.clone(),
        tracks: object.tracks.clone(),
        views: object.views,
        popularity: Popularity::default(),
        catalogue_seq: 0,
    }
}

/// `true` when it was news.
fn import_chunk(
    connection: &Connection,
    object: &CatalogueObject,
    placed: &PlacedChunk,
    now: UnixMillis,
) -> Result<bool, MetaError> {
    let chunk = placed.chunk_id;
    let row = rows::read_row(connection, chunk)?;
    let found = Accepted {
        ballot: placed.epoch,
        value: Value::Placed(placed.placement.clone()),
    };
    let Some(learned) = master::learn(&row, &found) else {
        return Ok(false);
    };
    rows::write_row(connection, chunk, row.promised, &learned)?;
    let mut lost = Vec::new();
    for part in &placed.placement.parts {
        if !holds(connection, object, part)? {
            lost.push(part.node);
        }
    }
    let is_live = |part: &Part| !lost.contains(&part.node);
    let projection = Projection {
        chunk,
        placement: &placed.placement,
        media: Some(&placed.media),
        now,
        is_first: row.accepted.is_none(),
    };
    projection.write(connection, is_live)?;
    Ok(true)
}

/// Whether the node still has the data folder that the placement means. A node that is not known yet is expected.
fn holds(connection: &Connection, object: &CatalogueObject, part: &Part) -> Result<bool, MetaError> {
    let Some(&meant) = object.incarnations.get(&part.node) else {
        return Ok(false);
    };
    match find_node(connection, part.node)? {
        Some(node) => Ok(node.incarnation == meant && node.retired_incarnation != Some(meant)),
        None => expect_node(connection, part.node, meant).map(|()| true),
    }
}
