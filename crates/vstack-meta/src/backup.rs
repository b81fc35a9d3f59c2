//! Copies of the catalogue, and starting from one.
//!
//! A copy is one file that needs no log beside it; it is checked as a whole before it gets its name. A restored
//! catalogue may be older than what its nodes hold, so it begins as [`Behind::Generations`](crate::Behind):
//! nothing is granted before the nodes have told how far it was, and most have written down where it goes on. What was there before is moved aside, never deleted.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};
use serde::Serialize;
use vstack_core::paxos::master::restored_generation;
use vstack_core::time::UnixMillis;

use crate::apply;
use crate::check;
use crate::error::MetaError;
use crate::schema;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupFacts {
    pub bytes: u64,
    pub generation: u64,
    /// Not counting deleted ones.
    pub videos: u64,
    /// Committed placements.
    pub chunks: u64,
}

/// Copies the catalogue at `source`, which may be in use, to `target`.
///
/// # Errors
/// The source is damaged (then no copy is made: it would replace a good one), or the target cannot be written.
pub(crate) fn backup(source: &Path, target: &Path) -> Result<BackupFacts, MetaError> {
    let partial = schema::with_ending(target, "partial");
    let reader = schema::open_reader(source)?;
    reader.pragma_update(None, "query_only", false)?;
    schema::copy_into(&reader, &partial)?;
    match examine(&partial) {
        Ok(facts) => {
            schema::put_in_place(&partial, target)?;
            Ok(facts)
        }
        Err(error) => {
            // It is of no use; the error says why.
            let _ = std::fs::remove_file(&partial);
            Err(error)
        }
    }
}

/// Checks a file as a whole.
fn examine(path: &Path) -> Result<BackupFacts, MetaError> {
    let mut copy = check::undamaged(path, schema::open_reader(path))?;
    let findings = check::check(&mut copy)?;
    check::refuse_damage(path, &findings)?;
    facts(&copy, path)
}

fn facts(connection: &Connection, path: &Path) -> Result<BackupFacts, MetaError> {
    let count = |sql: &str| -> Result<u64, MetaError> {
        let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    };
    let bytes = std::fs::metadata(path).map_err(|error| MetaError::file(path, &error))?;
    Ok(BackupFacts {
        bytes: bytes.len(),
        generation: count("SELECT generation FROM service WHERE id = 1")?,
        videos: count("SELECT count(*) FROM videos WHERE status <> 'deleted'")?,
        chunks: count("SELECT count(*) FROM chunks")?,
    })
}

/// Puts the backup in the place of the catalogue at `catalogue`, which nobody has open; the caller holds the lock. The
/// files that were there are renamed, and their new names returned.
///
/// # Errors
/// The backup is no catalogue, of a newer version or damaged, or a file cannot be written. Then nothing has changed.
pub fn restore(
    backup: &Path,
    catalogue: &Path,
    now: UnixMillis,
) -> Result<(BackupFacts, Vec<PathBuf>), MetaError> {
    if !backup.is_file() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(MetaError::file(backup, &missing));
    }
    let facts = examine_any_version(backup)?;
    let partial = schema::with_ending(catalogue, "restoring");
    remove_if_there(&partial)?;
    std::fs::copy(backup, &partial).map_err(|error| MetaError::file(&partial, &error))?;
    mark_behind(&partial, now)?;
    let aside = move_aside(catalogue, now)?;
    schema::put_in_place(&partial, catalogue)?;
    Ok((facts, aside))
}

/// Addresses of nodes in the catalogue at `path`, as far as it can be read.
#[must_use]
pub fn known_urls(path: &Path) -> Vec<String> {
    let read = || -> Result<Vec<String>, MetaError> {
        let connection = schema::open_reader(path)?;
        let mut query =
            connection.prepare("SELECT node_url FROM storage_nodes WHERE node_url LIKE 'http%'")?;
        let urls = query.query_map([], |row| row.get(0))?;
        Ok(urls.filter_map(Result::ok).collect())
    };
    read().unwrap_or_default()
}

/// Puts an empty catalogue that knows to be behind in the place of the one at `catalogue`, as [`restore`] does.
///
/// # Errors
/// A file cannot be written.
pub fn begin_anew(catalogue: &Path, now: UnixMillis) -> Result<Vec<PathBuf>, MetaError> {
    let partial = schema::with_ending(catalogue, "restoring");
    remove_if_there(&partial)?;
    mark_behind(&partial, now)?;
    let aside = move_aside(catalogue, now)?;
    schema::put_in_place(&partial, catalogue)?;
    Ok(aside)
}

/// A backup of an earlier version has rows that the present reads do not know, so a copy of it is brought up to date.
fn examine_any_version(backup: &Path) -> Result<BackupFacts, MetaError> {
    let scratch = tempfile_beside(backup);
    std::fs::copy(backup, &scratch).map_err(|error| MetaError::file(&scratch, &error))?;
    let opened = check::undamaged(backup, schema::open_writer(&scratch));
    let facts = opened.and_then(|mut connection| {
        let findings = check::check(&mut connection)?;
        check::refuse_damage(backup, &findings)?;
        facts(&connection, backup)
    });
    for ending in ["", "-wal", "-shm"] {
        remove_if_there(&with_suffix(&scratch, ending))?;
    }
    facts
}

fn tempfile_beside(path: &Path) -> PathBuf {
    schema::with_ending(path, &format!("examined-{}", std::process::id()))
}

/// Migrates the file, marks it, and folds its log into it.
/// The generation leaps, too: what nodes tell later says nothing about a life that was lost before it reached one.
fn mark_behind(path: &Path, now: UnixMillis) -> Result<(), MetaError> {
    let mut connection = schema::open_writer(path)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    apply::fall_behind(&transaction)?;
    let leap = restored_generation(apply::generation(&transaction)?, now);
    apply::raise_generation(&transaction, leap)?;
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    for ending in ["-wal", "-shm"] {
        remove_if_there(&with_suffix(path, ending))?;
    }
    Ok(())
}

fn move_aside(catalogue: &Path, now: UnixMillis) -> Result<Vec<PathBuf>, MetaError> {
    let mut moved = Vec::new();
    for ending in ["", "-wal", "-shm"] {
        let from = with_suffix(catalogue, ending);
        let to = with_suffix(
            &schema::with_ending(catalogue, &format!("replaced-{}", now.0)),
            ending,
        );
        match std::fs::rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(MetaError::file(&from, &error)),
        }
    }
    Ok(moved)
}

/// SQLite's names of the files beside a database.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> Result<(), MetaError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(MetaError::file(path, &error)),
        _ => Ok(()),
    }
}
