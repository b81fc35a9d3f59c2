//! What the workers of redundancy must know after a restart: who lied, what an operator wants moved, how fast work was.

use rusqlite::{Connection, params};
use vstack_core::durability::Measured;
use vstack_core::id::NodeId;
use vstack_core::rebalance::BalanceState;
use vstack_core::time::UnixMillis;
use vstack_core::trust::LIES;

use crate::codec::{signed, word};
use crate::command::MeasuredWork;
use crate::error::MetaError;

/// Notes a wrong answer; only the latest of a node count, so that only those are kept.
pub(super) fn lied(connection: &Connection, node: NodeId, now: UnixMillis) -> Result<(), MetaError> {
    let node = node.to_string();
    connection
        .prepare_cached("INSERT INTO node_lies(node_id, lied_at) VALUES (?1, ?2)")?
        .execute(params![node, signed(now.0)?])?;
    connection
        .prepare_cached(
            "DELETE FROM node_lies WHERE node_id = ?1 AND lie_id NOT IN
               (SELECT lie_id FROM node_lies WHERE node_id = ?1 ORDER BY lie_id DESC LIMIT ?2)",
        )?
        .execute(params![node, signed(LIES as u64)?])?;
    Ok(())
}

pub(super) fn forgive(connection: &Connection, node: NodeId) -> Result<(), MetaError> {
    connection
        .prepare_cached("DELETE FROM node_lies WHERE node_id = ?1")?
        .execute([node.to_string()])?;
    Ok(())
}

pub(super) fn set_balance(connection: &Connection, balance: BalanceState) -> Result<(), MetaError> {
    connection
        .prepare_cached("UPDATE service SET balance = ?1 WHERE id = 1")?
        .execute([word(&balance)])?;
    Ok(())
}

pub(super) fn measure(
    connection: &Connection,
    work: MeasuredWork,
    measured: Measured,
) -> Result<(), MetaError> {
    connection
        .prepare_cached(
            "INSERT INTO work_speeds(work, read_bytes, seconds) VALUES (?1, ?2, ?3)
             ON CONFLICT(work) DO UPDATE SET read_bytes = ?2, seconds = ?3",
        )?
        .execute(params![
            word(&work),
            signed(measured.read_bytes)?,
            measured.seconds
        ])?;
    Ok(())
}
