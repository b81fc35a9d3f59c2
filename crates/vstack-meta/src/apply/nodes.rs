//! Heartbeats: who a node is, where it is now, and which life of it this is.
//!
//! An identity belongs to one data folder in one process. A second process with the same identity is refused while the
//! first one is alive; of two starts of one folder the later wins (F26 of the fault list). A folder that went back to an
//! earlier start waits for its operator (F28), and so does a node that was removed.

use rusqlite::{Connection, OptionalExtension as _, params};
use tracing::warn;
use vstack_core::id::{Incarnation, NodeId};
use vstack_core::node::{NodeHealth, NodeState, Steadiness};
use vstack_core::time::UnixMillis;

use super::{behind, generation, names, raise_generation};
use crate::codec::{Place, RowSum, signed};
use crate::command::{Behind, HeartbeatReply, NodeReport};
use crate::error::MetaError;
use crate::read::nodes::{NodeRecord, find_node};

/// A generation above this is nobody's honest report: it would take a start a second for 130 years. Ballots have room
/// for twice as many.
const MAX_GENERATION: u64 = 1 << 22;

pub(super) fn heartbeat(
    connection: &Connection,
    report: &NodeReport,
    now: UnixMillis,
) -> Result<HeartbeatReply, MetaError> {
    follow_generation(connection, report)?;
    let known = find_node(connection, report.node)?;
    if let Some(known) = &known {
        check_identity(known, report, now)?;
    }
    clear_url(connection, report, now)?;
    let steadiness = known
        .as_ref()
        .map(|known| known.steadiness.after_heartbeat(known.last_heartbeat, now));
    write(connection, report, steadiness.unwrap_or_default(), now)?;
    let named = names::settle(connection, report, now)?;
    let lost_parts = match &known {
        Some(known) if known.incarnation != report.incarnation => lose_parts(connection, &report.url)?,
        _ => 0,
    };
    let returned = known.as_ref().is_some_and(|known| {
        NodeHealth::of_silence(known.last_heartbeat, now) == NodeHealth::Down
            || (known.incarnation, known.boot_epoch) != (report.incarnation, report.boot_epoch)
    });
    let before = known.map(|known| known.health(now));
    let generation = match behind(connection)? {
        Behind::Generations => None,
        Behind::No | Behind::Objects | Behind::Ballots => Some(generation(connection)?),
    };
    Ok(HeartbeatReply {
        before,
        lost_parts,
        returned,
        generation,
        named,
    })
}

/// Ballots of a generation that a node has seen and this catalogue has not are granted already: it was restored from a
/// backup. Starting above them keeps every ballot unique.
fn follow_generation(connection: &Connection, report: &NodeReport) -> Result<(), MetaError> {
    let reported = report.highest_generation;
    let present = generation(connection)?;
    // As long as it was announced to nobody, a node that has seen this very number has it from another life.
    let mine = behind(connection)? != Behind::Generations;
    if reported < present || (reported == present && mine) {
        return Ok(());
    }
    if reported > MAX_GENERATION {
        warn!(node = %report.node, reported, "a node reports an impossible generation, ignored");
        return Ok(());
    }
    let raised = raise_generation(connection, reported + 1)?;
    warn!(node = %report.node, reported, raised, "a node has seen a later generation, going above it");
    Ok(())
}

fn check_identity(known: &NodeRecord, report: &NodeReport, now: UnixMillis) -> Result<(), MetaError> {
    let node = report.node;
    let alive = NodeHealth::of_silence(known.last_heartbeat, now) == NodeHealth::Healthy;
    let refused = |reason: String| Err(MetaError::DuplicateNode { node, reason });
    if known.state == NodeState::Removed {
        return Err(MetaError::NodeRemoved { node });
    }
    if known.retired_incarnation == Some(report.incarnation) {
        return refused("its data folder was declared lost; start it with an empty one".into());
    }
    if known.incarnation != report.incarnation {
        let awaited = known.retired_incarnation == Some(known.incarnation);
        return match alive && !awaited {
            true => refused(format!("{} reports with another data folder", known.url)),
            false => Ok(()),
        };
    }
    if report.boot_epoch < known.boot_epoch && !known.readopt {
        return match alive {
            true => refused(format!("{} is a later start of the same data folder", known.url)),
            false => Err(MetaError::RolledBack {
                node,
                known: known.boot_epoch,
                reported: report.boot_epoch,
            }),
        };
    }
    if alive && report.boot_epoch == known.boot_epoch && report.url != known.url {
        return refused(format!(
            "{} reports with a copy of the same data folder",
            known.url
        ));
    }
    Ok(())
}

/// Takes the address from a node that is silent: addresses are used again, identities are not.
fn clear_url(connection: &Connection, report: &NodeReport, now: UnixMillis) -> Result<(), MetaError> {
    let holder: Option<(String, i64)> = connection
        .prepare_cached("SELECT node_id, last_heartbeat FROM storage_nodes WHERE node_url = ?1")?
        .query_row([&report.url], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((holder, seen)) = holder else {
        return Ok(());
    };
    let place = Place {
        table: "storage_nodes",
        key: &holder,
    };
    let other: NodeId = place.parsed(&holder)?;
    if other == report.node {
        return Ok(());
    }
    if NodeHealth::of_silence(UnixMillis(place.unsigned(seen)?), now) == NodeHealth::Healthy {
        let reason = format!("{} belongs to node {other}, which is alive", report.url);
        return Err(MetaError::DuplicateNode {
            node: report.node,
            reason,
        });
    }
    let record =
        find_node(connection, other)?.ok_or_else(|| place.corrupt("it vanished while being read"))?;
    let nowhere = nowhere(other);
    let sum = row_sum(other, &nowhere, record.incarnation, record.boot_epoch)?;
    connection.execute(
        "UPDATE storage_nodes SET node_url = ?2, row_sum = ?3 WHERE node_id = ?1",
        params![holder, nowhere, sum],
    )?;
    Ok(())
}

/// The address of a node that lost its own and has not reported a new one.
pub(crate) fn nowhere(node: NodeId) -> String {
    format!("unknown:{node}")
}

/// The address is left alone, since it is the key that parts name their node by: where a key is set, even to what it
/// was, SQLite goes through every row that names it.
const BEAT: &str = "
    INSERT INTO storage_nodes(node_id, node_url, last_heartbeat, disk_usage_percent, chunk_count, status,
      version, incarnation, boot_epoch, read_only, highest_generation, row_sum, gaps, last_gap, capacity_bytes, rack)
    VALUES (?1, ?2, ?3, ?4, ?5, 'healthy', ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT(node_id) DO UPDATE SET last_heartbeat = ?3, disk_usage_percent = ?4,
      chunk_count = ?5, status = 'healthy', version = ?6, incarnation = ?7, boot_epoch = ?8, read_only = ?9,
      highest_generation = max(highest_generation, ?10), row_sum = ?11, gaps = ?12, last_gap = ?13, readopt = 0,
      capacity_bytes = ?14, rack = ?15";

/// Takes as long with any number of chunks, unless the node has moved to another address.
fn write(
    connection: &Connection,
    report: &NodeReport,
    steadiness: Steadiness,
    now: UnixMillis,
) -> Result<(), MetaError> {
    let sum = row_sum(report.node, &report.url, report.incarnation, report.boot_epoch)?;
    let node = report.node.to_string();
    connection.prepare_cached(BEAT)?.execute(params![
        node,
        report.url,
        signed(now.0)?,
        report.disk_usage_percent,
        signed(report.chunk_count)?,
        report.version,
        report.incarnation.to_string(),
        signed(report.boot_epoch)?,
        report.read_only,
        signed(report.highest_generation.min(MAX_GENERATION))?,
        sum,
        steadiness.gaps,
        signed(steadiness.last_gap.0)?,
        signed(report.capacity_bytes)?,
        report.rack,
    ])?;
    connection
        .prepare_cached("UPDATE storage_nodes SET node_url = ?2 WHERE node_id = ?1 AND node_url <> ?2")?
        .execute([&node, &report.url])?;
    Ok(())
}

/// A row for a node that a placement names and that has never reported here. It counts as down until it does.
pub(super) fn expect_node(
    connection: &Connection,
    node: NodeId,
    incarnation: Incarnation,
) -> Result<(), MetaError> {
    let url = nowhere(node);
    connection.execute(
        "INSERT INTO storage_nodes(node_id, node_url, last_heartbeat, disk_usage_percent, chunk_count, status, version,
           incarnation, boot_epoch, row_sum) VALUES (?1, ?2, 0, 0, 0, 'down', '', ?3, 0, ?4)",
        params![
            node.to_string(),
            url,
            incarnation.to_string(),
            row_sum(node, &url, incarnation, 0)?
        ],
    )?;
    Ok(())
}

/// The checksum over what decides whether a receipt counts.
pub(crate) fn row_sum(
    node: NodeId,
    url: &str,
    incarnation: Incarnation,
    boot_epoch: u64,
) -> Result<i64, MetaError> {
    let sum = RowSum::default()
        .text(&node.to_string())
        .text(url)
        .text(&incarnation.to_string());
    Ok(sum.number(signed(boot_epoch)?).finish())
}

/// The node's disk was replaced: what it held counts no more.
pub(super) fn lose_parts(connection: &Connection, url: &str) -> Result<u64, MetaError> {
    connection.execute(
        "UPDATE chunks SET missing_parts = missing_parts + 1 WHERE chunk_id IN
           (SELECT chunk_id FROM chunk_replicas WHERE node_url = ?1 AND status = 'active')",
        [url],
    )?;
    let lost = connection.execute(
        "UPDATE chunk_replicas SET status = 'failed' WHERE node_url = ?1 AND status = 'active'",
        [url],
    )?;
    Ok(lost as u64)
}

pub(super) fn judge(connection: &Connection, now: UnixMillis) -> Result<(), MetaError> {
    // A clock that went back must not keep a dead node alive until the clock has caught up.
    connection.execute(
        "UPDATE storage_nodes SET last_heartbeat = ?1 WHERE last_heartbeat > ?1",
        [signed(now.0)?],
    )?;
    for node in crate::read::nodes::all_nodes(connection)? {
        let status = node.health(now).as_str();
        connection
            .prepare_cached("UPDATE storage_nodes SET status = ?2 WHERE node_id = ?1 AND status <> ?2")?
            .execute((node.node.to_string(), status))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;
    use uuid::Uuid;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn report(url: &str) -> NodeReport {
        NodeReport {
            node: NodeId(Uuid::from_u128(1)),
            url: url.to_owned(),
            incarnation: Incarnation(Uuid::from_u128(2)),
            boot_epoch: 1,
            version: "1".to_owned(),
            disk_usage_percent: 1.0,
            chunk_count: 0,
            read_only: false,
            highest_generation: 0,
            capacity_bytes: 0,
            rack: None,
            name: None,
        }
    }

    /// A catalogue in which one node holds so many chunks.
    fn catalogue(chunks: u32) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let connection = crate::schema::open_writer(&folder.path().join("catalogue.db")).unwrap();
        write(&connection, &report("http://one"), Steadiness::default(), NOW).unwrap();
        let all = connection.unchecked_transaction().unwrap();
        all.execute_batch(
            "INSERT INTO videos(video_id, title, title_key, duration_sec, created_at, status, row_sum)
             VALUES ('v', '', '', 1.0, 0, 'active', 0)",
        )
        .unwrap();
        for seq in 0..chunks {
            all.execute(
                "INSERT INTO chunks(chunk_id, video_id, kind, track, sequence_num, size_bytes, checksum,
                   leaf_root, scheme, missing_parts, created_at, row_sum)
                 VALUES (?1, 'v', 1, 0, ?1, 100, '', '', 'rep', 0, 0, 0)",
                [seq],
            )
            .unwrap();
            all.execute(
                "INSERT INTO chunk_replicas(chunk_id, node_url, status, ballot_number, shard_index, created_at)
                 VALUES (?1, 'http://one', 'active', 1, 255, 0)",
                [seq],
            )
            .unwrap();
        }
        all.commit().unwrap();
        (folder, connection)
    }

    /// Steps of SQLite's machine for a heartbeat of a node that holds so many chunks.
    fn steps(chunks: u32) -> i32 {
        let (_folder, connection) = catalogue(chunks);
        let counted = || {
            let beat = connection.prepare_cached(BEAT).unwrap();
            beat.get_status(StatementStatus::VmStep)
        };
        let before = counted();
        write(&connection, &report("http://one"), Steadiness::default(), NOW).unwrap();
        counted() - before
    }

    #[test]
    fn a_heartbeat_takes_as_many_steps_for_any_number_of_chunks() {
        let few = steps(1);
        assert!((1..500).contains(&few), "{few}");
        assert_eq!(steps(2_000), few);
    }

    #[test]
    fn a_node_that_moves_takes_its_chunks_along() {
        let (_folder, connection) = catalogue(3);
        write(&connection, &report("http://two"), Steadiness::default(), NOW).unwrap();
        let there = "SELECT count(*) FROM chunk_replicas WHERE node_url = 'http://two'";
        let there: i64 = connection.query_row(there, [], |row| row.get(0)).unwrap();
        assert_eq!(there, 3);
    }
}
