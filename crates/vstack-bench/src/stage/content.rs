//! A video of random chunks, and its pages in a catalogue.

use anyhow::Result;
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
    Container, FragmentSpan, Manifest, ManifestChunk, ManifestPart, ManifestPlacement, ManifestShard,
    Redundancy, VideoStatus,
};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::node_name::numbered;
use vstack_erasure::{DATA_SHARDS, PARITY_SHARDS, Shards, encode};

/// Chunks, by sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) video: VideoId,
    pub(crate) chunks: Vec<(ChunkId, Bytes)>,
    pub(crate) chunk_ms: u64,
    /// Players take a chunk in pieces of this size; `None`: each as a whole.
    fragment_bytes: Option<usize>,
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
            fragment_bytes: None,
        }
    }

    /// The same as our ingest makes it: a player may begin with the first fragments of a chunk.
    pub(crate) fn in_fragments(self, fragment_bytes: usize) -> Self {
        Self {
            fragment_bytes: Some(fragment_bytes),
            ..self
        }
    }

    /// The first so many chunks.
    pub(crate) fn first(&self, count: u32) -> Self {
        Self {
            chunks: self.chunks.iter().take(count as usize).cloned().collect(),
            ..self.clone()
        }
    }

    /// The manifest, with each chunk on the holders that `holders_of` names.
    pub(crate) fn manifest(&self, holders: &[Holder], holders_of: impl Fn(u32) -> Vec<usize>) -> Manifest {
        self.manifest_of(holders, holders_of, |(id, bytes), holders| {
            self.copies(*id, bytes, holders)
        })
    }

    /// The same for shards: the holders that `holders_of` names have one each, in order.
    ///
    /// # Errors
    /// This processor cannot code.
    pub(crate) fn coded_manifest(
        &self,
        holders: &[Holder],
        holders_of: impl Fn(u32) -> Vec<usize>,
    ) -> Result<Manifest> {
        let shards: Vec<Shards> = self
            .chunks
            .iter()
            .map(|(_, bytes)| encode(bytes))
            .collect::<Result<_, _>>()?;
        Ok(self.manifest_of(holders, holders_of, |(id, bytes), holders| {
            self.coded(*id, bytes, &shards[id.seq() as usize], holders)
        }))
    }

    fn manifest_of(
        &self,
        holders: &[Holder],
        holders_of: impl Fn(u32) -> Vec<usize>,
        entry: impl Fn(&(ChunkId, Bytes), &[&Holder]) -> ManifestChunk,
    ) -> Manifest {
        let chunks: Vec<ManifestChunk> = self
            .chunks
            .iter()
            .map(|chunk| {
                let named = holders_of(chunk.0.seq());
                let named: Vec<&Holder> = named.iter().filter_map(|index| holders.get(*index)).collect();
                entry(chunk, &named)
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
            container: match self.fragment_bytes {
                Some(_) => Container::Fmp4,
                None => Container::Mp4Segments,
            },
            codecs: String::new(),
            tracks: Vec::new(),
            init: None,
            chunks,
            poster: None,
            storyboard: Vec::new(),
            subtitles: Vec::new(),
        }
    }

    fn copies(&self, id: ChunkId, bytes: &Bytes, holders: &[&Holder]) -> ManifestChunk {
        let digest = ChunkDigest::of(bytes);
        let parts = holders.iter().map(|holder| part(holder, None, digest));
        self.chunk(id, digest, Redundancy::Replicated, parts.collect())
    }

    fn coded(&self, id: ChunkId, bytes: &Bytes, shards: &Shards, holders: &[&Holder]) -> ManifestChunk {
        let placed = (0_u8..).zip(shards).zip(holders);
        let parts: Vec<ManifestPart> = placed
            .map(|((index, shard), holder)| part(holder, Some(index), ChunkDigest::of(shard)))
            .collect();
        let plainly = |part: &ManifestPart| ManifestShard {
            index: part.shard.unwrap_or_default(),
            node_url: part.node_url.clone(),
            checksum: part.checksum,
        };
        let redundancy = Redundancy::Erasure {
            data_shards: u8::try_from(DATA_SHARDS).unwrap_or_default(),
            parity_shards: u8::try_from(PARITY_SHARDS).unwrap_or_default(),
            shards: parts.iter().map(plainly).collect(),
        };
        self.chunk(id, ChunkDigest::of(bytes), redundancy, parts)
    }

    fn chunk(
        &self,
        id: ChunkId,
        digest: ChunkDigest,
        redundancy: Redundancy,
        parts: Vec<ManifestPart>,
    ) -> ManifestChunk {
        ManifestChunk {
            chunk_id: id,
            sequence_num: id.seq(),
            size_bytes: digest.size_bytes,
            checksum: digest.sha256,
            leaf_root: digest.leaf_root,
            replicas: match redundancy {
                Redundancy::Replicated => parts.iter().map(|part| part.node_url.clone()).collect(),
                Redundancy::Erasure { .. } => Vec::new(),
            },
            redundancy,
            placement: ManifestPlacement {
                epoch: plain_ballot(),
                parts,
            },
            start_sec: f64::from(id.seq()) * self.chunk_ms as f64 / 1e3,
            duration_sec: self.chunk_ms as f64 / 1e3,
            keyframes_ms: Vec::new(),
            fragments: self.fragments(id.seq(), digest.size_bytes),
        }
    }

    /// Of equal size, but for the last one.
    fn fragments(&self, seq: u32, chunk_bytes: u64) -> Vec<FragmentSpan> {
        let (Some(step), Ok(whole)) = (self.fragment_bytes, u32::try_from(chunk_bytes)) else {
            return Vec::new();
        };
        let span = |offset: u32| FragmentSpan {
            offset,
            size: (whole - offset).min(u32::try_from(step).unwrap_or(u32::MAX)),
            start_ms: u64::from(seq) * self.chunk_ms
                + self.chunk_ms * u64::from(offset) / u64::from(whole.max(1)),
        };
        (0..whole).step_by(step.max(1)).map(span).collect()
    }
}

/// What a plain PUT stores, and what nginx answers whatever is asked for.
fn plain_ballot() -> Ballot {
    Ballot::from_number(0)
}

fn part(holder: &Holder, shard: Option<u8>, digest: ChunkDigest) -> ManifestPart {
    ManifestPart {
        node_id: holder.node_id,
        node_url: holder.url.clone(),
        ballot: plain_ballot(),
        shard,
        checksum: digest.sha256,
        leaf_root: digest.leaf_root,
    }
}

impl Holder {
    /// `node-1` is the first.
    pub(crate) fn entry(&self, number: u64) -> NodeEntry {
        NodeEntry {
            node_id: self.node_id,
            name: Some(numbered(number)),
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
