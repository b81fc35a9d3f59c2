//! Rows of `storage_nodes`.

use rusqlite::{Connection, OptionalExtension as _, Row};
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::node::{NodeHealth, NodeState, Steadiness};
use vstack_core::rendezvous::Domain;
use vstack_core::time::UnixMillis;

use crate::apply::nodes::{nowhere, row_sum};
use crate::codec::{Place, from_word};
use crate::command::NodeParts;
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
    /// What its operator wants of it.
    pub state: NodeState,
    /// A data folder of it that was declared lost.
    pub retired_incarnation: Option<Incarnation>,
    /// Its next heartbeat may come from an earlier start of its folder.
    pub readopt: bool,
    pub steadiness: Steadiness,
    /// Bytes of parts that it may hold in all; 0 when it has not said.
    pub capacity_bytes: u64,
    /// What fails together with it, in its operator's words.
    pub rack: Option<String>,
    /// What it is called; `None` until its first heartbeat here.
    pub name: Option<String>,
    /// Whether it asked for this name itself.
    pub name_asked: bool,
}

impl NodeRecord {
    /// Judged by its silence and its steadiness.
    #[must_use]
    pub const fn health(&self, now: UnixMillis) -> NodeHealth {
        self.steadiness.health(self.last_heartbeat, now)
    }

    /// Whether it belongs to the cluster.
    #[must_use]
    pub const fn is_member(&self) -> bool {
        !matches!(self.state, NodeState::Removed)
    }

    /// What fails together with it: its rack, or its host where nobody named one.
    #[must_use]
    pub fn domain(&self) -> Domain {
        match &self.rack {
            Some(rack) => Domain::of(&format!("rack {rack}")),
            None => Domain::of_url(&self.url),
        }
    }

    /// Where it is, unless another node took its address since it was heard of.
    #[must_use]
    pub fn known_url(&self) -> Option<&str> {
        (self.url != nowhere(self.node)).then_some(self.url.as_str())
    }
}

const COLUMNS: &str = "node_id, node_url, last_heartbeat, disk_usage_percent, chunk_count, version, incarnation, \
     boot_epoch, read_only, highest_generation, row_sum, state, retired_incarnation, readopt, gaps, last_gap, capacity_bytes, rack, \
     name, name_asked";

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
    state: String,
    retired_incarnation: Option<String>,
    readopt: bool,
    gaps: i64,
    last_gap: i64,
    capacity_bytes: i64,
    rack: Option<String>,
    name: Option<String>,
    name_asked: bool,
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
            state: row.get(11)?,
            retired_incarnation: row.get(12)?,
            readopt: row.get(13)?,
            gaps: row.get(14)?,
            last_gap: row.get(15)?,
            capacity_bytes: row.get(16)?,
            rack: row.get(17)?,
            name: row.get(18)?,
            name_asked: row.get(19)?,
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
            state: from_word(place, &self.state)?,
            retired_incarnation: self
                .retired_incarnation
                .as_deref()
                .map(|text| place.parsed(text))
                .transpose()?,
            readopt: self.readopt,
            steadiness: Steadiness {
                gaps: place.small(self.gaps)?,
                last_gap: UnixMillis(place.unsigned(self.last_gap)?),
            },
            capacity_bytes: place.unsigned(self.capacity_bytes)?,
            rack: self.rack,
            name: self.name,
            name_asked: self.name_asked,
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

/// The node that is called so.
pub(crate) fn node_named(connection: &Connection, name: &str) -> Result<Option<NodeRecord>, MetaError> {
    let raw = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM storage_nodes WHERE name = ?1"))?
        .query_row([name], RawNode::read)
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

/// What lies on a node, and what lies nowhere else: chunks that the live parts on other nodes do not suffice to read.
pub(crate) fn parts_on(connection: &Connection, node: &NodeRecord) -> Result<NodeParts, MetaError> {
    let place = Place {
        table: "chunk_replicas",
        key: &node.url,
    };
    let count = |sql: &str| -> Result<u64, MetaError> {
        let count = connection
            .prepare_cached(sql)?
            .query_row([&node.url], |row| row.get(0))?;
        place.unsigned(count)
    };
    Ok(NodeParts {
        live: count("SELECT count(*) FROM chunk_replicas WHERE node_url = ?1 AND status = 'active'")?,
        // One copy is enough to read a replicated chunk, three shards an erasure-coded one.
        only_holder_of: count(
            "SELECT count(*) FROM chunk_replicas r JOIN chunks c USING (chunk_id)
             WHERE r.node_url = ?1 AND r.status = 'active'
               AND (SELECT count(*) FROM chunk_replicas o
                    WHERE o.chunk_id = r.chunk_id AND o.node_url <> ?1 AND o.status = 'active')
                 < CASE c.scheme WHEN 'rep' THEN 1 ELSE 3 END",
        )?,
        lost: 0,
    })
}

/// What lies on a registered node.
pub(crate) fn node_parts(connection: &mut Connection, node: NodeId) -> Result<NodeParts, MetaError> {
    let snapshot = connection.transaction()?;
    let record = find_node(&snapshot, node)?.ok_or(MetaError::UnknownNode { node })?;
    parts_on(&snapshot, &record)
}
