//! What the writer is asked to do, and what it answers.

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

use crate::batch::Record;
use crate::error::StoreError;
use crate::index::Location;
use crate::record::{
    MARK_LEN, ObjectName, REFERENCE_RECORD_LEN, RecordHeader, RecordKind, Reference, data_record_len,
    data_tail,
};

/// An object that is stored, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutDone {
    pub chunk: ChunkId,
    pub ballot: Ballot,
    pub digest: ChunkDigest,
    /// The same bytes were there before the request.
    pub already_stored: bool,
}

/// What a delete did, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteDone {
    Deleted,
    /// A tombstone was there before the request.
    AlreadyDeleted,
}

/// Who wanted a deletion; kept in the tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DeleteReason {
    /// A plain client's request.
    Client = 1,
    /// A signed order of the catalogue.
    Order = 2,
}

impl DeleteReason {
    /// From a tombstone's flags.
    pub(crate) const fn from_flags(flags: u8) -> Self {
        if flags == Self::Client as u8 {
            Self::Client
        } else {
            Self::Order
        }
    }
}

/// Called once, on the writer's thread: it must not block.
pub(crate) type Done<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// What the writer is asked to do.
pub(crate) enum Request {
    Put {
        name: ObjectName,
        digest: ChunkDigest,
        data: Vec<Bytes>,
        leaf_crcs: Vec<u32>,
        done: Done<PutDone>,
    },
    Adopt {
        name: ObjectName,
        from: Ballot,
        sha256: Option<Sha256Digest>,
        done: Done<PutDone>,
    },
    Delete {
        name: ObjectName,
        reason: DeleteReason,
        done: Done<DeleteDone>,
    },
    /// The tombstone of an object is damaged and has to be written again.
    Rebury {
        name: ObjectName,
        reason: DeleteReason,
        done: Done<DeleteDone>,
    },
    /// Something that must not happen while a batch is between its decisions and its publishing.
    Between(Box<dyn FnOnce() + Send>),
}

impl Request {
    /// The chunk that it is about.
    pub(crate) const fn chunk(&self) -> Option<ChunkId> {
        match self {
            Self::Put { name, .. }
            | Self::Adopt { name, .. }
            | Self::Delete { name, .. }
            | Self::Rebury { name, .. } => Some(name.chunk),
            Self::Between(_) => None,
        }
    }
}

/// A record that waits for its batch.
pub(crate) struct Pending {
    pub(crate) name: ObjectName,
    pub(crate) content: Content,
    pub(crate) answer: Answer,
}

pub(crate) enum Content {
    Data {
        digest: ChunkDigest,
        data: Vec<Bytes>,
        leaf_crcs: Vec<u32>,
    },
    Reference {
        digest: ChunkDigest,
        reference: Reference,
        target: Location,
    },
    Tombstone {
        reason: DeleteReason,
    },
}

pub(crate) enum Answer {
    Put {
        done: Done<PutDone>,
        already_stored: bool,
    },
    Delete {
        done: Done<DeleteDone>,
    },
}

impl Content {
    pub(crate) fn record_len(&self) -> u32 {
        match self {
            Self::Data { digest, .. } => data_record_len(body_len(digest)),
            Self::Reference { .. } => REFERENCE_RECORD_LEN,
            Self::Tombstone { .. } => MARK_LEN,
        }
    }
}

/// Requests are checked against the 64 MiB limit before they come here.
pub(crate) fn body_len(digest: &ChunkDigest) -> u32 {
    u32::try_from(digest.size_bytes).expect("a chunk has at most 64 MiB")
}

impl Pending {
    pub(crate) fn record(&self, now: UnixMillis) -> Record<'_> {
        let (kind, body_len) = match &self.content {
            Content::Data { digest, .. } => (RecordKind::Data, body_len(digest)),
            Content::Reference { .. } => (RecordKind::Reference, REFERENCE_RECORD_LEN - MARK_LEN),
            Content::Tombstone { .. } => (RecordKind::Tombstone, 0),
        };
        let mark = RecordHeader::mark(kind, self.content.record_len(), 0, now);
        let header = RecordHeader {
            name: Some(self.name),
            body_len,
            ..mark
        };
        match &self.content {
            Content::Data {
                digest,
                data,
                leaf_crcs,
            } => Record {
                header: RecordHeader {
                    sha256: digest.sha256,
                    leaf_root: digest.leaf_root,
                    ..header
                },
                data,
                tail: data_tail(body_len, leaf_crcs),
            },
            Content::Reference {
                digest, reference, ..
            } => Record {
                header: RecordHeader {
                    sha256: digest.sha256,
                    leaf_root: digest.leaf_root,
                    ..header
                },
                data: &[],
                tail: reference.encode().to_vec(),
            },
            Content::Tombstone { reason } => Record::mark(RecordHeader {
                flags: *reason as u8,
                ..header
            }),
        }
    }

    pub(crate) fn answer(self, refused: Option<StoreError>) {
        let ObjectName { chunk, ballot } = self.name;
        match (self.answer, self.content) {
            (
                Answer::Put { done, already_stored },
                Content::Data { digest, .. } | Content::Reference { digest, .. },
            ) => {
                done(refused.map_or(
                    Ok(PutDone {
                        chunk,
                        ballot,
                        digest,
                        already_stored,
                    }),
                    Err,
                ));
            }
            (Answer::Delete { done }, _) => done(refused.map_or(Ok(DeleteDone::Deleted), Err)),
            (Answer::Put { done, .. }, Content::Tombstone { .. }) => done(Err(StoreError::Stopped)),
        }
    }
}
