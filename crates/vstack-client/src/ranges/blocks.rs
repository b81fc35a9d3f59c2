//! Verified blocks of chunks that are not whole yet, from one node or from several.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use vstack_erasure::{DATA_SHARDS, Layout, ROW_BYTES, SHARDS, decode_row};

use crate::policy::{BLOCK_BYTES, NodeIndex};
use crate::source::Source;

/// The blocks of one chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partial {
    /// By block: of a copy the bytes of whoever brought them, of a coded chunk one cell for each shard.
    cells: BTreeMap<u32, [Option<Bytes>; SHARDS]>,
    bytes_by_node: BTreeMap<NodeIndex, u64>,
}

impl Partial {
    fn put(&mut self, shard: Option<u8>, block: u32, node: NodeIndex, bytes: Bytes) {
        let slot = usize::from(shard.unwrap_or(0));
        if let Some(cell) = self.cells.entry(block).or_default().get_mut(slot)
            && cell.is_none()
        {
            *self.bytes_by_node.entry(node).or_default() += bytes.len() as u64;
            *cell = Some(bytes);
        }
    }

    /// Of all its blocks.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.bytes_by_node.values().sum()
    }

    /// Who brought most of it.
    pub(crate) fn main_node(&self) -> Option<NodeIndex> {
        let most = self.bytes_by_node.iter().max_by_key(|(_, bytes)| **bytes);
        most.map(|(node, _)| *node)
    }

    /// Bytes `range` of the chunk, if all blocks for it are here.
    pub(crate) fn bytes(&self, source: &Source, range: Range<usize>) -> Option<Bytes> {
        if source.is_coded() {
            self.decoded(source.layout(), range)
        } else {
            self.joined(range)
        }
    }

    fn joined(&self, range: Range<usize>) -> Option<Bytes> {
        let size = usize::try_from(BLOCK_BYTES).ok()?;
        self.collect(range, size, |block| {
            let cells = self.cells.get(&block)?;
            cells.first()?.clone()
        })
    }

    fn decoded(&self, layout: Layout, range: Range<usize>) -> Option<Bytes> {
        self.collect(range, ROW_BYTES, |row| {
            let cells = self.cells.get(&row)?;
            let cells: [Option<&[u8]>; SHARDS] = std::array::from_fn(|shard| cells.get(shard)?.as_deref());
            if cells.iter().flatten().count() < DATA_SHARDS {
                return None;
            }
            decode_row(layout, usize::try_from(row).ok()?, cells)
                .ok()
                .map(Bytes::from)
        })
    }

    /// Pieces of `size` bytes each, the last one being shorter, cut to `range`.
    fn collect(
        &self,
        range: Range<usize>,
        size: usize,
        piece: impl Fn(u32) -> Option<Bytes>,
    ) -> Option<Bytes> {
        let mut whole = BytesMut::with_capacity(range.len());
        for index in range.start / size..range.end.div_ceil(size) {
            let piece = piece(u32::try_from(index).ok()?)?;
            let from = range.start.saturating_sub(index * size);
            let until = (range.end - index * size).min(size);
            whole.extend_from_slice(piece.get(from..until)?);
        }
        Some(whole.freeze())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Blocks(BTreeMap<u32, Partial>);

impl Blocks {
    /// Stores a verified block; a second copy of one that is here is dropped.
    pub(crate) fn put(&mut self, seq: u32, shard: Option<u8>, block: u32, node: NodeIndex, bytes: Bytes) {
        self.0.entry(seq).or_default().put(shard, block, node, bytes);
    }

    pub(crate) fn get(&self, seq: u32) -> Option<&Partial> {
        self.0.get(&seq)
    }

    /// Takes the blocks of a chunk out.
    pub(crate) fn take(&mut self, seq: u32) -> Option<Partial> {
        self.0.remove(&seq)
    }
}
