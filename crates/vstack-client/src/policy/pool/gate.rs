//! The start gate: how far playback may go within a chunk that is still coming (R10).

use super::lane::Lane;
use super::{Action, Chunk, Pool, schedule};
use crate::policy::BLOCK_BYTES;

impl Pool {
    /// Opens the gate, and says how far playback may go within a chunk that is still coming.
    pub(super) fn tell_prefix(&mut self, actions: &mut Vec<Action>) {
        let (next, _) = self.whole_until();
        let (Some(chunk), Ok(seq)) = (self.chunks.get(next), u32::try_from(next)) else {
            return;
        };
        // Where one chunk ends and the next is not whole, playback would stop although it could go on.
        let is_near = next == self.first()
            || !self.starved && self.until_played(chunk.spec.start) <= self.config.prefix_ahead;
        let Some(board) = chunk.board().filter(|_| is_near) else {
            return;
        };
        let bytes = board.shape.prefix_bytes(board.prefix());
        let told = self.ready.filter(|(ready, _)| *ready == seq);
        let is_news = told.map_or(bytes > 0, |(_, before)| bytes > before);
        let goes_on = told.is_some() && !self.starved;
        if is_news && (goes_on || !self.starved || self.may_begin(chunk, bytes)) {
            self.ready = Some((seq, bytes));
            actions.push(Action::PrefixReady { seq, bytes });
        }
    }

    /// While playback waits: the chunk that it waits for, and the block before which its start gate lies.
    pub(super) fn gate(&self) -> Option<(usize, u32)> {
        let first = self.first();
        let chunk = self.chunks.get(first).filter(|_| self.starved)?;
        let bytes = self.played_bytes(chunk) + self.config.prefix_bytes as f64;
        let row = f64::from(chunk.spec.shape.needed) * BLOCK_BYTES as f64;
        Some((first, schedule::whole((bytes / row).ceil())))
    }

    /// Bytes of the chunk at the playhead that lie behind it.
    fn played_bytes(&self, chunk: &Chunk) -> f64 {
        (self.position - chunk.spec.start).0 as f64 / 1e6 * chunk.byte_rate()
    }

    fn may_begin(&self, chunk: &Chunk, prefix_bytes: u64) -> bool {
        let enough = prefix_bytes as f64 >= self.played_bytes(chunk) + self.config.prefix_bytes as f64;
        let flow: f64 = self.lanes.iter().map(Lane::live_rate).sum();
        enough && flow >= self.config.prefix_rate * chunk.byte_rate()
    }
}
