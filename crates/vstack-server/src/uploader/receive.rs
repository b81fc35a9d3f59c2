//! Receiving a file: from the socket to the spool in constant memory.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use futures::stream::{Stream, StreamExt as _};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::time::timeout;
use vstack_api::{ErrorCode, Problem};

use super::jobs::JobHandle;

/// Silence after which a sender counts as gone.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes gathered for one write; also how often watchers hear of progress.
const WRITE_BYTES: usize = 1024 * 1024;

/// Writes a body to `path`. Returns how many bytes there were.
///
/// # Errors
/// The sender broke off or fell silent, the job was cancelled, or the disk did not take it.
pub(super) async fn receive<E: std::fmt::Display>(
    job: &JobHandle,
    path: &Path,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<u64, Problem> {
    let file = File::create(path).await.map_err(disk_problem)?;
    let mut writer = BufWriter::with_capacity(WRITE_BYTES, file);
    let mut body = std::pin::pin!(body);
    let (mut received, mut told) = (0u64, 0u64);
    loop {
        let next = tokio::select! {
            biased;
            () = job.cancel.cancelled() => return Err(cancelled()),
            next = timeout(IDLE_LIMIT, body.next()) => next,
        };
        match next {
            Ok(Some(Ok(piece))) => {
                writer.write_all(&piece).await.map_err(disk_problem)?;
                received += piece.len() as u64;
                if received - told >= WRITE_BYTES as u64 {
                    told = received;
                    job.received(received);
                }
            }
            Ok(Some(Err(error))) => return Err(broken_off(&error.to_string())),
            Ok(None) => break,
            Err(_) => {
                return Err(broken_off(&format!(
                    "nothing came for {} s",
                    IDLE_LIMIT.as_secs()
                )));
            }
        }
    }
    writer.flush().await.map_err(disk_problem)?;
    // The sender is told that its file is here; a power cut must not make that untrue.
    writer.get_ref().sync_all().await.map_err(disk_problem)?;
    job.received_all(received);
    Ok(received)
}

pub(super) fn cancelled() -> Problem {
    Problem::new(ErrorCode::Cancelled, "The upload was cancelled.")
}

fn broken_off(reason: &str) -> Problem {
    Problem::new(
        ErrorCode::BadRequest,
        format!("The upload broke off: {reason}. Send the file again."),
    )
}

fn disk_problem(error: std::io::Error) -> Problem {
    Problem::new(
        ErrorCode::DiskError,
        format!("The uploader's disk does not take the file: {error}"),
    )
}
