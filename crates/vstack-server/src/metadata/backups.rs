//! Backups of the catalogue: by the hour, on demand, and how they leave this machine.
//!
//! Each is one checked file in the folder `backups`, named by its time. The newest few are kept. `vstack backup FILE`
//! makes one and copies it to where the operator is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_api::ErrorCode;
use vstack_api::wire::BackupMade;
use vstack_core::digest::ChunkHasher;
use vstack_core::time::UnixMillis;
use vstack_meta::MetaError;

use super::problem::refusal;
use super::state::Metadata;
use crate::http::{Answer, refuse};

const PREFIX: &str = "catalogue-";
const ENDING: &str = ".db";
/// Bytes that are hashed at once.
const PIECE_BYTES: usize = 1 << 20;

/// Makes one by the hour until the role stops; the first one when an hour has passed since the newest.
pub(super) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    loop {
        let every = metadata.settings.backup_every;
        let waited = newest_age(&metadata).await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every.saturating_sub(waited)) => {}
        }
        if let Err(error) = make(&metadata).await {
            warn!(%error, "the catalogue was not backed up, the next try is in an hour");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

async fn newest_age(metadata: &Metadata) -> std::time::Duration {
    let folder = metadata.settings.backups.clone();
    let newest = metadata.platform.threads.run(move || {
        let newest = listed(&folder).pop()?;
        std::fs::metadata(newest).ok()?.modified().ok()?.elapsed().ok()
    });
    newest
        .await
        .ok()
        .flatten()
        .unwrap_or(metadata.settings.backup_every)
}

/// `POST /backup`.
pub(super) async fn create(State(metadata): State<Arc<Metadata>>) -> Answer<Json<BackupMade>> {
    make(&metadata).await.map(Json).map_err(refusal)
}

/// Makes a backup and removes the oldest ones.
async fn make(metadata: &Metadata) -> Result<BackupMade, MetaError> {
    // Two at once could take the same name.
    let _one = metadata.backing_up.lock().await;
    let folder = metadata.settings.backups.clone();
    let name = format!("{PREFIX}{}{ENDING}", stamp(metadata.now()));
    let path = folder.join(&name);
    let failed = |error: &dyn std::fmt::Display| MetaError::Database {
        reason: error.to_string(),
    };
    std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let facts = metadata.store.backup(path.clone()).await?;
    let kept = metadata.settings.backups_kept;
    let hashed = {
        let path = path.clone();
        metadata.platform.threads.run(move || {
            thin_out(&folder, kept);
            sha256_of(&path)
        })
    };
    let sha256 = hashed
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    info!(path = %path.display(), bytes = facts.bytes, videos = facts.videos, "the catalogue was backed up");
    Ok(BackupMade {
        name,
        path: path.display().to_string(),
        size_bytes: facts.bytes,
        sha256,
        videos: facts.videos,
        chunks: facts.chunks,
    })
}

/// `20251125T172653.123Z`: sorts by time.
fn stamp(now: UnixMillis) -> String {
    super::videos::rfc3339(now).replace(['-', ':'], "")
}

fn sha256_of(path: &Path) -> std::io::Result<vstack_core::digest::Sha256Digest> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let mut hasher = ChunkHasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        match piece.get(..read) {
            Some(bytes) if read > 0 => hasher.update(bytes),
            _ => return Ok(hasher.finish().0.sha256),
        }
    }
}

/// Backups, the oldest first.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_backup))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether the role itself gives such names; anything else in the folder is left alone, and no path leads out of it.
fn is_backup(name: &str) -> bool {
    let stamp = name
        .strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(ENDING));
    stamp.is_some_and(|stamp| {
        !stamp.is_empty()
            && stamp
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    })
}

fn thin_out(folder: &Path, kept: usize) {
    let all = listed(folder);
    let surplus = all.len().saturating_sub(kept.max(1));
    for path in all.iter().take(surplus) {
        if let Err(error) = std::fs::remove_file(path) {
            warn!(path = %path.display(), %error, "an old backup cannot be removed");
        }
    }
}

/// `GET /backup/{name}`.
pub(super) async fn fetch(
    State(metadata): State<Arc<Metadata>>,
    UrlPath(name): UrlPath<String>,
) -> Answer<Response> {
    let missing = || refuse(ErrorCode::NotFound, "there is no such backup");
    if !is_backup(&name) {
        return Err(missing());
    }
    let path = metadata.settings.backups.join(&name);
    let file = tokio::fs::File::open(&path).await.map_err(|_| missing())?;
    let length = file.metadata().await.map_err(|_| missing())?.len();
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..5)
            .map(|second| {
                let time = UnixMillis(1_700_000_000_000 + second * 1_000);
                format!("{PREFIX}{}{ENDING}", stamp(time))
            })
            .collect();
        for name in names
            .iter()
            .map(String::as_str)
            .chain(["mine.db", "catalogue-.db"])
        {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        thin_out(folder.path(), 2);
        let left: Vec<_> = listed(folder.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(left, names[3..]);
        assert!(folder.path().join("mine.db").exists());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        assert!(is_backup("catalogue-20251125T172653.123Z.db"));
        for bad in [
            "../catalogue.db",
            "catalogue-../x.db",
            "catalogue-a/b.db",
            "catalogue.db",
            "",
        ] {
            assert!(!is_backup(bad), "{bad}");
        }
    }
}
