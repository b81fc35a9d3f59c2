//! One video: its bytes, which a pattern makes, and its manifest.

use axum::body::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::manifest::{
    Container, FragmentSpan, InitSegment, Manifest, ManifestChunk, ManifestPart, ManifestPlacement,
    Redundancy, VideoStatus,
};

/// The ballot of all placements here.
pub(super) const BALLOT: u64 = (1 << 40) + 7;
pub(crate) const CHUNK_MS: u64 = 4_000;

/// What the video is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footage {
    pub(crate) chunks: u32,
    /// Of the first chunk; each later one has a thousand more, so that no two are alike.
    pub(crate) chunk_bytes: usize,
    /// That the manifest names of each chunk, of equal length.
    pub(crate) fragments: u32,
}

impl Footage {
    /// Chunks of three blocks that are taken whole.
    pub(crate) const fn small(chunks: u32) -> Self {
        Self {
            chunks,
            chunk_bytes: 150_000,
            fragments: 0,
        }
    }
}

pub(super) fn fragments(seq: u32, size: usize, count: u32) -> Vec<FragmentSpan> {
    let at = |index: u32| u32::try_from(size * index as usize / count as usize).expect("a small chunk");
    (0..count)
        .map(|index| FragmentSpan {
            offset: at(index),
            size: at(index + 1) - at(index),
            start_ms: u64::from(seq) * CHUNK_MS + CHUNK_MS * u64::from(index) / u64::from(count),
        })
        .collect()
}

pub(super) fn pattern(id: ChunkId, size: usize) -> Bytes {
    let key = id.seq() as usize * 131 + id.kind() as usize * 17;
    (0..size)
        .map(|index| u8::try_from((index * 31 + key) % 251).expect("below 251"))
        .collect()
}

pub(super) fn manifest_chunk(id: ChunkId, bytes: &Bytes, parts: Vec<(NodeId, String)>) -> ManifestChunk {
    let digest = ChunkDigest::of(bytes);
    let media = id.kind() == ChunkKind::Media;
    let part = |(node_id, node_url): (NodeId, String)| ManifestPart {
        node_id,
        node_url,
        ballot: Ballot::from_number(BALLOT),
        shard: None,
        checksum: digest.sha256,
        leaf_root: digest.leaf_root,
    };
    ManifestChunk {
        chunk_id: id,
        sequence_num: id.seq(),
        size_bytes: digest.size_bytes,
        checksum: digest.sha256,
        leaf_root: digest.leaf_root,
        replicas: parts.iter().map(|(_, url)| url.clone()).collect(),
        redundancy: Redundancy::Replicated,
        placement: ManifestPlacement {
            epoch: Ballot::from_number(BALLOT),
            parts: parts.into_iter().map(part).collect(),
        },
        start_sec: f64::from(id.seq()) * CHUNK_MS as f64 / 1_000.0,
        duration_sec: if media { CHUNK_MS as f64 / 1_000.0 } else { 0.0 },
        keyframes_ms: Vec::new(),
        fragments: Vec::new(),
    }
}

pub(super) fn manifest(
    video: VideoId,
    init: InitSegment,
    poster: ManifestChunk,
    chunks: Vec<ManifestChunk>,
) -> Manifest {
    Manifest {
        video_id: video,
        title: "Bars".to_owned(),
        duration_sec: chunks.len() as f64 * CHUNK_MS as f64 / 1_000.0,
        total_chunks: u32::try_from(chunks.len()).expect("few"),
        chunk_duration_sec: 10.0,
        chunk_size_bytes: 2 << 20,
        created_at: "2025-01-01T00:00:00Z".to_owned(),
        status: VideoStatus::Active,
        container: Container::Fmp4,
        codecs: String::new(),
        tracks: Vec::new(),
        init: Some(init),
        chunks,
        poster: Some(poster),
        storyboard: Vec::new(),
        subtitles: Vec::new(),
    }
}
