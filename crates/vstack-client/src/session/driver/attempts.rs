//! Attempts begin, and end before their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

use super::Driver;
use crate::event::EventKind;
use crate::fetch::{Attempt, fetch};
use crate::node::NodeRef;
use crate::policy::{AttemptId, BlockRange, CancelReason, Fact, Failure, Micros, NodeIndex, Piece, Start};
use crate::ranges::{RangeEnd, RangeRequest, Report, fetch_range};
use crate::report::Fault;
use crate::session::shared::State;

/// A download under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) seq: u32,
    pub(super) node: NodeRef,
    /// Of an erasure-coded chunk.
    pub(super) shard: Option<u8>,
    /// `None`: the whole chunk.
    pub(super) blocks: Option<BlockRange>,
    /// Bytes that another attempt was asked for already.
    pub(super) is_hedge: bool,
    pub(super) task: AbortHandle,
    /// While they arrive.
    pub(super) received: Arc<AtomicU64>,
    /// As the policy knows them.
    pub(super) told_bytes: u64,
    /// In blocks that match their leaves.
    pub(super) verified_bytes: u64,
    pub(super) last_sign: Micros,
}

impl Flight {
    /// Received, and of no use if it ends now.
    pub(super) fn wasted_bytes(&self) -> u64 {
        let received = self.received.load(Ordering::Relaxed);
        received.saturating_sub(self.verified_bytes)
    }
}

impl Driver {
    pub(super) fn start(&mut self, now: Micros, start: Start) {
        let nodes = self.cluster.nodes();
        let node = nodes.node_ref(start.node);
        let after = start.after.clone();
        let after = after.map(|(from, failure)| (nodes.node_ref(from), failure));
        drop(nodes);
        let (attempt, seq) = (start.attempt, start.seq);
        let blocks = match start.piece {
            Piece::Chunk => None,
            Piece::Blocks(range) => Some(range),
        };
        let mut state = self.shared.lock();
        state.set_fetching(seq, Some(start.node));
        state.journal.requested(now, attempt, start.node);
        let kind = EventKind::Requested {
            seq,
            node: node.clone(),
            blocks,
            score: start.score,
            need: start.need,
            shared: start.shared,
            hedge: start.hedges.is_some(),
            slack_ms: start.slack.as_ms(),
        };
        state.journal.tell(now, kind);
        tell_of_failover(&mut state, now, seq, &node, after);
        drop(state);
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let (shard, task) = match blocks {
            None => (None, self.spawn_whole(&start, counter)),
            Some(range) => self.spawn_range(&start, range, counter),
        };
        let flight = Flight {
            seq,
            node,
            shard,
            blocks,
            is_hedge: start.hedges.is_some(),
            task,
            received,
            told_bytes: 0,
            verified_bytes: 0,
            last_sign: now,
        };
        self.flights.insert(attempt, flight);
    }

    fn spawn_whole(&mut self, start: &Start, received: Arc<AtomicU64>) -> AbortHandle {
        let (attempt, lead) = (start.attempt, start.node);
        let cluster = Arc::clone(&self.cluster);
        let source = self.sources.get(start.seq as usize).cloned();
        self.downloads.spawn(async move {
            let outcome = match source {
                Some(source) => fetch(&cluster, &source, lead, received).await,
                None => Attempt {
                    result: Err(Failure::NotFound),
                    elapsed: Micros(0),
                    detect: Micros(0),
                    setbacks: Vec::new(),
                },
            };
            (attempt, outcome)
        })
    }

    fn spawn_range(
        &mut self,
        start: &Start,
        range: BlockRange,
        received: Arc<AtomicU64>,
    ) -> (Option<u8>, AbortHandle) {
        let attempt = start.attempt;
        let reports = self.reports.clone();
        let Some((request, shard)) = self.range_request(start, range) else {
            // The placement moved between the decision and this attempt.
            let end = RangeEnd {
                result: Err(Failure::NotFound),
                elapsed: Micros(0),
                detect: Micros(0),
            };
            let task = self.ranges.spawn(async move {
                let _ = reports.send((attempt, Report::Ended(end)));
            });
            return (None, task);
        };
        let fetching = fetch_range(request, &self.leaves, reports, received);
        let task = self.ranges.spawn(fetching);
        (shard, task)
    }

    fn range_request(&self, start: &Start, range: BlockRange) -> Option<(RangeRequest, Option<u8>)> {
        let source = self.sources.get(start.seq as usize)?;
        let part = source.part_on(start.node)?;
        let request = RangeRequest {
            attempt: start.attempt,
            node: start.node,
            client: self.cluster.nodes().client(start.node)?,
            id: source.object_id(part)?,
            ballot: part.ballot,
            part_bytes: source.part_bytes(),
            leaf_root: part.leaf_root,
            range,
            slack: start.slack,
        };
        Some((request, part.shard))
    }

    pub(super) fn cancel(&mut self, now: Micros, attempt: AttemptId, why: CancelReason) {
        let Some(flight) = self.flights.remove(&attempt) else {
            return;
        };
        flight.task.abort();
        let wasted_bytes = flight.wasted_bytes();
        let mut state = self.shared.lock();
        state.set_fetching(flight.seq, None);
        let node = NodeIndex(flight.node.index);
        if why == CancelReason::Silent {
            let silence = now - flight.last_sign;
            let fault = Fault {
                at_ms: state.journal.session_ms(now),
                node: flight.node.clone(),
                seq: flight.seq,
                failure: Failure::Silent {
                    after_ms: silence.as_ms(),
                },
                detect_ms: silence.as_ms(),
                wasted_bytes,
                recovered_ms: None,
                recovered_by: None,
            };
            state.journal.failed(now, attempt, fault);
        } else {
            state.journal.cancelled(now, attempt, node, wasted_bytes);
        }
        let Flight { seq, node, .. } = flight;
        let kind = EventKind::Cancelled {
            seq,
            node,
            why,
            wasted_bytes,
        };
        state.journal.tell(now, kind);
    }

    /// Bytes that have come since the policy was told last.
    pub(super) fn tell_progress(&mut self) {
        let grown: Vec<_> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.blocks.is_some())
            .map(|(attempt, flight)| (*attempt, flight.received.load(Ordering::Relaxed)))
            .collect();
        for (attempt, bytes) in grown {
            self.progressed(attempt, bytes);
        }
    }

    pub(super) fn tell_progress_of(&mut self, attempt: AttemptId) {
        if let Some(flight) = self.flights.get(&attempt) {
            let received = flight.received.load(Ordering::Relaxed);
            self.progressed(attempt, received);
        }
    }

    pub(super) fn progressed(&mut self, attempt: AttemptId, bytes: u64) {
        let now = self.cluster.clock.now();
        let Some(flight) = self.flights.get_mut(&attempt) else {
            return;
        };
        if bytes > flight.told_bytes {
            (flight.told_bytes, flight.last_sign) = (bytes, now);
            self.apply(Fact::Progress { attempt, bytes }, None);
        }
    }
}

fn tell_of_failover(
    state: &mut State,
    now: Micros,
    seq: u32,
    to: &NodeRef,
    after: Option<(NodeRef, Failure)>,
) {
    match after {
        None => {}
        Some((from, failure)) if from == *to => {
            state.journal.tell(
                now,
                EventKind::Retried {
                    seq,
                    node: from,
                    failure,
                },
            );
        }
        Some((from, failure)) => {
            state.journal.totals.failovers += 1;
            state.journal.tell(
                now,
                EventKind::Failover {
                    seq,
                    from,
                    to: to.clone(),
                    failure,
                },
            );
        }
    }
}
