//! The manifest, made from what is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::Bytes;
use tracing::warn;
use vstack_api::ErrorCode;
use vstack_api::wire::Service;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkKind, NodeId, VideoId};
use vstack_core::limits::{CHUNK_NOMINAL_BYTES, CHUNK_TARGET_MS};
use vstack_core::manifest::{
    InitSegment, Manifest, ManifestChunk, ManifestPart, ManifestPlacement, Redundancy, ms_to_seconds,
};
use vstack_core::node::NodeHealth;
use vstack_core::placement::Scheme;
use vstack_core::time::UnixMillis;
use vstack_meta::{ChunkRecord, Cmd, ManifestSource, NodeRecord};

use super::fetch::chunk_bytes;
use super::input::VideoPath;
use super::manifests::Surroundings;
use super::problem::refusal;
use super::state::Metadata;
use super::videos::rfc3339;
use crate::http::{Answer, refuse};

/// Data and parity shards of the erasure scheme.
const ERASURE_SHARDS: (u8, u8) = (3, 2);

pub(super) async fn show(
    State(metadata): State<Arc<Metadata>>,
    VideoPath(video): VideoPath,
) -> Answer<Response> {
    let nodes = metadata.nodes().await?;
    let gateway = metadata.alive(Service::Gateway).into_iter().next();
    let now = metadata.now();
    let version = metadata.store.version(video);
    let manifests = &metadata.manifests;
    let key = manifests.key(video, version, Surroundings::new(&nodes, gateway.clone(), now));
    let made = manifests.get(&key, async {
        let mut source = source(&metadata, video).await?;
        ensure_init(&metadata, &mut source).await?;
        encode(&build(&source, gateway, now))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], made.await?).into_response())
}

fn encode(manifest: &Manifest) -> Answer<Bytes> {
    let json = serde_json::to_vec(manifest);
    json.map(Bytes::from)
        .map_err(|error| refuse(ErrorCode::Internal, error.to_string()))
}

pub(super) async fn source(metadata: &Metadata, video: VideoId) -> Answer<ManifestSource> {
    let source = metadata.store.manifest_source(video).await.map_err(refusal)?;
    source.ok_or_else(|| refuse(ErrorCode::VideoNotFound, format!("there is no video {video}")))
}

/// Brings the bytes of a committed init segment into the source. The catalogue keeps them after the first time, so that
/// a manifest needs no storage node.
pub(super) async fn ensure_init(metadata: &Metadata, source: &mut ManifestSource) -> Answer<()> {
    let Some(init) = init_of(source) else {
        source.init_data = None;
        return Ok(());
    };
    let sha256 = init.placement.digest.sha256;
    if source
        .init_data
        .as_deref()
        .is_some_and(|data| Sha256Digest::of(data) == sha256)
    {
        return Ok(());
    }
    let bytes = chunk_bytes(metadata, init, &source.nodes).await?;
    let data = bytes.to_vec();
    source.init_data = Some(data.clone());
    if let Err(refusal) = metadata
        .apply(Cmd::StoreInit {
            video: source.video.video,
            data,
        })
        .await
    {
        warn!(video = %source.video.video, problem = %refusal.0, "the init segment was not kept, it is read again");
    }
    Ok(())
}

/// The main track's init segment.
pub(super) fn init_of(source: &ManifestSource) -> Option<&ChunkRecord> {
    of_kind(source, ChunkKind::Init).next()
}

/// Chunks of one kind in the main track, by number. Subtitles count from track 1.
pub(super) fn of_kind(source: &ManifestSource, kind: ChunkKind) -> impl Iterator<Item = &ChunkRecord> {
    let main = move |chunk: &&ChunkRecord| {
        chunk.chunk.kind() == kind && (chunk.chunk.track() == 0 || kind == ChunkKind::Subtitle)
    };
    source.chunks.iter().filter(main)
}

fn build(source: &ManifestSource, gateway: Option<String>, now: UnixMillis) -> Manifest {
    let video = &source.video;
    let make = Maker {
        nodes: &source.nodes,
        gateway,
        now,
    };
    let all = |kind| {
        of_kind(source, kind)
            .map(|chunk| make.chunk(chunk))
            .collect::<Vec<_>>()
    };
    let chunks = all(ChunkKind::Media);
    let init = init_of(source)
        .zip(source.init_data.as_ref())
        .map(|(chunk, data)| InitSegment {
            chunk: make.chunk(chunk),
            data_base64: base64::engine::general_purpose::STANDARD.encode(data),
        });
    Manifest {
        video_id: video.video,
        title: video.title.clone(),
        duration_sec: video.duration_sec,
        total_chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
        chunk_duration_sec: ms_to_seconds(CHUNK_TARGET_MS),
        chunk_size_bytes: CHUNK_NOMINAL_BYTES,
        created_at: rfc3339(video.created_at),
        status: video.status,
        container: video.container,
        codecs: video.codecs.clone(),
        tracks: video.tracks.clone(),
        init,
        chunks,
        poster: all(ChunkKind::Poster).into_iter().next(),
        storyboard: all(ChunkKind::Storyboard),
        subtitles: all(ChunkKind::Subtitle),
    }
}

struct Maker<'a> {
    nodes: &'a BTreeMap<NodeId, NodeRecord>,
    /// Reassembles erasure-coded chunks for plain readers.
    gateway: Option<String>,
    now: UnixMillis,
}

impl Maker<'_> {
    fn chunk(&self, chunk: &ChunkRecord) -> ManifestChunk {
        let digest = &chunk.placement.digest;
        let parts = self.parts(chunk);
        ManifestChunk {
            chunk_id: chunk.chunk,
            sequence_num: chunk.chunk.seq(),
            size_bytes: digest.size_bytes,
            checksum: digest.sha256,
            leaf_root: digest.leaf_root,
            replicas: match chunk.placement.scheme {
                Scheme::Replicated => parts.iter().map(|part| part.node_url.clone()).collect(),
                Scheme::Erasure => self.gateway.iter().cloned().collect(),
            },
            redundancy: redundancy(chunk.placement.scheme, &parts),
            placement: ManifestPlacement {
                epoch: chunk.epoch,
                parts,
            },
            start_sec: ms_to_seconds(chunk.media.start_ms),
            duration_sec: ms_to_seconds(chunk.media.duration_ms),
            keyframes_ms: chunk.media.keyframes_ms.clone(),
            fragments: chunk.media.fragments.clone(),
        }
    }

    /// Live parts with an address, those on healthy nodes first: a plain client takes the first URL.
    fn parts(&self, chunk: &ChunkRecord) -> Vec<ManifestPart> {
        let live = chunk
            .placement
            .parts
            .iter()
            .filter(|part| !chunk.lost.contains(&part.node));
        let mut parts: Vec<(NodeHealth, ManifestPart)> = live
            .filter_map(|part| {
                let node = self.nodes.get(&part.node)?;
                let made = ManifestPart {
                    node_id: part.node,
                    node_url: node.known_url()?.to_owned(),
                    ballot: part.object_ballot,
                    shard: part.shard,
                    checksum: part.sha256,
                    leaf_root: part.leaf_root,
                };
                Some((node.health(self.now), made))
            })
            .collect();
        parts.sort_by_key(|(health, _)| *health);
        parts.into_iter().map(|(_, part)| part).collect()
    }
}

fn redundancy(scheme: Scheme, parts: &[ManifestPart]) -> Redundancy {
    let (data_shards, parity_shards) = ERASURE_SHARDS;
    match scheme {
        Scheme::Replicated => Redundancy::Replicated,
        Scheme::Erasure => Redundancy::coded(data_shards, parity_shards, parts),
    }
}
