//! `vstack meta check`: SQLite's own check, every row's checksum, and the projections against what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use vstack_core::id::ChunkId;
use vstack_core::placement::Placement;

use crate::apply::chunks::wanted_parts;
use crate::codec::{Place, word};
use crate::error::{DATABASE, MetaError};
use crate::read::chunks::media_facts;
use crate::read::nodes::all_nodes;
use crate::read::videos::find_video;
use crate::rows::{ROW_COLUMNS, RawRow, WHOLE};
use crate::schema;

/// Something that cannot be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub table: &'static str,
    pub key: String,
    pub what: String,
    /// Bytes are not what was written. Otherwise two rows contradict each other.
    pub is_damage: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.table, self.key, self.what)
    }
}

/// Complaints of SQLite that are worth showing.
const COMPLAINTS: u32 = 20;

/// (node, ballot, shard), and whether it is live.
type Replicas = BTreeMap<(String, i64, i64), bool>;

/// Checks the catalogue file at `path`. It only reads: the role may be running on it.
///
/// # Errors
/// The file cannot be read.
pub fn check_file(path: &Path) -> Result<Vec<Finding>, MetaError> {
    check(&mut schema::open_reader(path)?)
}

/// SQLite's word that a file is broken, as the refusal that says what to do.
///
/// # Errors
/// That of `opened`.
pub(crate) fn undamaged<T>(path: &Path, opened: Result<T, MetaError>) -> Result<T, MetaError> {
    opened.map_err(|error| match error {
        MetaError::Corrupt { reason, .. } => MetaError::Damaged {
            path: path.display().to_string(),
            what: reason,
        },
        other => other,
    })
}

/// # Errors
/// A finding is damage.
pub(crate) fn refuse_damage(path: &Path, findings: &[Finding]) -> Result<(), MetaError> {
    let mut damages = findings.iter().filter(|finding| finding.is_damage);
    match damages.next() {
        None => Ok(()),
        Some(first) => {
            let what = match damages.count() {
                0 => first.to_string(),
                more => format!("{first}, and {more} more"),
            };
            let path = path.display().to_string();
            Err(MetaError::Damaged { path, what })
        }
    }
}

/// Reads the whole catalogue; findings come in the order of the tables.
///
/// # Errors
/// The file cannot be read. Damage within it is a finding.
pub(crate) fn check(connection: &mut Connection) -> Result<Vec<Finding>, MetaError> {
    let snapshot = connection.transaction()?;
    let mut findings = Vec::new();
    // What SQLite can still read may be wrong as well, so the one check does not replace the other.
    let file = check_file_format(&snapshot, &mut findings);
    collect(&mut findings, file)?;
    let rows = check_rows(&snapshot, &mut findings);
    collect(&mut findings, rows)?;
    Ok(findings)
}

fn check_file_format(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), MetaError> {
    for what in texts(connection, &format!("PRAGMA integrity_check({COMPLAINTS})"))? {
        if what != "ok" {
            findings.push(Finding {
                table: DATABASE,
                key: String::new(),
                what,
                is_damage: true,
            });
        }
    }
    Ok(())
}

fn check_rows(snapshot: &Connection, findings: &mut Vec<Finding>) -> Result<(), MetaError> {
    collect(findings, all_nodes(snapshot).map(drop))?;
    for id in texts(snapshot, "SELECT video_id FROM videos")? {
        let place = Place {
            table: "videos",
            key: &id,
        };
        let found = place.parsed(&id).and_then(|video| find_video(snapshot, video));
        collect(findings, found.map(drop))?;
    }
    let mut placed = BTreeSet::new();
    let mut query = snapshot.prepare(&format!("SELECT {ROW_COLUMNS} FROM consensus_state"))?;
    let rows = query.query_map([], RawRow::read)?;
    for raw in rows {
        let raw = raw?;
        match raw.decode() {
            Err(damage) => collect(findings, Err(damage))?,
            Ok(row) => {
                if let Some(placement) = row.placement() {
                    placed.insert(raw.chunk_id.clone());
                    check_projection(snapshot, &raw.chunk_id, placement, findings)?;
                }
            }
        }
    }
    let orphan = |id: &String| !placed.contains(id);
    let orphans = texts(snapshot, "SELECT chunk_id FROM chunks")?
        .into_iter()
        .filter(orphan);
    findings.extend(orphans.map(|key| Finding {
        table: "chunks",
        key,
        what: "nothing decided it".into(),
        is_damage: false,
    }));
    Ok(())
}

fn texts(connection: &Connection, sql: &str) -> Result<Vec<String>, MetaError> {
    let mut query = connection.prepare(sql)?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Damage becomes a finding, other errors end the check.
fn collect(findings: &mut Vec<Finding>, result: Result<(), MetaError>) -> Result<(), MetaError> {
    match result {
        Ok(()) => Ok(()),
        Err(MetaError::Corrupt { table, key, reason }) => {
            findings.push(Finding {
                table,
                key,
                what: reason,
                is_damage: true,
            });
            Ok(())
        }
        Err(other) => Err(other),
    }
}

fn check_projection(
    connection: &Connection,
    key: &str,
    placement: &Placement,
    findings: &mut Vec<Finding>,
) -> Result<(), MetaError> {
    let mut found = |table, what: String| {
        findings.push(Finding {
            table,
            key: key.to_owned(),
            what,
            is_damage: false,
        })
    };
    let chunk: ChunkId = match (Place {
        table: "consensus_state",
        key,
    })
    .parsed(key)
    {
        Ok(chunk) => chunk,
        Err(damage) => return collect(findings, Err(damage)),
    };
    let columns = match media_facts(connection, chunk) {
        Ok(Some(columns)) => columns,
        Ok(None) => {
            found("chunks", "a decided placement has no row".into());
            return Ok(());
        }
        Err(damage) => return collect(findings, Err(damage)),
    };
    let digest = &placement.digest;
    if columns.checksum != digest.sha256.to_string()
        || columns.leaf_root != digest.leaf_root.to_string()
        || u64::try_from(columns.size_bytes) != Ok(digest.size_bytes)
        || columns.scheme != word(&placement.scheme)
    {
        found("chunks", "it differs from the decided value".into());
    }
    let replicas = replicas(connection, key)?;
    let part = |part: &vstack_core::placement::Part| {
        let ballot = i64::try_from(part.object_ballot.number()).unwrap_or(-1);
        (part.node.to_string(), ballot, part.shard.map_or(WHOLE, i64::from))
    };
    let decided: BTreeSet<_> = placement.parts.iter().map(part).collect();
    if !decided.iter().eq(replicas.keys()) {
        found("chunk_replicas", "they differ from the decided parts".into());
    }
    let live = replicas.values().filter(|live| **live).count();
    let missing: i64 = connection.query_row(
        "SELECT missing_parts FROM chunks WHERE chunk_id = ?1",
        [key],
        |row| row.get(0),
    )?;
    if usize::try_from(missing) != Ok(wanted_parts(placement).saturating_sub(live)) {
        found(
            "chunks",
            format!("missing_parts is {missing}, and {live} parts are live"),
        );
    }
    Ok(())
}

fn replicas(connection: &Connection, chunk: &str) -> Result<Replicas, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT node_id, ballot_number, shard_index, chunk_replicas.status = 'active'
         FROM chunk_replicas JOIN storage_nodes USING (node_url) WHERE chunk_id = ?1",
    )?;
    let rows = query.query_map([chunk], |row| {
        Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
