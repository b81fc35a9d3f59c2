//! Catching up: what a restored or rebuilt catalogue learns from its nodes.
//!
//! First every node must have told the generation that it has seen (in its heartbeat), or be down, and most must have told:
//! then this life announces its own, above all of these. When most nodes have written that down ballots are granted again.
//! Then each node is read. Of each video the latest catalogue object counts; its
//! placements are learned. A video whose latest object was deleted, and one of which nothing but tombstones is left, were
//! deleted in the time that the catalogue has forgotten; that is believed only when every node was read. Until then
//! nothing that the catalogue does not know is collected anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vstack_api::StorageClient;
use vstack_api::listing::{ListedObject, ListedState, ObjectPage};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::keys::DerivedKey;
use vstack_core::limits::{MAX_CHUNK_BYTES, NODE_DEGRADED_AFTER_MS, NODE_DOWN_AFTER_MS};
use vstack_core::manifest::VideoStatus;
use vstack_core::node::NodeHealth;
use vstack_core::time::UnixMillis;
use vstack_meta::{Behind, Cmd, MetaError, MetaStore, NodeRecord};

use super::objects::unsealed;
use super::state::Metadata;

/// How often it looks whether more nodes are there.
const LOOK: Duration = Duration::from_millis(500);
/// For one catalogue object.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// What was read of the nodes so far.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    read: BTreeSet<NodeId>,
    videos: BTreeMap<VideoId, Seen>,
}

/// One video as the nodes hold it.
#[derive(Debug, Default)]
struct Seen {
    /// Its catalogue objects and who holds them.
    objects: BTreeMap<(u32, Ballot), BTreeSet<NodeId>>,
    /// The highest number of a catalogue object that was deleted: replaced by a later one, or with the video.
    ended: Option<u32>,
    /// Whether anything else of it is there, and whether anything else of it was deleted.
    has_bytes: bool,
    has_tombstones: bool,
    imported: Option<(u32, Ballot)>,
}

impl Seen {
    fn latest(&self) -> Option<(u32, Ballot)> {
        self.objects.keys().next_back().copied()
    }

    /// Whether all that is left of it are remains of a deletion, such as a node that was down then still has them. A
    /// video whose catalogue objects were merely lost has bytes, and no other object that ended.
    fn was_deleted(&self) -> bool {
        match self.latest() {
            Some((seq, _)) if self.ended >= Some(seq) => self.has_tombstones || !self.has_bytes,
            Some(_) => false,
            None => (self.has_tombstones || self.ended.is_some()) && !self.has_bytes,
        }
    }
}

/// What catching up has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct CaughtUp {
    /// Nodes whose whole inventory was read.
    pub nodes: u32,
    /// Videos that were not known.
    pub videos: u32,
    /// Chunks whose placement was not known, or an older one was.
    pub chunks: u32,
    /// Videos that the nodes had deleted.
    pub deleted: u32,
}

impl CatchUp {
    /// Reads all that a node holds; answers its first page, without the objects.
    pub(super) async fn read_node(&mut self, storage: &StorageClient) -> Result<ObjectPage, String> {
        let mut page = storage.objects(None).await.map_err(|error| error.to_string())?;
        let node = page.node_id;
        let first = ObjectPage {
            objects: Vec::new(),
            ..page.clone()
        };
        loop {
            for listed in &page.objects {
                self.note(node, listed);
            }
            let Some(last) = page.objects.last().filter(|_| page.more) else {
                self.read.insert(node);
                return Ok(first);
            };
            let after = Some((last.object, last.ballot));
            page = storage.objects(after).await.map_err(|error| error.to_string())?;
        }
    }

    fn note(&mut self, node: NodeId, listed: &ListedObject) {
        let ListedObject { object, ballot, .. } = *listed;
        let seen = self.videos.entry(object.video()).or_default();
        match (object.kind(), listed.state) {
            (ChunkKind::Catalogue, ListedState::Stored) => {
                let holders = seen.objects.entry((object.seq(), ballot)).or_default();
                holders.insert(node);
            }
            (ChunkKind::Catalogue, ListedState::Deleted) => {
                seen.ended = seen.ended.max(Some(object.seq()));
            }
            (_, ListedState::Deleted) => seen.has_tombstones = true,
            // A damaged one is proof enough that the video was not deleted.
            (_, ListedState::Stored | ListedState::Corrupt) => seen.has_bytes = true,
        }
    }

    /// Whether all of `nodes` were read.
    fn is_complete(&self, nodes: &[NodeRecord]) -> bool {
        nodes
            .iter()
            .all(|node| !node.is_member() || self.read.contains(&node.node))
    }

    /// Takes over what the catalogue does not know yet. With `complete` knowledge, deletions too.
    pub(super) async fn learn(
        &mut self,
        store: &dyn MetaStore,
        key: &DerivedKey,
        storage: impl Fn(NodeId) -> Option<StorageClient>,
        complete: bool,
        now: UnixMillis,
    ) -> Result<CaughtUp, MetaError> {
        let mut sum = CaughtUp::default();
        for (&video, seen) in &mut self.videos {
            if complete && seen.was_deleted() {
                sum.deleted += u32::from(forget(store, video, now).await?);
                continue;
            }
            let Some(latest) = seen.latest() else {
                continue;
            };
            if seen.imported == Some(latest) {
                continue;
            }
            match import_latest(store, key, &storage, video, seen, now).await? {
                Some((found, imported)) => {
                    seen.imported = Some(found);
                    sum.videos += u32::from(imported.new_video);
                    sum.chunks += imported.chunks;
                }
                None => warn!(%video, "no catalogue object of a video can be read, it is tried again"),
            }
        }
        Ok(sum)
    }
}

/// The video is known here and was deleted meanwhile.
async fn forget(store: &dyn MetaStore, video: VideoId, now: UnixMillis) -> Result<bool, MetaError> {
    match store.video(video).await? {
        Some(known) if known.video.status != VideoStatus::Deleted => {
            store.apply_one(Cmd::DeleteVideo { video, now }).await?;
            info!(%video, "the nodes say that a video was deleted");
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The latest object that can be read and is this cluster's.
async fn import_latest(
    store: &dyn MetaStore,
    key: &DerivedKey,
    storage: &impl Fn(NodeId) -> Option<StorageClient>,
    video: VideoId,
    seen: &Seen,
    now: UnixMillis,
) -> Result<Option<((u32, Ballot), vstack_meta::Imported)>, MetaError> {
    for (&(seq, ballot), holders) in seen.objects.iter().rev() {
        let Ok(chunk) = ChunkId::new(video, ChunkKind::Catalogue, 0, seq) else {
            continue;
        };
        for client in holders.iter().filter_map(|node| storage(*node)) {
            let Some(object) = read_object(&client, key, chunk, ballot).await else {
                continue;
            };
            let object = Box::new(object);
            let reply = store.apply_one(Cmd::Import { object, seq, now }).await?;
            return Ok(reply.imported().map(|imported| ((seq, ballot), imported)));
        }
    }
    Ok(None)
}

async fn read_object(
    client: &StorageClient,
    key: &DerivedKey,
    chunk: ChunkId,
    ballot: Ballot,
) -> Option<vstack_meta::CatalogueObject> {
    let read = async {
        let answer = client.get(chunk, Some(ballot), None, READ_WITHIN).await.ok()?;
        answer.bytes(MAX_CHUNK_BYTES).await.ok()
    };
    let bytes = tokio::time::timeout(READ_WITHIN, read).await.ok()??;
    let object = unsealed(key, chunk, &bytes);
    if object.is_none() {
        warn!(%chunk, %ballot, "a catalogue object is not what this cluster wrote");
    }
    object
}

/// Works until the catalogue knows all there is, or the role stops.
pub(super) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let mut catch_up = CatchUp::default();
    loop {
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = round(&metadata, &mut catch_up) => done,
        };
        match done {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => debug!(%error, "catching up is tried again"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// `true` when nothing is left to do.
async fn round(metadata: &Metadata, catch_up: &mut CatchUp) -> Result<bool, MetaError> {
    let store = metadata.store.as_ref();
    let behind = store.behind().await?;
    if behind == Behind::No {
        return Ok(true);
    }
    let nodes = store.nodes().await?;
    if !all_have_told(metadata, &nodes) {
        return Ok(false);
    }
    if behind == Behind::Generations {
        store.apply_one(Cmd::CaughtUp { to: Behind::Ballots }).await?;
        return Ok(false);
    }
    for node in &nodes {
        let answers = node.health(metadata.now()) != NodeHealth::Down;
        if let Some(url) = node.known_url().filter(|_| answers && node.is_member())
            && !catch_up.read.contains(&node.node)
            && let Err(reason) = catch_up.read_node(&metadata.storage(url)).await
        {
            debug!(%url, reason, "a node's inventory cannot be read yet");
        }
    }
    let complete = catch_up.is_complete(&nodes);
    let storage = |node: NodeId| {
        let known = nodes.iter().find(|known| known.node == node)?;
        known.known_url().map(|url| metadata.storage(url))
    };
    let key = metadata.key.grant_key();
    // Deletions need a ballot each, so ballots come first.
    if behind == Behind::Ballots {
        if !most_have_noted(metadata, &nodes) {
            return Ok(false);
        }
        let to = Behind::Objects;
        let sum = catch_up
            .learn(store, &key, storage, false, metadata.now())
            .await?;
        info!(
            ?sum,
            "the catalogue learned from its nodes and grants ballots again"
        );
        store.apply_one(Cmd::CaughtUp { to }).await?;
        return Ok(false);
    }
    let sum = catch_up
        .learn(store, &key, storage, complete, metadata.now())
        .await?;
    // An import may have named nodes that were not known.
    if !complete || !catch_up.is_complete(&store.nodes().await?) {
        return Ok(false);
    }
    store.apply_one(Cmd::CaughtUp { to: Behind::No }).await?;
    info!(
        ?sum,
        nodes = catch_up.read.len(),
        "the catalogue has caught up with its nodes"
    );
    Ok(true)
}

/// Whether every node has told this life of the catalogue what it has seen, or is down, and most have told.
fn all_have_told(metadata: &Metadata, nodes: &[NodeRecord]) -> bool {
    let running_ms = metadata.running_for_ms();
    let members = nodes.iter().filter(|node| node.is_member()).count();
    let heard = |node: &&NodeRecord| node.is_member() && node.last_heartbeat >= metadata.started;
    let heard = nodes.iter().filter(heard).count();
    // A rebuilt catalogue knows no nodes at first; all that live report within two heartbeats.
    (running_ms >= NODE_DOWN_AFTER_MS && is_most(heard, members))
        || (running_ms >= NODE_DEGRADED_AFTER_MS && heard == members && !nodes.is_empty())
}

/// Whether most nodes have written down the generation that this life announced.
fn most_have_noted(metadata: &Metadata, nodes: &[NodeRecord]) -> bool {
    let members: Vec<NodeId> = nodes
        .iter()
        .filter(|node| node.is_member())
        .map(|node| node.node)
        .collect();
    is_most(
        metadata.announced.known_by(members.iter().copied()),
        members.len(),
    )
}

/// Any two such sets have a node in common. Without nodes nothing can be granted.
const fn is_most(some: usize, of: usize) -> bool {
    of == 0 || 2 * some > of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(objects: &[u32], ended: Option<u32>, has_bytes: bool, has_tombstones: bool) -> Seen {
        let held = |&seq: &u32| ((seq, Ballot::from_number(9)), BTreeSet::new());
        Seen {
            objects: objects.iter().map(held).collect(),
            ended,
            has_bytes,
            has_tombstones,
            imported: None,
        }
    }

    #[test]
    fn only_the_remains_of_a_deletion_count_as_one() {
        for (what, video, deleted) in [
            ("a healthy one", seen(&[3], Some(2), true, false), false),
            ("one being uploaded", seen(&[], None, true, true), false),
            ("one that was repaired", seen(&[3], Some(2), true, true), false),
            (
                "one whose objects were lost",
                seen(&[], Some(2), true, true),
                false,
            ),
            (
                "one whose last object was lost",
                seen(&[1], Some(2), true, false),
                false,
            ),
            ("a deleted one", seen(&[], Some(3), false, true), true),
            (
                "a deleted one that a node slept through",
                seen(&[3], Some(3), true, true),
                true,
            ),
            ("one that never had an object", seen(&[], None, false, true), true),
            (
                "one of which nothing is known",
                seen(&[], None, false, false),
                false,
            ),
        ] {
            assert_eq!(video.was_deleted(), deleted, "{what}");
        }
    }
}
