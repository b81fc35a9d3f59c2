//! Opening the database file: settings of a connection, migrations, and refusing what is not ours.
//!
//! A migration only goes forward, and a copy of the file is taken first: an older program can go on with the copy.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use tracing::info;
use vstack_core::popularity::Popularity;
use vstack_core::time::UnixMillis;

use crate::error::MetaError;

/// `VSTK`: tells a catalogue from any other SQLite file.
const APPLICATION_ID: i32 = 0x5653_544b;

/// How long a connection waits for another one's lock. There is one writer, so waiting is rare.
const BUSY_TIMEOUT_MS: u32 = 5_000;
/// Pages in the log after which SQLite copies them into the file: 16 MB.
const AUTOCHECKPOINT_PAGES: u32 = 4_000;
/// Cache of a connection, in KiB.
const CACHE_KIB: u32 = 65_536;
/// Part of the file that reads go to directly.
const MMAP_BYTES: i64 = 268_435_456;

/// One file for each change, in the order in which they were released. A file that was released never changes.
const STEPS: [&str; 9] = [
    include_str!("schema/0001-first.sql"),
    include_str!("schema/0002-views.sql"),
    include_str!("schema/0003-node-states.sql"),
    include_str!("schema/0004-catalogue-objects.sql"),
    include_str!("schema/0005-redundancy.sql"),
    include_str!("schema/0006-balance.sql"),
    include_str!("schema/0007-creations.sql"),
    include_str!("schema/0008-remembered.sql"),
    include_str!("schema/0009-node-names.sql"),
];

fn migrations() -> Migrations<'static> {
    Migrations::new(STEPS.iter().copied().map(M::up).collect())
}

/// Opens the file for the one writer, makes it if it is not there, and brings it to the present version.
///
/// # Errors
/// The file is no catalogue, is of a newer version, is damaged, or cannot be written.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, MetaError> {
    let mut connection = Connection::open(path)?;
    check_application(&connection, path)?;
    // The journal mode comes first: it decides what the others mean.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL may lose the last transactions at a power cut; an acknowledged COMMIT would be a lost chunk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
    settle(&connection)?;
    keep_old_schema(&connection, path)?;
    migrations()
        .to_latest(&mut connection)
        .map_err(|error| migration_error(path, error))?;
    if application_id(&connection)? != APPLICATION_ID {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    Ok(connection)
}

/// Whether there is a catalogue of the present version, which can be read as it is.
///
/// # Errors
/// The file is no catalogue or damaged.
pub(crate) fn is_present_version(path: &Path) -> Result<bool, MetaError> {
    if !path.exists() {
        return Ok(false);
    }
    let connection = open_reader(path)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version) == Ok(STEPS.len()))
}

fn application_id(connection: &Connection) -> Result<i32, MetaError> {
    Ok(connection.pragma_query_value(None, "application_id", |row| row.get(0))?)
}

/// Opens a connection that can only read.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, MetaError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    check_application(&connection, path)?;
    settle(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn settle(connection: &Connection) -> Result<(), MetaError> {
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    connection.set_prepared_statement_cache_capacity(64);
    add_decayed(connection)
}

/// `decayed(score, at_ms, now_ms, half_life_ms)`, so that a page of the library can be ordered by it.
fn add_decayed(connection: &Connection) -> Result<(), MetaError> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("decayed", 4, flags, |call| {
        let ms = |index| call.get::<i64>(index).map(|ms| u64::try_from(ms).unwrap_or(0));
        let stored = Popularity {
            score: call.get(0)?,
            at: UnixMillis(ms(1)?),
        };
        Ok(stored.decayed(UnixMillis(ms(2)?), ms(3)?))
    })?;
    Ok(())
}

fn check_application(connection: &Connection, path: &Path) -> Result<(), MetaError> {
    let found = application_id(connection)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if found == APPLICATION_ID || (found == 0 && tables == 0) {
        return Ok(());
    }
    Err(MetaError::NotACatalogue {
        path: path.display().to_string(),
    })
}

/// Copies a file that is about to be migrated to `<file>.schema-<version>`, durably. A copy that is there stays: it is
/// of an earlier try.
fn keep_old_schema(connection: &Connection, path: &Path) -> Result<(), MetaError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let copy = with_ending(path, &format!("schema-{version}"));
    let is_old = usize::try_from(version).is_ok_and(|version| (1..STEPS.len()).contains(&version));
    if !is_old || copy.exists() {
        return Ok(());
    }
    let partial = with_ending(&copy, "partial");
    copy_into(connection, &partial)?;
    put_in_place(&partial, &copy)?;
    info!(version, copy = %copy.display(), "the catalogue is brought to a new version, the old file is kept");
    Ok(())
}

/// `<path>.<ending>`.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Writes everything that the connection sees now into one new file, which needs no log beside it.
pub(crate) fn copy_into(connection: &Connection, target: &Path) -> Result<(), MetaError> {
    match std::fs::remove_file(target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(MetaError::file(target, &error));
        }
        _ => {}
    }
    let name = target.to_str().ok_or_else(|| MetaError::Database {
        reason: format!("{} is not UTF-8, which SQLite needs", target.display()),
    })?;
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// Renames a finished file to its name; durable when it returns.
pub(crate) fn put_in_place(partial: &Path, target: &Path) -> Result<(), MetaError> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let placed = File::open(partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(partial, target))
        .and_then(|()| File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all());
    placed.map_err(|error| MetaError::file(target, &error))
}

fn migration_error(path: &Path, error: rusqlite_migration::Error) -> MetaError {
    use rusqlite_migration::{Error, MigrationDefinitionError};
    match error {
        Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
            MetaError::NewerVersion {
                path: path.display().to_string(),
            }
        }
        Error::RusqliteError { err, .. } => err.into(),
        other => MetaError::Database {
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_apply_to_an_empty_file() {
        assert!(migrations().validate().is_ok());
    }

    #[test]
    fn a_foreign_database_and_a_newer_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign)
            .unwrap()
            .execute("CREATE TABLE t(a)", [])
            .unwrap();
        assert!(matches!(
            open_writer(&foreign),
            Err(MetaError::NotACatalogue { .. })
        ));

        let newer = folder.path().join("newer.db");
        open_writer(&newer)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(open_writer(&newer), Err(MetaError::NewerVersion { .. })));
    }

    #[test]
    fn the_writer_syncs_every_commit_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.db");
        let writer = open_writer(&path).unwrap();
        let text = |name| {
            writer
                .pragma_query_value(None, name, |row| row.get::<_, String>(0))
                .unwrap()
        };
        let number = |name| {
            writer
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .unwrap()
        };
        const FULL: i64 = 2;
        assert_eq!(text("journal_mode"), "wal");
        assert_eq!(number("synchronous"), FULL);
        for (pragma, value) in [("foreign_keys", 1), ("trusted_schema", 0), ("cell_size_check", 1)] {
            assert_eq!(number(pragma), value, "{pragma}");
        }
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM videos", []).is_err());
    }

    #[test]
    fn all_tables_check_their_types() {
        let folder = tempfile::tempdir().unwrap();
        let writer = open_writer(&folder.path().join("catalogue.db")).unwrap();
        let loose: i64 = writer
            .query_row(
                "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%' AND strict = 0",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(loose, 0);
    }
}
