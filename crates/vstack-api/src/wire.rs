//! Bodies and headers of the roles' calls. Names are a contract; see `docs/api.md`.

mod health;

use serde::{Deserialize, Serialize};
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::keys::{Canonical, DerivedKey, Mac};
use vstack_core::manifest::{Container, MediaFacts, Track, VideoStatus};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::paxos::{Grant, OpenKind, Receipt, Replaced};
use vstack_core::placement::Placement;

use crate::error::Problem;

pub use health::{CompactionHealth, ScrubFinding, ScrubHealth, StorageHealth};

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

/// Body of `POST /nodes/{node_id}/heartbeat`. Unknown fields are ignored, so that a newer node can report more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub url: String,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    pub chunk_count: u64,
    #[serde(default)]
    pub read_only: bool,
    /// Objects that are known to be damaged.
    #[serde(default)]
    pub corrupt_count: u64,
    /// Highest generation of the catalogue that this node has seen in a grant.
    #[serde(default)]
    pub highest_generation: u64,
    /// Version of the calls that the node speaks.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// What the node's clock says, in milliseconds since 1970. Only to be told when it is far off.
    #[serde(default)]
    pub clock_ms: Option<u64>,
    /// Bytes of parts that the node may hold in all: those that it holds, and the room that is left.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// What fails together with this node, in its operator's words; its host where nobody named it.
    #[serde(default)]
    pub rack: Option<String>,
    pub mac: Mac,
}

const fn first_protocol() -> u32 {
    1
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatAnswer {
    /// Taken, but odd: `clock_skew`.
    pub warnings: Vec<String>,
    /// The catalogue's clock.
    pub clock_ms: u64,
    /// The life of the catalogue that grants now; absent while it grants nothing.
    #[serde(default)]
    pub generation: Option<Generation>,
}

/// A generation of the catalogue, signed with the grant key. A node writes the highest one down: a catalogue that was
/// restored from a backup goes above all that its nodes have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub number: u64,
    pub mac: Mac,
}

impl Generation {
    #[must_use]
    pub fn signed(key: &DerivedKey, number: u64) -> Self {
        let mac = key.sign(&Self::canonical(number));
        Self { number, mac }
    }

    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        key.verifies(&Self::canonical(self.number), &self.mac)
    }

    fn canonical(number: u64) -> Canonical {
        Canonical::new("vstack.generation.1").number(number)
    }
}

impl Heartbeat {
    /// What the MAC covers: who, where, which life. The figures are free to change.
    #[must_use]
    pub fn canonical(node: NodeId, url: &str, incarnation: Incarnation, boot_epoch: u64) -> Canonical {
        let message = Canonical::new("vstack.heartbeat.1")
            .uuid(node.0)
            .bytes(url.as_bytes());
        message.uuid(incarnation.0).number(boot_epoch)
    }

    /// Whether `key`, the receipt key of `node`, signed it.
    #[must_use]
    pub fn verifies(&self, node: NodeId, key: &DerivedKey) -> bool {
        key.verifies(
            &Self::canonical(node, &self.url, self.incarnation, self.boot_epoch),
            &self.mac,
        )
    }
}

/// Body of `POST /uploaders/heartbeat`: where uploads go, signed with the grant key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploaderHeartbeat {
    pub url: String,
    pub mac: Mac,
}

impl UploaderHeartbeat {
    #[must_use]
    pub fn signed(key: &DerivedKey, url: String) -> Self {
        let mac = key.sign(&Self::canonical(&url));
        Self { url, mac }
    }

    #[must_use]
    pub fn verifies(&self, key: &DerivedKey) -> bool {
        key.verifies(&Self::canonical(&self.url), &self.mac)
    }

    fn canonical(url: &str) -> Canonical {
        Canonical::new("vstack.uploader.1").bytes(url.as_bytes())
    }
}

/// A node as `GET /nodes` and `GET /nodes/healthy` list it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub node_id: NodeId,
    pub node_url: String,
    /// Percent of the disk in use.
    pub disk_usage: f64,
    /// RFC 3339, UTC.
    pub last_seen: String,
    /// Silence so far.
    pub silent_ms: u64,
    pub chunk_count: u64,
    pub status: NodeHealth,
    /// What its operator wants of it.
    #[serde(default)]
    pub state: NodeState,
    pub read_only: bool,
    /// It gave out wrong bytes several times lately: what it holds counts for nothing until this is over.
    #[serde(default)]
    pub quarantined: bool,
    /// Bytes of parts that it may hold in all; 0 when it has not said.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// What fails together with it; `null`: its host.
    #[serde(default)]
    pub rack: Option<String>,
    pub incarnation: Incarnation,
    pub boot_epoch: u64,
    pub version: String,
}

/// Answer to `GET /nodes/{node_id}` and to every change of a node's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDetail {
    #[serde(flatten)]
    pub entry: NodeEntry,
    /// Parts of committed chunks that lie there and count.
    pub parts: u64,
    /// Chunks that could not be read without it.
    pub only_holder_of: u64,
    /// Parts that this change declared lost; they are to be replaced.
    #[serde(default)]
    pub lost_parts: u64,
}

/// What `POST /nodes/{node_id}/{action}` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeAction {
    Activate,
    Drain,
    Maintenance,
    Remove,
    Replace,
    Readopt,
}

impl NodeAction {
    /// The word in the address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Readopt => "readopt",
        }
    }
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

/// State of an upload job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Queued,
    Receiving,
    Splitting,
    Storing,
    Finalizing,
    Done,
    Failed,
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// An upload job, as `GET /jobs/{id}` and the events show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub job_id: String,
    pub video_id: VideoId,
    pub title: String,
    pub state: JobState,
    /// Bytes of the original that have arrived.
    pub received_bytes: u64,
    /// Bytes of the original, where known.
    pub total_bytes: Option<u64>,
    pub stored_chunks: u32,
    pub stored_bytes: u64,
    /// Bytes sent to nodes, every copy and every repetition counted.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes of copies that were on their nodes already and were not sent again.
    #[serde(default)]
    pub spared_bytes: u64,
    /// 0 to 100 over the whole job.
    pub percent: f64,
    pub speed_bytes_per_sec: f64,
    pub eta_sec: Option<f64>,
    /// Something worth telling that is no failure, e.g. that a node was replaced.
    #[serde(default)]
    pub notes: Vec<String>,
    pub problem: Option<Problem>,
    /// FFmpeg's last words, of a failed job.
    #[serde(default)]
    pub last_stderr: Vec<String>,
}

/// Answer to `POST /upload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAccepted {
    pub video_id: VideoId,
    pub job_id: String,
}
