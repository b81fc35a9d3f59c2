//! The catalogue object of a video: everything that a lost catalogue needs to list and play it again.
//!
//! It lies on the storage nodes as a chunk of kind 5, a new one each time. What a rebuild gives back are exactly these
//! fields. JSON, version first: a reader that does not know the version must not guess.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, Incarnation, NodeId, VideoId};
use vstack_core::limits::MAX_CHUNK_BYTES;
use vstack_core::manifest::{Container, MediaFacts, Track, VideoStatus};
use vstack_core::placement::{Part, Placement};
use vstack_core::time::UnixMillis;

use crate::error::MetaError;
use crate::read::{ChunkRecord, ManifestSource};

const VERSION: u32 = 1;

/// A video as one catalogue object holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueObject {
    version: u32,
    pub video_id: VideoId,
    pub title: String,
    pub duration_sec: f64,
    pub total_chunks: u32,
    pub created_at: UnixMillis,
    pub status: VideoStatus,
    pub container: Container,
    pub codecs: String,
    pub tracks: Vec<Track>,
    pub views: u64,
    pub chunks: Vec<PlacedChunk>,
    /// The data folders that the placements mean: a node with another one has lost its parts.
    pub incarnations: BTreeMap<NodeId, Incarnation>,
}

/// A committed placement and what a player needs of the chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlacedChunk {
    pub chunk_id: ChunkId,
    pub epoch: Ballot,
    pub placement: Placement,
    pub media: MediaFacts,
}

impl CatalogueObject {
    /// What the catalogue knows of a video, without its earlier catalogue objects.
    #[must_use]
    pub fn of(source: &ManifestSource) -> Self {
        let video = &source.video;
        let placed = |chunk: &ChunkRecord| PlacedChunk {
            chunk_id: chunk.chunk,
            epoch: chunk.epoch,
            placement: chunk.placement.clone(),
            media: chunk.media.clone(),
        };
        let own = |chunk: &&ChunkRecord| chunk.chunk.kind() != ChunkKind::Catalogue;
        let chunks: Vec<PlacedChunk> = source.chunks.iter().filter(own).map(placed).collect();
        let holders = chunks.iter().flat_map(|chunk| &chunk.placement.parts);
        let incarnations = holders
            .filter_map(|part| Some((part.node, source.nodes.get(&part.node)?.incarnation)))
            .collect();
        Self {
            version: VERSION,
            video_id: video.video,
            title: video.title.clone(),
            duration_sec: video.duration_sec,
            total_chunks: video.total_chunks,
            created_at: video.created_at,
            status: video.status,
            container: video.container,
            codecs: video.codecs.clone(),
            tracks: video.tracks.clone(),
            views: video.views,
            chunks,
            incarnations,
        }
    }

    /// The bytes that are stored.
    ///
    /// # Errors
    /// They are more than a chunk holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MetaError> {
        let bytes = serde_json::to_vec(self).expect("it has string keys and finite numbers");
        if bytes.len() as u64 <= MAX_CHUNK_BYTES {
            Ok(bytes)
        } else {
            Err(MetaError::Inconsistent {
                reason: format!("its catalogue object would have {} bytes", bytes.len()),
            })
        }
    }

    /// Reads what [`CatalogueObject::to_bytes`] wrote for the video of `chunk`.
    ///
    /// # Errors
    /// It is of a later version, of another video, or not what was written.
    pub fn from_bytes(chunk: ChunkId, bytes: &[u8]) -> Result<Self, MetaError> {
        let damaged = |reason: String| MetaError::Corrupt {
            table: "catalogue objects",
            key: chunk.to_string(),
            reason,
        };
        let object: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let known = |part: &Part| object.incarnations.contains_key(&part.node);
        let strange = |placed: &PlacedChunk| {
            placed.chunk_id.video() != object.video_id
                || placed.epoch.is_plain()
                || !placed.placement.parts.iter().all(known)
        };
        if object.version != VERSION {
            Err(damaged(format!("version {} is not known here", object.version)))
        } else if object.video_id != chunk.video() || object.chunks.iter().any(strange) {
            Err(damaged("it contradicts itself".into()))
        } else {
            Ok(object)
        }
    }
}
