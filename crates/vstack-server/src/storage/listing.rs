//! `GET /objects`: what this node holds, for a catalogue that was restored or rebuilt and has to catch up.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use vstack_api::ErrorCode;
use vstack_api::listing::{ListedObject, ListedState, MAX_LISTED, ObjectPage};
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_store::{ObjectEntry, ObjectState};

use super::state::Node;
use crate::http::{Answer, refuse};

/// The page begins behind this object; both are named, or none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    object: Option<ChunkId>,
    #[serde(default)]
    ballot: Option<Ballot>,
}

pub(super) async fn objects(
    State(node): State<Arc<Node>>,
    query: Result<Query<After>, QueryRejection>,
) -> Answer<Json<ObjectPage>> {
    let Query(after) = query.map_err(|rejection| refuse(ErrorCode::BadRequest, rejection.body_text()))?;
    let after = match (after.object, after.ballot) {
        (Some(object), Some(ballot)) => Some((object, ballot)),
        (None, None) => None,
        _ => {
            return Err(refuse(
                ErrorCode::BadRequest,
                "object and ballot are named together",
            ));
        }
    };
    node.on_disk(move |node| Ok(page(node, after))).await.map(Json)
}

fn page(node: &Node, after: Option<(ChunkId, Ballot)>) -> ObjectPage {
    let entries = node.store.objects(after, MAX_LISTED);
    let (identity, stats) = (node.store.identity(), node.store.stats());
    ObjectPage {
        name: node.called(),
        node_id: identity.node_id,
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        highest_generation: node.store.generation(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk_usage: stats.disk_used_percent,
        more: entries.len() == MAX_LISTED,
        objects: entries.iter().map(listed).collect(),
    }
}

fn listed(entry: &ObjectEntry) -> ListedObject {
    ListedObject {
        object: entry.chunk,
        ballot: entry.ballot,
        size_bytes: entry.size_bytes.into(),
        state: match entry.state {
            ObjectState::Unchecked | ObjectState::Checked => ListedState::Stored,
            ObjectState::Corrupt => ListedState::Corrupt,
            ObjectState::Deleted => ListedState::Deleted,
        },
    }
}
