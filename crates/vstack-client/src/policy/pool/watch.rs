//! Lanes that fall silent or behind, and when to look again.

use super::{Chunk, Pool};
use crate::policy::{Action, CancelReason, Failure, Micros, NodeRecords};

/// No byte for this long, or for four round trips, is silence (R6), and the longer limit while there is much in store.
const SILENCE_MS: u64 = 700;
const SILENCE_IN_COMFORT_MS: u64 = 2_000;
/// When so many lanes are asked and nothing comes from any, the trouble is nearer than the nodes: then so many times as
/// long is waited, since there is nobody else to ask.
const TOGETHER: usize = 3;
const TOGETHER_FACTOR: u64 = 3;
/// A wake-up that is later than this says that this client did not run: no node is blamed for that time.
const OWN_SLEEP: Micros = Micros::from_ms(250);
/// A range is overdue (R7) after this many times its plan, and this much more; while urgent, and else.
const OVERDUE_URGENT: (f64, f64) = (2.0, 0.15);
const OVERDUE: (f64, f64) = (3.0, 0.5);
/// An overdue range that has brought nothing for this long hangs: its node is silent, not slow.
const HANGS_AFTER: Micros = Micros::from_ms(200);
/// Nothing is taken back that will be here within this time.
const OVERDUE_REST_SEC: f64 = 1.0;
/// How often to look while requests are under way; and while something may be hedged.
const LOOK: Micros = Micros::from_ms(100);
const LOOK_CLOSELY: Micros = Micros::from_ms(50);
/// When too few nodes of a chunk are left, one that rests is asked after this time.
pub(super) const LAST_RESORT_AFTER: Micros = Micros::from_ms(2_000);

impl Pool {
    /// What this client has slept through is nobody's silence.
    pub(super) fn forgive_own_sleep(&mut self, now: Micros) {
        let Some(late_from) = self.wake_at.map(|at| at + OWN_SLEEP).filter(|from| *from < now) else {
            return;
        };
        let slept = now - late_from;
        for lane in &mut self.lanes {
            lane.last_byte_at = (lane.last_byte_at + slept).min(now);
            lane.last_end_at = (lane.last_end_at + slept).min(now);
        }
        for flight in self.flights.values_mut() {
            flight.sent_at = (flight.sent_at + slept).min(now);
            flight.first_at = flight.first_at.map(|at| (at + slept).min(now));
        }
        // Forgiven once.
        self.wake_at = Some(now);
    }

    /// Since its last byte, or since it was asked.
    fn quiet(&self, now: Micros, index: usize) -> Micros {
        let lane = &self.lanes[index];
        let head = lane.flights.first().and_then(|attempt| self.flights.get(attempt));
        now - lane.last_byte_at.max(head.map_or(now, |flight| flight.sent_at))
    }

    /// Whether nothing has come from anybody for a while, though several are asked.
    fn all_are_silent(&self, now: Micros) -> bool {
        let asked = self.lanes.iter().filter(|lane| !lane.flights.is_empty());
        let last = self.lanes.iter().map(|lane| lane.last_byte_at).max();
        asked.count() >= TOGETHER && last.is_some_and(|last| now - last >= Micros::from_ms(SILENCE_MS))
    }

    pub(super) fn watch_lanes(&mut self, now: Micros, records: &mut NodeRecords, actions: &mut Vec<Action>) {
        let in_store = self.reserve();
        let together = self.all_are_silent(now);
        for index in 0..self.lanes.len() {
            if self.lanes[index].flights.is_empty() || !self.config.reclaim {
                continue;
            }
            let comfort = !self.starved && in_store > self.config.urgent;
            let floor_ms = match (together, comfort) {
                (true, _) => TOGETHER_FACTOR * SILENCE_MS,
                (false, true) => SILENCE_IN_COMFORT_MS,
                (false, false) => SILENCE_MS,
            };
            if !self.end_silence(now, index, Micros::from_ms(floor_ms), records, actions) {
                let is_overdue = self.is_overdue(now, index, comfort);
                let hangs = comfort && !together && self.quiet(now, index) >= HANGS_AFTER;
                if is_overdue && hangs {
                    // Taken back as overdue it would be left without a word of why.
                    self.end_silence(now, index, Micros::from_ms(SILENCE_MS), records, actions);
                } else if is_overdue {
                    self.take_back(now, index, actions);
                }
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
        floor: Micros,
        records: &mut NodeRecords,
        actions: &mut Vec<Action>,
    ) -> bool {
        let quiet = self.quiet(now, index);
        let limit = super::seconds(4.0 * self.lanes[index].delay_sec()).max(floor);
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

    /// R7: a range is far behind its plan, and others could bring it.
    fn is_overdue(&self, now: Micros, index: usize, comfort: bool) -> bool {
        let lane = &self.lanes[index];
        let Some(head) = lane.flights.first().and_then(|attempt| self.flights.get(attempt)) else {
            return false;
        };
        let Some(first_at) = head.first_at.filter(|_| lane.is_measured()) else {
            return false;
        };
        let elapsed = (now - first_at.max(lane.last_end_at)).0 as f64 / 1e6;
        let (factor, more) = if comfort { OVERDUE } else { OVERDUE_URGENT };
        let live = lane.pessimistic_rate().max(1_000.0);
        elapsed > factor * (head.plan.0 as f64 / 1e6) + more
            && self.outstanding(index) / live > OVERDUE_REST_SEC
            && self.others_could(now, index, head.seq)
    }

    /// The rest of what a lane is asked for goes to others. No failure.
    fn take_back(&mut self, now: Micros, index: usize, actions: &mut Vec<Action>) {
        let live = self.lanes[index].pessimistic_rate().max(1_000.0);
        self.lanes[index].overdue(now, live);
        for attempt in self.lanes[index].flights.clone() {
            self.cancel(attempt, CancelReason::Overdue, actions);
        }
    }

    /// Whether other nodes have this chunk and do not rest: taking a range back from the only one gains nothing.
    fn others_could(&self, now: Micros, index: usize, seq: u32) -> bool {
        let Some(board) = self.chunks.get(seq as usize).and_then(Chunk::board) else {
            return true;
        };
        let well = self.lanes.iter().enumerate().filter(|(other, lane)| {
            let serves = board.slot(lane.node).is_some() && board.absent_until(lane.node) <= now;
            *other != index && lane.rest_until <= now && serves
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
            // Counted from the last look: facts that come all the time would put it off for ever, and those who bring nothing
            // are only looked at then.
            (self.looked_at + if closely { LOOK_CLOSELY } else { LOOK }).max(now)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AttemptId, ChunkSpec, Fact, NodeIndex, PoolConfig, Shape};

    /// Three nodes have everything.
    struct Told {
        pool: Pool,
        records: NodeRecords,
        now: Micros,
        running: Vec<(AttemptId, NodeIndex, u64)>,
        silent: Vec<(Micros, NodeIndex)>,
    }

    fn told() -> Told {
        let spec = |seq: u64| ChunkSpec {
            start: Micros::from_ms(seq * 4_000),
            end: Micros::from_ms((seq + 1) * 4_000),
            shape: Shape::copies(20_000_000, (0..3).map(NodeIndex)),
        };
        let mut told = Told {
            pool: Pool::new(PoolConfig::default(), (0..8).map(spec).collect()),
            records: NodeRecords::default(),
            now: Micros(1),
            running: Vec::new(),
            silent: Vec::new(),
        };
        told.tell(Fact::Tick);
        told
    }

    impl Told {
        fn tell(&mut self, fact: Fact) {
            for action in self.pool.apply(self.now, &mut self.records, fact) {
                match action {
                    Action::Start(start) => self.running.push((start.attempt, start.node, 0)),
                    Action::Cancel {
                        attempt, node, why, ..
                    } => {
                        self.running.retain(|(other, ..)| *other != attempt);
                        if why == CancelReason::Silent {
                            self.silent.push((self.now, node));
                        }
                    }
                    _ => {}
                }
            }
        }

        /// So much time passes in which these nodes send a little, without any range ever ending.
        fn pass(&mut self, ms: u64, sending: &[u16]) {
            let until = self.now + Micros::from_ms(ms);
            while self.now < until {
                self.now = self.now + Micros::from_ms(50);
                for (attempt, node, bytes) in self.running.clone() {
                    if sending.contains(&node.0) {
                        let bytes = bytes + 100;
                        self.tell(Fact::Progress { attempt, bytes });
                        if let Some(running) = self.running.iter_mut().find(|(other, ..)| *other == attempt) {
                            running.2 = bytes;
                        }
                    }
                }
                self.tell(Fact::Tick);
            }
        }
    }

    #[test]
    fn a_client_that_did_not_run_blames_nobody_and_sees_silence_afterwards() {
        let mut told = told();
        told.pass(500, &[0, 1, 2]);
        told.now = told.now + Micros::from_ms(60_000);
        told.tell(Fact::Tick);
        assert_eq!(told.silent, [], "it slept itself");
        let awake = told.now;
        told.pass(3_000, &[1, 2]);
        let (at, node) = told.silent.first().copied().expect("node-1 is silent now");
        assert_eq!(node, NodeIndex(0));
        assert!(at - awake < Micros::from_ms(2_000), "{at:?} after {awake:?}");
    }

    #[test]
    fn lanes_that_fall_silent_together_are_waited_for_longer_than_one_alone() {
        let first_silence = |sending: &[u16]| {
            let mut told = told();
            told.pass(500, &[0, 1, 2]);
            let from = told.now;
            told.pass(10_000, sending);
            told.silent.first().expect("it is seen in the end").0 - from
        };
        let alone = first_silence(&[1, 2]);
        let together = first_silence(&[]);
        assert!(
            alone >= Micros::from_ms(SILENCE_MS) && alone < Micros::from_ms(1_000),
            "{alone:?}"
        );
        let limit = Micros::from_ms(TOGETHER_FACTOR * SILENCE_MS);
        assert!(
            together >= limit && together < limit + Micros::from_ms(300),
            "{together:?}"
        );
    }

    #[test]
    fn what_is_ahead_lasts_shorter_when_a_video_is_played_faster() {
        let mut told = told();
        told.tell(Fact::Starved(false));
        let mut play = |speed: u64, from_ms: u64| {
            for step in 0..40 {
                told.now = told.now + Micros::from_ms(100);
                told.tell(Fact::Position(Micros::from_ms(from_ms + step * 100 * speed)));
            }
            told.pool
                .until_played(told.pool.position + Micros::from_ms(8_000))
        };
        assert_eq!(play(1, 0), Micros::from_ms(8_000));
        assert_eq!(play(4, 4_000), Micros::from_ms(2_000));
        assert_eq!(play(0, 20_000), Micros::from_ms(8_000), "paused");
    }
}
