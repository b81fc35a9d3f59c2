//! Lanes that fall silent or behind, and when to look again.

use super::{Chunk, Pool};
use crate::policy::{Action, CancelReason, Failure, Micros, NodeRecords};

/// No byte for this long, or for four round trips, is silence (R6), and the longer limit while there is much in store.
const SILENCE_MS: u64 = 700;
const SILENCE_IN_COMFORT_MS: u64 = 2_000;
/// A range is overdue (R7) after this many times its plan, and this much more; while urgent, and else.
const OVERDUE_URGENT: (f64, f64) = (2.0, 0.15);
const OVERDUE: (f64, f64) = (3.0, 0.5);
/// Nothing is taken back that will be here within this time.
const OVERDUE_REST_SEC: f64 = 1.0;
/// How often to look while requests are under way; and while something may be hedged.
const LOOK: Micros = Micros::from_ms(100);
const LOOK_CLOSELY: Micros = Micros::from_ms(50);
/// When too few nodes of a chunk are left, one that rests is asked after this time.
pub(super) const LAST_RESORT_AFTER: Micros = Micros::from_ms(2_000);

impl Pool {
    pub(super) fn watch_lanes(&mut self, now: Micros, records: &mut NodeRecords, actions: &mut Vec<Action>) {
        let in_store = self.reserve();
        for index in 0..self.lanes.len() {
            if self.lanes[index].flights.is_empty() || !self.config.reclaim {
                continue;
            }
            let comfort = !self.starved && in_store > self.config.urgent;
            if !self.end_silence(now, index, comfort, records, actions) {
                self.take_back_overdue(now, index, comfort, actions);
            }
        }
    }

    pub(super) fn advance_lane(&mut self, now: Micros, index: usize) {
        let grace = super::seconds(2.0 * self.lanes[index].delay_sec());
        let flights = self.lanes[index]
            .flights
            .iter()
            .filter_map(|attempt| self.flights.get(attempt));
        let busy_from = flights
            .map(|flight| flight.first_at.unwrap_or(flight.sent_at + grace))
            .min();
        self.lanes[index].advance(now, busy_from);
    }

    /// R6: connections that bring nothing are given up, the lane rests.
    fn end_silence(
        &mut self,
        now: Micros,
        index: usize,
        comfort: bool,
        records: &mut NodeRecords,
        actions: &mut Vec<Action>,
    ) -> bool {
        let lane = &self.lanes[index];
        let sent_at = lane
            .flights
            .first()
            .and_then(|attempt| self.flights.get(attempt))
            .map(|flight| flight.sent_at);
        let quiet = now - lane.last_byte_at.max(sent_at.unwrap_or(now));
        let floor = if comfort {
            SILENCE_IN_COMFORT_MS
        } else {
            SILENCE_MS
        };
        let limit = super::seconds(4.0 * lane.delay_sec()).max(Micros::from_ms(floor));
        if quiet < limit {
            return false;
        }
        let failure = Failure::Silent {
            after_ms: quiet.as_ms(),
        };
        let node = self.lanes[index].node;
        records.record_mut(node).failed(now, &failure);
        self.lanes[index].failed(now, 1);
        for attempt in self.lanes[index].flights.clone() {
            let seq = self.flights.get(&attempt).map(|flight| flight.seq);
            self.cancel(attempt, CancelReason::Silent, actions);
            if let Some(seq) = seq {
                self.note_failure(now, seq, node, failure.clone(), actions);
            }
        }
        true
    }

    /// R7: the rest of a range that is far behind its plan goes to others. No failure.
    fn take_back_overdue(&mut self, now: Micros, index: usize, comfort: bool, actions: &mut Vec<Action>) {
        let lane = &self.lanes[index];
        let Some(head) = lane.flights.first().and_then(|attempt| self.flights.get(attempt)) else {
            return;
        };
        let Some(first_at) = head.first_at.filter(|_| lane.is_measured()) else {
            return;
        };
        let elapsed = (now - first_at.max(lane.last_end_at)).0 as f64 / 1e6;
        let (factor, more) = if comfort { OVERDUE } else { OVERDUE_URGENT };
        let live = lane.pessimistic_rate().max(1_000.0);
        if elapsed <= factor * (head.plan.0 as f64 / 1e6) + more
            || self.outstanding(index) / live <= OVERDUE_REST_SEC
            || !self.others_could(now, index, head.seq)
        {
            return;
        }
        self.lanes[index].overdue(now, live);
        for attempt in self.lanes[index].flights.clone() {
            self.cancel(attempt, CancelReason::Overdue, actions);
        }
    }

    /// Whether another node has this chunk and does not rest: taking a range back from the only one gains nothing.
    fn others_could(&self, now: Micros, index: usize, seq: u32) -> bool {
        let Some(board) = self.chunks.get(seq as usize).and_then(Chunk::board) else {
            return true;
        };
        let well = self.lanes.iter().enumerate().filter(|(other, lane)| {
            *other != index && lane.rest_until <= now && board.slot(lane.node).is_some()
        });
        well.count() >= usize::from(board.shape.needed)
    }

    /// Bytes that a lane has still to bring.
    pub(super) fn outstanding(&self, index: usize) -> f64 {
        let flights = self.lanes[index]
            .flights
            .iter()
            .filter_map(|attempt| self.flights.get(attempt));
        flights.map(|flight| flight.remaining_bytes() as f64).sum()
    }

    /// When to look again if no fact comes before. `None` only when nothing is missing.
    pub(super) fn next_look(&self, now: Micros) -> Option<Micros> {
        let flying = (!self.flights.is_empty()).then(|| {
            let closely = self.panics() || self.lanes.iter().any(|lane| lane.flights.is_empty());
            now + if closely { LOOK_CLOSELY } else { LOOK }
        });
        let open = self.candidates().any(|index| self.chunks[index].is_unfinished());
        let waiting = open.then(|| self.next_chance(now));
        [flying, waiting].into_iter().flatten().min()
    }

    /// When a lane's rest, a node's absence or the pacing ends.
    fn next_chance(&self, now: Micros) -> Micros {
        let rests = self
            .lanes
            .iter()
            .flat_map(|lane| [lane.rest_until, lane.failed_at + LAST_RESORT_AFTER]);
        let absences = self.candidates().flat_map(|index| {
            let board = self.chunks[index].board();
            let nodes = board
                .into_iter()
                .flat_map(|board| board.shape.nodes().map(|node| board.absent_until(node)));
            nodes.collect::<Vec<_>>()
        });
        let soon = rests.chain(absences).filter(|at| *at > now).min();
        soon.unwrap_or(now + Micros::from_ms(250))
            .min(now + Micros::from_ms(250))
            .max(now + Micros(1_000))
    }
}
