//! What each fact changes, before anything is decided.

use super::board::Board;
use super::watch::LAST_RESORT_AFTER;
use super::{Chunk, Pool, State};
use crate::policy::measure::backoff;
use crate::policy::seed::ROUNDS_BEFORE_ERROR;
use crate::policy::{
    Action, AttemptId, BlockRange, CancelReason, DropReason, Fact, Failure, Micros, NodeIndex, NodeRecord,
    NodeRecords, Shape,
};

/// A node that said it does not have a chunk is asked again for it after this time. Guess: longer than a manifest takes.
const ABSENT_FOR: Micros = Micros::from_ms(4_000);
/// A node that sent a chunk wrong is not asked for it for this time, while others can be. By then they have brought it.
const WRONG_FOR: Micros = Micros::from_ms(10_000);
/// The longest rest of a block that every node sent wrong.
const PARDON_REST_MAX: Micros = Micros::from_ms(4_000);
/// Steps of the back-off for wrong bytes, and for any other failure (R9, R6).
const DISTRUST_STEPS: u32 = 3;
const FAILURE_STEPS: u32 = 1;

impl Pool {
    /// Whether there may be something to decide.
    pub(super) fn take_in(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        fact: Fact,
        actions: &mut Vec<Action>,
    ) -> bool {
        match fact {
            Fact::FirstByte { attempt } => {
                self.first_byte(now, attempt);
                return false;
            }
            Fact::Progress { attempt, bytes } => {
                self.progress(now, attempt, bytes);
                return false;
            }
            Fact::Tick => {
                self.looked_at = now;
                self.learn(records);
                // Progress of all attempts was told just before, so that no bytes are missing in this time.
                (0..self.lanes.len()).for_each(|lane| self.advance_lane(now, lane));
            }
            Fact::Supplied { seq } => {
                self.supplied(seq, actions);
                // Nothing is decided before the fact that follows; should none follow, then by this.
                self.wake_at = Some(now);
                return false;
            }
            Fact::Position(position) => self.moved(now, position),
            Fact::Seek(position) => self.seek(position),
            Fact::Starved(starved) => {
                if std::mem::replace(&mut self.starved, starved) != starved {
                    self.moved_from = None;
                    self.rushes = 0;
                }
            }
            Fact::Wanted { seq } => {
                self.wanted.insert(seq);
            }
            Fact::Unwanted { seq } => {
                self.wanted.remove(&seq);
            }
            Fact::Verified { attempt, blocks } => self.verified(attempt, blocks, actions),
            Fact::BadBlock { attempt, block } => self.bad_block(now, records, attempt, block, actions),
            Fact::Finished { seq, right } => self.finished(now, seq, right, actions),
            Fact::Done {
                attempt,
                bytes,
                elapsed,
            } => self.done(now, records, attempt, bytes, elapsed),
            Fact::Failed { attempt, failure } => self.failed(now, records, attempt, &failure, actions),
            Fact::Placed { seq, shape } => self.placed(seq, shape, actions),
            Fact::ManifestRead => self.reading_manifest = false,
            Fact::Leaving(leaving) => self.leaving = leaving,
        }
        true
    }

    fn learn(&mut self, records: &NodeRecords) {
        for lane in &mut self.lanes {
            lane.learn(records.record(lane.node));
        }
    }

    fn first_byte(&mut self, now: Micros, attempt: AttemptId) {
        if let Some(flight) = self.flights.get_mut(&attempt)
            && flight.first_at.is_none()
        {
            flight.first_at = Some(now);
            let lane = &mut self.lanes[flight.lane];
            // A second request at the same node waits for the first, not for the node.
            if lane.flights.first() == Some(&attempt) {
                lane.first_byte(now - flight.sent_at);
            }
            lane.last_byte_at = now;
        }
    }

    fn progress(&mut self, now: Micros, attempt: AttemptId, bytes: u64) {
        self.first_byte(now, attempt);
        if let Some(flight) = self.flights.get_mut(&attempt) {
            let news = bytes.min(flight.range_bytes).saturating_sub(flight.bytes);
            flight.bytes += news;
            self.received_bytes += news;
            if news > 0 {
                self.lanes[flight.lane].received(now, news);
            }
        }
        self.advance_lane_of(now, attempt);
    }

    fn advance_lane_of(&mut self, now: Micros, attempt: AttemptId) {
        if let Some(flight) = self.flights.get(&attempt) {
            self.advance_lane(now, flight.lane);
        }
    }

    fn verified(&mut self, attempt: AttemptId, blocks: BlockRange, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&attempt).copied() else {
            return;
        };
        let Some(chunk) = self.chunks.get_mut(flight.seq as usize) else {
            return;
        };
        chunk.rounds = 0;
        chunk.tried.clear();
        let Some(board) = chunk.board_mut() else { return };
        for block in blocks
            .blocks()
            .filter(|block| flight.range.blocks().contains(block))
        {
            board.verified(flight.slot, block);
        }
        if board.is_complete() {
            self.complete(flight.seq, actions);
        } else {
            self.cancel_overtaken(flight.seq, actions);
        }
    }

    fn supplied(&mut self, seq: u32, actions: &mut Vec<Action>) {
        for attempt in self.attempts_at(|flight| flight.seq == seq) {
            self.cancel(attempt, CancelReason::Overtaken, actions);
        }
        if let Some(chunk) = self.chunks.get_mut(seq as usize)
            && chunk.is_unfinished()
        {
            chunk.state = State::Held;
            chunk.tried.clear();
            (chunk.rounds, chunk.last) = (0, None);
        }
    }

    fn complete(&mut self, seq: u32, actions: &mut Vec<Action>) {
        for attempt in self.attempts_at(|flight| flight.seq == seq && flight.remaining_bytes() > 0) {
            self.cancel(attempt, CancelReason::Overtaken, actions);
        }
        if let Some(chunk) = self.chunks.get_mut(seq as usize)
            && let State::Partial(board) = std::mem::replace(&mut chunk.state, State::Finishing)
        {
            chunk.bans = board.into_bans();
            chunk.last = None;
            actions.push(Action::Finish { seq });
        }
    }

    /// What is left of these attempts has come from elsewhere. A block that is here and not checked yet is left.
    fn cancel_overtaken(&mut self, seq: u32, actions: &mut Vec<Action>) {
        let Some(board) = self.chunks.get(seq as usize).and_then(Chunk::board) else {
            return;
        };
        let overtaken = self.attempts_at(|flight| {
            let is_over = |block| board.is_done(block) || board.has(flight.slot, block);
            flight.seq == seq && flight.remaining_bytes() > 0 && flight.range.blocks().all(is_over)
        });
        for attempt in overtaken {
            self.cancel(attempt, CancelReason::Overtaken, actions);
        }
    }

    fn finished(&mut self, now: Micros, seq: u32, right: bool, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if !matches!(chunk.state, State::Finishing) {
            return;
        }
        chunk.state = if right { State::Held } else { State::Missing };
        if !right {
            self.next_round(now, seq, actions);
            self.ask_for_manifest(now, actions);
        }
    }

    fn done(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        attempt: AttemptId,
        bytes: u64,
        elapsed: Micros,
    ) {
        self.progress(now, attempt, bytes);
        if let Some(flight) = self.land(attempt) {
            let lane = &mut self.lanes[flight.lane];
            lane.delivered(now);
            let record = records.record_mut(lane.node);
            record.delivered(now, bytes, elapsed);
            if let Some(prior) = lane.prior() {
                record.remember(now, prior);
            }
        }
    }

    fn failed(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        attempt: AttemptId,
        failure: &Failure,
        actions: &mut Vec<Action>,
    ) {
        self.advance_lane_of(now, attempt);
        let Some(flight) = self.land(attempt) else { return };
        let lane = &mut self.lanes[flight.lane];
        let node = lane.node;
        if failure.doubts_bytes() {
            self.spoilt(now, records, flight.lane, flight.seq, failure, actions);
        } else if failure.blames_node() {
            lane.failed(now, FAILURE_STEPS);
            records.record_mut(node).failed(now, failure);
        } else {
            records.record_mut(node).failed(now, failure);
            let chunk = self.chunks.get_mut(flight.seq as usize);
            if let Some(board) = chunk.and_then(Chunk::board_mut) {
                board.note_absent(node, now + ABSENT_FOR);
            }
            self.ask_for_manifest(now, actions);
        }
        self.note_failure(now, flight.seq, node, failure.clone(), actions);
    }

    /// When as many nodes failed as cannot be done without, those who wait are told, in the end.
    pub(super) fn note_failure(
        &mut self,
        now: Micros,
        seq: u32,
        node: NodeIndex,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        chunk.tried.insert(node);
        chunk.last = Some((node, failure));
        let left = chunk
            .spec
            .shape
            .nodes()
            .filter(|node| !chunk.tried.contains(node))
            .count();
        if left < usize::from(chunk.spec.shape.needed) {
            self.next_round(now, seq, actions);
        }
        self.end_grudges(now, seq);
    }

    /// Those who sent something of a chunk wrong are asked again soon when the others are too few.
    fn end_grudges(&mut self, now: Micros, seq: u32) {
        let rests = |node: NodeIndex| {
            let lane = self.lanes.iter().find(|lane| lane.node == node);
            lane.is_some_and(|lane| lane.rest_until > now)
        };
        let Some(chunk) = self.chunks.get(seq as usize) else {
            return;
        };
        let Some(board) = chunk.board() else { return };
        let well = board.shape.nodes();
        let well = well.filter(|node| board.absent_until(*node) <= now && !rests(*node));
        if well.count() >= usize::from(board.shape.needed) {
            return;
        }
        let spoilt = chunk.spoilt.clone();
        if let Some(board) = self.chunks.get_mut(seq as usize).and_then(Chunk::board_mut) {
            board.end_absences(&spoilt, now + LAST_RESORT_AFTER);
        }
    }

    pub(super) fn next_round(&mut self, now: Micros, seq: u32, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        chunk.tried.clear();
        chunk.rounds = chunk.rounds.saturating_add(1);
        if chunk.rounds.is_multiple_of(ROUNDS_BEFORE_ERROR) {
            actions.push(Action::Unobtainable { seq });
            self.ask_for_manifest(now, actions);
        }
    }

    fn bad_block(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        attempt: AttemptId,
        block: u32,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&attempt).copied() else {
            return;
        };
        let node = self.lanes[flight.lane].node;
        let seq = flight.seq;
        actions.push(Action::Blame { node, seq, block });
        if let Some(board) = self.chunks.get_mut(seq as usize).and_then(Chunk::board_mut) {
            board.blame(node, flight.slot, block);
        }
        self.spoilt(now, records, flight.lane, seq, &Failure::WrongBytes, actions);
        self.note_failure(now, seq, node, Failure::WrongBytes, actions);
        self.pardon_when_banned_out(now, seq, block, actions);
    }

    /// A node sent something of a chunk wrong: it is left alone with this chunk, and with all when that happens again and
    /// again (R9 blames the node at once; but a disk rots in places, and its other chunks are as good as before).
    fn spoilt(
        &mut self,
        now: Micros,
        records: &mut NodeRecords,
        lane: usize,
        seq: u32,
        failure: &Failure,
        actions: &mut Vec<Action>,
    ) {
        let node = self.lanes[lane].node;
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if chunk.spoilt.insert(node) {
            records.record_mut(node).failed(now, failure);
        }
        if let Some(board) = chunk.board_mut() {
            board.note_absent(node, now + WRONG_FOR);
        }
        self.lanes[lane].doubted(now);
        let distrusted = records.record(node).is_some_and(NodeRecord::is_distrusted);
        if distrusted {
            self.lanes[lane].failed(now, DISTRUST_STEPS);
        }
        for other in self.lanes[lane].flights.clone() {
            let is_same = self.flights.get(&other).is_some_and(|flight| flight.seq == seq);
            if distrusted || is_same {
                self.cancel(other, CancelReason::Distrusted, actions);
            }
        }
    }

    /// Every node sent this block wrong. They rest, and then all may be asked again: one may have repaired itself.
    fn pardon_when_banned_out(&mut self, now: Micros, seq: u32, block: u32, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        let rest_until = now + backoff(chunk.rounds.max(1), PARDON_REST_MAX);
        let Some(board) = chunk.board_mut() else { return };
        if !board.is_banned_out(block) {
            return;
        }
        board.pardon(block);
        for node in board.shape.nodes().collect::<Vec<_>>() {
            board.note_absent(node, rest_until);
        }
        self.ask_for_manifest(now, actions);
    }

    fn placed(&mut self, seq: u32, shape: Shape, actions: &mut Vec<Action>) {
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        if chunk.spec.shape == shape {
            return;
        }
        let same_blocks =
            (chunk.spec.shape.needed, chunk.spec.shape.part_bytes) == (shape.needed, shape.part_bytes);
        let before = std::mem::replace(&mut chunk.spec.shape, shape.clone());
        chunk.tried.clear();
        chunk.bans.clear();
        chunk.spoilt.clear();
        // What is under way at a node that still has the same part goes on.
        let gone = self.attempts_at(|flight| {
            let node = self.lanes[flight.lane].node;
            let stays =
                same_blocks && shape.part_on(node).is_some() && shape.part_on(node) == before.part_on(node);
            flight.seq == seq && !stays
        });
        for attempt in gone {
            self.cancel(attempt, CancelReason::Moved, actions);
        }
        let Some(chunk) = self.chunks.get_mut(seq as usize) else {
            return;
        };
        match &mut chunk.state {
            State::Partial(board) if same_blocks => {
                board.moved(shape);
                self.ask_again(seq);
            }
            State::Partial(_) => self.release(seq as usize, DropReason::Reshaped, actions),
            State::Missing | State::Finishing | State::Held => {}
        }
    }

    /// Tells the board of a chunk that has moved what is still under way, which may fill other slots now.
    fn ask_again(&mut self, seq: u32) {
        let Some(board) = self.chunks.get_mut(seq as usize).and_then(Chunk::board_mut) else {
            return;
        };
        for flight in self.flights.values_mut().filter(|flight| flight.seq == seq) {
            if let Some(slot) = board.slot(self.lanes[flight.lane].node) {
                flight.slot = slot;
                board.ask_missing(slot, flight.range);
            }
        }
    }

    /// The board of a chunk that blocks are to be asked of; `None` when none is missing.
    pub(super) fn open_board(&mut self, index: usize) -> Option<&mut Board> {
        let chunk = self.chunks.get_mut(index)?;
        if matches!(chunk.state, State::Missing) {
            let bans = std::mem::take(&mut chunk.bans);
            chunk.state = State::Partial(Board::new(chunk.spec.shape.clone(), bans));
        }
        chunk.board_mut()
    }
}
