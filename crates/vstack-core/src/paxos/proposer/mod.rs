//! The proposer: brings one chunk to a committed placement, as uploader, repairer or converter ([`Goal`]).
//!
//! A pure state machine. Its caller sends what [`Output`] says, reports what came of it as [`Input`], and keeps the
//! timers; time and the seed of the jitter come in. It has no durable state: a proposer that dies is never heard of
//! again, and nothing it sent can be decided wrongly.
//!
//! When a node does not answer, the same ballot is sent to it again up to three times; then a new ballot is opened
//! without that node; then two copies are accepted, which leaves the chunk under-replicated; then the chunk fails with
//! the reason. (Erasure-coded: five shards, then five on other nodes, then four.) Every change of nodes or of the fewest
//! parts is a new OPEN and so a new ballot. Bytes that a node holds under an earlier ballot are adopted, not sent again.
//!
//! The first ballot of an upload goes straight to ACCEPT. Whoever takes over a chunk (the grant tells of a replaced
//! ballot that is not this proposer's own), and every repair and conversion, asks first with PREPARE. Nothing waits for
//! all the promises: a node's answer moves that node on, since safety reads the catalogue's row and not the promises.

mod goal;
mod message;
mod round;

use std::collections::{BTreeMap, BTreeSet};

use self::round::{Lane, Round};
use super::master::Accepted;
use super::{Grant, OpenKind, Promise, Receipt, Replaced};
use crate::ballot::Ballot;
use crate::digest::ChunkDigest;
use crate::id::{ChunkId, NodeId};
use crate::time::UnixMillis;

pub use self::goal::{Contents, Goal};
pub use self::message::{Failure, Input, Output};

/// Pauses before the second, third and fourth try, as documented; up to half as much is added at random.
pub const BACKOFF_MS: [u64; 3] = [1_000, 2_000, 4_000];
/// Ballots that may be lost to other proposers before this one gives up.
const MAX_OVERTAKEN: u32 = 3;

/// How far the demands have sunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// All copies, on the nodes of the first choice.
    Full,
    /// All copies, without the nodes that failed.
    Replaced,
    /// As many as may be, at least two.
    Reduced,
}

#[derive(Debug, Clone)]
enum Phase {
    New,
    Opening {
        tries: usize,
        retry_at: Option<UnixMillis>,
    },
    Storing(Round),
    Committing {
        round: Round,
        tries: usize,
        retry_at: Option<UnixMillis>,
    },
    Finished,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Proposer {
    chunk: ChunkId,
    goal: Goal,
    pauses_ms: [u64; 3],
    jitter: u64,
    stage: Stage,
    phase: Phase,
    exclude: BTreeSet<NodeId>,
    /// Who holds which part with the right bytes, and under which ballot.
    holders: BTreeMap<(NodeId, Option<u8>), Ballot>,
    /// Ballots that were this proposer's.
    granted: BTreeSet<Ballot>,
    overtaken: u32,
    reasons: Vec<String>,
}

impl Proposer {
    /// A proposer for the upload of `chunk` as full copies; its bytes have `digest`. `seed` decides the jitter.
    #[must_use]
    pub const fn new(chunk: ChunkId, digest: ChunkDigest, seed: u64) -> Self {
        Self::with_goal(chunk, Goal::upload(Contents::Whole(digest)), seed)
    }

    /// A proposer that brings about `goal` for `chunk`.
    #[must_use]
    pub const fn with_goal(chunk: ChunkId, goal: Goal, seed: u64) -> Self {
        Self {
            chunk,
            goal,
            pauses_ms: BACKOFF_MS,
            jitter: seed,
            stage: Stage::Full,
            phase: Phase::New,
            exclude: BTreeSet::new(),
            holders: BTreeMap::new(),
            granted: BTreeSet::new(),
            overtaken: 0,
            reasons: Vec::new(),
        }
    }

    /// The same with other pauses before the second, third and fourth try.
    #[must_use]
    pub const fn with_pauses(mut self, pauses_ms: [u64; 3]) -> Self {
        self.pauses_ms = pauses_ms;
        self
    }

    /// Whether [`Output::Done`] or [`Output::Failed`] was given.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Takes a fact and says what to do. Facts may come late, twice and in any order.
    pub fn step(&mut self, now: UnixMillis, input: Input) -> Vec<Output> {
        match input {
            _ if self.is_finished() => Vec::new(),
            Input::Start if matches!(self.phase, Phase::New) => self.open(),
            Input::Start => Vec::new(),
            Input::Granted { grant, replaced } => self.granted(grant, replaced),
            Input::OpenFailed(failure) => self.open_failed(now, failure),
            Input::Promised(promise) => self.promised(&promise),
            Input::Stored(receipt) => self.stored(receipt),
            Input::StoreFailed {
                node,
                ballot,
                failure,
            } => self.store_failed(now, node, ballot, failure),
            Input::Committed(accepted) => self.decided(accepted),
            Input::CommitFailed { ballot, failure } => self.commit_failed(now, ballot, failure),
            Input::Wake => self.wake(now),
        }
    }

    fn min_ack(&self) -> usize {
        if self.stage == Stage::Reduced {
            self.goal.fewest_parts()
        } else {
            self.goal.full_parts()
        }
    }

    fn open(&mut self) -> Vec<Output> {
        self.phase = Phase::Opening {
            tries: 1,
            retry_at: None,
        };
        vec![self.open_output()]
    }

    fn open_output(&self) -> Output {
        let min_ack = u8::try_from(self.min_ack()).expect("the numbers of parts are single digits");
        Output::Open {
            kind: self.goal.kind,
            expect_epoch: (self.goal.kind != OpenKind::Upload).then_some(self.goal.base),
            parts: self.goal.new_parts(),
            exclude: self
                .exclude
                .iter()
                .copied()
                .chain(self.goal.kept_nodes())
                .collect(),
            min_ack,
        }
    }

    fn granted(&mut self, grant: Grant, replaced: Option<Replaced>) -> Vec<Output> {
        if !matches!(self.phase, Phase::Opening { .. }) || grant.chunk_id != self.chunk {
            return Vec::new();
        }
        let asks = match &replaced {
            Some(replaced) => !self.granted.contains(&replaced.ballot),
            None => self.goal.kind != OpenKind::Upload && self.granted.is_empty(),
        };
        self.granted.insert(grant.ballot);
        let named = grant.nodes.iter().map(|target| target.node);
        let outputs = if asks {
            let before = replaced.iter().flat_map(|replaced| &replaced.nodes);
            let nodes: BTreeSet<NodeId> = named.chain(before.map(|target| target.node)).collect();
            let prepare = |node| Output::Prepare {
                node,
                grant: grant.clone(),
            };
            nodes.into_iter().map(prepare).collect()
        } else {
            named.map(|node| self.send(&grant, node)).collect()
        };
        let lane = || match asks {
            true => Lane::Asked { tries: 1 },
            false => Lane::Sent { tries: 1 },
        };
        self.phase = Phase::Storing(Round::new(grant, lane));
        outputs
    }

    fn send(&self, grant: &Grant, node: NodeId) -> Output {
        let shard = grant.target_on(node).and_then(|target| target.shard);
        match self.holders.get(&(node, shard)) {
            Some(&from) => Output::Adopt {
                node,
                grant: grant.clone(),
                from,
            },
            None => Output::Accept {
                node,
                grant: grant.clone(),
            },
        }
    }

    /// A node told what it holds. What has the right bytes is adopted; then its lane moves on.
    fn promised(&mut self, promise: &Promise) -> Vec<Output> {
        if promise.chunk_id != self.chunk {
            return Vec::new();
        }
        for held in &promise.objects {
            self.note_holder(promise.node, held.object, held.ballot, held.digest);
        }
        match &self.phase {
            Phase::Storing(round) if round.grant.ballot == promise.ballot => {
                match round.lanes.get(&promise.node) {
                    Some(Lane::Asked { .. }) => self.resend(promise.node, 1),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// Remembers where the right bytes are; says whether they are.
    fn note_holder(&mut self, node: NodeId, object: ChunkId, ballot: Ballot, digest: ChunkDigest) -> bool {
        let shard = object.shard();
        let fits = object.whole() == self.chunk && self.goal.contents.digest_of(shard) == Some(digest);
        if fits {
            let held = self.holders.entry((node, shard)).or_insert(ballot);
            *held = ballot.max(*held);
        }
        fits
    }

    fn open_failed(&mut self, now: UnixMillis, failure: Failure) -> Vec<Output> {
        let Phase::Opening {
            tries,
            retry_at: None,
        } = self.phase
        else {
            return Vec::new();
        };
        match failure {
            Failure::Decided(accepted) => self.decided(accepted),
            Failure::NotEnoughNodes { reason } if self.stage < Stage::Reduced => {
                self.reasons.push(reason);
                self.stage = Stage::Reduced;
                self.open()
            }
            Failure::Transient { reason } => self.open_later(now, tries, now, reason),
            Failure::Locked { until } => self.open_later(
                now,
                tries,
                until,
                "another owner is working on the chunk".to_owned(),
            ),
            other => self.fail(other.reason()),
        }
    }

    fn open_later(
        &mut self,
        now: UnixMillis,
        tries: usize,
        earliest: UnixMillis,
        reason: String,
    ) -> Vec<Output> {
        let Some(pause) = self.pause(tries) else {
            return self.fail(reason);
        };
        let at = (now + pause).max(earliest + pause / 4);
        self.phase = Phase::Opening {
            tries,
            retry_at: Some(at),
        };
        vec![Output::WakeAt(at)]
    }

    fn stored(&mut self, receipt: Receipt) -> Vec<Output> {
        let fits = self.note_holder(receipt.node, receipt.chunk_id, receipt.ballot, receipt.digest);
        let Phase::Storing(round) = &mut self.phase else {
            return Vec::new();
        };
        // A receipt of another ballot proves nothing here, however good it is.
        if receipt.ballot != round.grant.ballot {
            return Vec::new();
        }
        let target = round.grant.target_on(receipt.node);
        let asked = target.is_some_and(|target| target.object(self.chunk) == receipt.chunk_id);
        match round.lanes.get_mut(&receipt.node) {
            None | Some(Lane::Stored(_)) => Vec::new(),
            Some(lane) if fits && asked => {
                *lane = Lane::Stored(receipt);
                self.settle()
            }
            Some(_) => self.give_up(receipt.node, "it acknowledged other bytes".to_owned()),
        }
    }

    fn store_failed(
        &mut self,
        now: UnixMillis,
        node: NodeId,
        ballot: Ballot,
        failure: Failure,
    ) -> Vec<Output> {
        let Phase::Storing(round) = &self.phase else {
            return Vec::new();
        };
        if round.grant.ballot != ballot {
            return Vec::new();
        }
        let (tries, asking) = match round.lanes.get(&node) {
            Some(Lane::Asked { tries }) => (*tries, true),
            Some(Lane::Sent { tries }) => (*tries, false),
            _ => return Vec::new(),
        };
        match failure {
            Failure::Transient { reason } => match self.pause(tries) {
                Some(pause) => {
                    let until = now + pause;
                    self.set_lane(node, Lane::Waiting { tries, until });
                    vec![Output::WakeAt(until)]
                }
                None => self.give_up(node, reason),
            },
            Failure::Fenced => self.overtaken(),
            // What it holds stays unknown; it may take the bytes all the same.
            _ if asking => self.resend(node, tries),
            Failure::SourceMissing if self.forget(node) => self.resend(node, tries),
            other => self.give_up(node, other.reason()),
        }
    }

    /// Nothing is adopted from this node any more; says whether something would have been.
    fn forget(&mut self, node: NodeId) -> bool {
        let before = self.holders.len();
        self.holders.retain(|(holder, _), _| *holder != node);
        self.holders.len() < before
    }

    fn resend(&mut self, node: NodeId, tries: usize) -> Vec<Output> {
        self.set_lane(node, Lane::Sent { tries });
        match &self.phase {
            Phase::Storing(round) => vec![self.send(&round.grant, node)],
            _ => Vec::new(),
        }
    }

    fn give_up(&mut self, node: NodeId, reason: String) -> Vec<Output> {
        self.set_lane(node, Lane::GivenUp);
        self.exclude.insert(node);
        self.forget(node);
        self.reasons.push(format!("node {node}: {reason}"));
        let mut outputs = vec![Output::GaveUpOn { node, reason }];
        outputs.extend(self.settle());
        outputs
    }

    fn set_lane(&mut self, node: NodeId, lane: Lane) {
        if let Phase::Storing(round) = &mut self.phase {
            round.lanes.insert(node, lane);
        }
    }

    /// Goes on once every node of the round has stored the chunk or was given up.
    fn settle(&mut self) -> Vec<Output> {
        let Phase::Storing(round) = &self.phase else {
            return Vec::new();
        };
        if !round.is_settled() {
            return Vec::new();
        }
        let needed = usize::from(round.grant.min_ack).max(self.min_ack());
        if self.goal.keep.len() + round.receipts().count() >= needed {
            let commit = self.commit(round);
            self.phase = Phase::Committing {
                round: round.clone(),
                tries: 1,
                retry_at: None,
            };
            return vec![commit];
        }
        match self.stage {
            Stage::Full => self.stage = Stage::Replaced,
            Stage::Replaced => self.stage = Stage::Reduced,
            Stage::Reduced => return self.fail("too few nodes stored the chunk".to_owned()),
        }
        self.open()
    }

    fn commit(&self, round: &Round) -> Output {
        Output::Commit {
            ballot: round.grant.ballot,
            value: self.goal.placement(round.grant.ballot, round.receipts()),
            receipts: round.receipts().cloned().collect(),
        }
    }

    /// Another proposer opened a newer ballot; this round can never be decided.
    fn overtaken(&mut self) -> Vec<Output> {
        self.overtaken += 1;
        if self.overtaken > MAX_OVERTAKEN {
            return self.fail("other proposers keep overtaking this one".to_owned());
        }
        self.open()
    }

    fn commit_failed(&mut self, now: UnixMillis, ballot: Ballot, failure: Failure) -> Vec<Output> {
        let Phase::Committing {
            round,
            tries,
            retry_at: None,
        } = &self.phase
        else {
            return Vec::new();
        };
        if round.grant.ballot != ballot {
            return Vec::new();
        }
        let (round, tries) = (round.clone(), *tries);
        match failure {
            Failure::Decided(accepted) => self.decided(accepted),
            Failure::Fenced => self.overtaken(),
            Failure::Transient { reason } => match self.pause(tries) {
                // The answer was lost perhaps, not the COMMIT; repeating it is harmless.
                Some(pause) => {
                    let at = now + pause;
                    self.phase = Phase::Committing {
                        round,
                        tries,
                        retry_at: Some(at),
                    };
                    vec![Output::WakeAt(at)]
                }
                None => self.fail(reason),
            },
            other => self.fail(other.reason()),
        }
    }

    /// Some value is decided. Where its bytes are ours, our work is done, whoever did it.
    fn decided(&mut self, accepted: Accepted) -> Vec<Output> {
        let Some(placement) = accepted.value.placement() else {
            return self.fail("the chunk was deleted".to_owned());
        };
        if placement.digest != self.goal.contents.whole() {
            return self.fail("other bytes were committed under this id".to_owned());
        }
        self.phase = Phase::Finished;
        let under_replicated = super::master::missing_parts(placement) > 0;
        vec![Output::Done {
            accepted,
            under_replicated,
        }]
    }

    fn wake(&mut self, now: UnixMillis) -> Vec<Output> {
        match self.next_wake() {
            None => return Vec::new(),
            // Too early, perhaps because the caller's clock was put back: without another wake it would wait for ever.
            Some(at) if at > now => return vec![Output::WakeAt(at)],
            Some(_) => {}
        }
        match &mut self.phase {
            Phase::Opening { tries, retry_at } => {
                (*tries, *retry_at) = (*tries + 1, None);
                vec![self.open_output()]
            }
            Phase::Committing {
                round,
                tries,
                retry_at,
            } => {
                (*tries, *retry_at) = (*tries + 1, None);
                let round = round.clone();
                vec![self.commit(&round)]
            }
            Phase::Storing(round) => {
                let due = round.due(now);
                due.into_iter()
                    .flat_map(|(node, tries)| self.resend(node, tries + 1))
                    .collect()
            }
            Phase::New | Phase::Finished => Vec::new(),
        }
    }

    /// The next time at which something is to be tried again.
    fn next_wake(&self) -> Option<UnixMillis> {
        match &self.phase {
            Phase::Opening { retry_at, .. } | Phase::Committing { retry_at, .. } => *retry_at,
            Phase::Storing(round) => round.next_wake(),
            Phase::New | Phase::Finished => None,
        }
    }

    fn fail(&mut self, reason: String) -> Vec<Output> {
        self.phase = Phase::Finished;
        // The catalogue gives the same reason when it is asked for fewer copies.
        self.reasons.retain(|other| *other != reason);
        let reason = match self.reasons.is_empty() {
            true => reason,
            false => format!("{reason} ({})", self.reasons.join("; ")),
        };
        vec![Output::Failed { reason }]
    }

    /// The pause after `tries` tries, or `None` when they are used up.
    fn pause(&mut self, tries: usize) -> Option<u64> {
        let base = *self.pauses_ms.get(tries.checked_sub(1)?)?;
        Some(base + self.draw() % (base / 2).max(1))
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    const fn draw(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.jitter ^ (self.jitter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
