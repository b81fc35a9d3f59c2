//! From a manifest to what the policy and the fetcher need: a time line, and where each chunk's bytes are.

use base64::Engine as _;
use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;
use vstack_core::limits::MAX_CHUNK_BYTES;
use vstack_core::manifest::{InitSegment, Manifest, ManifestChunk};

use crate::error::ClientError;
use crate::node::NodeTable;
use crate::policy::{ChunkSpec, Micros, NodeIndex};

/// A chunk's identity and the whole copies of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) chunk_id: ChunkId,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: Sha256Digest,
    /// Each node once.
    pub(crate) copies: Vec<(NodeIndex, Ballot)>,
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
        let mut copies: Vec<(NodeIndex, Ballot)> = Vec::new();
        for part in chunk.placement.parts.iter().filter(|part| part.shard.is_none()) {
            if let Some(index) = nodes.register(part.node_id, &part.node_url)
                && copies.iter().all(|(known, _)| *known != index)
            {
                copies.push((index, part.ballot));
            }
        }
        Ok(Self {
            chunk_id: chunk.chunk_id,
            size_bytes: chunk.size_bytes,
            sha256: chunk.checksum,
            copies,
        })
    }

    pub(crate) fn replicas(&self) -> Vec<NodeIndex> {
        self.copies.iter().map(|(node, _)| *node).collect()
    }

    pub(crate) fn ballot_on(&self, node: NodeIndex) -> Option<Ballot> {
        self.copies
            .iter()
            .find(|(copy, _)| *copy == node)
            .map(|(_, ballot)| *ballot)
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
            replicas: source.replicas(),
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
