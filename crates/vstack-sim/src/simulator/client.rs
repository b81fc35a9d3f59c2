//! A client machine: it uploads chunks, deletes them, and brings placements back to full strength.
//!
//! Requests have numbers and time limits as over HTTP. What a late or repeated answer proves is still handed on; a late
//! refusal is not.

use std::collections::BTreeMap;

use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::paxos::acceptor::Refusal;
use vstack_core::paxos::master::{Conflict, Value, object_of};
use vstack_core::paxos::proposer::{Failure, Input, Output, Proposer};
use vstack_core::paxos::{Grant, OpenKind};
use vstack_core::time::UnixMillis;

use super::message::{Address, Denied, Message, OpenAsk, Payload, chunk_id, node_index};
use super::outbox::{Fact, Outbox, Timer};
use super::reading::{Found, Next, Reading};

/// Pause after "another owner holds the lease", as the uploader role makes it.
const LOCKED_PAUSE_MS: u64 = 2_000;
/// A request's number holds its chunk above these bits.
const NUMBER_BITS: u32 = 40;

#[derive(Debug)]
pub(super) struct Client {
    index: usize,
    pub(super) up: bool,
    pub(super) life: u64,
    requests: u64,
    timeout_ms: u64,
    tasks: BTreeMap<ChunkId, Task>,
}

#[derive(Debug)]
struct Task {
    work: Work,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
enum Work {
    Propose {
        proposer: Box<Proposer>,
        payload: Payload,
        kind: OpenKind,
    },
    /// Ask for the placement, which is to be converted.
    Ask,
    Read(Box<Reading>),
    Delete,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    about: About,
    /// Timed out or refused: only proofs are still listened to.
    over: bool,
}

#[derive(Debug, Clone, Copy)]
enum About {
    Open,
    Store { node: NodeId, ballot: Ballot },
    Commit { ballot: Ballot },
    Read { node: NodeId },
    Delete,
    Show,
}

impl Client {
    pub(super) fn new(index: usize, timeout_ms: u64) -> Self {
        Self {
            index,
            up: true,
            life: 0,
            requests: 0,
            timeout_ms,
            tasks: BTreeMap::new(),
        }
    }

    pub(super) fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.tasks.clear();
    }

    pub(super) fn is_busy_with(&self, chunk: ChunkId) -> bool {
        self.tasks.contains_key(&chunk)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn upload(
        &mut self,
        now: UnixMillis,
        chunk: ChunkId,
        payload: Payload,
        seed: u64,
        out: &mut Outbox,
    ) {
        let proposer = Box::new(Proposer::new(chunk, payload.digest(), seed));
        self.begin(
            chunk,
            Work::Propose {
                proposer,
                payload,
                kind: OpenKind::Upload,
            },
        );
        self.step(now, chunk, Input::Start, out);
    }

    pub(super) fn delete(&mut self, chunk: ChunkId, out: &mut Outbox) {
        self.begin(chunk, Work::Delete);
        let message = |request| Message::DeleteChunk { request, chunk };
        self.call(chunk, Address::Catalogue, About::Delete, message, out);
    }

    pub(super) fn convert(&mut self, chunk: ChunkId, out: &mut Outbox) {
        self.begin(chunk, Work::Ask);
        let message = |request| Message::Show { request, chunk };
        self.call(chunk, Address::Catalogue, About::Show, message, out);
    }

    /// Reads all parts, to find out what is to be done.
    fn read(&mut self, chunk: ChunkId, reading: Reading, out: &mut Outbox) {
        let parts = reading.parts();
        self.begin(chunk, Work::Read(Box::new(reading)));
        if parts.is_empty() {
            self.tasks.remove(&chunk);
        }
        for part in parts {
            let (object, ballot) = (object_of(chunk, &part), part.object_ballot);
            let message = |request| Message::Read {
                request,
                object,
                ballot,
            };
            self.call(
                chunk,
                Address::Node(node_index(part.node)),
                About::Read { node: part.node },
                message,
                out,
            );
        }
    }

    fn begin(&mut self, chunk: ChunkId, work: Work) {
        self.tasks.insert(
            chunk,
            Task {
                work,
                pending: BTreeMap::new(),
            },
        );
    }

    fn call(
        &mut self,
        chunk: ChunkId,
        to: Address,
        about: About,
        message: impl FnOnce(u64) -> Message,
        out: &mut Outbox,
    ) {
        self.requests += 1;
        let request = u64::from(chunk.seq()) << NUMBER_BITS | self.requests;
        if let Some(task) = self.tasks.get_mut(&chunk) {
            task.pending.insert(request, Pending { about, over: false });
        }
        out.send(to, message(request));
        let timer = Timer::ClientTimeout {
            client: self.index,
            life: self.life,
            request,
        };
        out.timer(self.timeout_ms, timer);
    }

    /// What a request was about, when it is to be listened to. A refusal is listened to once and in time.
    fn answered(&mut self, request: u64, proves: bool) -> Option<(ChunkId, About)> {
        let chunk = chunk_id(u32::try_from(request >> NUMBER_BITS).ok()?);
        let pending = self.tasks.get_mut(&chunk)?.pending.get_mut(&request)?;
        let listened = proves || !pending.over;
        pending.over = true;
        listened.then_some((chunk, pending.about))
    }

    pub(super) fn receive(&mut self, now: UnixMillis, message: Message, out: &mut Outbox) {
        match message {
            Message::Granted {
                request,
                grant,
                replaced,
            } => {
                self.proved(now, request, Input::Granted { grant, replaced }, out);
            }
            Message::Promised { request, promise } => {
                self.proved(now, request, Input::Promised(promise), out)
            }
            Message::Stored { request, receipt } => self.proved(now, request, Input::Stored(receipt), out),
            Message::Committed { request, accepted } => {
                self.proved(now, request, Input::Committed(*accepted), out)
            }
            Message::Bytes { request, payload } => {
                if let Some((chunk, About::Read { node })) = self.answered(request, false) {
                    self.found(
                        now,
                        chunk,
                        node,
                        payload.map_or(Found::Nothing, Found::Bytes),
                        out,
                    );
                }
            }
            Message::ChunkDeleted { request } => {
                if let Some((chunk, About::Delete)) = self.answered(request, true) {
                    self.tasks.remove(&chunk);
                }
            }
            Message::Denied { request, denied } => {
                self.failed(now, request, |kind| catalogue_failure(now, &denied, kind), out);
            }
            Message::NotStored { request, refusal, .. } => {
                self.failed(now, request, |_| node_failure(&refusal), out);
            }
            Message::Shown { request, accepted } => {
                if let Some((chunk, About::Show)) = self.answered(request, false) {
                    match accepted {
                        Some(accepted) => {
                            self.read(chunk, Reading::new(OpenKind::Convert, *accepted, Vec::new()), out)
                        }
                        None => drop(self.tasks.remove(&chunk)),
                    }
                }
            }
            Message::Mend { chunk, base, lost } if !self.is_busy_with(chunk) => {
                self.read(chunk, Reading::new(OpenKind::Repair, *base, lost), out);
            }
            _ => {}
        }
    }

    fn proved(&mut self, now: UnixMillis, request: u64, input: Input, out: &mut Outbox) {
        if let Some((chunk, _)) = self.answered(request, true) {
            self.step(now, chunk, input, out);
        }
    }

    pub(super) fn timed_out(&mut self, now: UnixMillis, request: u64, out: &mut Outbox) {
        let silent = |_| Failure::Transient {
            reason: "it does not answer".to_owned(),
        };
        self.failed(now, request, silent, out);
    }

    fn failed(
        &mut self,
        now: UnixMillis,
        request: u64,
        failure: impl FnOnce(OpenKind) -> Failure,
        out: &mut Outbox,
    ) {
        let Some((chunk, about)) = self.answered(request, false) else {
            return;
        };
        let kind = match self.tasks.get(&chunk).map(|task| &task.work) {
            Some(Work::Propose { kind, .. }) => *kind,
            _ => OpenKind::Repair,
        };
        match about {
            About::Open => self.step(now, chunk, Input::OpenFailed(failure(kind)), out),
            About::Store { node, ballot } => {
                let failure = failure(kind);
                self.step(
                    now,
                    chunk,
                    Input::StoreFailed {
                        node,
                        ballot,
                        failure,
                    },
                    out,
                );
            }
            About::Commit { ballot } => {
                let failure = failure(kind);
                self.step(now, chunk, Input::CommitFailed { ballot, failure }, out);
            }
            About::Read { node } => self.found(now, chunk, node, Found::Silence, out),
            About::Show => drop(self.tasks.remove(&chunk)),
            About::Delete => self.delete(chunk, out),
        }
    }

    fn found(&mut self, now: UnixMillis, chunk: ChunkId, node: NodeId, found: Found, out: &mut Outbox) {
        let Some(Task {
            work: Work::Read(reading),
            ..
        }) = self.tasks.get_mut(&chunk)
        else {
            return;
        };
        let (kind, epoch) = (reading.kind, reading.base.ballot);
        if found == Found::Nothing {
            let part = reading.parts().into_iter().find(|part| part.node == node);
            let part = part.map(|part| (node, part.object_ballot));
            let missing = part.map(|part| Message::Missing { chunk, epoch, part });
            missing
                .into_iter()
                .for_each(|message| out.send(Address::Catalogue, message));
        }
        match reading.found(node, found) {
            None => {}
            Some(Next::Propose(goal, payload)) => {
                let proposer = Box::new(Proposer::with_goal(chunk, goal, now.0));
                self.begin(
                    chunk,
                    Work::Propose {
                        proposer,
                        payload,
                        kind,
                    },
                );
                self.step(now, chunk, Input::Start, out);
            }
            Some(next) => {
                if matches!(next, Next::Whole) {
                    out.send(Address::Catalogue, Message::Whole { chunk, epoch });
                }
                self.tasks.remove(&chunk);
            }
        }
    }

    pub(super) fn wake(&mut self, now: UnixMillis, chunk: ChunkId, out: &mut Outbox) {
        self.step(now, chunk, Input::Wake, out);
    }

    fn step(&mut self, now: UnixMillis, chunk: ChunkId, input: Input, out: &mut Outbox) {
        let Some(Task {
            work: Work::Propose {
                proposer, payload, ..
            },
            ..
        }) = self.tasks.get_mut(&chunk)
        else {
            return;
        };
        let payload = *payload;
        for output in proposer.step(now, input) {
            self.carry_out(now, chunk, payload, output, out);
        }
    }

    fn carry_out(
        &mut self,
        now: UnixMillis,
        chunk: ChunkId,
        payload: Payload,
        output: Output,
        out: &mut Outbox,
    ) {
        match output {
            Output::Open {
                kind,
                expect_epoch,
                parts,
                exclude,
                min_ack,
            } => {
                let ask = OpenAsk {
                    chunk,
                    kind,
                    owner: self.index,
                    expect_epoch,
                    parts,
                    exclude,
                    min_ack,
                };
                let message = |request| Message::Open { request, ask };
                self.call(chunk, Address::Catalogue, About::Open, message, out);
            }
            Output::Prepare { .. } | Output::Accept { .. } | Output::Adopt { .. } => {
                self.send(chunk, payload, output, out);
            }
            Output::Commit {
                ballot,
                value,
                receipts,
            } => {
                let value = Box::new(Value::Placed(value));
                let message = |request| Message::Commit {
                    request,
                    chunk,
                    ballot,
                    value,
                    receipts,
                };
                self.call(chunk, Address::Catalogue, About::Commit { ballot }, message, out);
            }
            Output::WakeAt(at) => {
                let timer = Timer::ClientWake {
                    client: self.index,
                    life: self.life,
                    chunk,
                };
                out.timer(at.since(now), timer);
            }
            Output::GaveUpOn { .. } => {}
            Output::Done { accepted, .. } => {
                self.tasks.remove(&chunk);
                out.fact(Fact::Acknowledged {
                    client: self.index,
                    chunk,
                    accepted,
                });
            }
            Output::Failed { .. } => {
                self.tasks.remove(&chunk);
            }
        }
    }

    /// The messages to nodes.
    fn send(&mut self, chunk: ChunkId, payload: Payload, output: Output, out: &mut Outbox) {
        match output {
            Output::Prepare { node, grant } => {
                let about = About::Store {
                    node,
                    ballot: grant.ballot,
                };
                let message = |request| Message::Prepare { request, grant };
                self.call(chunk, Address::Node(node_index(node)), about, message, out);
            }
            Output::Accept { node, grant } => {
                let (object, payload) = part_on(&grant, node, payload);
                let about = About::Store {
                    node,
                    ballot: grant.ballot,
                };
                let message = |request| Message::Accept {
                    request,
                    grant,
                    object,
                    payload,
                };
                self.call(chunk, Address::Node(node_index(node)), about, message, out);
            }
            Output::Adopt { node, grant, from } => {
                let (object, part) = part_on(&grant, node, payload);
                let expected = part.digest();
                let about = About::Store {
                    node,
                    ballot: grant.ballot,
                };
                let message = |request| Message::Adopt {
                    request,
                    grant,
                    object,
                    from,
                    expected,
                };
                self.call(chunk, Address::Node(node_index(node)), about, message, out);
            }
            _ => {}
        }
    }
}

/// What a grant lets a node take: the object, and its bytes.
fn part_on(grant: &Grant, node: NodeId, payload: Payload) -> (ChunkId, Payload) {
    let target = grant
        .target_on(node)
        .expect("a proposer sends to nodes of its grant");
    (target.object(grant.chunk_id), payload.part(target.shard))
}

fn catalogue_failure(now: UnixMillis, denied: &Denied, kind: OpenKind) -> Failure {
    let Denied::Conflict(conflict) = denied else {
        let reason = "the catalogue cannot grant it now".to_owned();
        return match denied {
            Denied::NotEnoughNodes => Failure::NotEnoughNodes { reason },
            _ => Failure::Transient { reason },
        };
    };
    match &**conflict {
        Conflict::AlreadyCommitted { accepted } => Failure::Decided(accepted.clone()),
        Conflict::Fenced {
            accepted: Some(accepted),
            ..
        } if kind == OpenKind::Upload => Failure::Decided(accepted.clone()),
        // Too little was proven, perhaps since a disk was replaced meanwhile: another ballot may do.
        Conflict::Fenced { .. } | Conflict::Unproven { .. } | Conflict::TooFewParts { .. } => Failure::Fenced,
        Conflict::Leased { .. } => Failure::Locked {
            until: now + LOCKED_PAUSE_MS,
        },
        other => Failure::Refused {
            reason: other.to_string(),
        },
    }
}

fn node_failure(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Fenced { .. } => Failure::Fenced,
        Refusal::SourceMissing => Failure::SourceMissing,
        other => Failure::Permanent {
            reason: other.to_string(),
        },
    }
}
