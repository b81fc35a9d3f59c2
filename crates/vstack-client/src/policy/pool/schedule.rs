//! Which range a free lane asks for (R2 to R4, R12, R13).
//!
//! The guard that leaves urgent blocks to quicker lanes compares with the *greater* of two times: when the others could
//! have all of it together, and when the best of them could have just this. With the first alone, all lanes may refuse,
//! each pointing at the others, and nothing is ever asked for.

use super::board::Board;
use super::watch::LAST_RESORT_AFTER;
use super::{Chunk, Flight, Lane, Pool, seconds};
use crate::policy::{Action, AttemptId, BLOCK_BYTES, BlockRange, Micros, NodeRecords, Piece, Start};

/// The guard (R4): later than the others by this factor, and this much more, is too late.
const LATE_FACTOR: f64 = 1.25;
const LATE_SEC: f64 = 0.1;
/// Ranges are this much shorter while playback waits.
const SPAN_WHILE_STARVED: f64 = 0.2;
/// Blocks of the second request of a lane that nothing is known of, while playback waits.
const SECOND_COLD_BLOCKS: u32 = 2;
/// Pacing may run up a debt of so many seconds of playback, and save up so many.
const PACE_DEBT_SEC: f64 = 8.0;
const PACE_SAVED_SEC: f64 = 1.0;

/// A request to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) index: usize,
    pub(super) slot: u16,
    pub(super) range: BlockRange,
    pub(super) hedges: Option<AttemptId>,
}

/// What may be asked of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Nothing,
    /// It is busy with what is played later, and playback is short of what is played first.
    UrgentOnly,
    Anything,
}

/// What pacing has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pacing {
    Off,
    Earned,
    Waits,
}

impl Pool {
    /// Chunks to fetch, the one that is needed first in front.
    pub(super) fn candidates(&self) -> impl Iterator<Item = usize> + '_ {
        let waits = |index: usize| self.is_wanted(index) || self.starved && index == self.first();
        self.needed().filter(move |index| {
            let index = *index;
            if self.leaving {
                waits(index) || self.is_begun(index)
            } else {
                self.filling || self.is_wanted(index)
            }
        })
    }

    pub(super) fn assign(&mut self, now: Micros, records: &NodeRecords, actions: &mut Vec<Action>) {
        let unfinished: Vec<usize> = self
            .candidates()
            .filter(|index| self.chunks[*index].is_unfinished())
            .collect();
        let Some(urgent) = unfinished.first().copied() else {
            return;
        };
        for index in &unfinished {
            self.open_board(*index);
            self.add_lanes(now, records, *index);
        }
        self.earn_credit(now, urgent);
        // What is measured to be quick first; among equals the base policy's score.
        let mut order: Vec<(usize, f64, f64)> = (0..self.lanes.len())
            .map(|lane| {
                let score = records
                    .record(self.lanes[lane].node)
                    .map_or(0.0, |record| record.score());
                (lane, self.lanes[lane].rate(), score)
            })
            .collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.total_cmp(&a.2)).then(a.0.cmp(&b.0)));
        for (lane, _, score) in order {
            while let Some(choice) = self.choose(now, lane, &unfinished) {
                let start = self.start(now, lane, choice, score);
                actions.push(Action::Start(start));
            }
        }
    }

    fn add_lanes(&mut self, now: Micros, records: &NodeRecords, index: usize) {
        for part in &self.chunks[index].spec.shape.parts {
            if self.lanes.iter().all(|lane| lane.node != part.node) {
                self.lanes
                    .push(Lane::new(now, part.node, records.record(part.node)));
            }
        }
    }

    /// The next request of a lane, if it may make one.
    fn choose(&mut self, now: Micros, lane: usize, unfinished: &[usize]) -> Option<Choice> {
        let urgent = *unfinished.first()?;
        match self.room(now, lane, urgent) {
            Room::Nothing => return None,
            Room::UrgentOnly => return self.next_run(now, lane, &[urgent]),
            Room::Anything => {}
        }
        let panics = self.panics();
        let next = match self.pacing(now) {
            Pacing::Off => self.next_run(now, lane, unfinished),
            // What little may be asked for goes to the chunk that is played first.
            Pacing::Earned => {
                let open = unfinished.iter().copied().find(|index| self.has_open(*index));
                open.and_then(|index| self.next_run(now, lane, &[index]))
            }
            Pacing::Waits => None,
        };
        // R8b: near starvation what is needed first comes before work for later, even if it is asked for already.
        let gate = self.gate();
        let is_later = |next: &Choice| {
            let beyond = gate.is_some_and(|(index, row)| next.index == index && next.range.first >= row);
            next.index != urgent || beyond
        };
        let waits = next.as_ref().is_some_and(is_later);
        let hedge_first = panics && waits;
        // On the way to the start, later work would take bandwidth from what playback waits for at the same node.
        let next = next.filter(|_| !(waits && self.serves_gate(lane)));
        let may_hedge = self.lanes[lane].failures == 0 && self.lanes[lane].flights.is_empty();
        if next.is_none() || hedge_first {
            let near = if hedge_first { 1 } else { 2 };
            let hedge = (may_hedge || hedge_first && self.lanes[lane].failures == 0)
                .then(|| self.hedge(now, lane, &unfinished[..near.min(unfinished.len())]))
                .flatten();
            return hedge.or(next);
        }
        next
    }

    fn room(&self, now: Micros, index: usize, urgent: usize) -> Room {
        let lane = &self.lanes[index];
        let is_known = lane.ramp >= 2 || self.starved;
        // A block that lasts longer than the span keeps the line busy by itself, and a second one beside it would only
        // compete with what is needed first: so it is where many share a line, above all for small videos.
        let lasts_sec = self.outstanding(index) / lane.rate();
        let is_short = lasts_sec <= self.config.span.0 as f64 / 1e6;
        let depth = if is_known && lane.failures == 0 && is_short {
            self.config.depth
        } else {
            1
        };
        if now < self.ready_at(now, index, urgent) {
            Room::Nothing
        } else if lane.flights.len() < depth {
            self.room_among_lanes(lane, urgent)
        } else if self.panics() && self.serves_only_later(lane, urgent) {
            Room::UrgentOnly
        } else {
            Room::Nothing
        }
    }

    /// Nodes put off what is not urgent, and at what is left of their line a range for later looks like a long queue, in
    /// which nobody would ask for what is. It is none: the urgent one is served beside it, and before.
    fn serves_only_later(&self, lane: &Lane, urgent: usize) -> bool {
        let mut flights = lane.flights.iter().filter_map(|id| self.flights.get(id));
        lane.failures == 0
            && lane.flights.len() <= self.config.depth
            && flights.all(|flight| flight.seq as usize != urgent)
    }

    /// A lane that has room itself may be one too many.
    fn room_among_lanes(&self, lane: &Lane, urgent: usize) -> Room {
        let active = || self.lanes.iter().filter(|lane| !lane.flights.is_empty());
        let board = self.chunks[urgent].board();
        let serves = |lane: &Lane| board.is_some_and(|board| board.slot(lane.node).is_some());
        // The limit must not keep out the only ones who have what is needed first.
        let may = !lane.flights.is_empty()
            || active().count() < self.config.max_lanes
            || serves(lane) && !active().any(serves);
        if may { Room::Anything } else { Room::Nothing }
    }

    /// When a lane may be asked: after its rest, or earlier when those that are left are too few for the chunk.
    fn ready_at(&self, now: Micros, index: usize, urgent: usize) -> Micros {
        let lane = &self.lanes[index];
        let Some(board) = self.chunks[urgent].board().filter(|_| lane.rest_until > now) else {
            return lane.rest_until;
        };
        let well = self
            .lanes
            .iter()
            .filter(|lane| lane.rest_until <= now && board.slot(lane.node).is_some());
        if well.count() < usize::from(board.shape.needed) && board.slot(lane.node).is_some() {
            lane.rest_until.min(lane.failed_at + LAST_RESORT_AFTER)
        } else {
            lane.rest_until
        }
    }

    /// The first run of open blocks that this lane should take.
    fn next_run(&mut self, now: Micros, lane: usize, unfinished: &[usize]) -> Option<Choice> {
        let gate = self.gate();
        for index in unfinished.iter().copied() {
            let node = self.lanes[lane].node;
            let longest = self.longest_range(lane);
            let skip = self.rows_left_to_others(now, lane, index);
            let Some(board) = self
                .open_board(index)
                .filter(|board| board.absent_until(node) <= now)
            else {
                continue;
            };
            let Some(slot) = board.slot(node).filter(|_| board.has_open()) else {
                continue;
            };
            let Some(range) = board.open_run(node, slot, longest, skip) else {
                continue;
            };
            let range = within_gate(range, gate.filter(|(gated, _)| *gated == index));
            if let Some(range) = self.guarded(now, lane, index, range) {
                return Some(Choice {
                    index,
                    slot,
                    range,
                    hedges: None,
                });
            }
        }
        None
    }

    /// As much as the lane brings in the span; little while it is unknown, one block as a probe after a failure (R2, R6).
    fn longest_range(&self, lane: usize) -> u32 {
        let lane = &self.lanes[lane];
        if lane.failures > 0 {
            return 1;
        }
        // While playback waits for its start, lanes are free again soon, to help where it is still missing something.
        let span_sec = self.config.span.0 as f64 / 1e6 * if self.starved { SPAN_WHILE_STARVED } else { 1.0 };
        let blocks = (lane.rate() * span_sec / BLOCK_BYTES as f64).round();
        let most = f64::from(self.config.max_range_blocks.max(1));
        // Two requests of equal length would end at the same time, and the node would be idle for a round trip.
        let ramp = if self.starved && lane.ramp == 1 && lane.flights.len() == 1 {
            SECOND_COLD_BLOCKS
        } else {
            lane.ramp
        };
        whole(blocks.clamp(1.0, most)).min(ramp)
    }

    /// While playback waits, a lane whose first byte is far off takes rows that the others will reach only by then. None
    /// are left when too few of those who could bring the very first one would have it earlier: so whoever is quickest takes
    /// it. (Counting lanes that had brought or spoilt that block already made the others wait for them for ever.)
    fn rows_left_to_others(&self, now: Micros, lane: usize, index: usize) -> u32 {
        let Some(board) = self.chunks[index].board().filter(|_| self.starved) else {
            return 0;
        };
        let node = self.lanes[lane].node;
        let own = board.slot(node).and_then(|slot| board.open_run(node, slot, 1, 0));
        let Some(own) = own else { return 0 };
        let block = BLOCK_BYTES as f64;
        let eta = |lane: usize| {
            let state = &self.lanes[lane];
            state.setup_sec() + (self.outstanding(lane) + block) / state.rate()
        };
        let mine = eta(lane);
        let (mut quicker, mut bytes) = (0, 0.0);
        for (other, state) in self.lanes.iter().enumerate().filter(|(other, _)| *other != lane) {
            let serves = state.rest_until <= now
                && state.failures == 0
                && board.could_bring(now, state.node, own.first);
            if serves && eta(other) < mine {
                quicker += 1;
                bytes += ((mine - state.setup_sec()) * state.rate() - self.outstanding(other)).max(0.0);
            }
        }
        if quicker < board.wanted_at(own.first) as usize {
            return 0;
        }
        whole(bytes / block / f64::from(board.shape.needed))
    }

    /// Whether a lane is bringing something of what playback waits for.
    fn serves_gate(&self, lane: usize) -> bool {
        let Some((index, row)) = self.gate() else {
            return false;
        };
        let is_open = self.chunks[index]
            .board()
            .is_some_and(|board| board.prefix() < row);
        let flights = self.lanes[lane].flights.iter();
        let mut flights = flights.filter_map(|attempt| self.flights.get(attempt));
        is_open && flights.any(|flight| flight.seq as usize == index && flight.range.first < row)
    }

    fn has_open(&mut self, index: usize) -> bool {
        self.open_board(index).is_some_and(Board::has_open)
    }

    /// The guard: the range, the beginning of it, or nothing.
    fn guarded(&self, now: Micros, lane: usize, index: usize, range: BlockRange) -> Option<BlockRange> {
        let board = self.chunks[index].board()?;
        let own = &self.lanes[lane];
        if !own.is_measured() {
            return Some(range);
        }
        let bytes = board.shape.bytes_of(range) as f64;
        let (rate, queued) = (own.rate(), self.outstanding(lane));
        let mine = own.round_trip_sec() + (queued + bytes) / rate;
        let slack = self.slack_sec(index, range.first);
        let Some(others) = self.others_sec(now, lane, index, range) else {
            return Some(range);
        };
        if mine <= others * LATE_FACTOR + LATE_SEC || mine <= slack / 2.0 {
            return Some(range);
        }
        // As much of it as comes in time, if any.
        let fit = whole(((others * rate - queued) / BLOCK_BYTES as f64).floor().max(0.0));
        (fit > 0).then(|| BlockRange {
            first: range.first,
            end: range.end.min(range.first + fit),
        })
    }

    /// When the other lanes would have this range; `None` when too few of them can bring it.
    fn others_sec(&self, now: Micros, lane: usize, index: usize, range: BlockRange) -> Option<f64> {
        let board = self.chunks[index].board()?;
        let needed = f64::from(board.shape.needed);
        let bytes = board.shape.bytes_of(range) as f64;
        let mut etas = Vec::new();
        let (mut rates, mut under_way) = (0.0, 0.0);
        for (other, state) in self.lanes.iter().enumerate().filter(|(other, _)| *other != lane) {
            under_way += self.outstanding_of(other, index);
            if state.rest_until > now || board.slot(state.node).is_none() {
                continue;
            }
            rates += state.rate();
            if board.could_bring(now, state.node, range.first) {
                etas.push(state.round_trip_sec() + (self.outstanding(other) + bytes) / state.rate());
            }
        }
        etas.sort_by(f64::total_cmp);
        let best = etas.get(board.wanted_at(range.first) as usize - 1)?;
        let fluid = (board.open_bytes() + under_way) / needed / (rates / needed);
        Some(best.max(fluid))
    }

    /// Bytes of one chunk that a lane has still to bring.
    fn outstanding_of(&self, lane: usize, index: usize) -> f64 {
        let flights = self.lanes[lane]
            .flights
            .iter()
            .filter_map(|attempt| self.flights.get(attempt));
        let of_chunk = flights.filter(|flight| flight.seq as usize == index);
        of_chunk.map(|flight| flight.remaining_bytes() as f64).sum()
    }

    /// Until playback needs a block; nothing while it waits.
    pub(super) fn slack_sec(&self, index: usize, block: u32) -> f64 {
        let chunk = &self.chunks[index];
        if self.starved || u32::try_from(index).is_ok_and(|seq| self.wanted.contains(&seq)) {
            return 0.0;
        }
        let at = self.time_of(index, chunk.spec.shape.prefix_bytes(block));
        self.until_played(at).0 as f64 / 1e6
    }

    fn start(&mut self, now: Micros, lane: usize, choice: Choice, score: f64) -> Start {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let Choice {
            index,
            slot,
            range,
            hedges,
        } = choice;
        let seq = u32::try_from(index).unwrap_or(u32::MAX);
        let range_bytes = self.chunks[index].spec.shape.bytes_of(range);
        // Who watches is served before who only fetches.
        let slack = if self.is_bulk() {
            self.config.target
        } else {
            seconds(self.slack_sec(index, range.first))
        };
        let plan = seconds(range_bytes as f64 / self.lanes[lane].rate());
        if let Some(board) = self.chunks.get_mut(index).and_then(Chunk::board_mut) {
            board.ask(slot, range);
        }
        self.credit -= range_bytes as f64;
        if hedges.is_some() {
            self.hedged_bytes += range_bytes;
        }
        let flight = Flight {
            lane,
            seq,
            slot,
            range,
            range_bytes,
            sent_at: now,
            first_at: None,
            bytes: 0,
            plan,
        };
        self.flights.insert(attempt, flight);
        let shared = !self.lanes[lane].flights.is_empty();
        self.lanes[lane].flights.push(attempt);
        Start {
            attempt,
            seq,
            node: self.lanes[lane].node,
            piece: Piece::Blocks(range),
            need: self.need_of(seq),
            hedges,
            slack,
            score,
            shared,
            after: self.chunks[index].last.take(),
        }
    }

    /// R13: well ahead of the playhead, bytes are asked for at a multiple of the bitrate, so that others may catch up.
    fn earn_credit(&mut self, now: Micros, index: usize) {
        let rate = self.chunks[index].byte_rate() * self.speed;
        let earned = (now - self.credit_at).0 as f64 / 1e6 * rate * self.config.pace;
        self.credit = (self.credit + earned).clamp(-PACE_DEBT_SEC * rate, PACE_SAVED_SEC * rate);
        self.credit_at = now;
    }

    fn pacing(&self, now: Micros) -> Pacing {
        debug_assert!(self.credit_at <= now, "time went back");
        let hurries = self.starved || !self.wanted.is_empty() || self.reserve() < self.config.pace_above;
        if self.config.pace <= 0.0 || hurries || self.leaving {
            Pacing::Off
        } else if self.credit > 0.0 {
            Pacing::Earned
        } else {
            Pacing::Waits
        }
    }
}

/// A range that begins before the start gate ends there, so that nothing behind it shares the lane.
fn within_gate(range: BlockRange, gate: Option<(usize, u32)>) -> BlockRange {
    match gate {
        Some((_, row)) if range.first < row => BlockRange {
            end: range.end.min(row),
            ..range
        },
        _ => range,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers pass whole numbers from 0 on; larger than any count of blocks is as good as the largest"
)]
pub(super) fn whole(number: f64) -> u32 {
    number as u32
}
