//! What crosses between the window's page and the program: one type an answer, TypeScript made from each by `ts-rs`.
//!
//! Names are the page's contract: fields in snake case, units last, numbers that a JavaScript `number` holds exactly
//! (all of them stay far below 2^53). Nothing here knows GStreamer, the smart client or Tauri. `ui/src/generated` is
//! written by the test `export_bindings` and compared with these types by the same test.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A failure in words: what happened, and what the user can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS, thiserror::Error)]
#[error("{message}")]
pub struct UiError {
    /// Stable; the page may choose an icon by it, never a text.
    pub code: String,
    pub message: String,
    pub next_step: String,
}

/// A video as the library grid shows it.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct VideoCard {
    pub video_id: String,
    pub title: String,
    pub duration_sec: f64,
    pub status: VideoStatus,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub size_bytes: u64,
    pub redundancy: RedundancyMode,
    /// Some chunks have fewer copies than they should, and more are being made.
    pub protecting: bool,
    pub views: u64,
    /// Whether `poster://localhost/{video_id}` answers with a picture.
    pub poster: bool,
}

/// State of a video in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum VideoStatus {
    Uploading,
    Active,
    Deleted,
}

/// How the chunks of a video are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum RedundancyMode {
    Replicated,
    Erasure,
}

/// Order of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LibrarySort {
    #[default]
    Newest,
    Title,
    Duration,
    Views,
}

/// One page of the library.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct LibraryPage {
    pub videos: Vec<VideoCard>,
    /// Matches in all pages.
    pub total: u64,
}

/// The cluster that this player is connected to.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct ClusterState {
    pub phase: ClusterPhase,
    pub metadata_url: Option<String>,
    pub healthy: u32,
    pub total: u32,
    /// Of the fullest node.
    pub disk_usage_percent: f64,
    pub error: Option<UiError>,
    /// The player started this cluster itself and stops it when it exits.
    pub own_cluster: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum ClusterPhase {
    Starting,
    Ready,
    Unreachable,
}

/// One file on its way into the library.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct UploadItem {
    pub upload_id: String,
    pub file_name: String,
    pub phase: UploadPhase,
    pub sent_bytes: u64,
    pub total_bytes: u64,
    /// 0 to 100 over sending and ingest together.
    pub percent: f64,
    pub speed_bytes_per_sec: f64,
    pub eta_sec: Option<f64>,
    pub video_id: Option<String>,
    /// Worth telling, but no failure.
    pub note: Option<String>,
    pub error: Option<UiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum UploadPhase {
    Sending,
    Queued,
    Splitting,
    Storing,
    Finalizing,
    Done,
    Failed,
    Cancelled,
}

impl UploadPhase {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// How the sources of chunks are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum SourcePolicy {
    /// Ranges of a chunk from several nodes at once.
    Pool,
    /// Whole chunks, by score.
    Seed,
    /// Whole chunks, to compare with: each replica in turn.
    RoundRobin,
    /// Whole chunks, to compare with: a replica drawn by lot.
    Random,
    /// Whole chunks, to compare with: the first replica while it works.
    Single,
}

/// The open video.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct Playback {
    pub video_id: String,
    pub title: String,
    pub phase: PlaybackPhase,
    pub position_ms: u64,
    pub duration_ms: u64,
    /// 0 to 1.
    pub volume: f64,
    pub muted: bool,
    pub fullscreen: bool,
    /// Playable without another byte from the network.
    pub buffer_ms: u64,
    /// From opening to the first picture; `null` until then.
    pub startup_ms: Option<u64>,
    pub stalls: u32,
    /// The one that decides now.
    pub policy: SourcePolicy,
    pub spans: Vec<SourceSpan>,
    pub error: Option<UiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum PlaybackPhase {
    Loading,
    Playing,
    Paused,
    Buffering,
    Ended,
    Failed,
}

/// A part of the seek bar that one node filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
pub struct SourceSpan {
    pub start_ms: u64,
    pub end_ms: u64,
    /// The node's place in the client's list; five colours repeat along it.
    pub node: u32,
}

/// A node as the panel shows it.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct NodeCard {
    pub node_id: String,
    /// What the whole cluster calls it.
    pub name: String,
    /// Place in the client's list; five colours repeat along it.
    pub node: u32,
    pub status: NodeStatus,
    pub score: f64,
    pub latency_ms: Option<f64>,
    pub bandwidth_mbps: Option<f64>,
    pub success_percent: f64,
    /// Verified, of the open video's session.
    pub bytes: u64,
    /// Of all that this session received.
    pub share_percent: f64,
    /// That it brought alone, or the largest part of: with ranges most chunks come from several nodes.
    pub chunks: u64,
    pub note: Option<String>,
    /// A whole SVG document, drawn by `vstack-charts`.
    pub chart_svg: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    Healthy,
    Degraded,
    Down,
}

/// The whole node panel: nodes, the last 30 s of downloads, and what was decided.
#[derive(Debug, Clone, PartialEq, Default, Serialize, TS)]
pub struct NodePanel {
    pub nodes: Vec<NodeCard>,
    pub lanes: Vec<Lane>,
    pub log: Vec<LogLine>,
}

/// What the open video's session has come to: the figures that `vstack play` prints.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct Report {
    /// The one that decides now.
    pub policy: SourcePolicy,
    /// Since the video was opened.
    pub session_ms: u64,
    /// From opening to the first picture; `null` until then.
    pub startup_ms: Option<u64>,
    pub stalls: u32,
    pub stall_ms: u64,
    /// Over the time of playing, as long as the end of the video did not limit it.
    pub avg_buffer_s: f64,
    /// For a twentieth of that time the buffer was lower.
    pub p5_buffer_s: f64,
    pub min_buffer_s: f64,
    /// Delivered at least once, and chunks of the video.
    pub chunks: u32,
    pub total_chunks: u32,
    /// Verified.
    pub bytes: u64,
    /// Received and of no use.
    pub wasted_bytes: u64,
    /// Asked for although another request was running for them.
    pub hedged_bytes: u64,
    pub requests_per_chunk: f64,
    pub failovers: u64,
    /// Chunks or blocks that came with the wrong hash; none of their bytes were played.
    pub hash_failures: u64,
    pub nodes: Vec<ReportNode>,
    pub faults: Vec<ReportFault>,
    pub ahead: ReportAhead,
}

/// What one node brought.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct ReportNode {
    pub name: String,
    /// As in [`NodeCard`].
    pub node: u32,
    /// Verified.
    pub bytes: u64,
    pub share_percent: f64,
}

/// The faults of one kind on one node.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct ReportFault {
    pub name: String,
    /// As in [`NodeCard`].
    pub node: u32,
    /// The latest of them, in words that follow the node's name.
    pub failure: String,
    pub times: u64,
    /// From the node's last sign of life to the decision to leave it: the median, and the longest.
    pub detect_p50_ms: u64,
    pub detect_max_ms: u64,
    pub wasted_bytes: u64,
}

/// What was fetched before anybody asked for it; beside the other figures, not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
pub struct ReportAhead {
    pub bytes: u64,
    pub used_bytes: u64,
    pub wasted_bytes: u64,
}

/// The downloads from one node.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct Lane {
    /// As in [`NodeCard`].
    pub node: u32,
    pub bars: Vec<LaneBar>,
}

/// One download; 0 is 30 s ago, 1 is now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, TS)]
pub struct LaneBar {
    pub start: f64,
    pub end: f64,
    pub outcome: LaneOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum LaneOutcome {
    Done,
    Running,
    Failed,
    /// Taken back: another node was faster, or brings the rest.
    Cancelled,
}

/// One decision of the smart client, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct LogLine {
    /// `HH:MM:SS`, local time.
    pub at: String,
    pub text: String,
}

/// Where the page leaves room for the picture: CSS pixels from the page's corner, and the scale that makes device
/// pixels of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
pub struct VideoRect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    pub scale: f64,
}
