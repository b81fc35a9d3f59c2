//! What each command does, inside the writer's transaction.

pub(crate) mod chunks;
mod import;
mod lost;
pub(crate) mod memory;
mod names;
pub(crate) mod nodes;
mod redundancy;
mod remembered;
mod states;
pub(crate) mod videos;
mod views;

use rusqlite::Connection;

use crate::codec::{Place, signed};
use crate::command::{Behind, Cmd, Collectable, Reply};
use crate::error::MetaError;
use crate::rows;
use memory::Memory;
use vstack_core::paxos::master::{self, Garbage, Knowledge};

/// Applies one command. The caller has called [`Memory::make_way`], and undoes what a refused command has written.
pub(crate) fn apply(connection: &Connection, command: &Cmd, memory: &mut Memory) -> Result<Reply, MetaError> {
    match command {
        Cmd::Heartbeat { report, now } => nodes::heartbeat(connection, report, *now).map(Reply::Heartbeat),
        Cmd::JudgeNodes { now } => nodes::judge(connection, *now).map(done),
        Cmd::CreateVideo {
            key,
            video,
            title,
            duration_sec,
            now,
        } => {
            let asked = videos::Asked {
                title,
                duration_sec: *duration_sec,
            };
            videos::create(connection, key.as_deref(), *video, &asked, *now).map(Reply::Created)
        }
        Cmd::Open(open) => chunks::open(connection, &open.into(), memory).map(Reply::Opened),
        Cmd::OpenParts(open) => chunks::open(connection, open, memory).map(Reply::Opened),
        Cmd::PinRedundancy { video, pin } => redundancy::pin(connection, *video, *pin).map(done),
        Cmd::Converted { video, now } => redundancy::converted(connection, *video, *now).map(done),
        Cmd::Lied { node, now } => remembered::lied(connection, *node, *now).map(done),
        Cmd::SetBalance { balance } => remembered::set_balance(connection, *balance).map(done),
        Cmd::Measure { work, measured } => remembered::measure(connection, *work, *measured).map(done),
        Cmd::Commit(commit) => chunks::commit(connection, commit, memory).map(Reply::Committed),
        Cmd::StoreInit { video, data } => videos::store_init(connection, *video, data).map(done),
        Cmd::Finalize(finalize) => videos::finalize(connection, finalize).map(done),
        Cmd::RenameVideo { video, title } => videos::rename(connection, *video, title).map(done),
        Cmd::DeleteVideo { video, now } => videos::delete(connection, *video, *now).map(done),
        Cmd::AbortVideo { video, now } => videos::abort(connection, *video, *now).map(done),
        Cmd::AbandonVideo { video, before, now } => {
            videos::abandon(connection, *video, *before, *now).map(done)
        }
        Cmd::RecordView {
            video,
            session,
            half_life_ms,
            now,
        } => views::record(connection, *video, session.as_deref(), *half_life_ms, *now).map(done),
        Cmd::ChangeNode { node, change, now } => {
            states::change(connection, *node, *change, *now).map(Reply::Node)
        }
        Cmd::Import { object, seq, now } => {
            import::import(connection, object, *seq, *now).map(Reply::Imported)
        }
        Cmd::CatalogueSaved { chunk, unsaved, now } => {
            videos::catalogue_saved(connection, *chunk, *unsaved, *now).map(done)
        }
        Cmd::CaughtUp { to } => caught_up(connection, *to).map(done),
        Cmd::LoseParts {
            node,
            incarnation,
            objects,
        } => lost::lose_parts(connection, (*node, *incarnation), objects).map(Reply::Lost),
        Cmd::CollectDone { objects } => collect_done(connection, objects).map(done),
        Cmd::CollectLater { objects, not_before } => {
            collect_done(connection, objects)?;
            let garbage = objects
                .iter()
                .map(|&Collectable { node, object, ballot }| Garbage { node, object, ballot });
            rows::queue_garbage(connection, garbage, *not_before).map(done)
        }
    }
}

const fn done((): ()) -> Reply {
    Reply::Done
}

fn collect_done(connection: &Connection, objects: &[Collectable]) -> Result<(), MetaError> {
    let mut delete = connection
        .prepare_cached("DELETE FROM gc_queue WHERE node_id = ?1 AND chunk_id = ?2 AND object_ballot = ?3")?;
    for object in objects {
        let ballot = crate::codec::ballot_column(object.ballot)?;
        delete.execute((object.node.to_string(), object.object.to_string(), ballot))?;
    }
    Ok(())
}

/// The generation of this life of the catalogue.
pub(crate) fn generation(connection: &Connection) -> Result<u64, MetaError> {
    let stored = connection
        .prepare_cached("SELECT generation FROM service WHERE id = 1")?
        .query_row([], |row| row.get(0))?;
    Place {
        table: "service",
        key: "1",
    }
    .unsigned(stored)
}

/// The generation to grant a ballot in.
///
/// # Errors
/// [`MetaError::Restored`]: a node may have seen a later generation.
pub(crate) fn granting_generation(connection: &Connection) -> Result<u64, MetaError> {
    match behind(connection)? {
        Behind::Ballots | Behind::Generations => Err(MetaError::Restored),
        Behind::No | Behind::Objects => generation(connection),
    }
}

/// Whether the catalogue may lack decisions of an earlier life.
pub(crate) fn knowledge(connection: &Connection) -> Result<Knowledge, MetaError> {
    Ok(behind(connection)?.knowledge())
}

/// How far the catalogue may be behind its nodes.
pub(crate) fn behind(connection: &Connection) -> Result<Behind, MetaError> {
    let stored: i64 = connection
        .prepare_cached("SELECT behind FROM service WHERE id = 1")?
        .query_row([], |row| row.get(0))?;
    match stored {
        0 => Ok(Behind::No),
        1 => Ok(Behind::Objects),
        2 => Ok(Behind::Ballots),
        3 => Ok(Behind::Generations),
        other => Err(Place {
            table: "service",
            key: "1",
        }
        .corrupt(format!("behind is {other}"))),
    }
}

fn caught_up(connection: &Connection, to: Behind) -> Result<(), MetaError> {
    connection.execute(
        "UPDATE service SET behind = min(behind, ?1) WHERE id = 1",
        [to as i64],
    )?;
    Ok(())
}

/// Marks a catalogue that was restored or rebuilt: its open ballots die, and it grants none until its nodes have told what
/// they saw. Durable when the transaction around it is.
pub(crate) fn fall_behind(connection: &Connection) -> Result<(), MetaError> {
    for chunk in rows::open_chunks(connection)? {
        let row = rows::read_row(connection, chunk)?;
        rows::write_row(connection, chunk, row.promised, &master::restored(&row))?;
    }
    let all = Behind::Generations as i64;
    connection.execute("UPDATE service SET behind = ?1 WHERE id = 1", [all])?;
    Ok(())
}

/// Raises the generation to `at_least`, or by one. Durable when the transaction around it is.
pub(crate) fn raise_generation(connection: &Connection, at_least: u64) -> Result<u64, MetaError> {
    let raised = at_least.max(generation(connection)? + 1);
    connection.execute(
        "UPDATE service SET generation = ?1 WHERE id = 1",
        [signed(raised)?],
    )?;
    Ok(raised)
}
