//! Whole chunks that have come, or not.

use bytes::Bytes;
use tokio::task::JoinError;

use super::Driver;
use super::attempts::Flight;
use crate::event::EventKind;
use crate::fetch::Attempt;
use crate::node::NodeRef;
use crate::policy::{AttemptId, Fact, Failure, Micros, NodeIndex};
use crate::report::Fault;
use crate::source::Source;

impl Driver {
    pub(super) fn ended(&mut self, done: Result<(AttemptId, Attempt), JoinError>) {
        // A cancelled download ends with an error and is forgotten already.
        let Ok((attempt, outcome)) = done else { return };
        let Some(flight) = self.flights.remove(&attempt) else {
            return;
        };
        self.tell_of_setbacks(flight.seq, &outcome);
        match outcome.result {
            Ok(bytes) => self.delivered(attempt, &flight, bytes, outcome.elapsed),
            Err(failure) => self.failed(attempt, &flight, failure, outcome.detect),
        }
        self.cluster.note_setbacks(&outcome.setbacks);
    }

    /// Shards that did not come, while others took their place.
    fn tell_of_setbacks(&mut self, seq: u32, outcome: &Attempt) {
        let now = self.cluster.clock.now();
        // What a failed attempt wasted is counted there, as a whole.
        let counts = u64::from(outcome.result.is_ok());
        for setback in &outcome.setbacks {
            let node = self.cluster.nodes().node_ref(setback.node);
            self.complain(seq, &node, &setback.failure);
            let mut state = self.shared.lock();
            let fault = Fault {
                at_ms: state.journal.session_ms(now),
                node: node.clone(),
                seq,
                failure: setback.failure.clone(),
                detect_ms: setback.detect.as_ms(),
                wasted_bytes: counts * setback.wasted_bytes,
                recovered_ms: None,
                recovered_by: None,
            };
            state.journal.setback(fault);
            let kind = EventKind::Failed {
                seq,
                node,
                failure: setback.failure.clone(),
                detect_ms: setback.detect.as_ms(),
                wasted_bytes: setback.wasted_bytes,
            };
            state.journal.tell(now, kind);
        }
    }

    fn delivered(&mut self, attempt: AttemptId, flight: &Flight, bytes: Bytes, elapsed: Micros) {
        let now = self.cluster.clock.now();
        let length = bytes.len() as u64;
        let mut state = self.shared.lock();
        state
            .journal
            .delivered(now, attempt, flight.seq, &flight.node, length);
        let (seq, node) = (flight.seq, flight.node.clone());
        let mbps = length as f64 * 8.0 / elapsed.0.max(1) as f64;
        state.journal.tell(
            now,
            EventKind::Delivered {
                seq,
                node,
                blocks: None,
                bytes: length,
                elapsed_ms: elapsed.as_ms(),
                mbps,
            },
        );
        drop(state);
        let arrived = (NodeIndex(flight.node.index), bytes);
        let source = self.sources.get(flight.seq as usize);
        self.apply(
            Fact::Done {
                attempt,
                // The node's measure is what it sent itself.
                bytes: source.map_or(length, Source::part_bytes),
                elapsed,
            },
            Some(arrived),
        );
    }

    pub(super) fn complain(&self, seq: u32, node: &NodeRef, failure: &Failure) {
        if let Some(source) = self.sources.get(seq as usize) {
            self.cluster.complain(source.chunk_id, node.node_id, failure);
        }
    }

    pub(super) fn failed(&mut self, attempt: AttemptId, flight: &Flight, failure: Failure, detect: Micros) {
        self.complain(flight.seq, &flight.node, &failure);
        let now = self.cluster.clock.now();
        let wasted_bytes = flight.wasted_bytes();
        let (seq, node, detect_ms) = (flight.seq, flight.node.clone(), detect.as_ms());
        let mut state = self.shared.lock();
        state.set_fetching(seq, None);
        let fault = Fault {
            at_ms: state.journal.session_ms(now),
            node: node.clone(),
            seq,
            failure: failure.clone(),
            detect_ms,
            wasted_bytes,
            recovered_ms: None,
            recovered_by: None,
        };
        state.journal.failed(now, attempt, fault);
        let kind = EventKind::Failed {
            seq,
            node,
            failure: failure.clone(),
            detect_ms,
            wasted_bytes,
        };
        state.journal.tell(now, kind);
        drop(state);
        self.apply(Fact::Failed { attempt, failure }, None);
    }
}
