//! From a manifest to what the policy and the fetcher need: a time line, and where each chunk's bytes are.
//!
//! A chunk is read from one of its full copies, or from any three of its shards; the policy sees nodes either way.

use base64::Engine as _;
use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;
use vstack_core::manifest::{InitSegment, Manifest, ManifestChunk, Redundancy};
use vstack_erasure::Layout;

use crate::error::ClientError;
use crate::node::NodeTable;
use crate::policy::{ChunkSpec, Micros, NodeIndex, Part, Shape};

/// Shards that an erasure-coded chunk is decoded from.
const SHARDS_NEEDED: u8 = 3;
const _: () = assert!(SHARDS_NEEDED as usize == vstack_erasure::DATA_SHARDS);

/// One object that a chunk is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourcePart {
    pub(crate) node: NodeIndex,
    pub(crate) ballot: Ballot,
    /// `None`: a full copy.
    pub(crate) shard: Option<u8>,
    /// Of this object.
    pub(crate) sha256: Sha256Digest,
    /// Of this object.
    pub(crate) leaf_root: Sha256Digest,
}

/// A chunk's identity, and where it is: full copies, or shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) chunk_id: ChunkId,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: Sha256Digest,
    /// Each node once; all of one kind.
    pub(crate) parts: Vec<SourcePart>,
}

impl Source {
    /// # Errors
    /// The chunk is larger than any chunk may be; reading it could fill the memory.
    pub(crate) fn of(chunk: &ManifestChunk, nodes: &mut NodeTable) -> Result<Self, ClientError> {
        if chunk.size_bytes > MAX_CHUNK_BYTES {
            let reason = format!(
                "{} is said to have {} bytes, over the limit",
                chunk.chunk_id, chunk.size_bytes
            );
            return Err(ClientError::BadManifest { reason });
        }
        let coded = chunk.redundancy != Redundancy::Replicated;
        let mut parts: Vec<SourcePart> = Vec::new();
        for part in &chunk.placement.parts {
            if let Some(node) = nodes.register(part.node_id, &part.node_url)
                && part.shard.is_some() == coded
                && parts.iter().all(|known| known.node != node)
            {
                parts.push(SourcePart {
                    node,
                    ballot: part.ballot,
                    shard: part.shard,
                    sha256: part.checksum,
                    leaf_root: part.leaf_root,
                });
            }
        }
        Ok(Self {
            chunk_id: chunk.chunk_id,
            size_bytes: chunk.size_bytes,
            sha256: chunk.checksum,
            parts,
        })
    }

    /// Whether it is read from shards.
    pub(crate) fn is_coded(&self) -> bool {
        self.parts.first().is_some_and(|part| part.shard.is_some())
    }

    /// The name under which a node has `part` of it.
    pub(crate) fn object_id(&self, part: &SourcePart) -> Option<ChunkId> {
        match part.shard {
            None => Some(self.chunk_id),
            Some(shard) => self.chunk_id.with_shard(shard).ok(),
        }
    }

    /// The same for the policy.
    pub(crate) fn shape(&self) -> Shape {
        let part = |part: &SourcePart| Part {
            node: part.node,
            shard: part.shard,
        };
        Shape {
            chunk_bytes: self.size_bytes,
            part_bytes: self.part_bytes(),
            needed: if self.is_coded() { SHARDS_NEEDED } else { 1 },
            parts: self.parts.iter().map(part).collect(),
        }
    }

    pub(crate) fn part_on(&self, node: NodeIndex) -> Option<&SourcePart> {
        self.parts.iter().find(|part| part.node == node)
    }

    /// Bytes that one of its nodes sends for it.
    pub(crate) fn part_bytes(&self) -> u64 {
        match self.parts.first().and_then(|part| part.shard) {
            None => self.size_bytes,
            Some(_) => self.layout().shard_bytes() as u64,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        // The size was checked against the limit of 64 MiB.
        Layout::new(usize::try_from(self.size_bytes).unwrap_or(0))
    }
}

/// The sources of all media chunks, in order. Of a video that is still arriving: of its gapless beginning.
pub(crate) fn sources(manifest: &Manifest, nodes: &mut NodeTable) -> Result<Vec<Source>, ClientError> {
    let in_order = (0..)
        .zip(&manifest.chunks)
        .take_while(|(seq, chunk)| chunk.sequence_num == *seq);
    in_order.map(|(_, chunk)| Source::of(chunk, nodes)).collect()
}

/// The time line of the chunks in `sources`. A chunk ends where the next begins, so that rounding leaves no holes.
pub(crate) fn specs(manifest: &Manifest, sources: &[Source]) -> Vec<ChunkSpec> {
    let chunks = &manifest.chunks[..sources.len()];
    let ends = chunks
        .iter()
        .skip(1)
        .map(ManifestChunk::start_ms)
        .map(Some)
        .chain([None]);
    let mut from = 0;
    let spec = |((chunk, end), source): ((&ManifestChunk, Option<u64>), &Source)| {
        let start = if from == 0 { chunk.start_ms() } else { from };
        from = end.unwrap_or_else(|| chunk.end_ms()).max(start);
        ChunkSpec {
            start: Micros::from_ms(start),
            end: Micros::from_ms(from),
            shape: source.shape(),
        }
    };
    chunks.iter().zip(ends).zip(sources).map(spec).collect()
}

/// The init segment's bytes as the manifest carries them, if they are what it says they are.
pub(crate) fn inline_init(init: &InitSegment) -> Option<Bytes> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&init.data_base64)
        .ok()?;
    (Sha256Digest::of(&bytes) == init.chunk.checksum).then(|| bytes.into())
}
