//! Bodies and headers of the roles' calls. Names are a contract; see `docs/api.md`.

mod health;
mod jobs;
mod nodes;
mod services;

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::{Container, MediaFacts, Track, VideoStatus};
use vstack_core::paxos::{Grant, OpenKind, Receipt, Replaced};
use vstack_core::placement::Placement;

use crate::error::Problem;

pub use health::{CompactionHealth, ScrubFinding, ScrubHealth, StorageHealth};
pub use jobs::{Job, JobState, UploadAccepted};
pub use nodes::{Generation, Heartbeat, HeartbeatAnswer, NodeAction, NodeDetail, NodeEntry};
pub use services::{Service, ServiceHeartbeat};

/// Carries a [`Grant`] token on a PUT with a ballot.
pub const GRANT_HEADER: &str = "x-vstack-grant";
/// Carries a delete order token on a DELETE with a ballot.
pub const ORDER_HEADER: &str = "x-vstack-order";
/// On a request that waits while those of others are open: conversion, repair, balance.
pub const BEHIND_HEADER: &str = "x-vstack-behind-viewers";
/// Answered by `HEAD /ping`.
pub const NODE_ID_HEADER: &str = "x-node-id";
/// Answered by `HEAD /ping`.
pub const DISK_USAGE_HEADER: &str = "x-disk-usage-percent";
/// Answered by `HEAD /ping`.
pub const IN_FLIGHT_HEADER: &str = "x-requests-in-flight";
/// Answered by `HEAD /ping`: bits a second that the node sent during the last second.
pub const EGRESS_HEADER: &str = "x-egress-bps";
/// Request header of a GET: milliseconds until playback needs the first byte, 0 while it waits. A node that has more to
/// send than it can serves those first who can wait least.
pub const SLACK_HEADER: &str = "x-vstack-slack-ms";
/// With `POST /video`, chosen by the client: a repeated call makes one video.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// Set on every answer and found in the logs of every role that the request passed.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Answer to a PUT or ADOPT: the object is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    pub size_bytes: u64,
    pub sha256: Sha256Digest,
    pub leaf_root: Sha256Digest,
    /// `stored`, or `already_stored` when the same bytes were there.
    pub status: PutStatus,
    /// Present for a ballot above 0.
    pub receipt: Option<Receipt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutStatus {
    Stored,
    AlreadyStored,
}

/// Body of `POST /chunk/{id}/adopt`: name an object that is here under the grant's ballot too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptRequest {
    pub grant: Grant,
    pub from_ballot: Ballot,
    /// When given, the source must have these bytes.
    pub sha256: Option<Sha256Digest>,
}

/// Body of `POST /chunk/{id}/prepare`: promise the grant's ballot and tell what is here. The answer is a `Promise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareRequest {
    pub grant: Grant,
}

/// Answer to `GET /chunk/{id}/leaves`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavesAnswer {
    pub leaf_bytes: u64,
    pub leaves: Vec<Sha256Digest>,
}

/// Answer to `POST /backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupMade {
    /// For `GET /backup/{name}`.
    pub name: String,
    /// On the metadata role's machine.
    pub path: String,
    pub size_bytes: u64,
    pub sha256: Sha256Digest,
    /// Not counting deleted ones.
    pub videos: u64,
    /// Committed placements.
    pub chunks: u64,
}

/// Body of `POST /video/{id}/view`; without one every call counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewedBy {
    /// Of one playback: repeated calls count once. 1 to 64 letters, digits, `-` and `_`.
    pub session_id: String,
}

/// Body of `POST /video`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVideo {
    pub title: String,
    #[serde(default)]
    pub duration_sec: f64,
}

/// Answer to `POST /video`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedVideo {
    pub video_id: VideoId,
    /// Where the file can be PUT or POSTed; `null` while no uploader is known.
    pub upload_url: Option<String>,
}

/// Body of `PATCH /video/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchVideo {
    pub title: String,
}

/// A video as the library lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoEntry {
    pub video_id: VideoId,
    pub title: String,
    pub duration_sec: f64,
    pub status: VideoStatus,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub total_chunks: u32,
    /// Sum of its chunks, each counted once.
    pub size_bytes: u64,
    /// How often ever.
    pub views: u64,
    /// How often lately: each view counts half after a half-life (7 days unless set otherwise).
    #[serde(default)]
    pub views_recent: f64,
    pub has_poster: bool,
    /// `replicated` or `erasure`.
    pub redundancy: String,
    /// Chunks that have fewer copies than their mode wants.
    pub under_replicated: u32,
}

/// Answer to `GET /video`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoPage {
    pub videos: Vec<VideoEntry>,
    /// Matches in all pages.
    pub total: u64,
}

/// Query of `GET /video`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VideoQuery {
    /// Part of the title, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    pub sort: VideoSort,
    pub offset: u64,
    /// 1 to 500; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoSort {
    #[default]
    Newest,
    Title,
    Duration,
    Views,
}

/// Body of a plain client's `POST /chunk/{id}/commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainCommit {
    pub node_urls: Vec<String>,
    /// Bare hex or `sha256:` and hex.
    pub checksum: Sha256Digest,
}

/// One item of `POST /consensus/open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenItem {
    pub chunk_id: ChunkId,
    pub kind: OpenKind,
    /// Who asks; the lease is theirs.
    pub owner: String,
    /// Nodes that failed this proposer.
    #[serde(default)]
    pub exclude: Vec<NodeId>,
    /// Fewest receipts that COMMIT may carry; absent: all copies.
    #[serde(default)]
    pub min_ack: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenBatch {
    pub requests: Vec<OpenItem>,
}

/// A grant and the addresses of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub grant: Grant,
    /// In the order of `grant.nodes`.
    pub node_urls: Vec<String>,
    /// The ballot that this one killed: its nodes may hold bytes, which PREPARE asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// In the order of `replaced.nodes`; empty for a node whose address is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced_urls: Vec<String>,
}

/// Result of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemResult<T> {
    Ok(T),
    Problem(Problem),
}

impl<T> From<ItemResult<T>> for Result<T, Problem> {
    fn from(item: ItemResult<T>) -> Self {
        match item {
            ItemResult::Ok(value) => Ok(value),
            ItemResult::Problem(problem) => Err(problem),
        }
    }
}

impl<T> From<Result<T, Problem>> for ItemResult<T> {
    fn from(result: Result<T, Problem>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(problem) => Self::Problem(problem),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBatchAnswer {
    /// In the order of the requests.
    pub grants: Vec<ItemResult<Opened>>,
}

/// One item of `POST /consensus/commit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitItem {
    pub chunk_id: ChunkId,
    pub ballot: Ballot,
    pub value: Placement,
    pub receipts: Vec<Receipt>,
    /// Of a media chunk.
    #[serde(default)]
    pub media: Option<MediaFacts>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitBatch {
    pub commits: Vec<CommitItem>,
}

/// A committed placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub chunk_id: ChunkId,
    pub epoch: Ballot,
    pub value: Placement,
    /// Fewer parts than the mode wants: repair will add them.
    pub under_replicated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBatchAnswer {
    /// In the order of the commits.
    pub results: Vec<ItemResult<Committed>>,
}

/// Body of `POST /video/{id}/finalize` from our uploader. A plain client sends none, and the role reads the boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finalize {
    pub total_chunks: u32,
    pub duration_ms: u64,
    pub container: Container,
    pub codecs: String,
    pub tracks: Vec<Track>,
}
