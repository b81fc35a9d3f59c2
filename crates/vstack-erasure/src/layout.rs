//! Which byte of a chunk is where in its shards.
//!
//! A chunk is cut into rows of three cells of 64 KiB, and cell `i` of a row goes to data shard `i`. So a row is a stretch
//! of the chunk, in order: whoever has three cells of it has 192 KiB to play, while shards that were thirds of the chunk
//! would give its beginning, its middle and its end at once. A cell is a leaf of the shard's Merkle tree, so it is
//! verified by itself. The last row's cells are a third of what is left each; only that row is padded, by two zeros at
//! most.

use std::ops::Range;

use crate::DATA_SHARDS;

/// Bytes of a full cell: a leaf of a shard's hash tree.
pub const CELL_BYTES: usize = 64 * 1024;
/// Bytes of a chunk in a full row.
pub const ROW_BYTES: usize = DATA_SHARDS * CELL_BYTES;

/// The layout of a chunk of a given length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    chunk_bytes: usize,
}

impl Layout {
    #[must_use]
    pub const fn new(chunk_bytes: usize) -> Self {
        Self { chunk_bytes }
    }

    #[must_use]
    pub const fn chunk_bytes(self) -> usize {
        self.chunk_bytes
    }

    /// Bytes of each shard, data and parity alike.
    #[must_use]
    pub const fn shard_bytes(self) -> usize {
        let left = self.chunk_bytes % ROW_BYTES;
        self.chunk_bytes / ROW_BYTES * CELL_BYTES + left.div_ceil(DATA_SHARDS)
    }

    #[must_use]
    pub const fn rows(self) -> usize {
        self.chunk_bytes.div_ceil(ROW_BYTES)
    }

    /// Where the cell of `row` is in every shard; empty past the last row.
    #[must_use]
    pub fn cell(self, row: usize) -> Range<usize> {
        let at = |row: usize| row.saturating_mul(CELL_BYTES).min(self.shard_bytes());
        at(row)..at(row.saturating_add(1))
    }

    /// The bytes of the chunk that `row` holds; empty past the last row.
    #[must_use]
    pub fn row(self, row: usize) -> Range<usize> {
        let at = |row: usize| row.saturating_mul(ROW_BYTES).min(self.chunk_bytes);
        at(row)..at(row.saturating_add(1))
    }

    /// The bytes of the chunk in the cell of `row` of data shard `shard`. Shorter than the cell, or empty, where the last
    /// row is padded; empty for a parity shard, which holds no bytes of the chunk.
    #[must_use]
    pub fn part(self, row: usize, shard: usize) -> Range<usize> {
        let (bytes, cell) = (self.row(row), self.cell(row));
        let shard = shard.min(DATA_SHARDS);
        let at = |shard: usize| (bytes.start + shard * cell.len()).min(bytes.end);
        let end = if shard < DATA_SHARDS { shard + 1 } else { shard };
        at(shard)..at(end)
    }
}
