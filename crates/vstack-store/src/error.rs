//! What can go wrong in the store, as facts with fields. [`StoreError::kind`] says what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::ChunkId;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The store is sure that it does not hold the object.
    NotFound,
    /// The request itself is wrong; repeating it is useless.
    Invalid,
    /// Something else is stored under the name, or its name is used up.
    Conflict,
    /// The node holds the object but its bytes are damaged: read another copy, repair this one.
    Corrupt,
    /// Not now: the disk refuses, is full, or the store is stopping.
    Unavailable,
    /// The folder cannot be opened as a store.
    Internal,
}

/// An operation that the operating system refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {message}", path.display())]
pub struct DiskFault {
    pub operation: &'static str,
    pub path: PathBuf,
    /// The `errno`, if the system gave one.
    pub code: Option<i32>,
    pub message: String,
}

impl DiskFault {
    pub(crate) fn new(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        Self {
            operation,
            path: path.to_owned(),
            code: error.raw_os_error(),
            message: error.to_string(),
        }
    }

    /// Whether the disk has no room left: nothing is broken, deleting or adding space helps.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_one_of(&[Errno::NOSPC, Errno::DQUOT])
    }

    /// Whether the process or the machine ran out of open files or memory: it says nothing about the disk, and passes.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        self.is_one_of(&[Errno::MFILE, Errno::NFILE, Errno::NOMEM])
    }

    fn is_one_of(&self, codes: &[Errno]) -> bool {
        codes.iter().any(|code| self.code == Some(code.raw_os_error()))
    }
}

/// Everything the store answers besides success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{chunk} is not stored here")]
    NotFound { chunk: ChunkId, ballot: Option<Ballot> },
    #[error("{chunk} at ballot {ballot} is corrupt (superblock {superblock}, offset {offset}): {reason}")]
    Corrupt {
        chunk: ChunkId,
        ballot: Ballot,
        superblock: u32,
        offset: u64,
        reason: &'static str,
    },
    #[error("{chunk} at ballot {ballot} already holds other bytes ({stored})")]
    Conflict {
        chunk: ChunkId,
        ballot: Ballot,
        stored: Sha256Digest,
    },
    #[error("{chunk} at ballot {ballot} was deleted; the name is never used again")]
    Deleted { chunk: ChunkId, ballot: Ballot },
    #[error("node full: {available_bytes} bytes left on the disk, {reserve_bytes} of them in reserve")]
    Full {
        available_bytes: u64,
        reserve_bytes: u64,
    },
    #[error("invalid request: {reason}")]
    Invalid { reason: &'static str },
    #[error("disk error: {0}")]
    Disk(#[from] DiskFault),
    #[error("the store is read-only since a disk error: {0}")]
    ReadOnly(DiskFault),
    #[error("cannot say whether {chunk} is stored: {files} superblock file(s) cannot be read")]
    Unsure { chunk: ChunkId, files: usize },
    #[error("the store is stopping")]
    Stopped,
    #[error("{} is in use by process {pid}", path.display())]
    Locked { path: PathBuf, pid: String },
    #[error("{} is not a data folder that this version can open: {reason}", path.display())]
    BadFolder { path: PathBuf, reason: String },
}

impl StoreError {
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Conflict { .. } | Self::Deleted { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Full { .. } | Self::Disk(_) | Self::ReadOnly(_) | Self::Unsure { .. } | Self::Stopped => {
                ErrorKind::Unavailable
            }
            Self::Locked { .. } | Self::BadFolder { .. } => ErrorKind::Internal,
        }
    }
}
