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
/// The speed of playback is taken over this time; what is below this many times real time is real time.
const SPEED_OVER: Micros = Micros::from_ms(1_000);
const SPEED_STEPS: f64 = 1.25;
/// The window grows no further than for this.
const SPEED_MAX: f64 = 16.0;
/// Players offer twice real time, some four times. Who is faster than this in so many measurements, one after another,
/// only fetches, until the speed is real time again or playback waits.
const WATCHED_SPEED_MAX: f64 = 6.0;
pub(super) const RUSHES_OF_BULK: u32 = 2;
/// A position so far back is another place, although nobody said that the viewer jumped.
const STEP_BACK: Micros = Micros::from_ms(1_000);

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

    /// Times are judged by when the playhead will be there, which is sooner when a video is played faster.
    fn moved(&mut self, now: Micros, position: Micros) {
        let jumped = position + STEP_BACK < self.position || position > self.position + self.ahead();
        self.position = position;
        if jumped {
            self.elsewhere();
        }
        if self.starved {
            return;
        }
        let (at, from) = *self.moved_from.get_or_insert((now, position));
        let passed = (now - at).0 as f64;
        if now - at >= SPEED_OVER {
            let ratio = (position - from).0 as f64 / passed;
            // A player tells its position in steps.
            self.speed = if ratio > SPEED_STEPS {
                ratio.min(SPEED_MAX)
            } else {
                1.0
            };
            self.rushes = if ratio > WATCHED_SPEED_MAX {
                self.rushes.saturating_add(1)
            } else if ratio > SPEED_STEPS && self.is_bulk() {
                self.rushes
            } else {
                0
            };
            self.moved_from = Some((now, position));
        }
        self.extend_reach();
    }

    /// The window begins anew at the playhead.
    fn elsewhere(&mut self) {
        self.reach = self.position;
        self.moved_from = None;
        self.rushes = 0;
        self.extend_reach();
    }

    /// As much lies in the window as is played in its time, and beyond the ordinary one no more than may be kept. What is in
    /// it stays: a pause takes nothing back.
    fn extend_reach(&mut self) {
        let most = super::seconds(self.config.target.0 as f64 / 1e6 * self.speed);
        let (ordinary, limit) = (self.position + self.config.target, self.position + most);
        let mut bytes = 0;
        let ahead = self.chunks[self.first()..].iter().take_while(|chunk| {
            if chunk.spec.start >= ordinary {
                bytes += chunk.spec.shape.chunk_bytes;
            }
            chunk.spec.start < limit && bytes <= self.config.keep_bytes
        });
        let end = ahead.last().map_or(self.position, |chunk| chunk.spec.end);
        self.reach = self.reach.max(end.min(limit));
    }

    fn learn(&mut self, records: &NodeRecords) {
        for lane in &mut self.lanes {
            lane.learn(records.record(lane.node));
        }
    }

    fn seek(&mut self, position: Micros) {
        self.position = position;
        self.elsewhere();
        self.filling = true;
        self.ready = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ChunkSpec, PoolConfig, Shape};

    const CHUNK_BYTES: u64 = 1_000_000;

    struct Playing {
        pool: Pool,
        records: NodeRecords,
        now: Micros,
        position: Micros,
        slack: Option<Micros>,
    }

    /// A hundred chunks of 1 s, of which 8 s are fetched ahead and 20 chunks may be kept.
    fn playing() -> Playing {
        let spec = |seq: u64| ChunkSpec {
            start: Micros::from_ms(seq * 1_000),
            end: Micros::from_ms((seq + 1) * 1_000),
            shape: Shape::copies(CHUNK_BYTES, [NodeIndex(0)]),
        };
        let config = PoolConfig {
            target: Micros::from_ms(8_000),
            keep_bytes: 20 * CHUNK_BYTES,
            ..PoolConfig::default()
        };
        let mut playing = Playing {
            pool: Pool::new(config, (0..100).map(spec).collect()),
            records: NodeRecords::default(),
            now: Micros(1),
            position: Micros(0),
            slack: None,
        };
        playing.tell(Fact::Tick);
        playing.tell(Fact::Starved(false));
        playing
    }

    impl Playing {
        fn tell(&mut self, fact: Fact) {
            for action in self.pool.apply(self.now, &mut self.records, fact) {
                if let Action::Start(start) = action {
                    self.slack = Some(start.slack);
                }
            }
        }

        /// Two seconds pass, at so many times real time; whole chunks ahead that are in the window then.
        fn go_on(&mut self, speed: f64) -> u64 {
            for _ in 0..20 {
                self.now = self.now + Micros::from_ms(100);
                self.position = self.position + super::super::seconds(0.1 * speed);
                // Who has not waited says so again and again.
                self.tell(Fact::Starved(false));
                self.tell(Fact::Position(self.position));
            }
            self.ahead()
        }

        fn ahead(&self) -> u64 {
            self.pool.window().end as u64 - self.position.as_ms() / 1_000
        }
    }

    #[test]
    fn what_is_played_faster_is_fetched_further_ahead_and_a_pause_takes_nothing_back() {
        let mut playing = playing();
        assert_eq!(playing.go_on(1.0), 8);
        assert_eq!(playing.go_on(2.0), 16);
        assert_eq!(playing.go_on(0.0), 16);
        assert_eq!(playing.go_on(1.0), 14, "what is there is used up first");
        playing.tell(Fact::Seek(playing.position));
        assert_eq!(playing.ahead(), 8);
    }

    #[test]
    fn a_playhead_that_is_elsewhere_has_a_window_of_its_own() {
        for (from_ms, to_ms) in [(60_000, 0), (0, 60_000)] {
            let mut playing = playing();
            playing.position = Micros::from_ms(from_ms);
            playing.tell(Fact::Seek(playing.position));
            assert_eq!(playing.go_on(2.0), 16);
            playing.position = Micros::from_ms(to_ms);
            playing.tell(Fact::Position(playing.position));
            assert!(playing.ahead() <= 16, "{}", playing.ahead());
        }
    }

    #[test]
    fn who_only_fetches_keeps_as_much_as_allowed_hurries_nobody_and_does_not_panic() {
        let mut playing = playing();
        assert!(playing.pool.panics(), "nothing is there");
        assert_eq!(playing.go_on(4.0), 28, "8 s, and 20 chunks that may be kept");
        assert!(
            playing.pool.panics(),
            "somebody may watch at four times the speed"
        );
        playing.go_on(10.0);
        playing.go_on(10.0);
        assert!(!playing.pool.panics());
        playing.go_on(2.0);
        assert!(!playing.pool.panics(), "nodes that are busy make nobody a viewer");
        let bulk = playing.pool.clone();
        playing.tell(Fact::Starved(true));
        assert!(playing.pool.panics());
        playing.pool = bulk;
        let attempt = playing.pool.attempts_at(|_| true)[0];
        playing.slack = None;
        playing.tell(Fact::Failed {
            attempt,
            failure: Failure::Connect,
        });
        playing.now = playing.now + Micros::from_ms(60_000);
        playing.tell(Fact::Tick);
        assert_eq!(playing.slack, Some(Micros::from_ms(8_000)));
    }
}
