//! Counting views: once for each session, and decaying.

use rusqlite::{Connection, OptionalExtension as _, params};
use vstack_core::id::VideoId;
use vstack_core::limits::VIEW_SESSION_KEPT_MS;
use vstack_core::time::UnixMillis;

use super::videos::living;
use crate::codec::signed;
use crate::error::MetaError;

/// A session that was counted lately changes nothing.
pub(super) fn record(
    connection: &Connection,
    video: VideoId,
    session: Option<&str>,
    half_life_ms: u64,
    now: UnixMillis,
) -> Result<(), MetaError> {
    let record = living(connection, video)?;
    if let Some(session) = session
        && was_counted(connection, video, session, now)?
    {
        return Ok(());
    }
    let popularity = record.popularity.viewed(now, half_life_ms);
    connection
        .prepare_cached(
            "UPDATE videos SET views = views + 1, views_recent = ?2, views_at = ?3 WHERE video_id = ?1",
        )?
        .execute(params![
            video.to_string(),
            popularity.score,
            signed(popularity.at.0)?
        ])?;
    Ok(())
}

/// Notes the session; `true` when it was noted before.
fn was_counted(
    connection: &Connection,
    video: VideoId,
    session: &str,
    now: UnixMillis,
) -> Result<bool, MetaError> {
    let oldest = now.0.saturating_sub(VIEW_SESSION_KEPT_MS);
    connection
        .prepare_cached("DELETE FROM view_sessions WHERE counted_at < ?1")?
        .execute([signed(oldest)?])?;
    let before: Option<String> = connection
        .prepare_cached("SELECT video_id FROM view_sessions WHERE session_id = ?1")?
        .query_row([session], |row| row.get(0))
        .optional()?;
    match before {
        Some(counted) if counted == video.to_string() => Ok(true),
        Some(_) => Err(MetaError::OtherVideo {
            session: session.to_owned(),
        }),
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO view_sessions(session_id, video_id, counted_at) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![session, video.to_string(), signed(now.0)?])?;
            Ok(false)
        }
    }
}
