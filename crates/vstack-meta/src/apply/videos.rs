//! The library's commands: create, finalize, rename, delete, abort.

use rusqlite::{Connection, OptionalExtension as _, params};
use vstack_core::id::{ChunkId, ChunkKind, VideoId};
use vstack_core::limits::{COLLECT_GRACE_MS, CREATION_KEPT_MS};
use vstack_core::manifest::{Container, VideoStatus, ms_to_seconds};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::{self, OpenRequest};
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use super::chunks::write_facts;
use super::{granting_generation, knowledge};
use crate::codec::{Place, RowSum, json_column, signed, word};
use crate::command::FinalizeVideo;
use crate::error::MetaError;
use crate::read::chunks::{MediaTime, media_times};
use crate::read::videos::{VideoRecord, abandoned, find_video};
use crate::rows;

/// What a creation asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) title: &'a str,
    pub(super) duration_sec: f64,
}

/// Gives the video, which is an earlier one when the key was used before for the same.
pub(super) fn create(
    connection: &Connection,
    key: Option<&str>,
    video: VideoId,
    asked: &Asked<'_>,
    now: UnixMillis,
) -> Result<VideoId, MetaError> {
    if let Some(key) = key {
        if let Some(earlier) = created_before(connection, key, asked, now)? {
            return Ok(earlier);
        }
        connection
            .prepare_cached(
                "INSERT INTO creations(idempotency_key, video_id, title, duration_sec, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                key,
                video.to_string(),
                asked.title,
                asked.duration_sec,
                signed(now.0)?
            ])?;
    }
    insert(connection, video, asked, now).map(|()| video)
}

fn created_before(
    connection: &Connection,
    key: &str,
    asked: &Asked<'_>,
    now: UnixMillis,
) -> Result<Option<VideoId>, MetaError> {
    let oldest = now.0.saturating_sub(CREATION_KEPT_MS);
    connection
        .prepare_cached("DELETE FROM creations WHERE created_at < ?1")?
        .execute([signed(oldest)?])?;
    let before: Option<(String, String, f64)> = connection
        .prepare_cached("SELECT video_id, title, duration_sec FROM creations WHERE idempotency_key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((video, title, duration_sec)) = before else {
        return Ok(None);
    };
    if title != asked.title || duration_sec.to_bits() != asked.duration_sec.to_bits() {
        return Err(MetaError::OtherCreation { key: key.to_owned() });
    }
    let place = Place {
        table: "creations",
        key,
    };
    place.parsed(&video).map(Some)
}

fn insert(
    connection: &Connection,
    video: VideoId,
    asked: &Asked<'_>,
    now: UnixMillis,
) -> Result<(), MetaError> {
    if find_video(connection, video)?.is_some() {
        return Err(MetaError::VideoExists { video });
    }
    let record = VideoRecord {
        video,
        title: asked.title.to_owned(),
        duration_sec: asked.duration_sec,
        total_chunks: 0,
        created_at: now,
        status: VideoStatus::Uploading,
        container: Container::Fmp4,
        codecs: String::new(),
        tracks: Vec::new(),
        views: 0,
        popularity: Popularity::default(),
        catalogue_seq: 0,
    };
    write(connection, &record)
}

/// Inserts or replaces what the record holds; the init segment's bytes and the views stay.
pub(super) fn write(connection: &Connection, record: &VideoRecord) -> Result<(), MetaError> {
    let columns = VideoColumns::of(record)?;
    connection
        .prepare_cached(
            "INSERT INTO videos(video_id, title, title_key, duration_sec, total_chunks, created_at, status, container,
               codecs, tracks, row_sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT(video_id) DO UPDATE SET title = ?2, title_key = ?3, duration_sec = ?4, total_chunks = ?5,
               status = ?7, container = ?8, codecs = ?9, tracks = ?10, row_sum = ?11, unsaved = unsaved + 1",
        )?
        .execute(params![
            columns.video_id,
            columns.title,
            record.title.to_lowercase(),
            record.duration_sec,
            columns.total_chunks,
            columns.created_at,
            columns.status,
            columns.container,
            columns.codecs,
            columns.tracks,
            columns.sum().finish(),
        ])?;
    Ok(())
}

/// The columns of `videos` that its checksum covers.
#[derive(Debug, Clone)]
pub(crate) struct VideoColumns {
    pub(crate) video_id: String,
    pub(crate) title: String,
    pub(crate) duration_sec: f64,
    pub(crate) total_chunks: i64,
    pub(crate) created_at: i64,
    pub(crate) status: String,
    pub(crate) container: String,
    pub(crate) codecs: String,
    pub(crate) tracks: String,
}

impl VideoColumns {
    fn of(record: &VideoRecord) -> Result<Self, MetaError> {
        Ok(Self {
            video_id: record.video.to_string(),
            title: record.title.clone(),
            duration_sec: record.duration_sec,
            total_chunks: record.total_chunks.into(),
            created_at: signed(record.created_at.0)?,
            status: word(&record.status),
            container: word(&record.container),
            codecs: record.codecs.clone(),
            tracks: json_column(&record.tracks),
        })
    }

    pub(crate) fn sum(&self) -> RowSum {
        RowSum::default()
            .text(&self.video_id)
            .text(&self.title)
            .text(&self.duration_sec.to_bits().to_string())
            .number(self.total_chunks)
            .number(self.created_at)
            .text(&self.status)
            .text(&self.container)
            .text(&self.codecs)
            .text(&self.tracks)
    }
}

/// The object holds all changes that were made when it was read. The objects before it end: only the last one counts.
pub(super) fn catalogue_saved(
    connection: &Connection,
    chunk: ChunkId,
    unsaved: u64,
    now: UnixMillis,
) -> Result<(), MetaError> {
    let video = living(connection, chunk.video())?;
    connection.execute(
        "UPDATE videos SET catalogue_seq = max(catalogue_seq, ?2), saved_at = ?3, unsaved = max(unsaved - ?4, 0)
         WHERE video_id = ?1",
        params![video.video.to_string(), chunk.seq(), signed(now.0)?, signed(unsaved)?],
    )?;
    let earlier = |id: &ChunkId| id.kind() == ChunkKind::Catalogue && id.seq() < chunk.seq();
    let all = rows::chunks_of_video(connection, &video.video.to_string())?;
    tombstone(
        connection,
        all.into_iter().filter(earlier),
        now,
        now + COLLECT_GRACE_MS,
    )
}

/// A video that a reader may still find.
pub(super) fn living(connection: &Connection, video: VideoId) -> Result<VideoRecord, MetaError> {
    match find_video(connection, video)? {
        Some(record) if record.status != VideoStatus::Deleted => Ok(record),
        _ => Err(MetaError::VideoNotFound { video }),
    }
}

pub(super) fn store_init(connection: &Connection, video: VideoId, data: &[u8]) -> Result<(), MetaError> {
    living(connection, video)?;
    connection.execute(
        "UPDATE videos SET init_data = ?2 WHERE video_id = ?1",
        params![video.to_string(), data],
    )?;
    Ok(())
}

pub(super) fn rename(connection: &Connection, video: VideoId, title: &str) -> Result<(), MetaError> {
    let mut record = living(connection, video)?;
    title.clone_into(&mut record.title);
    write(connection, &record)
}

/// A repeat for an active video changes nothing.
pub(super) fn finalize(connection: &Connection, command: &FinalizeVideo) -> Result<(), MetaError> {
    let mut record = living(connection, command.video)?;
    if record.status == VideoStatus::Active {
        return Ok(());
    }
    for (seq, facts) in &command.facts {
        write_facts(connection, ChunkId::media(command.video, *seq), facts)?;
    }
    let times = media_times(connection, command.video)?;
    record.total_chunks = check_complete(connection, command, &times)?;
    check_times(&times)?;
    abort_open_ballots(connection, command.video, command.now)?;
    record.status = VideoStatus::Active;
    record.duration_sec = ms_to_seconds(command.duration_ms);
    record.container = command.container;
    record.codecs.clone_from(&command.codecs);
    record.tracks.clone_from(&command.tracks);
    write(connection, &record)
}

/// Media chunks 0 to the last without a gap, and an init segment where the container has one.
fn check_complete(
    connection: &Connection,
    command: &FinalizeVideo,
    times: &[MediaTime],
) -> Result<u32, MetaError> {
    let past_last = times.last().map_or(0, |last| last.seq + 1);
    let total = command.total_chunks.unwrap_or(past_last).max(1);
    if past_last > total {
        let reason = format!("{past_last} media chunks are committed and {total} were counted");
        return Err(MetaError::Inconsistent { reason });
    }
    let mut there = times.iter().map(|time| time.seq).peekable();
    let absent = |seq: &u32| there.next_if_eq(seq).is_none();
    let mut missing: Vec<ChunkId> = (0..total)
        .filter(absent)
        .map(|seq| ChunkId::media(command.video, seq))
        .collect();
    let init = ChunkId::init(command.video);
    if command.container == Container::Fmp4 && rows::read_row(connection, init)?.placement().is_none() {
        missing.insert(0, init);
    }
    if missing.is_empty() {
        Ok(total)
    } else {
        Err(MetaError::ChunksMissing { missing })
    }
}

/// A player finds its chunk by time, so times must ascend with the numbers.
fn check_times(times: &[MediaTime]) -> Result<(), MetaError> {
    for (before, after) in times.iter().zip(times.iter().skip(1)) {
        if after.start_ms <= before.start_ms {
            let reason = format!(
                "chunk {} starts at {} ms and chunk {} at {} ms",
                before.seq, before.start_ms, after.seq, after.start_ms
            );
            return Err(MetaError::Inconsistent { reason });
        }
    }
    match times.iter().find(|time| time.duration_ms == 0) {
        Some(time) => Err(MetaError::Inconsistent {
            reason: format!("chunk {} has no duration", time.seq),
        }),
        None => Ok(()),
    }
}

fn kill(kind: OpenKind, connection: &Connection, now: UnixMillis) -> Result<OpenRequest, MetaError> {
    Ok(OpenRequest {
        kind,
        owner: String::new(),
        expect_epoch: None,
        nodes: Vec::new(),
        min_ack: 0,
        generation: granting_generation(connection)?,
        now,
        lease_ms: 0,
        knowledge: knowledge(connection)?,
    })
}

/// A late COMMIT must not add a chunk to a video that is complete.
fn abort_open_ballots(connection: &Connection, video: VideoId, now: UnixMillis) -> Result<(), MetaError> {
    let request = kill(OpenKind::Abort, connection, now)?;
    for chunk in rows::chunks_of_video(connection, &video.to_string())? {
        let row = rows::read_row(connection, chunk)?;
        let played = matches!(chunk.kind(), ChunkKind::Init | ChunkKind::Media);
        if row.open.is_none() || row.is_deleted() || !played {
            continue;
        }
        let aborted = master::open(chunk, &row, &request)?;
        rows::write_row(connection, chunk, row.promised, &aborted.row)?;
        rows::queue_garbage(connection, aborted.garbage, now + COLLECT_GRACE_MS)?;
    }
    Ok(())
}

/// Deleting again is no error.
pub(super) fn delete(connection: &Connection, video: VideoId, now: UnixMillis) -> Result<(), MetaError> {
    let Some(mut record) = find_video(connection, video)? else {
        return Err(MetaError::VideoNotFound { video });
    };
    if record.status == VideoStatus::Deleted {
        return Ok(());
    }
    tombstone_chunks(connection, video, now, now + COLLECT_GRACE_MS)?;
    record.status = VideoStatus::Deleted;
    record.total_chunks = 0;
    write(connection, &record)?;
    connection.execute(
        "UPDATE videos SET init_data = NULL, unsaved = 0 WHERE video_id = ?1",
        [video.to_string()],
    )?;
    Ok(())
}

pub(super) fn abort(connection: &Connection, video: VideoId, now: UnixMillis) -> Result<(), MetaError> {
    let record = living(connection, video)?;
    if record.status != VideoStatus::Uploading {
        return Err(MetaError::VideoState {
            video,
            status: record.status,
        });
    }
    // Nobody may rely on a failed upload, so its objects need no grace.
    tombstone_chunks(connection, video, now, now)?;
    for table in ["videos", "creations"] {
        let sql = format!("DELETE FROM {table} WHERE video_id = ?1");
        connection.execute(&sql, [video.to_string()])?;
    }
    Ok(())
}

pub(super) fn abandon(
    connection: &Connection,
    video: VideoId,
    before: UnixMillis,
    now: UnixMillis,
) -> Result<(), MetaError> {
    // Whoever came back at the last moment goes on.
    match abandoned(connection, before, usize::MAX >> 1)?.contains(&video) {
        true => abort(connection, video, now),
        false => Ok(()),
    }
}

/// Ends every chunk that was ever opened. The rows of `consensus_state` stay: they fence what is still on its way.
fn tombstone_chunks(
    connection: &Connection,
    video: VideoId,
    now: UnixMillis,
    not_before: UnixMillis,
) -> Result<(), MetaError> {
    let all = rows::chunks_of_video(connection, &video.to_string())?;
    tombstone(connection, all, now, not_before)
}

fn tombstone(
    connection: &Connection,
    chunks: impl IntoIterator<Item = ChunkId>,
    now: UnixMillis,
    not_before: UnixMillis,
) -> Result<(), MetaError> {
    let request = kill(OpenKind::Delete, connection, now)?;
    for chunk in chunks {
        let row = rows::read_row(connection, chunk)?;
        let deleted = master::delete(chunk, &row, &request)?;
        if deleted.row != row {
            rows::write_row(connection, chunk, row.promised, &deleted.row)?;
        }
        rows::queue_garbage(connection, deleted.garbage, not_before)?;
        rows::drop_projection(connection, chunk)?;
    }
    Ok(())
}
