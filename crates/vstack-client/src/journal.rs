//! What happened in a session: counted for the report, kept for the snapshot, told to those who listen.
//!
//! Times come in as microseconds of the client's clock. The buffer level is integrated over the time of playing, while
//! the end of the video does not limit it: near the end a buffer shrinks because there is no more to fetch.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::config::PolicyName;
use crate::event::{EventKind, SessionEvent};
use crate::node::NodeRef;
use crate::policy::{AttemptId, Failure, Micros, NodeIndex};
use crate::report::{Fault, Prefetched};
use crate::snapshot::{Lane, LaneBar, LogLine, NodeCount, Outcome};

/// Events that a slow listener may fall behind before it misses some.
const EVENTS_KEPT: usize = 1024;
/// Lines of the viewer's log.
const LOG_LINES: usize = 100;
/// Faults that a report lists; of more, the latest. An outage of hours must not fill the memory.
const FAULTS_KEPT: usize = 1000;
/// What the lanes show.
const LANE_SPAN: Micros = Micros::from_ms(30_000);

#[derive(Debug)]
struct Transfer {
    attempt: AttemptId,
    node: NodeIndex,
    start: Micros,
    end: Option<Micros>,
    outcome: Outcome,
}

/// Time-weighted buffer level.
#[derive(Debug, Default)]
struct Levels {
    now: Micros,
    counts: bool,
    since: Micros,
    area: f64,
    time: f64,
    min: Option<Micros>,
    /// Time at each level, by tenths of a second.
    at_level: BTreeMap<u64, f64>,
}

impl Levels {
    /// The level that the buffer was at or below for `share` of the time.
    fn percentile(&self, share: f64) -> Option<Micros> {
        let mut left = self.time * share;
        let (level, _) = self.at_level.iter().find(|(_, time)| {
            left -= **time;
            left <= 0.0
        })?;
        Some(Micros::from_ms(level * 100))
    }
}

/// The buffer over the time of playing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BufferSeconds {
    pub(crate) mean: f64,
    /// It was lower for a twentieth of the time.
    pub(crate) p5: f64,
    pub(crate) min: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) wasted_bytes: u64,
    /// Of requests for bytes that another one was running for.
    pub(crate) hedged_bytes: u64,
    /// Deliveries of whole chunks.
    pub(crate) chunks: u64,
    pub(crate) requests: u64,
    pub(crate) failovers: u64,
    pub(crate) policy_changes: u32,
    pub(crate) hash_failures: u64,
    pub(crate) prefetch: Prefetched,
    pub(crate) stalls: u32,
    stall: Micros,
}

#[derive(Debug)]
pub(crate) struct Journal {
    clock: Clock,
    opened: Micros,
    events: broadcast::Sender<SessionEvent>,
    log: VecDeque<LogLine>,
    transfers: VecDeque<Transfer>,
    counts: BTreeMap<NodeIndex, NodeCount>,
    levels: Levels,
    playing: bool,
    stalled_since: Option<Micros>,
    startup: Option<Micros>,
    seeking_since: Option<Micros>,
    pub(crate) totals: Totals,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) seek_ms: Vec<u64>,
}

impl Journal {
    pub(crate) fn new(clock: Clock, opened: Micros) -> Self {
        Self {
            clock,
            opened,
            events: broadcast::Sender::new(EVENTS_KEPT),
            log: VecDeque::new(),
            transfers: VecDeque::new(),
            counts: BTreeMap::new(),
            levels: Levels {
                since: opened,
                ..Levels::default()
            },
            playing: false,
            stalled_since: None,
            startup: None,
            seeking_since: None,
            totals: Totals::default(),
            faults: VecDeque::new(),
            seek_ms: Vec::new(),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<SessionEvent> {
        self.events.subscribe()
    }

    pub(crate) fn session_ms(&self, now: Micros) -> u64 {
        (now - self.opened).as_ms()
    }

    /// Tells an event to all who listen, and to the viewer's log when it is notable.
    pub(crate) fn tell(&mut self, now: Micros, kind: EventKind) {
        let event = SessionEvent {
            at: self.clock.unix(now),
            session_ms: self.session_ms(now),
            text: kind.sentence(),
            kind,
        };
        tracing::debug!(session_ms = event.session_ms, text = %event.text, "session event");
        if event.kind.is_notable() {
            if self.log.len() == LOG_LINES {
                self.log.pop_front();
            }
            self.log.push_back(LogLine {
                at: event.at,
                text: event.text.clone(),
            });
        }
        // Nobody listening is the usual case and no error.
        let _ = self.events.send(event);
    }

    pub(crate) fn requested(&mut self, now: Micros, attempt: AttemptId, node: NodeIndex) {
        self.totals.requests += 1;
        self.count(node).running += 1;
        self.transfers.push_back(Transfer {
            attempt,
            node,
            start: now,
            end: None,
            outcome: Outcome::Running,
        });
        while self
            .transfers
            .front()
            .is_some_and(|old| old.end.is_some_and(|end| end + LANE_SPAN < now))
        {
            self.transfers.pop_front();
        }
    }

    pub(crate) fn delivered(
        &mut self,
        now: Micros,
        attempt: AttemptId,
        seq: u32,
        node: &NodeRef,
        bytes: u64,
    ) {
        self.ended(now, attempt, NodeIndex(node.index), Outcome::Done);
        self.arrived(NodeIndex(node.index), bytes, false);
        self.completed(now, seq, node);
    }

    /// An attempt at a range brought all of it.
    pub(crate) fn range_done(&mut self, now: Micros, attempt: AttemptId, node: NodeIndex, wasted_bytes: u64) {
        self.totals.wasted_bytes += wasted_bytes;
        self.ended(now, attempt, node, Outcome::Done);
    }

    /// Verified bytes from a node, however the attempt that brought them will end.
    pub(crate) fn arrived(&mut self, node: NodeIndex, bytes: u64, hedge: bool) {
        self.totals.bytes += bytes;
        self.totals.hedged_bytes += u64::from(hedge) * bytes;
        self.count(node).bytes += bytes;
    }

    /// A chunk is whole, most of it from `node`; what went wrong with it before is made good.
    pub(crate) fn completed(&mut self, now: Micros, seq: u32, node: &NodeRef) {
        self.totals.chunks += 1;
        self.count(NodeIndex(node.index)).chunks += 1;
        let session_ms = self.session_ms(now);
        for fault in self
            .faults
            .iter_mut()
            .filter(|fault| fault.seq == seq && fault.recovered_ms.is_none())
        {
            fault.recovered_ms = Some(session_ms.saturating_sub(fault.at_ms));
            fault.recovered_by = Some(node.clone());
        }
    }

    pub(crate) fn failed(&mut self, now: Micros, attempt: AttemptId, fault: Fault) {
        self.totals.wasted_bytes += fault.wasted_bytes;
        self.totals.hash_failures += u64::from(fault.failure == Failure::WrongBytes);
        self.ended(now, attempt, NodeIndex(fault.node.index), Outcome::Failed)
            .failures += 1;
        self.keep_fault(fault);
    }

    /// A part of an attempt failed; the attempt itself may still succeed.
    pub(crate) fn setback(&mut self, fault: Fault) {
        self.totals.wasted_bytes += fault.wasted_bytes;
        self.totals.hash_failures += u64::from(fault.failure == Failure::WrongBytes);
        self.keep_fault(fault);
    }

    fn keep_fault(&mut self, fault: Fault) {
        if self.faults.len() == FAULTS_KEPT {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    pub(crate) fn cancelled(&mut self, now: Micros, attempt: AttemptId, node: NodeIndex, wasted_bytes: u64) {
        self.totals.wasted_bytes += wasted_bytes;
        self.ended(now, attempt, node, Outcome::Cancelled);
    }

    /// Verified bytes that are thrown away before they made a chunk.
    pub(crate) fn given_up(&mut self, bytes: u64) {
        self.totals.wasted_bytes += bytes;
    }

    /// Another policy decides from now on.
    pub(crate) fn policy_changed(&mut self, now: Micros, from: PolicyName, to: PolicyName) {
        self.totals.policy_changes += 1;
        self.tell(now, EventKind::PolicyChanged { from, to });
    }

    fn ended(
        &mut self,
        now: Micros,
        attempt: AttemptId,
        node: NodeIndex,
        outcome: Outcome,
    ) -> &mut NodeCount {
        if let Some(transfer) = self
            .transfers
            .iter_mut()
            .rev()
            .find(|transfer| transfer.attempt == attempt)
        {
            transfer.end = Some(now);
            transfer.outcome = outcome;
        }
        let count = self.count(node);
        count.running = count.running.saturating_sub(1);
        count
    }

    fn count(&mut self, node: NodeIndex) -> &mut NodeCount {
        self.counts.entry(node).or_insert(NodeCount {
            node_index: node.0,
            ..NodeCount::default()
        })
    }

    /// The buffer has this level from now on.
    pub(crate) fn level(&mut self, now: Micros, level: Micros, reaches_end: bool) {
        self.integrate(now);
        self.levels.now = level;
        self.levels.counts = !reaches_end;
    }

    fn integrate(&mut self, now: Micros) {
        let levels = &mut self.levels;
        if self.playing && self.startup.is_some() && levels.counts {
            let time = (now - levels.since).0 as f64;
            levels.area += time * levels.now.0 as f64;
            levels.time += time;
            *levels.at_level.entry(levels.now.as_ms() / 100).or_default() += time;
            levels.min = Some(levels.min.map_or(levels.now, |min| min.min(levels.now)));
        }
        levels.since = now;
    }

    pub(crate) fn playing(&mut self, now: Micros, playing: bool) {
        self.integrate(now);
        self.playing = playing;
    }

    pub(crate) fn first_frame(&mut self, now: Micros) {
        self.integrate(now);
        if self.startup.is_none() {
            let startup = now - self.opened;
            self.startup = Some(startup);
            self.tell(
                now,
                EventKind::FirstFrame {
                    startup_ms: startup.as_ms(),
                },
            );
        }
    }

    pub(crate) fn stall(&mut self, now: Micros, started: bool) {
        match (self.stalled_since, started) {
            (None, true) => {
                self.stalled_since = Some(now);
                self.totals.stalls += 1;
                self.tell(now, EventKind::StallStarted);
            }
            (Some(since), false) => {
                self.stalled_since = None;
                self.totals.stall = self.totals.stall + (now - since);
                self.tell(
                    now,
                    EventKind::StallEnded {
                        stall_ms: (now - since).as_ms(),
                    },
                );
            }
            _ => {}
        }
    }

    pub(crate) fn seek_started(&mut self, now: Micros, position_ms: u64) {
        self.seeking_since = Some(now);
        self.tell(now, EventKind::Sought { position_ms });
    }

    /// What the playhead stands at is there; whether that was waited for.
    pub(crate) fn seek_ended(&mut self, now: Micros) -> bool {
        let since = self.seeking_since.take();
        self.seek_ms.extend(since.map(|since| (now - since).as_ms()));
        since.is_some()
    }

    pub(crate) fn startup_ms(&self) -> Option<u64> {
        self.startup.map(Micros::as_ms)
    }

    pub(crate) fn stall_ms(&self, now: Micros) -> u64 {
        let running = self.stalled_since.map_or(Micros(0), |since| now - since);
        (self.totals.stall + running).as_ms()
    }

    /// Up to now.
    pub(crate) fn buffer_seconds(&mut self, now: Micros) -> BufferSeconds {
        self.integrate(now);
        let levels = &self.levels;
        let mean = if levels.time > 0.0 {
            levels.area / levels.time
        } else {
            levels.now.0 as f64
        };
        let seconds = |level: Option<Micros>| level.unwrap_or(levels.now).0 as f64 / 1e6;
        BufferSeconds {
            mean: mean / 1e6,
            p5: seconds(levels.percentile(0.05)),
            min: seconds(levels.min),
        }
    }

    pub(crate) fn log(&self) -> Vec<LogLine> {
        self.log.iter().cloned().collect()
    }

    /// One entry for each of `node_count` nodes.
    pub(crate) fn counts(&self, node_count: usize) -> Vec<NodeCount> {
        let count = |index| {
            let empty = NodeCount {
                node_index: index,
                ..NodeCount::default()
            };
            self.counts.get(&NodeIndex(index)).copied().unwrap_or(empty)
        };
        (0..).take(node_count).map(count).collect()
    }

    /// One lane for each of `node_count` nodes.
    pub(crate) fn lanes(&self, now: Micros, node_count: usize) -> Vec<Lane> {
        let from = now - LANE_SPAN;
        let place = |at: Micros| (at - from).0 as f64 / LANE_SPAN.0 as f64;
        let bars = |index| {
            let own = self
                .transfers
                .iter()
                .filter(move |transfer| transfer.node == NodeIndex(index));
            let seen = own.filter(|transfer| transfer.end.is_none_or(|end| end > from));
            let bar = |transfer: &Transfer| LaneBar {
                start: place(transfer.start),
                end: place(transfer.end.unwrap_or(now)).min(1.0),
                outcome: transfer.outcome,
            };
            seen.map(bar).collect()
        };
        (0..)
            .take(node_count)
            .map(|index| Lane {
                node_index: index,
                bars: bars(index),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Micros {
        Micros::from_ms(seconds * 1_000)
    }

    fn playing_journal() -> Journal {
        let mut journal = Journal::new(Clock::start(), seconds(100));
        journal.playing(seconds(100), true);
        journal.first_frame(seconds(101));
        journal
    }

    #[test]
    fn the_mean_buffer_is_weighted_by_time_and_leaves_out_the_end_of_the_video() {
        let mut journal = playing_journal();
        journal.level(seconds(101), seconds(10), false);
        journal.level(seconds(104), seconds(30), false); // 3 s at 10
        journal.level(seconds(105), seconds(2), true); // 1 s at 30
        let expected = BufferSeconds {
            mean: 15.0,
            p5: 10.0,
            min: 10.0,
        };
        assert_eq!(journal.buffer_seconds(seconds(200)), expected);
    }

    #[test]
    fn stalls_and_startup_are_counted_once() {
        let mut journal = playing_journal();
        journal.first_frame(seconds(150));
        for (at, started) in [(110, true), (111, true), (113, false), (114, false), (120, true)] {
            journal.stall(seconds(at), started);
        }
        assert_eq!(journal.startup_ms(), Some(1_000));
        assert_eq!(
            (journal.totals.stalls, journal.stall_ms(seconds(121))),
            (2, 4_000)
        );
    }

    #[test]
    fn lanes_show_the_last_thirty_seconds() {
        let mut journal = playing_journal();
        journal.requested(seconds(100), AttemptId(0), NodeIndex(1));
        journal.cancelled(seconds(101), AttemptId(0), NodeIndex(1), 5);
        journal.requested(seconds(140), AttemptId(1), NodeIndex(1));
        let lanes = journal.lanes(seconds(155), 2);
        assert_eq!(lanes[0].bars, []);
        assert_eq!(
            lanes[1].bars,
            [LaneBar {
                start: 0.5,
                end: 1.0,
                outcome: Outcome::Running
            }]
        );
        assert_eq!(journal.totals.wasted_bytes, 5);
    }
}
