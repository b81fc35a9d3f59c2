//! What opening a store found, for people and programs.

use std::ops::Range;

use serde::{Serialize, Serializer};
use tracing::{info, warn};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};

use crate::error::DiskFault;
use crate::superblock::SuperblockFault;

/// The trace of a crash: bytes at the end of a file that were never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TornTail {
    pub superblock: u32,
    pub range: Range<u64>,
}

/// A damaged place: no record can be read there, or only because a bit of its header was turned back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRange {
    pub superblock: u32,
    pub range: Range<u64>,
    /// The bytes had been synced, so this is rot. Otherwise it may be what a crash left of an unacknowledged batch.
    pub proven_rot: bool,
}

/// Why a file was left aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    #[error("it is not a plain file")]
    NotAFile,
    #[error("{0}")]
    Disk(DiskFault),
    #[error("{0}")]
    Header(SuperblockFault),
    #[error("it says that it is superblock {0}")]
    OtherNumber(u32),
    #[error("it belongs to node {0}")]
    OtherNode(NodeId),
    #[error("it belongs to another cluster")]
    OtherCluster,
    #[error("it is a copy of superblock {0}")]
    CopyOf(u32),
}

impl SkipReason {
    /// Whether this node's own objects may be in the file, so that "not found" cannot be said any more.
    pub(crate) const fn may_hold_objects(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Header(_))
    }
}

/// A file that was left aside, untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedFile {
    pub name: String,
    pub reason: SkipReason,
}

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    pub superblocks: usize,
    /// Records that say something about an object.
    pub records: u64,
    pub torn: Vec<TornTail>,
    pub bad: Vec<BadRange>,
    /// Objects whose record is known to be damaged.
    pub corrupt: Vec<(ChunkId, Ballot)>,
    /// Pairs of records under one name with different bytes; the first was kept.
    pub contradictions: Vec<(ChunkId, Ballot)>,
    pub skipped: Vec<SkippedFile>,
    /// Superblocks that the disk could not read everywhere. They are left as they are: what is missing now may be there
    /// at the next start.
    pub unread: Vec<u32>,
    /// Sealed superblocks whose footer index was read instead of their headers.
    pub by_footer: usize,
    /// Superblocks that the index snapshot stood for.
    pub by_snapshot: usize,
    pub duration_ms: u64,
}

impl Serialize for SkipReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl RecoveryReport {
    /// Whether nothing was damaged or left aside. A torn tail is no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.bad.is_empty()
            && self.corrupt.is_empty()
            && self.skipped.is_empty()
            && self.unread.is_empty()
            && self.contradictions.is_empty()
    }

    pub(super) fn log(&self) {
        for torn in &self.torn {
            let bytes = torn.range.end - torn.range.start;
            info!(
                superblock = torn.superblock,
                offset = torn.range.start,
                bytes,
                "torn_tail"
            );
        }
        for bad in &self.bad {
            let BadRange {
                superblock,
                range,
                proven_rot,
            } = bad;
            warn!(superblock, ?range, proven_rot, "the bytes are damaged here");
        }
        for (chunk, ballot) in &self.corrupt {
            warn!(%chunk, %ballot, "object is corrupt");
        }
        for (chunk, ballot) in &self.contradictions {
            warn!(%chunk, %ballot, "two records with different bytes under one name, the first is kept");
        }
        for superblock in &self.unread {
            warn!(superblock, "the disk cannot read all of it, left as it is");
        }
        for file in &self.skipped {
            warn!(name = %file.name, reason = %file.reason, "superblock file left aside");
        }
        let Self {
            superblocks,
            records,
            by_footer,
            by_snapshot,
            duration_ms,
            ..
        } = self;
        info!(
            superblocks,
            records, by_footer, by_snapshot, duration_ms, "store opened"
        );
    }
}
