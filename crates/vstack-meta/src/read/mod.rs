//! What can be asked of the catalogue. Reads see the state after the last durable transaction.

pub(crate) mod balance;
pub(crate) mod chunks;
pub(crate) mod inventory;
pub(crate) mod library;
pub(crate) mod nodes;
pub(crate) mod redundancy;
pub(crate) mod remembered;
pub(crate) mod videos;

use rusqlite::Connection;
use vstack_core::time::UnixMillis;

use crate::codec::{Place, ballot_column, signed};
use crate::command::Collectable;
use crate::error::MetaError;

pub use balance::Spread;
pub use chunks::{ChunkRecord, UnderReplicated};
pub use inventory::{InventoryQuery, InventoryView, Losses};
pub use library::{Library, LibraryOrder, LibraryPage, LibraryQuery};
pub use nodes::NodeRecord;
pub use redundancy::{AtRisk, VideoRedundancy};
pub use remembered::Remembered;
pub use videos::{ManifestSource, Unsaved, VideoRecord};

/// Objects whose time to be collected has come, the longest waiting first.
pub(crate) fn collectable(
    connection: &Connection,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<Collectable>, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT node_id, chunk_id, object_ballot FROM gc_queue WHERE not_before_ms <= ?1
         ORDER BY not_before_ms LIMIT ?2",
    )?;
    let rows = query.query_map((signed(now.0)?, signed(limit as u64)?), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (node, chunk, ballot) = row?;
        let place = Place {
            table: "gc_queue",
            key: &chunk,
        };
        Ok(Collectable {
            node: place.parsed(&node)?,
            object: place.parsed(&chunk)?,
            ballot: place.ballot(ballot)?,
        })
    })
    .collect()
}

/// Whether an object is still waiting to be collected.
pub(crate) fn collections_waiting(connection: &Connection) -> Result<u64, MetaError> {
    let count: i64 = connection.query_row("SELECT count(*) FROM gc_queue", [], |row| row.get(0))?;
    Place {
        table: "gc_queue",
        key: "",
    }
    .unsigned(count)
}

/// Whether exactly this object waits to be collected.
pub(crate) fn is_queued(connection: &Connection, object: Collectable) -> Result<bool, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT 1 FROM gc_queue WHERE node_id = ?1 AND chunk_id = ?2 AND object_ballot = ?3",
    )?;
    let key = (
        object.node.to_string(),
        object.object.to_string(),
        ballot_column(object.ballot)?,
    );
    Ok(query.exists(key)?)
}
