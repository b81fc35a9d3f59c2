//! The redundancy policy over the wire: why a video is as it is, what the library costs, and how long it lasts.

use serde::{Deserialize, Serialize};
use vstack_core::cost::{Cost, NodeLoad, Outcome};
use vstack_core::durability::{Assessment, Durability, RepairFacts};
use vstack_core::forecast::Forecast;
use vstack_core::id::VideoId;
use vstack_core::redundancy::{Settings, Why};

use crate::redundancy::RedundancyChoice;

/// Query of `GET /policy`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuery {
    /// Another threshold to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_above: Option<f64>,
}

/// What one mode costs a video, or the library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModeCost {
    pub mode: String,
    pub stored_bytes: u64,
    pub requests_per_chunk: u64,
    /// Bytes to read for a byte that is made again.
    pub repair_reads_per_byte: u64,
    /// From the loss of a node until its parts are there again, if all videos had this mode.
    pub repair_hours: f64,
    /// Of one chunk.
    pub durability: Durability,
}

/// Answer to `GET /video/{video_id}/policy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyExplanation {
    pub video_id: VideoId,
    pub title: String,
    /// What is stored now: `replicated`, `erasure`, or `mixed`.
    pub mode: String,
    /// What an operator fixed.
    pub choice: RedundancyChoice,
    pub wanted: String,
    pub why: Why,
    pub reason: String,
    /// All views, and those of them that count now.
    pub views: u64,
    pub popularity: f64,
    /// What a standing count of that size means.
    pub views_per_day: f64,
    pub hot_above: f64,
    pub cold_below: f64,
    pub view_half_life_ms: u64,
    pub age_ms: u64,
    pub size_bytes: u64,
    pub nodes: u64,
    pub used_share: f64,
    /// The clock of the role, which the forecast's times are to be compared with.
    pub now_ms: u64,
    pub forecast: Forecast,
    pub modes: Vec<ModeCost>,
}

/// The library at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThresholdCost {
    pub hot_above: f64,
    pub cost: Cost,
}

/// A node's load and its address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeCost {
    #[serde(default)]
    pub name: Option<String>,
    pub node_url: String,
    #[serde(flatten)]
    pub load: NodeLoad,
}

/// Answer to `GET /policy`: the cost report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    pub settings: Settings,
    pub view_half_life_ms: u64,
    pub nodes: u64,
    pub used_share: f64,
    /// As it is stored now.
    pub now: Cost,
    /// As the settings leave it in the long run, and what they convert until then.
    pub settled: Outcome,
    /// The same at the threshold that was asked for.
    pub asked: Option<Outcome>,
    /// What moving the threshold would change.
    pub thresholds: Vec<ThresholdCost>,
    pub node_loads: Vec<NodeCost>,
    /// The whole library in one mode.
    pub modes: Vec<ModeCost>,
    pub repair: RepairBasis,
}

/// Where a repair speed comes from. The words are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeedSource {
    /// Repairs, as far back as they count.
    Repairs,
    /// No repair yet, but conversions, which read and write in the same way at half speed.
    Conversions,
    /// Nothing was measured yet.
    #[default]
    Assumed,
}

/// What durability figures rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairBasis {
    pub speed_source: SpeedSource,
    /// What was read to measure it.
    pub measured_bytes: u64,
    pub measured_seconds: f64,
    #[serde(flatten)]
    pub facts: RepairFacts,
}

/// Query of `GET /durability`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DurabilityQuery {
    /// Share of the disks that fail within a year, above 0 and below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annual_failure_rate: Option<f64>,
    /// Until an operator has added a node where none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_hours: Option<f64>,
}

/// Answer to `GET /durability`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DurabilityReport {
    pub assessment: Assessment,
    pub repair: RepairBasis,
    /// Read to make the parts of the fullest node again.
    pub lost_read_bytes: u64,
    /// Sentences: what the figure assumes.
    pub assumptions: Vec<String>,
}
