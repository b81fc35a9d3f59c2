//! Blocks that have come, the chunks that they make, and what may be played of one before it is whole.

use bytes::Bytes;
use tokio::task::JoinError;
use vstack_core::digest::Sha256Digest;

use super::Driver;
use super::attempts::Flight;
use crate::event::EventKind;
use crate::policy::{AttemptId, BlockRange, Fact, Failure, Micros, NodeIndex};
use crate::ranges::{RangeEnd, Report};
use crate::report::Fault;

/// A chunk made of its blocks.
#[derive(Debug)]
pub(super) struct Joined {
    seq: u32,
    /// Who brought most of it.
    node: Option<NodeIndex>,
    /// `None`: the blocks were right one by one, and the chunk is not.
    bytes: Option<Bytes>,
}

impl Driver {
    pub(super) fn take_report(&mut self, attempt: AttemptId, report: Report) {
        match report {
            Report::FirstByte => {
                let now = self.cluster.clock.now();
                if let Some(flight) = self.flights.get_mut(&attempt) {
                    flight.last_sign = now;
                    self.apply(Fact::FirstByte { attempt }, None);
                }
            }
            Report::Progress(bytes) => self.progressed(attempt, bytes),
            Report::Block { block, bytes } => self.take_block(attempt, block, bytes),
            Report::BadBlock { block } => {
                if self.flights.contains_key(&attempt) {
                    self.apply(Fact::BadBlock { attempt, block }, None);
                }
            }
            Report::Ended(end) => self.range_ended(attempt, end),
        }
    }

    fn take_block(&mut self, attempt: AttemptId, block: u32, bytes: Bytes) {
        // Or the policy would take an attempt for overtaken by what it has brought itself.
        self.tell_progress_of(attempt);
        let Some(flight) = self.flights.get_mut(&attempt) else {
            return;
        };
        self.last_block_at = self.cluster.clock.now();
        let length = bytes.len() as u64;
        flight.verified_bytes += length;
        let node = NodeIndex(flight.node.index);
        // At once: playback may end with this block, before its range does.
        self.shared.lock().journal.arrived(node, length, flight.is_hedge);
        self.blocks.put(flight.seq, flight.shard, block, node, bytes);
        let blocks = BlockRange {
            first: block,
            end: block + 1,
        };
        self.apply(Fact::Verified { attempt, blocks }, None);
    }

    fn range_ended(&mut self, attempt: AttemptId, end: RangeEnd) {
        self.tell_progress_of(attempt);
        let Some(flight) = self.flights.remove(&attempt) else {
            return;
        };
        match end.result {
            Ok(()) => self.range_done(attempt, &flight, end.elapsed),
            Err(failure) => self.failed(attempt, &flight, failure, end.detect),
        }
    }

    fn range_done(&mut self, attempt: AttemptId, flight: &Flight, elapsed: Micros) {
        let now = self.cluster.clock.now();
        let bytes = flight.told_bytes;
        let mut state = self.shared.lock();
        state
            .journal
            .range_done(now, attempt, NodeIndex(flight.node.index), flight.wasted_bytes());
        let kind = EventKind::Delivered {
            seq: flight.seq,
            node: flight.node.clone(),
            blocks: flight.blocks,
            bytes,
            elapsed_ms: elapsed.as_ms(),
            mbps: bytes as f64 * 8.0 / elapsed.0.max(1) as f64,
        };
        state.journal.tell(now, kind);
        drop(state);
        let fact = Fact::Done {
            attempt,
            bytes,
            elapsed,
        };
        self.apply(fact, None);
    }

    /// Joining and hashing 64 MiB takes 60 ms and more, too long for a thread that serves other tasks.
    pub(super) fn join(&mut self, seq: u32) {
        let partial = self.blocks.take(seq).unwrap_or_default();
        let Some(source) = self.sources.get(seq as usize).cloned() else {
            return;
        };
        self.to_join.insert(seq);
        self.joining.spawn_blocking(move || {
            let size = usize::try_from(source.size_bytes).unwrap_or(usize::MAX);
            let bytes = partial.bytes(&source, 0..size);
            Joined {
                seq,
                node: partial.main_node(),
                bytes: bytes.filter(|bytes| Sha256Digest::of(bytes) == source.sha256),
            }
        });
    }

    pub(super) fn joined(&mut self, joined: Result<Joined, JoinError>) {
        // The task itself ends early only with the runtime.
        let Ok(Joined { seq, node, bytes }) = joined else {
            return;
        };
        if !self.to_join.remove(&seq) {
            return; // dropped meanwhile
        }
        let now = self.cluster.clock.now();
        let right = bytes.is_some();
        let index = node.unwrap_or_default();
        let node = self.cluster.nodes().node_ref(index);
        let mut state = self.shared.lock();
        match bytes {
            Some(bytes) => {
                let length = bytes.len() as u64;
                state.keep(seq, index, bytes);
                state.journal.completed(now, seq, &node);
                let kind = EventKind::Completed {
                    seq,
                    node,
                    bytes: length,
                };
                state.journal.tell(now, kind);
            }
            None => {
                state.release(seq);
                state.journal.tell(now, EventKind::Contradicted { seq });
            }
        }
        drop(state);
        self.apply(Fact::Finished { seq, right }, None);
    }

    pub(super) fn release_prefix(&mut self, now: Micros, seq: u32, bytes: u64) {
        let (Some(source), Some(partial)) = (self.sources.get(seq as usize), self.blocks.get(seq)) else {
            return;
        };
        let mut state = self.shared.lock();
        let from = state.prefix_bytes(seq);
        let until = usize::try_from(bytes.min(source.size_bytes)).unwrap_or(usize::MAX);
        if from < until
            && let Some(more) = partial.bytes(source, from..until)
        {
            state.extend_prefix(seq, &more);
            state.journal.tell(now, EventKind::PrefixReady { seq, bytes });
        }
    }

    /// A wrong block is told to the catalogue and listed as a fault; its attempt may go on or not.
    pub(super) fn blame(&self, now: Micros, node: NodeIndex, seq: u32, block: u32) {
        let node = self.cluster.nodes().node_ref(node);
        let failure = Failure::WrongBytes;
        self.complain(seq, &node, &failure);
        let mut state = self.shared.lock();
        let fault = Fault {
            at_ms: state.journal.session_ms(now),
            node: node.clone(),
            seq,
            failure,
            detect_ms: 0,
            // Counted with the attempt, whose verified bytes it is not among.
            wasted_bytes: 0,
            recovered_ms: None,
            recovered_by: None,
        };
        state.journal.setback(fault);
        state.journal.tell(now, EventKind::BadBlock { seq, node, block });
    }
}
