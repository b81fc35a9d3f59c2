//! What the machines of a run say to each other, and the names of the machines and of the bytes.

use std::collections::BTreeSet;

use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::paxos::acceptor::Refusal;
use vstack_core::paxos::master::{Accepted, Conflict, Value};
use vstack_core::paxos::{DeleteOrder, Grant, OpenKind, Promise, Receipt, Replaced};

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Address {
    Catalogue,
    Node(usize),
    Client(usize),
}

impl Address {
    pub(super) const fn word(self) -> u64 {
        match self {
            Self::Catalogue => 0,
            Self::Node(index) => 1 + 2 * index as u64,
            Self::Client(index) => 2 + 2 * index as u64,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Catalogue => f.write_str("catalogue"),
            Self::Node(index) => write!(f, "node-{index}"),
            Self::Client(index) => write!(f, "client-{index}"),
        }
    }
}

pub(super) fn node_id(index: usize) -> NodeId {
    NodeId(Uuid::from_u128(index as u128 + 1))
}

pub(super) fn node_index(node: NodeId) -> usize {
    usize::try_from(node.0.as_u128() - 1).expect("node ids are small numbers here")
}

pub(super) fn incarnation(node: usize, life: u64) -> Incarnation {
    Incarnation(Uuid::from_u128(
        ((node as u128 + 1) << 64) | (u128::from(life) + 1),
    ))
}

pub(super) fn chunk_id(number: u32) -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(1)), number)
}

/// Stands for the bytes of one object. What a torn write leaves is another payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Payload(pub(super) u64);

impl Payload {
    pub(super) fn digest(self) -> ChunkDigest {
        ChunkDigest::of(&self.0.to_le_bytes())
    }

    /// Shard `index` of the chunk with these bytes.
    pub(super) const fn shard(self, index: u8) -> Self {
        Self(self.0 ^ super::random::mix(1 + index as u64))
    }

    /// The object that a part is: the chunk's bytes, or one of its shards.
    pub(super) fn part(self, shard: Option<u8>) -> Self {
        shard.map_or(self, |index| self.shard(index))
    }

    /// The chunk's bytes from those of a part. For a shard this stands for the decoding, which needs three of them.
    pub(super) fn whole(self, shard: Option<u8>) -> Self {
        self.part(shard)
    }
}

/// What OPEN asks of the catalogue; it chooses the nodes itself.
#[derive(Debug, Clone)]
pub(super) struct OpenAsk {
    pub(super) chunk: ChunkId,
    pub(super) kind: OpenKind,
    pub(super) owner: usize,
    pub(super) expect_epoch: Option<Ballot>,
    pub(super) parts: Vec<Option<u8>>,
    pub(super) exclude: BTreeSet<NodeId>,
    pub(super) min_ack: u8,
}

/// Why an OPEN or COMMIT was refused.
#[derive(Debug, Clone)]
pub(super) enum Denied {
    Conflict(Box<Conflict>),
    NotEnoughNodes,
    /// The catalogue was restored and has not heard of every node yet.
    NotServing,
}

/// A request and its number, or the answer to it.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Open {
        request: u64,
        ask: OpenAsk,
    },
    Granted {
        request: u64,
        grant: Grant,
        replaced: Option<Replaced>,
    },
    Denied {
        request: u64,
        denied: Denied,
    },
    Commit {
        request: u64,
        chunk: ChunkId,
        ballot: Ballot,
        value: Box<Value>,
        receipts: Vec<Receipt>,
    },
    Committed {
        request: u64,
        accepted: Box<Accepted>,
    },
    DeleteChunk {
        request: u64,
        chunk: ChunkId,
    },
    ChunkDeleted {
        request: u64,
    },
    Accept {
        request: u64,
        grant: Grant,
        object: ChunkId,
        payload: Payload,
    },
    Adopt {
        request: u64,
        grant: Grant,
        object: ChunkId,
        from: Ballot,
        expected: ChunkDigest,
    },
    Prepare {
        request: u64,
        grant: Grant,
    },
    Promised {
        request: u64,
        promise: Promise,
    },
    Show {
        request: u64,
        chunk: ChunkId,
    },
    Shown {
        request: u64,
        accepted: Option<Box<Accepted>>,
    },
    Stored {
        request: u64,
        receipt: Receipt,
    },
    NotStored {
        request: u64,
        ballot: Ballot,
        refusal: Refusal,
    },
    Read {
        request: u64,
        object: ChunkId,
        ballot: Ballot,
    },
    Bytes {
        request: u64,
        payload: Option<Payload>,
    },
    Heartbeat {
        incarnation: Incarnation,
        highest_generation: u64,
    },
    Delete(DeleteOrder),
    Deleted {
        object: ChunkId,
        ballot: Ballot,
    },
    /// Objects, and when each was stored.
    Inventory(Vec<(ChunkId, Ballot, u64)>),
    /// A client found every part of the placement of this epoch on its node.
    Whole {
        chunk: ChunkId,
        epoch: Ballot,
    },
    /// A node says that it does not hold a part of the placement of this epoch.
    Missing {
        chunk: ChunkId,
        epoch: Ballot,
        part: (NodeId, Ballot),
    },
    /// The catalogue asks a client to bring the placement back to full strength.
    Mend {
        chunk: ChunkId,
        base: Box<Accepted>,
        /// What it knows to be lost, whatever the nodes say: an object that came late to a new disk does not count.
        lost: Vec<(NodeId, Ballot)>,
    },
}

impl Message {
    /// A number for its kind, its chunk and its ballot: what the fingerprint takes of it.
    pub(super) fn words(&self) -> [u64; 3] {
        let of = |chunk: &ChunkId| u64::from(chunk.seq());
        match self {
            Self::Open { ask, .. } => [1, of(&ask.chunk), ask.kind as u64],
            Self::Granted { grant, .. } => [2, of(&grant.chunk_id), grant.ballot.number()],
            Self::Denied { request, .. } => [3, *request, 0],
            Self::Commit { chunk, ballot, .. } => [4, of(chunk), ballot.number()],
            Self::Committed { accepted, request } => [5, *request, accepted.ballot.number()],
            Self::DeleteChunk { chunk, .. } => [6, of(chunk), 0],
            Self::ChunkDeleted { request } => [7, *request, 0],
            Self::Accept { grant, object, .. } => [8, of(object), grant.ballot.number()],
            Self::Adopt { grant, from, .. } => [9, from.number(), grant.ballot.number()],
            Self::Stored { receipt, .. } => [10, of(&receipt.chunk_id), receipt.ballot.number()],
            Self::NotStored { request, ballot, .. } => [11, *request, ballot.number()],
            Self::Read { object, ballot, .. } => [12, of(object), ballot.number()],
            Self::Bytes { request, payload } => [13, *request, payload.map_or(0, |payload| payload.0)],
            Self::Heartbeat {
                highest_generation, ..
            } => [14, *highest_generation, 0],
            Self::Delete(order) => [15, of(&order.chunk_id), order.ballot.number()],
            Self::Deleted { object, ballot } => [16, of(object), ballot.number()],
            Self::Inventory(objects) => [17, objects.len() as u64, 0],
            Self::Whole { chunk, epoch } => [19, of(chunk), epoch.number()],
            Self::Missing { chunk, part, .. } => [20, of(chunk), part.1.number()],
            Self::Mend { chunk, base, .. } => [18, of(chunk), base.ballot.number()],
            Self::Prepare { grant, .. } => [21, of(&grant.chunk_id), grant.ballot.number()],
            Self::Promised { promise, .. } => [22, of(&promise.chunk_id), promise.ballot.number()],
            Self::Show { chunk, .. } => [23, of(chunk), 0],
            Self::Shown { request, accepted } => [
                24,
                *request,
                accepted.as_ref().map_or(0, |accepted| accepted.ballot.number()),
            ],
        }
    }
}
