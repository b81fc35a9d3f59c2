//! A video of random chunks, and its pages in a catalogue.

use bytes::Bytes;
use rand::RngCore as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use uuid::Uuid;
use vstack_api::wire::NodeEntry;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::manifest::{
    Container, Manifest, ManifestChunk, ManifestPart, ManifestPlacement, Redundancy, VideoStatus,
};
use vstack_core::node::{NodeHealth, NodeState};

/// Chunks, by sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) video: VideoId,
    pub(crate) chunks: Vec<(ChunkId, Bytes)>,
    pub(crate) chunk_ms: u64,
}

/// A node that holds chunks, as clients are told.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) node_id: NodeId,
    pub(crate) url: String,
}

impl Content {
    /// Bytes that nothing makes smaller, the same for the same seed.
    pub(crate) fn random(count: u32, chunk_bytes: usize, chunk_ms: u64, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let video = VideoId(Uuid::from_u128(u128::from(seed) | 1 << 127));
        let chunks = (0..count).map(|seq| {
            let mut bytes = vec![0; chunk_bytes];
            random.fill_bytes(&mut bytes);
            (ChunkId::media(video, seq), Bytes::from(bytes))
        });
        Self {
            video,
            chunks: chunks.collect(),
            chunk_ms,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The manifest, with each chunk on the holders that `holders_of` names.
    pub(crate) fn manifest(&self, holders: &[Holder], holders_of: impl Fn(u32) -> Vec<usize>) -> Manifest {
        let chunks: Vec<ManifestChunk> = self
            .chunks
            .iter()
            .map(|(id, bytes)| {
                let named = holders_of(id.seq());
                let named: Vec<&Holder> = named.iter().filter_map(|index| holders.get(*index)).collect();
                self.chunk(*id, bytes, &named)
            })
            .collect();
        Manifest {
            video_id: self.video,
            title: "Noise".to_owned(),
            duration_sec: chunks.len() as f64 * self.chunk_ms as f64 / 1e3,
            total_chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
            chunk_duration_sec: self.chunk_ms as f64 / 1e3,
            chunk_size_bytes: self.chunks.first().map_or(0, |(_, bytes)| bytes.len() as u64),
            created_at: "2025-01-01T00:00:00Z".to_owned(),
            status: VideoStatus::Active,
            container: Container::Mp4Segments,
            codecs: String::new(),
            tracks: Vec::new(),
            init: None,
            chunks,
            poster: None,
            storyboard: Vec::new(),
            subtitles: Vec::new(),
        }
    }

    fn chunk(&self, id: ChunkId, bytes: &Bytes, holders: &[&Holder]) -> ManifestChunk {
        // What a plain PUT stores, and what nginx answers whatever is asked for.
        let ballot = Ballot::from_number(0);
        let digest = ChunkDigest::of(bytes);
        let part = |holder: &&Holder| ManifestPart {
            node_id: holder.node_id,
            node_url: holder.url.clone(),
            ballot,
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
            replicas: holders.iter().map(|holder| holder.url.clone()).collect(),
            redundancy: Redundancy::Replicated,
            placement: ManifestPlacement {
                epoch: ballot,
                parts: holders.iter().map(part).collect(),
            },
            start_sec: f64::from(id.seq()) * self.chunk_ms as f64 / 1e3,
            duration_sec: self.chunk_ms as f64 / 1e3,
            keyframes_ms: Vec::new(),
            fragments: Vec::new(),
        }
    }
}

impl Holder {
    pub(crate) fn entry(&self) -> NodeEntry {
        NodeEntry {
            node_id: self.node_id,
            node_url: self.url.clone(),
            disk_usage: 1.0,
            last_seen: "2025-01-01T00:00:00Z".to_owned(),
            silent_ms: 0,
            chunk_count: 0,
            status: NodeHealth::Healthy,
            state: NodeState::Active,
            read_only: false,
            incarnation: Incarnation(Uuid::nil()),
            boot_epoch: 1,
            version: String::new(),
            capacity_bytes: 0,
            quarantined: false,
            rack: None,
        }
    }
}
