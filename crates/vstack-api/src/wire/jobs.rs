//! Uploads: the jobs of the uploader role.

use serde::{Deserialize, Serialize};
use vstack_core::id::VideoId;

use crate::error::Problem;

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
