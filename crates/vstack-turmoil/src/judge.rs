//! The judgment after a run: what its disks and its catalogue hold, looked at without the roles, after a power cut of
//! every machine.

use std::collections::BTreeMap;

use futures::executor::block_on;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::paxos::master::object_of;
use vstack_meta::{MetaStore as _, SqliteMetaStore};
use vstack_server::metadata;
use vstack_store::ObjectState;
use vstack_store::sim::Random;

use crate::hosts::open_store;
use crate::shared::Shared;

/// Objects of all nodes after the power cut.
struct Held(BTreeMap<(NodeId, ChunkId, Ballot), Sha256Digest>);

/// # Errors
/// What never may be.
pub(crate) fn judge(shared: &Shared) -> Result<(), String> {
    let findings = metadata::check(&shared.catalogue_folder()).map_err(|error| error.to_string())?;
    if let Some(finding) = findings.first() {
        return Err(format!("the catalogue is not sound: {finding}"));
    }
    let held = held(shared)?;
    one_content_for_each_name(&held)?;
    every_part_is_there(shared, &held)
}

fn held(shared: &Shared) -> Result<Held, String> {
    let mut random = Random::new(shared.seed ^ 0x0ff);
    let mut held = BTreeMap::new();
    for number in 1..=shared.plan.nodes {
        let after = shared.disk(number).restart(&mut random);
        shared.put_disk(number, after);
        let (stepped, _) = open_store(shared, number).map_err(|error| format!("node {number}: {error}"))?;
        let store = stepped.store();
        let node = store.identity().node_id;
        for entry in store.objects(None, 1 << 16) {
            if entry.state == ObjectState::Deleted {
                continue;
            }
            let bytes = store.get(entry.chunk, Some(entry.ballot));
            let bytes = bytes.map_err(|error| format!("node {number}: {error}"))?;
            held.insert((node, entry.chunk, entry.ballot), Sha256Digest::of(&bytes));
        }
    }
    Ok(Held(held))
}

/// R5: a name is written once, on whatever node.
fn one_content_for_each_name(held: &Held) -> Result<(), String> {
    let mut contents = BTreeMap::new();
    for (&(_, chunk, ballot), &sha256) in &held.0 {
        let known = *contents.entry((chunk, ballot)).or_insert(sha256);
        if known != sha256 {
            return Err(format!(
                "{chunk} at ballot {ballot} is two things: {known} and {sha256}"
            ));
        }
    }
    Ok(())
}

/// I1, I3 and I5 after the fact: what the catalogue names is on its node, with those bytes, whatever was not synced.
fn every_part_is_there(shared: &Shared, held: &Held) -> Result<(), String> {
    let catalogue = SqliteMetaStore::open_on_caller(&shared.catalogue_file());
    let catalogue = catalogue.map_err(|error| error.to_string())?;
    for (chunk, acknowledged) in shared.acknowledged() {
        let record = block_on(catalogue.chunk(chunk)).map_err(|error| error.to_string())?;
        let Some(placed) = record.map(|record| record.placement) else {
            if shared.may_be_gone(chunk) {
                continue;
            }
            return Err(format!("{chunk} was acknowledged and is unknown"));
        };
        if placed.digest.sha256 != acknowledged {
            return Err(format!(
                "{chunk} is decided as {}, acknowledged was {acknowledged}",
                placed.digest.sha256
            ));
        }
        for part in &placed.parts {
            let object = object_of(chunk, part);
            let found = held.0.get(&(part.node, object, part.object_ballot));
            if found != Some(&part.sha256) {
                return Err(format!(
                    "{object} of ballot {} is not on node {}: {found:?}",
                    part.object_ballot, part.node
                ));
            }
        }
    }
    Ok(())
}
