//! What nodes are called: one name for one node, the same for as long as the catalogue lives.
//!
//! A node may ask for a name. It gets it unless a node that lives has asked for the same; it is told so and keeps the name
//! that it had. A node that asks for none is numbered, once. Names of removed nodes stay theirs until somebody asks for
//! them, so that a number never comes to mean another machine by itself.

use rusqlite::{Connection, params};
use vstack_core::id::NodeId;
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::node_name::{number_of, numbered};
use vstack_core::time::UnixMillis;

use crate::command::{Named, NodeReport};
use crate::error::MetaError;
use crate::read::nodes::{NodeRecord, find_node, node_named};

/// The name of a node whose row is written.
pub(super) fn settle(
    connection: &Connection,
    report: &NodeReport,
    now: UnixMillis,
) -> Result<Named, MetaError> {
    let node = report.node;
    let known = find_node(connection, node)?.ok_or(MetaError::UnknownNode { node })?;
    let (wanted, mut refused) = (report.name.as_deref(), false);
    if let Some(wanted) = wanted
        && known.name.as_deref() != Some(wanted)
    {
        refused = !take(connection, node, wanted, now)?;
        if !refused {
            return Ok(named(wanted.to_owned(), false));
        }
    }
    let name = match known.name {
        Some(name) => {
            let asks = wanted == Some(name.as_str());
            if asks != known.name_asked {
                call(connection, node, &name, asks)?;
            }
            name
        }
        None => number(connection, node)?,
    };
    Ok(named(name, refused))
}

const fn named(name: String, refused: bool) -> Named {
    Named { name, refused }
}

/// Calls the node so unless another one has a better right to it; a holder that has to give way is numbered.
fn take(connection: &Connection, node: NodeId, name: &str, now: UnixMillis) -> Result<bool, MetaError> {
    match node_named(connection, name)? {
        Some(holder) if !gives_way(&holder, now) => return Ok(false),
        Some(holder) => drop(number(connection, holder.node)?),
        None => {}
    }
    call(connection, node, name, true)?;
    Ok(true)
}

/// A folder that was emptied comes back as a new node under the old one's name: people mean the one that lives.
fn gives_way(holder: &NodeRecord, now: UnixMillis) -> bool {
    let silence = NodeHealth::of_silence(holder.last_heartbeat, now);
    !holder.name_asked || holder.state == NodeState::Removed || silence == NodeHealth::Down
}

/// Gives the node the number after all that are in use.
fn number(connection: &Connection, node: NodeId) -> Result<String, MetaError> {
    let mut query = connection.prepare_cached("SELECT name FROM storage_nodes WHERE name IS NOT NULL")?;
    let mut highest = 0;
    for name in query.query_map([], |row| row.get::<_, String>(0))? {
        highest = number_of(&name?).unwrap_or(0).max(highest);
    }
    let name = numbered(highest.saturating_add(1));
    call(connection, node, &name, false)?;
    Ok(name)
}

fn call(connection: &Connection, node: NodeId, name: &str, asked: bool) -> Result<(), MetaError> {
    connection
        .prepare_cached("UPDATE storage_nodes SET name = ?2, name_asked = ?3 WHERE node_id = ?1")?
        .execute(params![node.to_string(), name, asked])?;
    Ok(())
}
