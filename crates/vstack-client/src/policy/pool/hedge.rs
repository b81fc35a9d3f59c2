//! Which range is asked for twice (R8): what is slow and needed soon, at a lane that would have it much earlier.

use super::schedule::Choice;
use super::{Flight, Pool, seconds};
use crate::policy::{AttemptId, BLOCK_BYTES, BlockRange, Micros};

/// A hedge pays when the range would otherwise take this many times as long, and this much more (R8).
const HEDGE_FACTOR: f64 = 1.5;
const HEDGE_SEC: f64 = 0.05;
const HEDGE_SEC_WHILE_STARVED: f64 = 0.02;
/// A range that brought nothing for this long is hedged as a whole.
const QUIET_SEC: f64 = 0.3;
/// Silence longer than this lowers what a lane is expected to bring.
const DOUBT_AFTER_SEC: f64 = 0.2;
/// Before a range has flowed for this long, it looks slow.
const FIRST_LOOK_SEC: f64 = 0.005;

impl Pool {
    /// R8: the second half of the slowest range of these chunks, if this lane would have it much earlier.
    pub(super) fn hedge(&self, now: Micros, lane: usize, near: &[usize]) -> Option<Choice> {
        let first = self.chunks.get(self.first())?;
        let played = self.config.hedge_at_once.0 as f64 / 1e6 * first.byte_rate();
        let at_once = played.min(self.config.hedge_bytes as f64);
        let budget = self.config.hedge_share * self.received_bytes as f64 + at_once;
        if self.config.hedge_bytes == 0 || self.hedged_bytes as f64 > budget && !self.panics() {
            return None;
        }
        near.iter().find_map(|index| self.hedge_of(now, lane, *index))
    }

    fn hedge_of(&self, now: Micros, lane: usize, index: usize) -> Option<Choice> {
        let board = self.chunks[index].board()?;
        let own = &self.lanes[lane];
        let slot = board
            .slot(own.node)
            .filter(|_| board.absent_until(own.node) <= now)?;
        // While playback waits for its start, the tail is that of what it waits for.
        let gate = self
            .gate()
            .filter(|(gated, row)| *gated == index && board.prefix() < *row);
        let limit = gate.map_or(u32::MAX, |(_, row)| row);
        let mut worst: Option<(f64, AttemptId, BlockRange)> = None;
        for (other, state) in self.lanes.iter().enumerate().filter(|(other, _)| *other != lane) {
            let mut queued = 0.0;
            for (attempt, flight) in state
                .flights
                .iter()
                .filter_map(|id| Some((*id, self.flights.get(id)?)))
            {
                queued += flight.remaining_bytes() as f64;
                if flight.seq as usize != index {
                    continue;
                }
                let (whole_eta, quiet) = self.expected_sec(now, other, flight, queued);
                let tail = tail_of(flight, quiet, limit);
                let mut run = board.second_run(own.node, slot, tail);
                let mut eta = whole_eta;
                if self.starved {
                    // Somebody else may have the tail already, and playback waits for what is in front of it.
                    run = run.or_else(|| board.second_run(own.node, slot, front_of(flight, tail)));
                    let until = run.map(|run| self.shared_bytes(other, attempt, flight, run.end));
                    eta = until.map_or(eta, |bytes| self.expected_sec(now, other, flight, bytes).0);
                }
                if let Some(run) = run.filter(|_| worst.is_none_or(|(slowest, ..)| eta > slowest)) {
                    worst = Some((eta, attempt, run));
                }
            }
        }
        let (eta, attempt, range) = worst?;
        let bytes = board.shape.bytes_of(range) as f64;
        let mine = own.delay_sec() + (self.outstanding(lane) + bytes) / own.rate();
        let in_time = self.slack_sec(index, range.first) > 2.0 * eta && self.reserve() >= self.config.urgent;
        let more = if self.starved {
            HEDGE_SEC_WHILE_STARVED
        } else {
            HEDGE_SEC
        };
        (eta > HEDGE_FACTOR * mine + more && !in_time).then_some(Choice {
            index,
            slot,
            range,
            hedges: Some(attempt),
        })
    }

    /// Bytes that a lane brings before it has brought this range up to a block: requests at one node share its line.
    fn shared_bytes(&self, lane: usize, attempt: AttemptId, flight: &Flight, until: u32) -> f64 {
        let up_to = u64::from(until.saturating_sub(flight.range.first)) * BLOCK_BYTES;
        let own = up_to.min(flight.range_bytes).saturating_sub(flight.bytes);
        let others = self.lanes[lane].flights.iter().filter(|id| **id != attempt);
        let beside = others.filter_map(|id| self.flights.get(id));
        let beside: u64 = beside.map(|other| other.remaining_bytes().min(own)).sum();
        (own + beside) as f64
    }

    /// How long a range will take from now on, and how long it has been quiet.
    fn expected_sec(&self, now: Micros, lane: usize, flight: &Flight, queued: f64) -> (f64, f64) {
        let state = &self.lanes[lane];
        let expected_at = flight.sent_at + seconds(state.delay_sec());
        let quiet = (now - state.last_byte_at.max(expected_at)).0 as f64 / 1e6;
        let rate = match flight.first_at {
            // Not measured yet: what this range has done is all there is to go by.
            Some(first_at) if !state.is_measured() => {
                flight.bytes as f64 / ((now - first_at).0 as f64 / 1e6 + FIRST_LOOK_SEC)
            }
            _ => state.pessimistic_rate(),
        };
        let rate = if quiet > DOUBT_AFTER_SEC {
            rate * DOUBT_AFTER_SEC / quiet
        } else {
            rate
        };
        let wait = if flight.first_at.is_some() {
            0.0
        } else {
            (expected_at - now).0 as f64 / 1e6
        };
        (wait + queued / rate.max(500.0), quiet.max(0.0))
    }
}

/// The half of the rest that is farthest away; all of it when nothing comes or there is no half.
fn tail_of(flight: &Flight, quiet: f64, limit: u32) -> BlockRange {
    let (next, end) = (flight.block(), flight.range.end.min(limit));
    let rest = end.saturating_sub(next);
    let first = if rest > 1 && quiet < QUIET_SEC {
        next + rest / 2
    } else {
        next
    };
    BlockRange { first, end }
}

/// What is still to come before that tail.
fn front_of(flight: &Flight, tail: BlockRange) -> BlockRange {
    BlockRange {
        first: flight.block(),
        end: tail.first,
    }
}
