//! What a proposer is to bring about: a first placement, a repaired one, or one of another scheme.

use std::collections::BTreeSet;

use crate::ballot::Ballot;
use crate::digest::ChunkDigest;
use crate::id::{NodeId, SHARD_COUNT};
use crate::paxos::master::Accepted;
use crate::paxos::{OpenKind, Receipt};
use crate::placement::{Part, Placement, Scheme};

/// The bytes that are to be stored: the chunk, or its five shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    Whole(ChunkDigest),
    Shards {
        /// Digest of the chunk that the shards give back.
        whole: ChunkDigest,
        /// By shard number.
        shards: Box<[ChunkDigest; SHARD_COUNT as usize]>,
    },
}

impl Contents {
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match self {
            Self::Whole(_) => Scheme::Replicated,
            Self::Shards { .. } => Scheme::Erasure,
        }
    }

    /// Digest of the whole chunk.
    #[must_use]
    pub const fn whole(&self) -> ChunkDigest {
        match self {
            Self::Whole(whole) | Self::Shards { whole, .. } => *whole,
        }
    }

    /// Digest of a part; `None` for a part that these contents do not have.
    #[must_use]
    pub fn digest_of(&self, shard: Option<u8>) -> Option<ChunkDigest> {
        match (self, shard) {
            (Self::Whole(whole), None) => Some(*whole),
            (Self::Shards { shards, .. }, Some(shard)) => shards.get(usize::from(shard)).copied(),
            _ => None,
        }
    }
}

/// What is to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    pub(super) kind: OpenKind,
    pub(super) contents: Contents,
    /// Parts that the new placement takes over untouched.
    pub(super) keep: Vec<Part>,
    /// Epoch that it builds upon; 0 for a first placement.
    pub(super) base: Ballot,
}

impl Goal {
    /// A first placement.
    #[must_use]
    pub const fn upload(contents: Contents) -> Self {
        Self {
            kind: OpenKind::Upload,
            contents,
            keep: Vec::new(),
            base: Ballot::PLAIN,
        }
    }

    /// The decided placement with its lost parts made again, on other nodes or on the same with a new disk. `None`
    /// when the chunk is deleted, has another scheme than `contents`, or lacks nothing.
    #[must_use]
    pub fn repair(base: &Accepted, contents: Contents, lost: impl Fn(&Part) -> bool) -> Option<Self> {
        let placement = base.value.placement()?;
        let keep: Vec<Part> = placement
            .parts
            .iter()
            .filter(|part| !lost(part))
            .copied()
            .collect();
        let goal = Self {
            kind: OpenKind::Repair,
            keep,
            base: base.ballot,
            contents,
        };
        let fits = placement.scheme == goal.contents.scheme() && placement.digest == goal.contents.whole();
        (fits && !goal.new_parts().is_empty()).then_some(goal)
    }

    /// The same chunk under the scheme of `contents`. `None` when the chunk is deleted, has other bytes, or has that
    /// scheme already.
    #[must_use]
    pub fn convert(base: &Accepted, contents: Contents) -> Option<Self> {
        let placement = base.value.placement()?;
        let fits = placement.scheme != contents.scheme() && placement.digest == contents.whole();
        fits.then(|| Self {
            kind: OpenKind::Convert,
            contents,
            keep: Vec::new(),
            base: base.ballot,
        })
    }

    /// The parts that are to be placed, one on a node: `None` is a full copy.
    #[must_use]
    pub fn new_parts(&self) -> Vec<Option<u8>> {
        let kept: BTreeSet<_> = self.keep.iter().filter_map(|part| part.shard).collect();
        match self.contents.scheme() {
            scheme @ Scheme::Replicated => vec![None; scheme.part_count().saturating_sub(self.keep.len())],
            Scheme::Erasure => (0..SHARD_COUNT)
                .filter(|shard| !kept.contains(shard))
                .map(Some)
                .collect(),
        }
    }

    /// Nodes that hold a kept part: no node gets two parts of a chunk.
    pub(super) fn kept_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.keep.iter().map(|part| part.node)
    }

    /// Parts of the placement when everything goes well.
    pub(super) const fn full_parts(&self) -> usize {
        self.contents.scheme().part_count()
    }

    /// Parts to be content with: what the scheme demands at least, and one more than there are.
    pub(super) fn fewest_parts(&self) -> usize {
        self.contents.scheme().least_parts().max(self.keep.len() + 1)
    }

    /// The placement that the receipts of `ballot` make of it.
    pub(super) fn placement<'a>(
        &self,
        ballot: Ballot,
        receipts: impl Iterator<Item = &'a Receipt>,
    ) -> Placement {
        let new = receipts.map(|receipt| Part {
            node: receipt.node,
            object_ballot: ballot,
            shard: receipt.chunk_id.shard(),
            sha256: receipt.digest.sha256,
            leaf_root: receipt.digest.leaf_root,
        });
        let mut parts: Vec<Part> = self.keep.iter().copied().chain(new).collect();
        parts.sort_by_key(|part| part.shard);
        Placement {
            scheme: self.contents.scheme(),
            digest: self.contents.whole(),
            parts,
        }
    }
}
