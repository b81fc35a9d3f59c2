//! The task of a session: it waits for one thing to happen, tells the policy, and does what the policy says.
//!
//! All decisions are made in one place and one after another; downloads run beside it and only report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use vstack_api::ApiError;
use vstack_core::id::VideoId;
use vstack_core::manifest::Manifest;

use super::Command;
use super::shared::{Shared, State};
use crate::cluster;
use crate::error::ClientError;
use crate::event::EventKind;
use crate::fetch::{Attempt, fetch};
use crate::node::NodeRef;
use crate::policy::{
    Action, AttemptId, CancelReason, ChunkSpec, Fact, Failure, Micros, NodeIndex, Seed, Shape, Start,
};
use crate::report::Fault;
use crate::source::{Source, sources};

/// A download under way.
#[derive(Debug)]
struct Flight {
    seq: u32,
    node: NodeRef,
    task: AbortHandle,
    received: Arc<AtomicU64>,
}

pub(super) struct Driver {
    cluster: Arc<cluster::Shared>,
    shared: Arc<Shared>,
    video: VideoId,
    seed: Seed,
    sources: Vec<Source>,
    flights: BTreeMap<AttemptId, Flight>,
    downloads: JoinSet<(AttemptId, Attempt)>,
    manifests: JoinSet<Result<Manifest, ApiError>>,
    wake_at: Option<Micros>,
}

impl Driver {
    pub(super) fn new(
        cluster: Arc<cluster::Shared>,
        shared: Arc<Shared>,
        video: VideoId,
        sources: Vec<Source>,
        specs: Vec<ChunkSpec>,
    ) -> Self {
        let seed = Seed::new(cluster.config.seed(), specs);
        Self {
            cluster,
            shared,
            video,
            seed,
            sources,
            flights: BTreeMap::new(),
            downloads: JoinSet::new(),
            manifests: JoinSet::new(),
            wake_at: None,
        }
    }

    /// Runs until `stop`; downloads under way end with it.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        self.apply(Fact::Tick, None);
        loop {
            let wake = self.cluster.clock.instant(self.wake_at.unwrap_or_default());
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => self.obey(command),
                Some(done) = self.downloads.join_next() => self.ended(done),
                Some(done) = self.manifests.join_next() => self.manifest_read(done),
                () = sleep_until(wake), if self.wake_at.is_some() => self.apply(Fact::Tick, None),
            }
            self.shared.wake();
        }
    }

    fn obey(&mut self, command: Command) {
        let fact = match command {
            Command::Position { ms } => Fact::Position(Micros::from_ms(ms)),
            Command::Seek { ms } => {
                self.shared
                    .lock()
                    .journal
                    .seek_started(self.cluster.clock.now(), ms);
                Fact::Seek(Micros::from_ms(ms))
            }
            Command::Wanted { seq } => Fact::Wanted { seq },
            Command::Unwanted { seq } => Fact::Unwanted { seq },
        };
        self.apply(fact, None);
    }

    fn ended(&mut self, done: Result<(AttemptId, Attempt), JoinError>) {
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

    fn complain(&self, seq: u32, node: &NodeRef, failure: &Failure) {
        if let Some(source) = self.sources.get(seq as usize) {
            self.cluster.complain(source.chunk_id, node.node_id, failure);
        }
    }

    fn failed(&mut self, attempt: AttemptId, flight: &Flight, failure: Failure, detect: Micros) {
        self.complain(flight.seq, &flight.node, &failure);
        let now = self.cluster.clock.now();
        let wasted_bytes = flight.received.load(Ordering::Relaxed);
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

    fn manifest_read(&mut self, done: Result<Result<Manifest, ApiError>, JoinError>) {
        // The task itself ends early only with the runtime.
        let answer = done.map_err(|_| ClientError::Closed);
        let manifest = answer.and_then(|manifest| manifest.map_err(ClientError::from));
        let fresh = manifest.and_then(|manifest| sources(&manifest, &mut self.cluster.nodes()));
        let (moved, error) = match fresh {
            Ok(fresh) => (self.take_placements(fresh), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let kind = EventKind::ManifestRead {
            moved_chunks: moved.len(),
            error,
        };
        self.shared.lock().journal.tell(self.cluster.clock.now(), kind);
        for (seq, shape) in moved {
            self.apply(Fact::Placed { seq, shape }, None);
        }
        self.apply(Fact::ManifestRead, None);
    }

    /// A chunk never changes its bytes; only where they are is taken from a later manifest.
    fn take_placements(&mut self, fresh: Vec<Source>) -> Vec<(u32, Shape)> {
        let mut moved = Vec::new();
        for ((seq, old), new) in (0..).zip(&mut self.sources).zip(fresh) {
            let same_bytes =
                (old.chunk_id, old.size_bytes, old.sha256) == (new.chunk_id, new.size_bytes, new.sha256);
            if same_bytes && old.parts != new.parts {
                old.parts = new.parts;
                moved.push((seq, old.shape()));
            }
        }
        moved
    }

    /// One fact in, all actions out. `arrived` are the bytes that a [`Fact::Done`] is about.
    fn apply(&mut self, fact: Fact, mut arrived: Option<(NodeIndex, Bytes)>) {
        let now = self.cluster.clock.now();
        let actions = self.seed.apply(now, &mut self.cluster.nodes().records, fact);
        self.wake_at = None;
        for action in actions {
            self.perform(now, action, &mut arrived);
        }
        let mut state = self.shared.lock();
        state.position = self.seed.position();
        state.level = self.seed.level();
        state
            .journal
            .level(now, self.seed.level(), self.seed.reaches_end());
        if self.seed.level() > Micros(0) || self.seed.reaches_end() {
            state.journal.seek_ended(now);
        }
    }

    fn perform(&mut self, now: Micros, action: Action, arrived: &mut Option<(NodeIndex, Bytes)>) {
        match action {
            Action::Start(start) => self.start(now, start),
            Action::Cancel { attempt, why, .. } => self.cancel(now, attempt, why),
            Action::Keep { seq, .. } => {
                if let Some((node, bytes)) = arrived.take() {
                    self.shared.lock().keep(seq, node, bytes);
                }
            }
            Action::Drop { seq, why } => {
                let mut state = self.shared.lock();
                state.release(seq);
                state.journal.tell(now, EventKind::Dropped { seq, why });
            }
            Action::WakeAt(at) => self.wake_at = Some(at),
            // Said only by a policy that asks for blocks; this session runs those that ask for chunks.
            Action::Finish { .. } | Action::PrefixReady { .. } | Action::Blame { .. } => {}
            Action::ReadManifest => {
                let (catalogue, video) = (self.cluster.catalogue.clone(), self.video);
                self.manifests
                    .spawn(async move { catalogue.manifest(video).await });
            }
            Action::Unobtainable { seq } => self.report_unobtainable(now, seq),
            Action::Refill { on, level } => {
                let buffer_ms = level.as_ms();
                let kind = if on {
                    EventKind::RefillStarted { buffer_ms }
                } else {
                    EventKind::RefillStopped { buffer_ms }
                };
                self.shared.lock().journal.tell(now, kind);
            }
        }
    }

    fn start(&mut self, now: Micros, start: Start) {
        let Start {
            attempt,
            seq,
            node: index,
            need,
            score,
            shared,
            after,
            ..
        } = start;
        let nodes = self.cluster.nodes();
        let node = nodes.node_ref(index);
        let after = after.map(|(from, failure)| (nodes.node_ref(from), failure));
        drop(nodes);
        let mut state = self.shared.lock();
        state.set_fetching(seq, Some(index));
        state.journal.requested(now, attempt, index);
        state.journal.tell(
            now,
            EventKind::Requested {
                seq,
                node: node.clone(),
                score,
                need,
                shared,
            },
        );
        tell_of_failover(&mut state, now, seq, &node, after);
        drop(state);
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let (cluster, source) = (Arc::clone(&self.cluster), self.sources.get(seq as usize).cloned());
        let task = self.downloads.spawn(async move {
            let outcome = match source {
                Some(source) => fetch(&cluster, &source, index, counter).await,
                None => Attempt {
                    result: Err(Failure::NotFound),
                    elapsed: Micros(0),
                    detect: Micros(0),
                    setbacks: Vec::new(),
                },
            };
            (attempt, outcome)
        });
        self.flights.insert(
            attempt,
            Flight {
                seq,
                node,
                task,
                received,
            },
        );
    }

    fn cancel(&mut self, now: Micros, attempt: AttemptId, why: CancelReason) {
        let Some(flight) = self.flights.remove(&attempt) else {
            return;
        };
        flight.task.abort();
        let wasted_bytes = flight.received.load(Ordering::Relaxed);
        let mut state = self.shared.lock();
        state.set_fetching(flight.seq, None);
        state
            .journal
            .cancelled(now, attempt, NodeIndex(flight.node.index), wasted_bytes);
        let Flight { seq, node, .. } = flight;
        state.journal.tell(
            now,
            EventKind::Cancelled {
                seq,
                node,
                why,
                wasted_bytes,
            },
        );
    }

    fn report_unobtainable(&self, now: Micros, seq: u32) {
        let Some(source) = self.sources.get(seq as usize) else {
            return;
        };
        let replicas = source.parts.len();
        let mut state = self.shared.lock();
        let last = state.journal.faults.iter().rev().find(|fault| fault.seq == seq);
        let last = last.map_or_else(
            || "none is known".to_owned(),
            |fault| format!("{} {}", fault.node.name, fault.failure),
        );
        state.report_error(
            seq,
            ClientError::Unobtainable {
                chunk_id: source.chunk_id,
                replicas,
                last,
            },
        );
        state.journal.tell(now, EventKind::Unobtainable { seq, replicas });
    }
}

/// However the task ends, even with its runtime: nobody waits for it any more.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.wake();
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
