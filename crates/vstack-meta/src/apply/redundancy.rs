//! What an operator fixed for a video's redundancy, and when it was converted last.

use rusqlite::{Connection, params};
use vstack_core::id::VideoId;
use vstack_core::placement::Scheme;
use vstack_core::time::UnixMillis;

use super::videos::living;
use crate::codec::{signed, word};
use crate::error::MetaError;

pub(super) fn pin(connection: &Connection, video: VideoId, pin: Option<Scheme>) -> Result<(), MetaError> {
    living(connection, video)?;
    connection
        .prepare_cached(
            "INSERT INTO video_redundancy(video_id, pin) VALUES (?1, ?2)
             ON CONFLICT(video_id) DO UPDATE SET pin = ?2",
        )?
        .execute(params![video.to_string(), pin.as_ref().map(word)])?;
    Ok(())
}

pub(super) fn converted(connection: &Connection, video: VideoId, now: UnixMillis) -> Result<(), MetaError> {
    living(connection, video)?;
    connection
        .prepare_cached(
            "INSERT INTO video_redundancy(video_id, converted_at) VALUES (?1, ?2)
             ON CONFLICT(video_id) DO UPDATE SET converted_at = ?2",
        )?
        .execute(params![video.to_string(), signed(now.0)?])?;
    Ok(())
}
