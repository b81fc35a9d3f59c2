//! Why the catalogue refuses a command or cannot answer a read.

use std::path::Path;

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
    #[error(
        "node {node} started from an older copy of its data folder: this is start {reported} of it, and start {known} \
         was here already; if that is meant, run `vstack node readopt {node}`"
    )]
    RolledBack { node: NodeId, known: u64, reported: u64 },
    #[error("node {node} was removed from the cluster; `vstack node readopt {node}` takes it back")]
    NodeRemoved { node: NodeId },
    #[error(
        "node {node} is the only holder of {chunks} chunks; drain it first (`vstack node drain {node}`), or lose them \
         with --force"
    )]
    OnlyHolder { node: NodeId, chunks: u64 },
    #[error(
        "the key {key} was used for a video with another title or duration; use a new key for another video"
    )]
    OtherCreation { key: String },
    #[error("the session {session} was counted for another video")]
    OtherVideo { session: String },
    #[error(
        "the catalogue was restored and waits until most of its nodes have told how far it was and written down where it goes \
         on; try again in half a minute, and take out nodes that are lost (`vstack node remove`)"
    )]
    Restored,
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The queue of the writer is full, or the store is closing.
    #[error("the catalogue is busy")]
    Busy,
    /// Nothing of the transaction is there.
    #[error("the disk of the catalogue is full; make room, reading goes on meanwhile: {reason}")]
    Full { reason: String },
    #[error("the catalogue {path} is damaged: {what}. {}", NEXT_STEP)]
    Damaged { path: String, what: String },
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

/// What to do about a damaged catalogue.
const NEXT_STEP: &str = "Nothing was changed. Restore the last backup with `vstack restore FILE --data DIR` (`vstack \
                         backup` and the role itself write them to `backups` in its folder), or rebuild it from the \
                         nodes with `vstack meta rebuild --from-nodes --data DIR`";

impl MetaError {
    /// A file that cannot be written or read.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        let reason = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull => Self::Full { reason },
            _ => Self::Database { reason },
        }
    }

    /// Whether it is the disk's or the file's failure, and not a refusal of one command.
    pub(crate) fn fails_all(&self) -> bool {
        match self {
            Self::Database { .. } | Self::Full { .. } => true,
            Self::Corrupt { table, .. } => *table == DATABASE,
            _ => false,
        }
    }
}

/// The table of a [`MetaError::Corrupt`] that SQLite itself found.
pub(crate) const DATABASE: &str = "database";

impl From<rusqlite::Error> for MetaError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt {
                table: DATABASE,
                key: String::new(),
                reason,
            },
            Some(DiskFull) => Self::Full { reason },
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
