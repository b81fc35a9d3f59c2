//! Opening the database file: settings of a connection, migrations, and refusing what is not ours.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

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

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("schema.sql"))])
}

/// Opens the file for the one writer, makes it if it is not there, and brings it to the present version.
///
/// # Errors
/// The file is no catalogue, is of a newer version, or cannot be written.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, MetaError> {
    let mut connection = Connection::open(path)?;
    check_application(&connection, path)?;
    // The journal mode comes first: it decides what the others mean.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL may lose the last transactions at a power cut; an acknowledged COMMIT would be a lost chunk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
    settle(&connection)?;
    migrations()
        .to_latest(&mut connection)
        .map_err(|error| migration_error(path, &error))?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(connection)
}

/// Opens a connection that can only read.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, MetaError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
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
    Ok(())
}

fn check_application(connection: &Connection, path: &Path) -> Result<(), MetaError> {
    let found: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if found == APPLICATION_ID || (found == 0 && tables == 0) {
        return Ok(());
    }
    Err(MetaError::NotACatalogue {
        path: path.display().to_string(),
    })
}

fn migration_error(path: &Path, error: &rusqlite_migration::Error) -> MetaError {
    use rusqlite_migration::{Error, MigrationDefinitionError};
    match error {
        Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
            MetaError::NewerVersion {
                path: path.display().to_string(),
            }
        }
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
}
