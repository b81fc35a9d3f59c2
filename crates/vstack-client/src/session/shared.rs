//! What the task of a session and its handles share: the buffer, who waits for what, and the journal.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use vstack_core::id::VideoId;

use crate::cluster;
use crate::config::{ClientConfig, PolicyName};
use crate::error::ClientError;
use crate::journal::Journal;
use crate::node::NodeView;
use crate::policy::{ChunkSpec, Micros, NodeIndex};
use crate::report::{SessionReport, share_percent};
use crate::snapshot::{SessionSnapshot, Span, SpanState};

/// A chunk as those see it who wait for it.
#[derive(Debug)]
pub(crate) struct Slot {
    start_ms: u64,
    end_ms: u64,
    bytes: Option<Bytes>,
    /// Its beginning, when that may be played before all of it is there.
    prefix: Vec<u8>,
    /// Who delivered it last.
    pub(crate) source: Option<NodeIndex>,
    pub(crate) fetching: Option<NodeIndex>,
    /// Those who wait.
    wishes: u32,
    /// Times that it was reported as unobtainable, and how the last time went.
    errors: u64,
    error: Option<ClientError>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) slots: Vec<Slot>,
    pub(crate) journal: Journal,
    pub(crate) position: Micros,
    pub(crate) level: Micros,
    /// The one that decides now.
    pub(crate) policy: PolicyName,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// For threads; `changed` is the same for tasks.
    arrived: Condvar,
    pub(crate) changed: Notify,
}

impl Shared {
    pub(crate) fn new(
        cluster: &cluster::Shared,
        policy: PolicyName,
        specs: &[ChunkSpec],
        opened: Micros,
    ) -> Self {
        let slot = |spec: &ChunkSpec| Slot {
            start_ms: spec.start.as_ms(),
            end_ms: spec.end.as_ms(),
            bytes: None,
            prefix: Vec::new(),
            source: None,
            fetching: None,
            wishes: 0,
            errors: 0,
            error: None,
        };
        let state = State {
            slots: specs.iter().map(slot).collect(),
            journal: Journal::new(cluster.clock, opened),
            position: Micros(0),
            level: Micros(0),
            policy,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chunk_count(&self) -> u32 {
        u32::try_from(self.lock().slots.len()).unwrap_or(u32::MAX)
    }

    /// Wakes all who wait. With the lock taken once, so that nobody is between looking and waiting.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.arrived.notify_all();
        self.changed.notify_waiters();
    }

    /// Whether this is the first wish for the chunk, and the errors before it.
    pub(crate) fn add_wish(&self, seq: u32) -> (bool, u64) {
        match self.lock().slots.get_mut(seq as usize) {
            None => (false, 0),
            Some(slot) => {
                slot.wishes += 1;
                (slot.wishes == 1, slot.errors)
            }
        }
    }

    /// Whether this was the last wish for the chunk.
    pub(crate) fn end_wish(&self, seq: u32) -> bool {
        match self.lock().slots.get_mut(seq as usize) {
            None => false,
            Some(slot) => {
                slot.wishes = slot.wishes.saturating_sub(1);
                slot.wishes == 0
            }
        }
    }

    /// The outcome for somebody who has waited since `errors_before`; `None` while there is none.
    pub(crate) fn look(&self, seq: u32, errors_before: u64) -> Option<Result<Bytes, ClientError>> {
        self.lock().look(seq, errors_before)
    }

    /// The same for some bytes of it.
    pub(crate) fn look_at(
        &self,
        seq: u32,
        range: Range<usize>,
        errors_before: u64,
    ) -> Option<Result<Bytes, ClientError>> {
        self.lock().look_at(seq, range, errors_before)
    }

    /// Looks until there is an outcome, as a thread; `None` once `cancelled`.
    pub(crate) fn wait_for(
        &self,
        cancelled: &dyn Fn() -> bool,
        look: impl Fn(&State) -> Option<Result<Bytes, ClientError>>,
    ) -> Option<Result<Bytes, ClientError>> {
        let mut state = self.lock();
        loop {
            if cancelled() {
                return None;
            }
            if let Some(result) = look(&state) {
                return Some(result);
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    pub(crate) fn look(&self, seq: u32, errors_before: u64) -> Option<Result<Bytes, ClientError>> {
        let Some(slot) = self.slots.get(seq as usize) else {
            let total = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            return Some(Err(ClientError::NoSuchChunk { seq, total }));
        };
        match &slot.error {
            _ if slot.bytes.is_some() => slot.bytes.clone().map(Ok),
            Some(error) if slot.errors > errors_before => Some(Err(error.clone())),
            _ if self.closed => Some(Err(ClientError::Closed)),
            _ => None,
        }
    }

    pub(crate) fn look_at(
        &self,
        seq: u32,
        range: Range<usize>,
        errors_before: u64,
    ) -> Option<Result<Bytes, ClientError>> {
        if let Some(part) = self
            .slots
            .get(seq as usize)
            .and_then(|slot| slot.prefix.get(range.clone()))
        {
            return Some(Ok(Bytes::copy_from_slice(part)));
        }
        let whole = self.look(seq, errors_before)?;
        Some(whole.and_then(|chunk| {
            if range.end <= chunk.len() {
                Ok(chunk.slice(range))
            } else {
                let size_bytes = chunk.len();
                Err(ClientError::TooShort { seq, size_bytes })
            }
        }))
    }

    /// Bytes of the chunk's beginning that were released before it was whole.
    pub(crate) fn prefix_bytes(&self, seq: u32) -> usize {
        self.slots.get(seq as usize).map_or(0, |slot| slot.prefix.len())
    }

    /// Whether the chunk at the playhead, or the one after it, is played from its beginning while its end is still missing.
    pub(crate) fn plays_from_prefix(&self) -> bool {
        let position_ms = self.position.as_ms();
        let next = self.slots.partition_point(|slot| slot.end_ms <= position_ms);
        let near = self.slots.iter().skip(next).take(2);
        near.into_iter().any(|slot| !slot.prefix.is_empty())
    }

    /// Whether all of it is in the buffer.
    pub(crate) fn holds(&self, seq: u32) -> bool {
        self.slots
            .get(seq as usize)
            .is_some_and(|slot| slot.bytes.is_some())
    }

    /// The chunk that is played at this time; past the end, the number of chunks.
    pub(crate) fn chunk_at(&self, position: Micros) -> u32 {
        let index = self.slots.partition_point(|slot| slot.end_ms <= position.as_ms());
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Chunks that are played within this time.
    pub(crate) fn chunks_between(&self, from: Micros, until: Micros) -> Range<u32> {
        let end = self.slots.partition_point(|slot| slot.start_ms < until.as_ms());
        self.chunk_at(from)..u32::try_from(end).unwrap_or(u32::MAX)
    }

    /// Whether anybody waits for a chunk of which nothing is ready.
    pub(crate) fn somebody_waits(&self) -> bool {
        let waits = |slot: &Slot| slot.wishes > 0 && slot.bytes.is_none() && slot.prefix.is_empty();
        self.slots.iter().any(waits)
    }

    pub(crate) fn extend_prefix(&mut self, seq: u32, more: &[u8]) {
        if let Some(slot) = self.slots.get_mut(seq as usize) {
            slot.prefix.extend_from_slice(more);
        }
    }

    pub(crate) fn keep(&mut self, seq: u32, node: NodeIndex, bytes: Bytes) {
        if let Some(slot) = self.slots.get_mut(seq as usize) {
            slot.bytes = Some(bytes);
            slot.prefix = Vec::new();
            slot.source = Some(node);
            slot.fetching = None;
            slot.error = None;
        }
    }

    pub(crate) fn set_fetching(&mut self, seq: u32, node: Option<NodeIndex>) {
        if let Some(slot) = self.slots.get_mut(seq as usize) {
            slot.fetching = node;
        }
    }

    pub(crate) fn release(&mut self, seq: u32) {
        if let Some(slot) = self.slots.get_mut(seq as usize) {
            slot.bytes = None;
            slot.prefix = Vec::new();
        }
    }

    pub(crate) fn report_error(&mut self, seq: u32, error: ClientError) {
        if let Some(slot) = self.slots.get_mut(seq as usize) {
            slot.errors += 1;
            slot.error = Some(error);
        }
    }

    pub(crate) const fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn snapshot(&self, now: Micros, node_count: usize) -> SessionSnapshot {
        SessionSnapshot {
            position_ms: self.position.as_ms(),
            buffer_ms: self.level.as_ms(),
            startup_ms: self.journal.startup_ms(),
            stalls: self.journal.totals.stalls,
            stall_ms: self.journal.stall_ms(now),
            spans: spans(&self.slots),
            lanes: self.journal.lanes(now, node_count),
            nodes: self.journal.counts(node_count),
            log: self.journal.log(),
        }
    }

    pub(crate) fn report(
        &mut self,
        now: Micros,
        video_id: VideoId,
        config: &ClientConfig,
        nodes: Vec<NodeView>,
    ) -> SessionReport {
        let buffer = self.journal.buffer_seconds(now);
        let counts = self.journal.counts(nodes.len());
        let chunks = self.slots.iter().filter(|slot| slot.source.is_some()).count();
        let totals = &self.journal.totals;
        let bytes_by_node: BTreeMap<String, u64> = nodes
            .iter()
            .zip(&counts)
            .map(|(node, count)| (node.name.clone(), count.bytes))
            .collect();
        let by_nodes = bytes_by_node.values().sum();
        let share = |(name, bytes): (&String, &u64)| (name.clone(), share_percent(*bytes, by_nodes));
        SessionReport {
            video_id,
            client_id: config.client_id,
            policy: self.policy,
            policy_changes: totals.policy_changes,
            session_ms: self.journal.session_ms(now),
            complete: chunks == self.slots.len(),
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            total_chunks: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            startup_ms: self.journal.startup_ms(),
            stalls: totals.stalls,
            stall_ms: self.journal.stall_ms(now),
            avg_buffer_s: buffer.mean,
            p5_buffer_s: buffer.p5,
            min_buffer_s: buffer.min,
            bytes: totals.bytes,
            wasted_bytes: totals.wasted_bytes,
            requests: totals.requests,
            hedged_bytes: totals.hedged_bytes,
            requests_per_chunk: if totals.chunks == 0 {
                0.0
            } else {
                totals.requests as f64 / totals.chunks as f64
            },
            share_percent_by_node: bytes_by_node.iter().map(share).collect(),
            bytes_by_node,
            failovers: totals.failovers,
            hash_failures: totals.hash_failures,
            prefetch: totals.prefetch,
            seek_ms: self.journal.seek_ms.clone(),
            faults: self.journal.faults.iter().cloned().collect(),
            nodes,
        }
    }
}

/// Neighbours from the same node in the same state become one span.
fn spans(slots: &[Slot]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for slot in slots {
        let Some((node, state)) = span_state(slot) else {
            continue;
        };
        let span = Span {
            start_ms: slot.start_ms,
            end_ms: slot.end_ms,
            node_index: node.0,
            state,
        };
        match spans.last_mut() {
            Some(last) if (last.end_ms, last.node_index, last.state) == (span.start_ms, node.0, state) => {
                last.end_ms = span.end_ms;
            }
            _ => spans.push(span),
        }
    }
    spans
}

fn span_state(slot: &Slot) -> Option<(NodeIndex, SpanState)> {
    let held = if slot.bytes.is_some() {
        SpanState::Buffered
    } else {
        SpanState::Played
    };
    let fetching = slot.fetching.map(|node| (node, SpanState::Fetching));
    fetching.or_else(|| slot.source.map(|node| (node, held)))
}
