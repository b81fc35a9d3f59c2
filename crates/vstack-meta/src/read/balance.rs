//! What the rebalance planner looks at: where every part is, and how much lies on each node.

use std::collections::BTreeMap;

use rusqlite::Connection;
use vstack_core::id::{ChunkId, ChunkKind, NodeId};
use vstack_core::rebalance::Movable;

use crate::codec::Place;
use crate::error::MetaError;

/// Parts of the library.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// Bytes of the parts on each node.
    pub used_bytes: BTreeMap<NodeId, u64>,
    /// Parts of whole chunks, which may move. What lacks a part is repaired, not moved; catalogue objects are written
    /// anew all the time.
    pub movable: Vec<Movable>,
}

/// All parts that are decided and not lost.
pub(crate) fn spread(connection: &Connection) -> Result<Spread, MetaError> {
    let mut query = connection.prepare_cached(
        "SELECT c.chunk_id, r.shard_index, n.node_id, c.missing_parts, c.kind,
           CASE c.scheme WHEN 'rep' THEN c.size_bytes ELSE (c.size_bytes + 2) / 3 END
         FROM chunk_replicas r JOIN chunks c USING (chunk_id) JOIN storage_nodes n USING (node_url)
         WHERE r.status = 'active'",
    )?;
    let mut rows = query.query([])?;
    let mut spread = Spread::default();
    while let Some(row) = rows.next()? {
        let (key, shard): (String, i64) = (row.get(0)?, row.get(1)?);
        let (node, missing_parts, kind): (String, i64, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let place = Place {
            table: "chunk_replicas",
            key: &key,
        };
        let (chunk, node): (ChunkId, NodeId) = (place.parsed(&key)?, place.parsed(&node)?);
        let size_bytes = place.unsigned(row.get(5)?)?;
        *spread.used_bytes.entry(node).or_default() += size_bytes;
        if missing_parts == 0 && kind != ChunkKind::Catalogue as i64 {
            spread.movable.push(Movable {
                chunk,
                shard: u8::try_from(shard).ok().filter(|shard| *shard != u8::MAX),
                node,
                size_bytes,
            });
        }
    }
    Ok(spread)
}
