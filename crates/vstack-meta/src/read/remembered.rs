//! What the workers of redundancy knew before the role ended.

use std::collections::BTreeMap;

use rusqlite::Connection;
use vstack_core::durability::Measured;
use vstack_core::id::NodeId;
use vstack_core::rebalance::BalanceState;
use vstack_core::time::UnixMillis;

use crate::codec::{Place, from_word};
use crate::command::MeasuredWork;
use crate::error::MetaError;

/// Read once, when the role starts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Remembered {
    /// Wrong answers of nodes, the oldest first.
    pub lies: Vec<(NodeId, UnixMillis)>,
    pub balance: BalanceState,
    pub speeds: BTreeMap<MeasuredWork, Measured>,
}

pub(crate) fn remembered(connection: &mut Connection) -> Result<Remembered, MetaError> {
    let snapshot = connection.transaction()?;
    Ok(Remembered {
        lies: lies(&snapshot)?,
        balance: balance(&snapshot)?,
        speeds: speeds(&snapshot)?,
    })
}

fn lies(connection: &Connection) -> Result<Vec<(NodeId, UnixMillis)>, MetaError> {
    let mut query = connection.prepare_cached("SELECT node_id, lied_at FROM node_lies ORDER BY lie_id")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| {
        let (node, at) = row?;
        let place = Place {
            table: "node_lies",
            key: &node,
        };
        Ok((place.parsed(&node)?, UnixMillis(place.unsigned(at)?)))
    })
    .collect()
}

fn balance(connection: &Connection) -> Result<BalanceState, MetaError> {
    let stored: String =
        connection.query_row("SELECT balance FROM service WHERE id = 1", [], |row| row.get(0))?;
    let place = Place {
        table: "service",
        key: "1",
    };
    from_word(place, &stored)
}

fn speeds(connection: &Connection) -> Result<BTreeMap<MeasuredWork, Measured>, MetaError> {
    let mut query = connection.prepare_cached("SELECT work, read_bytes, seconds FROM work_speeds")?;
    let rows = query.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, f64>(2)?,
        ))
    })?;
    rows.map(|row| {
        let (work, read_bytes, seconds) = row?;
        let place = Place {
            table: "work_speeds",
            key: &work,
        };
        let read_bytes = place.unsigned(read_bytes)?;
        Ok((from_word(place, &work)?, Measured { read_bytes, seconds }))
    })
    .collect()
}
