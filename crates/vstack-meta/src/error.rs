//! Why the catalogue refuses a command or cannot answer a read.

use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::manifest::VideoStatus;
use vstack_core::paxos::master::Conflict;

/// A refusal or failure. Cloneable, since one failed transaction fails every command in it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetaError {
    #[error("there is no video {video}")]
    VideoNotFound { video: VideoId },
    #[error("the video {video} exists already")]
    VideoExists { video: VideoId },
    #[error("the video is {status:?}, and this needs another state")]
    VideoState { video: VideoId, status: VideoStatus },
    #[error("chunks are missing: {}", listed(missing))]
    ChunksMissing { missing: Vec<ChunkId> },
    #[error("the chunks do not make one video: {reason}")]
    Inconsistent { reason: String },
    #[error("another process reports as node {node}: {reason}")]
    DuplicateNode { node: NodeId, reason: String },
    #[error("node {node} is not registered")]
    UnknownNode { node: NodeId },
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The queue of the writer is full, or the store is closing.
    #[error("the catalogue is busy")]
    Busy,
    #[error("{path} is not a V-Stack catalogue")]
    NotACatalogue { path: String },
    #[error("{path} was written by a newer version of V-Stack")]
    NewerVersion { path: String },
    /// A row that cannot have been written like this.
    #[error("the catalogue is damaged: {table} {key}: {reason}")]
    Corrupt {
        table: &'static str,
        key: String,
        reason: String,
    },
    /// SQLite or the disk. Nothing of the transaction is there.
    #[error("the catalogue's database failed: {reason}")]
    Database { reason: String },
}

impl From<rusqlite::Error> for MetaError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt {
                table: "database",
                key: String::new(),
                reason,
            },
            _ => Self::Database { reason },
        }
    }
}

/// The first few, and how many more.
fn listed(chunks: &[ChunkId]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<String> = chunks.iter().take(SHOWN).map(ToString::to_string).collect();
    match chunks.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
