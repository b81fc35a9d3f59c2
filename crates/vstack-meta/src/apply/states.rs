//! What the operator wants of a node: drain, maintenance, remove, replace, readopt.

use rusqlite::{Connection, params};
use vstack_core::id::NodeId;
use vstack_core::node::NodeState;
use vstack_core::time::UnixMillis;

use super::nodes::lose_parts;
use crate::command::{NodeChange, NodeParts};
use crate::error::MetaError;
use crate::read::nodes::{NodeRecord, find_node, parts_on};

pub(super) fn change(
    connection: &Connection,
    node: NodeId,
    change: NodeChange,
    now: UnixMillis,
) -> Result<NodeParts, MetaError> {
    let record = find_node(connection, node)?.ok_or(MetaError::UnknownNode { node })?;
    let lost = match change {
        NodeChange::State(state) => {
            set_state(connection, &record, state)?;
            0
        }
        NodeChange::Remove { force } => {
            let lost = give_up(connection, &record, force)?;
            set(connection, node, NodeState::Removed)?;
            // Nobody will delete there any more. Should it come back, its inventory tells what is left.
            connection.execute("DELETE FROM gc_queue WHERE node_id = ?1", [node.to_string()])?;
            lost
        }
        NodeChange::Replace { force } => {
            let lost = give_up(connection, &record, force)?;
            set(connection, node, NodeState::Active)?;
            connection.execute(
                "UPDATE storage_nodes SET retired_incarnation = incarnation WHERE node_id = ?1",
                [node.to_string()],
            )?;
            lost
        }
        NodeChange::Readopt => {
            set(connection, node, NodeState::Active)?;
            super::remembered::forgive(connection, node)?;
            connection.execute(
                "UPDATE storage_nodes SET readopt = 1, retired_incarnation = NULL WHERE node_id = ?1",
                [node.to_string()],
            )?;
            0
        }
    };
    tracing::info!(%node, ?change, lost, now = %now, "node changed by its operator");
    Ok(NodeParts {
        lost,
        ..parts_on(connection, &record)?
    })
}

fn set_state(connection: &Connection, record: &NodeRecord, state: NodeState) -> Result<(), MetaError> {
    let node = record.node;
    match (record.state, state) {
        (NodeState::Removed, _) => Err(MetaError::NodeRemoved { node }),
        (_, NodeState::Removed) => Err(MetaError::Inconsistent {
            reason: "a node is removed, not set to that state".into(),
        }),
        _ => set(connection, node, state),
    }
}

fn set(connection: &Connection, node: NodeId, state: NodeState) -> Result<(), MetaError> {
    connection.execute(
        "UPDATE storage_nodes SET state = ?2 WHERE node_id = ?1",
        params![node.to_string(), state.as_str()],
    )?;
    Ok(())
}

/// What the node holds counts no more.
fn give_up(connection: &Connection, record: &NodeRecord, force: bool) -> Result<u64, MetaError> {
    let chunks = parts_on(connection, record)?.only_holder_of;
    if chunks > 0 && !force {
        return Err(MetaError::OnlyHolder {
            node: record.node,
            chunks,
        });
    }
    lose_parts(connection, &record.url)
}
