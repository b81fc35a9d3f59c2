//! Parts that their node says it does not hold any more.

use rusqlite::Connection;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId};

use crate::codec::ballot_column;
use crate::error::MetaError;
use crate::read::nodes::find_node;
use crate::rows;

/// Marks parts as lost, so that nobody reads them and repair makes them anew. Only those that the placement in force
/// names, each once; a report of an earlier life of the node counts for nothing. Returns how many.
pub(super) fn lose_parts(
    connection: &Connection,
    (node, incarnation): (NodeId, Incarnation),
    objects: &[(ChunkId, Ballot)],
) -> Result<u64, MetaError> {
    let known = find_node(connection, node)?.ok_or(MetaError::UnknownNode { node })?;
    if known.incarnation != incarnation {
        return Ok(0);
    }
    let mut lost = 0;
    for &(object, ballot) in objects {
        let chunk = object.whole().to_string();
        let shard = object.shard().map_or(rows::WHOLE, i64::from);
        let marked = connection
            .prepare_cached(
                "UPDATE chunk_replicas SET status = 'failed' WHERE chunk_id = ?1 AND node_url = ?2
                 AND ballot_number = ?3 AND shard_index = ?4 AND status = 'active'",
            )?
            .execute((&chunk, &known.url, ballot_column(ballot)?, shard))?;
        if marked == 1 {
            connection
                .prepare_cached("UPDATE chunks SET missing_parts = missing_parts + 1 WHERE chunk_id = ?1")?
                .execute([&chunk])?;
            lost += 1;
        }
    }
    Ok(lost)
}
