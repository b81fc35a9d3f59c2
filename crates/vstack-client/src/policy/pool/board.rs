//! The blocks of one unfinished chunk: which are verified, which are asked for, and from which slot.
//!
//! A *slot* is a source of bytes that differ from those of other slots: a shard's number, or the place of a copy in the
//! list. A block is done when it is verified from as many slots as the shape needs.

use std::collections::BTreeSet;

use crate::policy::{BlockRange, Micros, NodeIndex, Shape};

/// Slots that fit the masks; further copies of a chunk are not asked.
const MAX_SLOTS: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Board {
    pub(super) shape: Shape,
    /// Per block, the slots that it was verified from.
    got: Vec<u16>,
    /// Per block, the slots that it is asked from just now.
    asked: Vec<u16>,
    /// Blocks that are not done.
    missing: u32,
    /// No block below this one wants another request.
    open_from: u32,
    /// Done blocks at the beginning.
    prefix: u32,
    /// Nodes that sent a block wrong.
    bans: BTreeSet<(NodeIndex, u32)>,
    /// Nodes that do not have it (they said so), or have it wrong, until then.
    absent: Vec<(NodeIndex, Micros)>,
}

impl Board {
    pub(super) fn new(shape: Shape, bans: BTreeSet<(NodeIndex, u32)>) -> Self {
        let blocks = shape.blocks();
        Self {
            got: vec![0; blocks as usize],
            asked: vec![0; blocks as usize],
            missing: blocks,
            open_from: 0,
            prefix: 0,
            bans,
            absent: Vec::new(),
            shape,
        }
    }

    /// What outlives the blocks.
    pub(super) fn into_bans(self) -> BTreeSet<(NodeIndex, u32)> {
        self.bans
    }

    /// The mask of the slot that `node` fills; `None` if it has nothing of this chunk.
    pub(super) fn slot(&self, node: NodeIndex) -> Option<u16> {
        let place = self.shape.parts.iter().position(|part| part.node == node)?;
        let slot = self.shape.parts[place].shard.map_or(place, usize::from);
        (slot < MAX_SLOTS).then(|| 1 << slot)
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.missing == 0
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.got.iter().all(|slots| *slots == 0)
    }

    /// Done blocks at the beginning.
    pub(super) const fn prefix(&self) -> u32 {
        self.prefix
    }

    pub(super) fn is_done(&self, block: usize) -> bool {
        self.got
            .get(block)
            .is_some_and(|slots| slots.count_ones() >= u32::from(self.shape.needed))
    }

    /// A block is verified from this slot.
    pub(super) fn has(&self, slot: u16, block: usize) -> bool {
        self.got.get(block).is_some_and(|slots| slots & slot != 0)
    }

    /// Requests that a block still wants beside those under way.
    fn wants(&self, block: usize) -> u32 {
        let slots = self.got[block] | self.asked[block];
        u32::from(self.shape.needed).saturating_sub(slots.count_ones())
    }

    /// Requests that the first block of a run wants: how many of the other lanes would have to be quicker.
    pub(super) fn wanted_at(&self, block: u32) -> u32 {
        self.wants(block as usize).max(1)
    }

    fn may_take(&self, node: NodeIndex, slot: u16, block: usize) -> bool {
        (self.got[block] | self.asked[block]) & slot == 0
            && !self.is_done(block)
            && (self.bans.is_empty()
                || u32::try_from(block).is_ok_and(|block| !self.bans.contains(&(node, block))))
    }

    /// Whether `node` could be asked now for this very block, which others may want as well.
    pub(super) fn could_bring(&self, now: Micros, node: NodeIndex, block: u32) -> bool {
        self.absent_until(node) <= now
            && self
                .slot(node)
                .is_some_and(|slot| self.may_take(node, slot, block as usize))
    }

    /// The first run of at most `longest` blocks that nobody was asked for (of shards: too few were), and that `node` can
    /// be asked for.
    ///
    /// `skip` such blocks are left to others, if there are as many.
    pub(super) fn open_run(&self, node: NodeIndex, slot: u16, longest: u32, skip: u32) -> Option<BlockRange> {
        let free = |block: usize| self.wants(block) > 0 && self.may_take(node, slot, block);
        let mut open = (self.open_from as usize..self.got.len()).filter(|block| free(*block));
        let first = open.nth(skip as usize)?;
        self.run_from(first, self.got.len(), longest, free)
    }

    /// The first run within `range` that `node` could bring as well as the one who was asked.
    pub(super) fn second_run(&self, node: NodeIndex, slot: u16, range: BlockRange) -> Option<BlockRange> {
        let free = |block: usize| self.may_take(node, slot, block);
        let first = range.blocks().find(|block| free(*block))?;
        self.run_from(first, range.end as usize, u32::MAX, free)
    }

    fn run_from(
        &self,
        first: usize,
        limit: usize,
        longest: u32,
        free: impl Fn(usize) -> bool,
    ) -> Option<BlockRange> {
        let limit = limit.min(first.saturating_add(longest as usize));
        let end = (first..limit).find(|block| !free(*block)).unwrap_or(limit);
        Some(BlockRange {
            first: u32::try_from(first).ok()?,
            end: u32::try_from(end).ok()?,
        })
    }

    /// Bytes that no request is out for, each counted once for every slot it still wants.
    pub(super) fn open_bytes(&self) -> f64 {
        let open: u32 = (self.open_from as usize..self.got.len())
            .map(|block| self.wants(block))
            .sum();
        f64::from(open) * self.shape.part_bytes as f64 / self.got.len() as f64
    }

    pub(super) fn has_open(&mut self) -> bool {
        while (self.open_from as usize) < self.got.len() && self.wants(self.open_from as usize) == 0 {
            self.open_from += 1;
        }
        (self.open_from as usize) < self.got.len()
    }

    pub(super) fn ask(&mut self, slot: u16, range: BlockRange) {
        for block in range.blocks() {
            self.asked[block] |= slot;
        }
    }

    /// The same of a range some blocks of which have come already.
    pub(super) fn ask_missing(&mut self, slot: u16, range: BlockRange) {
        for block in range.blocks() {
            self.asked[block] |= slot & !self.got[block];
        }
    }

    pub(super) fn unask(&mut self, slot: u16, range: BlockRange) {
        for block in range.blocks() {
            self.asked[block] &= !slot;
        }
        self.open_from = self.open_from.min(range.first);
    }

    /// A block is verified.
    pub(super) fn verified(&mut self, slot: u16, block: usize) {
        let was_done = self.is_done(block);
        self.asked[block] &= !slot;
        self.got[block] |= slot;
        if !was_done && self.is_done(block) {
            self.missing -= 1;
            while self.is_done(self.prefix as usize) {
                self.prefix += 1;
            }
        }
    }

    pub(super) fn blame(&mut self, node: NodeIndex, slot: u16, block: u32) {
        if let Some(asked) = self.asked.get_mut(block as usize) {
            *asked &= !slot;
            self.open_from = self.open_from.min(block);
            self.bans.insert((node, block));
        }
    }

    /// Whether too few nodes are left that may be asked for a block.
    pub(super) fn is_banned_out(&self, block: u32) -> bool {
        let mut slots = self.got.get(block as usize).copied().unwrap_or(0);
        for node in self
            .shape
            .nodes()
            .filter(|node| !self.bans.contains(&(*node, block)))
        {
            slots |= self.slot(node).unwrap_or(0);
        }
        slots.count_ones() < u32::from(self.shape.needed)
    }

    /// Nobody is left who may be asked for this block: all may be asked again.
    pub(super) fn pardon(&mut self, block: u32) {
        self.bans.retain(|(_, banned)| *banned != block);
    }

    pub(super) fn note_absent(&mut self, node: NodeIndex, until: Micros) {
        self.absent.retain(|(absent, _)| *absent != node);
        self.absent.push((node, until));
    }

    /// The absence of these ends then at the latest.
    pub(super) fn end_absences(&mut self, of: &BTreeSet<NodeIndex>, by: Micros) {
        for (_, until) in self.absent.iter_mut().filter(|(node, _)| of.contains(node)) {
            *until = (*until).min(by);
        }
    }

    /// Until when `node` is not asked for this chunk.
    pub(super) fn absent_until(&self, node: NodeIndex) -> Micros {
        let found = self.absent.iter().find(|(absent, _)| *absent == node);
        found.map_or(Micros(0), |(_, until)| *until)
    }

    /// The parts are elsewhere now, and are the same otherwise. What stays asked for is told again.
    pub(super) fn moved(&mut self, shape: Shape) {
        if self.shape.needed == 1 {
            // Slots of copies are places in the old list; a copy's block is the same from anywhere.
            self.got
                .iter_mut()
                .for_each(|slots| *slots = u16::from(*slots != 0));
        }
        self.asked.fill(0);
        self.open_from = 0;
        self.bans.clear();
        self.absent.clear();
        self.shape = shape;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{BLOCK_BYTES, Part};

    const fn node(index: u16) -> NodeIndex {
        NodeIndex(index)
    }

    fn range(first: u32, end: u32) -> BlockRange {
        BlockRange { first, end }
    }

    #[test]
    fn a_run_ends_where_another_request_begins() {
        let mut board = Board::new(
            Shape::copies(8 * BLOCK_BYTES, [node(0), node(1)]),
            BTreeSet::new(),
        );
        board.ask(1, range(0, 2));
        board.ask(1, range(5, 6));
        assert_eq!(board.open_run(node(1), 2, 16, 0), Some(range(2, 5)));
        assert_eq!(board.second_run(node(1), 2, range(1, 8)), Some(range(1, 8)));
        board.unask(1, range(0, 2));
        assert_eq!(board.open_run(node(1), 2, 3, 0), Some(range(0, 3)));
    }

    #[test]
    fn a_row_of_shards_takes_three_and_never_the_same_twice() {
        let part = |index: u8| Part {
            node: node(u16::from(index)),
            shard: Some(index),
        };
        let mut board = Board::new(
            Shape {
                chunk_bytes: 3 * BLOCK_BYTES,
                part_bytes: BLOCK_BYTES,
                needed: 3,
                parts: (0..5).map(part).collect(),
            },
            BTreeSet::new(),
        );
        for index in 0..3 {
            let slot = board.slot(node(index)).unwrap();
            assert_eq!(board.open_run(node(index), slot, 9, 0), Some(range(0, 1)));
            board.ask(slot, range(0, 1));
            assert_eq!(board.open_run(node(index), slot, 9, 0), None);
        }
        assert_eq!(board.open_run(node(3), 8, 9, 0), None, "three are asked");
        assert_eq!(board.second_run(node(3), 8, range(0, 1)), Some(range(0, 1)));
        for (slot, is_done) in [(1, false), (2, false), (8, true)] {
            board.verified(slot, 0);
            assert_eq!(board.is_done(0), is_done);
        }
        assert!(board.is_complete());
    }

    #[test]
    fn who_sent_a_block_wrong_is_not_asked_for_it_until_nobody_else_is_left() {
        let mut board = Board::new(
            Shape::copies(2 * BLOCK_BYTES, [node(0), node(1)]),
            BTreeSet::new(),
        );
        board.blame(node(0), 1, 0);
        assert_eq!(board.open_run(node(0), 1, 9, 0), Some(range(1, 2)));
        assert!(!board.is_banned_out(0));
        board.blame(node(1), 2, 0);
        assert!(board.is_banned_out(0));
        board.pardon(0);
        assert_eq!(board.open_run(node(0), 1, 9, 0), Some(range(0, 2)));
    }
}
