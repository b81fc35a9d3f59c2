//! Rows of `storage_nodes`.

use rusqlite::{Connection, OptionalExtension as _, Row};
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::node::NodeHealth;
use vstack_core::time::UnixMillis;

use crate::apply::nodes::{nowhere, row_sum};
use crate::codec::Place;
use crate::error::MetaError;

/// A registered node as of its last heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub node: NodeId,
    pub url: String,
    pub last_heartbeat: UnixMillis,
    pub disk_usage_percent: f64,
    pub chunk_count: u64,
    pub version: String,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub read_only: bool,
    pub highest_generation: u64,
}

impl NodeRecord {
    /// Judged by its silence.
    #[must_use]
    pub const fn health(&self, now: UnixMillis) -> NodeHealth {
        NodeHealth::of_silence(self.last_heartbeat, now)
    }

    /// Where it is, unless another node took its address since it was heard of.
    #[must_use]
    pub fn known_url(&self) -> Option<&str> {
        (self.url != nowhere(self.node)).then_some(self.url.as_str())
    }
}

const COLUMNS: &str = "node_id, node_url, last_heartbeat, disk_usage_percent, chunk_count, version, incarnation, \
     boot_epoch, read_only, highest_generation, row_sum";

struct RawNode {
    node_id: String,
    url: String,
    last_heartbeat: i64,
    disk_usage_percent: f64,
    chunk_count: i64,
    version: String,
    incarnation: String,
    boot_epoch: i64,
    read_only: bool,
    highest_generation: i64,
    row_sum: i64,
}

impl RawNode {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            node_id: row.get(0)?,
            url: row.get(1)?,
            last_heartbeat: row.get(2)?,
            disk_usage_percent: row.get(3)?,
            chunk_count: row.get(4)?,
            version: row.get(5)?,
            incarnation: row.get(6)?,
            boot_epoch: row.get(7)?,
            read_only: row.get(8)?,
            highest_generation: row.get(9)?,
            row_sum: row.get(10)?,
        })
    }

    fn decode(self) -> Result<NodeRecord, MetaError> {
        let place = Place {
            table: "storage_nodes",
            key: &self.node_id,
        };
        let (node, incarnation) = (place.parsed(&self.node_id)?, place.parsed(&self.incarnation)?);
        let boot_epoch = place.unsigned(self.boot_epoch)?;
        if row_sum(node, &self.url, incarnation, boot_epoch)? != self.row_sum {
            return Err(place.corrupt("its checksum does not fit"));
        }
        Ok(NodeRecord {
            node,
            last_heartbeat: UnixMillis(place.unsigned(self.last_heartbeat)?),
            disk_usage_percent: self.disk_usage_percent,
            chunk_count: place.unsigned(self.chunk_count)?,
            incarnation,
            boot_epoch,
            read_only: self.read_only,
            highest_generation: place.unsigned(self.highest_generation)?,
            url: self.url,
            version: self.version,
        })
    }
}

pub(crate) fn find_node(connection: &Connection, node: NodeId) -> Result<Option<NodeRecord>, MetaError> {
    let raw = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM storage_nodes WHERE node_id = ?1"))?
        .query_row([node.to_string()], RawNode::read)
        .optional()?;
    raw.map(RawNode::decode).transpose()
}

/// All nodes, by id.
pub(crate) fn all_nodes(connection: &Connection) -> Result<Vec<NodeRecord>, MetaError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM storage_nodes ORDER BY node_id"))?;
    let rows = query.query_map([], RawNode::read)?;
    rows.map(|row| row?.decode()).collect()
}
