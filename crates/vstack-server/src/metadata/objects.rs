//! Catalogue objects: what the catalogue knows of a video, written to the storage nodes like any chunk.
//!
//! A video is written as soon as it is active, and again at most once a minute while its placements change. Should the
//! catalogue be lost, it is rebuilt from them. They carry the cluster's signature: what a node offers as one is believed
//! for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, ChunkKind, VideoId};
use vstack_core::keys::{Canonical, DerivedKey, Mac};
use vstack_core::limits::{CATALOGUE_OBJECT_PERIOD_MS, REPLICA_MIN_ACK};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::{Conflict, Value, Witness};
use vstack_core::placement::Placement;
use vstack_core::time::UnixMillis;
use vstack_meta::{Behind, CatalogueObject, Cmd, CommitChunk, MetaError, OpenChunk, OpenedChunk, Unsaved};

use super::consensus::grant;
use super::placement::Choice;
use super::state::Metadata;

/// How often it looks for something to write.
const LOOK: Duration = Duration::from_secs(1);
/// Videos of one look.
const BATCH: usize = 8;
/// Until a video that could not be written is tried again. Mostly nodes were silent for a moment, after a restart say.
const RETRY_MS: u64 = 5_000;
/// Owner of the ballots.
const OWNER: &str = "catalogue objects";

/// Works until the role stops.
pub(super) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut not_before: BTreeMap<VideoId, UnixMillis> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = look(&metadata, &mut not_before) => {}
        }
    }
}

async fn look(metadata: &Metadata, not_before: &mut BTreeMap<VideoId, UnixMillis>) {
    if !matches!(metadata.store.behind().await, Ok(Behind::No | Behind::Objects)) {
        return;
    }
    let now = metadata.now();
    not_before.retain(|_, time| *time > now);
    let before = UnixMillis(now.0.saturating_sub(CATALOGUE_OBJECT_PERIOD_MS));
    let waiting = match metadata.store.unsaved(before, BATCH + not_before.len()).await {
        Ok(waiting) => waiting,
        Err(error) => {
            debug!(%error, "it cannot be seen which videos are to be written to the nodes");
            return;
        }
    };
    for unsaved in waiting {
        let video = unsaved.source.video.video;
        if not_before.contains_key(&video) {
            continue;
        }
        if let Err(reason) = save(metadata, &unsaved).await {
            debug!(%video, reason, "a video's catalogue object was not written, it is tried again");
            not_before.insert(video, now + RETRY_MS);
        }
    }
}

/// Writes one object and ends the ones before it.
async fn save(metadata: &Metadata, unsaved: &Unsaved) -> Result<(), String> {
    let video = &unsaved.source.video;
    let object = CatalogueObject::of(&unsaved.source);
    let seq = video.catalogue_seq + 1;
    let chunk = ChunkId::new(video.video, ChunkKind::Catalogue, 0, seq).map_err(|error| error.to_string())?;
    let bytes = object.to_bytes().map_err(|error| error.to_string())?;
    let bytes = sealed(&metadata.key.grant_key(), chunk, &bytes);
    let changes = match store(metadata, chunk, bytes).await? {
        Stored::Now => unsaved.changes,
        // By an earlier life of the role that did not come to note it; what it holds is older.
        Stored::Before => 0,
    };
    let saved = Cmd::CatalogueSaved {
        chunk,
        unsaved: changes,
        now: metadata.now(),
    };
    metadata
        .apply(saved)
        .await
        .map_err(|refusal| refusal.0.to_string())?;
    Ok(())
}

enum Stored {
    Now,
    Before,
}

async fn store(metadata: &Metadata, chunk: ChunkId, bytes: Bytes) -> Result<Stored, String> {
    let nodes = metadata.nodes().await.map_err(|refusal| refusal.0.to_string())?;
    let choice = Choice::of(metadata, &nodes);
    let chosen = choice.choose(chunk, &BTreeSet::new(), REPLICA_MIN_ACK);
    let open = OpenChunk {
        chunk,
        kind: OpenKind::Upload,
        owner: OWNER.to_owned(),
        expect_epoch: None,
        nodes: chosen.map_err(|problem| problem.to_string())?,
        min_ack: u8::try_from(REPLICA_MIN_ACK).unwrap_or(u8::MAX),
        now: metadata.now(),
    };
    let opened = match metadata.store.apply_one(Cmd::Open(open.clone())).await {
        Ok(reply) => reply.opened().ok_or("the catalogue answered another question")?,
        Err(MetaError::Conflict(Conflict::AlreadyCommitted { .. })) => return Ok(Stored::Before),
        Err(error) => return Err(error.to_string()),
    };
    let urls = nodes.iter().filter(|node| open.nodes.contains(&node.node));
    let puts = urls.map(|node| put(metadata, &node.url, &open, &opened, bytes.clone()));
    let witnesses: Vec<Witness> = join_all(puts).await.into_iter().flatten().collect();
    let digest = witnesses.first().map(|witness| witness.receipt().digest);
    let digest = digest.ok_or("no node took it")?;
    let holders: Vec<_> = witnesses.iter().map(|witness| witness.receipt().node).collect();
    let commit = CommitChunk {
        chunk,
        ballot: opened.ballot,
        value: Value::Placed(Placement::replicated(digest, opened.ballot, &holders)),
        witnesses,
        media: None,
        plain_nodes: Vec::new(),
        now: metadata.now(),
    };
    let committed = metadata.store.apply_one(Cmd::Commit(Box::new(commit))).await;
    committed.map(|_| Stored::Now).map_err(|error| error.to_string())
}

async fn put(
    metadata: &Metadata,
    url: &str,
    open: &OpenChunk,
    opened: &OpenedChunk,
    bytes: Bytes,
) -> Option<Witness> {
    let grant = grant(metadata, open, opened);
    match metadata.storage(url).put(&grant, open.chunk, bytes).await {
        Ok(answer) => Witness::check(answer.receipt?, &metadata.key).ok(),
        Err(error) => {
            debug!(%url, %error, "a node did not take a catalogue object");
            None
        }
    }
}

fn message(chunk: ChunkId, json: &[u8]) -> Canonical {
    Canonical::new("vstack.catalogue-object.1")
        .chunk(chunk)
        .bytes(json)
}

/// The stored form: the signature as a line of hex digits, and the object.
fn sealed(key: &DerivedKey, chunk: ChunkId, json: &[u8]) -> Bytes {
    let Mac(mac) = key.sign(&message(chunk, json));
    let mut bytes = format!("{mac}\n").into_bytes();
    bytes.extend_from_slice(json);
    bytes.into()
}

/// Reads the stored form of an object of this cluster; `None` for anything else.
pub(super) fn unsealed(key: &DerivedKey, chunk: ChunkId, bytes: &[u8]) -> Option<CatalogueObject> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (mac, json) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let mac: Sha256Digest = std::str::from_utf8(mac).ok()?.parse().ok()?;
    if !key.verifies(&message(chunk, json), &Mac(mac)) {
        return None;
    }
    CatalogueObject::from_bytes(chunk, json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::keys::ClusterKey;

    #[test]
    fn only_this_clusters_signature_over_this_objects_bytes_counts() {
        let key = |byte| ClusterKey::from_bytes(&[byte; 32]).unwrap().grant_key();
        let id = |seq| ChunkId::new(VideoId(Uuid::nil()), ChunkKind::Catalogue, 0, seq).unwrap();
        let json = br#"{"not":"an object"}"#;
        let bytes = sealed(&key(1), id(1), json);
        let verifies = |key: &DerivedKey, chunk, bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let mac: Sha256Digest = std::str::from_utf8(&bytes[..end]).unwrap().parse().unwrap();
            key.verifies(&message(chunk, &bytes[end + 1..]), &Mac(mac))
        };
        assert!(verifies(&key(1), id(1), &bytes));
        assert!(!verifies(&key(2), id(1), &bytes), "another cluster's");
        assert!(!verifies(&key(1), id(2), &bytes), "another object's");
        assert!(
            unsealed(&key(1), id(1), &bytes).is_none(),
            "signed, and yet no object"
        );
        assert!(unsealed(&key(1), id(1), b"").is_none());
    }
}
