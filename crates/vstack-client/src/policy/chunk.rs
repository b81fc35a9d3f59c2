//! A chunk as a policy sees it: when it is played, and from which parts its blocks come.

use serde::{Deserialize, Serialize};

use super::{Micros, NodeIndex};

/// Bytes of a block, the last of a part being shorter: one leaf of the hash tree, so that each is verified by itself. Of
/// an erasure-coded chunk a block is one cell of a shard, and a *row* is the same block of all its shards.
pub const BLOCK_BYTES: u64 = 65_536;

/// One node's object of a chunk: a full copy, or one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    pub node: NodeIndex,
    /// `None`: a full copy.
    pub shard: Option<u8>,
}

/// What a chunk is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub chunk_bytes: u64,
    /// Of each part: as many as the chunk has for a copy, about a third of it for a shard.
    pub part_bytes: u64,
    /// Distinct parts that a block is needed from: 1 of copies, 3 of shards.
    pub needed: u8,
    /// Each node once; all copies, or all shards.
    pub parts: Vec<Part>,
}

impl Shape {
    /// A chunk that each of `nodes` has a full copy of.
    #[must_use]
    pub fn copies(chunk_bytes: u64, nodes: impl IntoIterator<Item = NodeIndex>) -> Self {
        let part = |node| Part { node, shard: None };
        Self {
            chunk_bytes,
            part_bytes: chunk_bytes,
            needed: 1,
            parts: nodes.into_iter().map(part).collect(),
        }
    }

    /// Nodes that have something of it, in the manifest's order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.parts.iter().map(|part| part.node)
    }

    /// What `node` has of it.
    #[must_use]
    pub fn part_on(&self, node: NodeIndex) -> Option<Part> {
        self.parts.iter().find(|part| part.node == node).copied()
    }

    /// Blocks of each part. An empty chunk has one, so that there is something to wait for.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.part_bytes.div_ceil(BLOCK_BYTES))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// Bytes of `range` in one part.
    #[must_use]
    pub fn bytes_of(&self, range: BlockRange) -> u64 {
        let at = |block: u32| (u64::from(block) * BLOCK_BYTES).min(self.part_bytes);
        at(range.end) - at(range.first)
    }

    /// Bytes of the chunk, from its beginning, that `blocks` whole rows decode to.
    #[must_use]
    pub fn prefix_bytes(&self, blocks: u32) -> u64 {
        (u64::from(blocks) * BLOCK_BYTES * u64::from(self.needed)).min(self.chunk_bytes)
    }
}

/// A chunk as the policy sees it; its sequence number is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpec {
    /// Where it starts on the video's time line.
    pub start: Micros,
    pub end: Micros,
    pub shape: Shape,
}

/// Blocks `first..end` of a part. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockRange {
    pub first: u32,
    /// The first one that is not meant.
    pub end: u32,
}

impl BlockRange {
    #[must_use]
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.first
    }

    pub fn blocks(self) -> std::ops::Range<usize> {
        self.first as usize..self.end as usize
    }

    /// First and last byte of it in a part of `part_bytes`, as a `Range` header names them.
    #[must_use]
    pub fn byte_span(self, part_bytes: u64) -> (u64, u64) {
        let end = (u64::from(self.end) * BLOCK_BYTES).min(part_bytes);
        (u64::from(self.first) * BLOCK_BYTES, end.saturating_sub(1))
    }
}

/// What an attempt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The whole chunk, checked against its SHA-256 alone: the base policy and those it is compared with. The node is
    /// the one to lead; of an erasure-coded chunk two more are asked with it.
    Chunk,
    /// These blocks of the part that the node has, each checked against the part's leaf hashes.
    Blocks(BlockRange),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_short_and_rows_of_shards_decode_to_three_blocks() {
        let copy = Shape::copies(2 * BLOCK_BYTES + 10, [NodeIndex(0)]);
        assert_eq!(copy.blocks(), 3);
        let tail = BlockRange { first: 1, end: 3 };
        assert_eq!(copy.bytes_of(tail), BLOCK_BYTES + 10);
        assert_eq!(
            tail.byte_span(copy.part_bytes),
            (BLOCK_BYTES, 2 * BLOCK_BYTES + 9)
        );
        assert_eq!(copy.prefix_bytes(3), copy.chunk_bytes);
        let coded = Shape {
            chunk_bytes: 6 * BLOCK_BYTES,
            part_bytes: 2 * BLOCK_BYTES,
            needed: 3,
            parts: Vec::new(),
        };
        assert_eq!(coded.prefix_bytes(1), 3 * BLOCK_BYTES);
        assert_eq!(Shape::copies(0, []).blocks(), 1);
    }
}
