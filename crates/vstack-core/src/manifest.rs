//! The manifest: everything a player needs to know of a video, in one JSON document.
//!
//! Field names are a contract with other people's clients. A plain client reads `init`, `chunks[].replicas[]` and
//! `checksum`; our own readers use `placement` and name its ballots, so that they never meet bytes of an undecided
//! placement. The player parses no boxes: times, keyframes and fragment offsets are here, computed at ingest.

use serde::{Deserialize, Serialize};

use crate::ballot::Ballot;
use crate::digest::Sha256Digest;
use crate::id::{ChunkId, NodeId, VideoId};

/// State of a video in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoStatus {
    /// Chunks are still arriving. It can be watched as far as it is committed.
    Uploading,
    Active,
    Deleted,
}

/// How the chunks fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// One init segment, then media segments: what our ingest makes.
    #[default]
    Fmp4,
    /// Each chunk is a whole MP4 file, as FFmpeg's `-f segment` writes them. There is no `init`.
    Mp4Segments,
}

/// Kind of an elementary stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    Video,
    Audio,
}

/// One elementary stream of the main track's segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    pub kind: TrackKind,
    /// RFC 6381, taken from the bitstream's own configuration.
    pub codec: String,
    /// Units a second of the track's decode times.
    pub timescale: u32,
    /// Media time at which the presentation starts, from the edit list. Subtracted from every presentation time.
    pub edit_offset_ms: i64,
    /// Pixels; `None` for sound.
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// ISO 639-2 language, where the file says one.
    pub language: Option<String>,
}

/// A `moof`+`mdat` pair inside a media chunk: the unit that a player hands to its demuxer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentSpan {
    pub offset: u32,
    pub size: u32,
    /// Presentation time of its first video frame after the edit list.
    pub start_ms: u64,
}

/// What ingest knows of a media chunk beyond its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MediaFacts {
    /// Presentation time of the chunk's first video frame after the edit list.
    pub start_ms: u64,
    pub duration_ms: u64,
    /// Presentation times of its keyframes, ascending; the first is `start_ms`.
    pub keyframes_ms: Vec<u64>,
    pub fragments: Vec<FragmentSpan>,
}

/// One replica or shard, resolved to the node's present address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    pub node_id: NodeId,
    pub node_url: String,
    pub ballot: Ballot,
    pub shard: Option<u8>,
    #[serde(with = "prefixed_digest")]
    pub checksum: Sha256Digest,
    #[serde(with = "prefixed_digest")]
    pub leaf_root: Sha256Digest,
}

/// The committed placement of a chunk, for our own readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPlacement {
    pub epoch: Ballot,
    pub parts: Vec<ManifestPart>,
}

/// How a chunk is protected; `shards` appears with the erasure mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Redundancy {
    Replicated,
    Erasure {
        data_shards: u8,
        parity_shards: u8,
        shards: Vec<ManifestShard>,
    },
}

impl Redundancy {
    /// Coded into these parts, all of them shards, any `data_shards` of which are enough.
    #[must_use]
    pub fn coded(data_shards: u8, parity_shards: u8, parts: &[ManifestPart]) -> Self {
        let shard = |part: &ManifestPart| {
            Some(ManifestShard {
                index: part.shard?,
                node_url: part.node_url.clone(),
                checksum: part.checksum,
            })
        };
        Self::Erasure {
            data_shards,
            parity_shards,
            shards: parts.iter().filter_map(shard).collect(),
        }
    }
}

/// One shard of an erasure-coded chunk as a plain client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestShard {
    pub index: u8,
    pub node_url: String,
    #[serde(with = "prefixed_digest")]
    pub checksum: Sha256Digest,
}

/// A chunk and where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestChunk {
    pub chunk_id: ChunkId,
    pub sequence_num: u32,
    pub size_bytes: u64,
    #[serde(with = "prefixed_digest")]
    pub checksum: Sha256Digest,
    #[serde(with = "prefixed_digest")]
    pub leaf_root: Sha256Digest,
    /// Node URLs; a plain client appends `/chunk/{chunk_id}`.
    pub replicas: Vec<String>,
    pub redundancy: Redundancy,
    pub placement: ManifestPlacement,
    pub start_sec: f64,
    pub duration_sec: f64,
    #[serde(default)]
    pub keyframes_ms: Vec<u64>,
    #[serde(default)]
    pub fragments: Vec<FragmentSpan>,
}

impl ManifestChunk {
    /// Presentation time of its first video frame.
    #[must_use]
    pub fn start_ms(&self) -> u64 {
        seconds_to_ms(self.start_sec)
    }

    /// Presentation time at which it ends.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        seconds_to_ms(self.start_sec + self.duration_sec)
    }
}

/// The init segment: a chunk like any other, and its bytes besides, since every player needs them first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitSegment {
    #[serde(flatten)]
    pub chunk: ManifestChunk,
    pub data_base64: String,
}

/// The document at `GET /manifest/{video_id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub video_id: VideoId,
    pub title: String,
    pub duration_sec: f64,
    /// Media chunks of the main track.
    pub total_chunks: u32,
    /// Nominal; the truth is per chunk.
    pub chunk_duration_sec: f64,
    /// Nominal; the truth is per chunk.
    pub chunk_size_bytes: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub status: VideoStatus,
    #[serde(default)]
    pub container: Container,
    /// RFC 6381 codec strings of all tracks, joined by commas.
    #[serde(default)]
    pub codecs: String,
    #[serde(default)]
    pub tracks: Vec<Track>,
    pub init: Option<InitSegment>,
    /// Ascending by `sequence_num`, from 0 without a gap once the video is active.
    pub chunks: Vec<ManifestChunk>,
    #[serde(default)]
    pub poster: Option<ManifestChunk>,
    #[serde(default)]
    pub storyboard: Vec<ManifestChunk>,
    #[serde(default)]
    pub subtitles: Vec<ManifestChunk>,
}

impl Manifest {
    /// The length of the video.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        seconds_to_ms(self.duration_sec)
    }

    /// The chunk that shows `position_ms`: the last one that starts at or before it.
    #[must_use]
    pub fn chunk_at(&self, position_ms: u64) -> Option<&ManifestChunk> {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.start_ms() <= position_ms);
        self.chunks.get(after.saturating_sub(1))
    }

    /// The edit offset of the video track: what a player subtracts from presentation times.
    #[must_use]
    pub fn video_edit_offset_ms(&self) -> i64 {
        self.tracks
            .iter()
            .find(|track| track.kind == TrackKind::Video)
            .map_or(0, |track| track.edit_offset_ms)
    }
}

/// Whole milliseconds of a time in seconds; negative and unreal times become 0.
#[must_use]
pub fn seconds_to_ms(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, NaN becomes 0"
    )]
    let ms = (seconds * 1000.0).round() as u64;
    ms
}

/// Seconds of a time in milliseconds, as JSON carries them.
#[must_use]
pub fn ms_to_seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// `sha256:…` in JSON.
mod prefixed_digest {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::digest::Sha256Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Sha256Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest.prefixed())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha256Digest, D::Error> {
        Sha256Digest::deserialize(deserializer)
    }
}
