//! The proposer: brings one chunk from bytes in memory to a committed placement.
//!
//! A pure state machine. Its caller sends what [`Output`] says, reports what came of it as [`Input`], and keeps the
//! timers; time and the seed of the jitter come in. It has no durable state: a proposer that dies is never heard of
//! again, and nothing it sent can be decided wrongly.
//!
//! When a node does not answer, the same ballot is sent to it again up to three times; then a new ballot is opened
//! without that node; then two copies are accepted, which leaves the chunk under-replicated; then the chunk fails with
//! the reason. Every change of nodes or of the fewest copies is a new OPEN and so a new ballot. Bytes that a node holds
//! under an earlier ballot are adopted, not sent again.

use std::collections::{BTreeMap, BTreeSet};

use super::master::Accepted;
use super::{Grant, Receipt};
use crate::ballot::Ballot;
use crate::digest::ChunkDigest;
use crate::id::{ChunkId, NodeId};
use crate::limits::{REPLICA_COUNT, REPLICA_MIN_ACK};
use crate::placement::Placement;
use crate::time::UnixMillis;

/// Pauses before the second, third and fourth try, as documented; up to half as much is added at random.
const BACKOFF_MS: [u64; 3] = [1_000, 2_000, 4_000];
/// Ballots that may be lost to other proposers before this one gives up.
const MAX_OVERTAKEN: u32 = 3;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin. Given once, first.
    Start,
    /// OPEN was granted.
    Granted(Grant),
    OpenFailed(Failure),
    /// A node answered ACCEPT or ADOPT.
    Stored(Receipt),
    /// ACCEPT or ADOPT of `ballot` failed on `node`.
    StoreFailed {
        node: NodeId,
        ballot: Ballot,
        failure: Failure,
    },
    /// COMMIT was answered: this is decided.
    Committed(Accepted),
    CommitFailed {
        ballot: Ballot,
        failure: Failure,
    },
    /// A time asked for by [`Output::WakeAt`] has come.
    Wake,
}

/// Why a step failed, as far as the next step depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or one that may be better next time. The outcome is unknown; the same is sent again.
    Transient { reason: String },
    /// This node will not take it: full, other bytes, not the node it should be.
    Permanent { reason: String },
    /// The object to adopt is not there any more.
    SourceMissing,
    /// A newer ballot was opened.
    Fenced,
    /// Another owner holds the lease.
    Locked { until: UnixMillis },
    /// The catalogue does not find as many healthy nodes as asked.
    NotEnoughNodes { reason: String },
    /// The chunk is decided already.
    Decided(Accepted),
    /// Nothing that this proposer can do will help.
    Refused { reason: String },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Open {
        exclude: BTreeSet<NodeId>,
        min_ack: u8,
    },
    /// Send the bytes under the grant.
    Accept {
        node: NodeId,
        grant: Grant,
    },
    /// The node holds the bytes under `from`: name them under the grant too.
    Adopt {
        node: NodeId,
        grant: Grant,
        from: Ballot,
    },
    Commit {
        ballot: Ballot,
        value: Placement,
        receipts: Vec<Receipt>,
    },
    /// Give [`Input::Wake`] at this time. An earlier one may still come and does no harm.
    WakeAt(UnixMillis),
    /// For the log and the user: this node is not asked again.
    GaveUpOn {
        node: NodeId,
        reason: String,
    },
    /// Decided; nothing follows.
    Done {
        accepted: Accepted,
        under_replicated: bool,
    },
    /// Not decided by this proposer; nothing follows.
    Failed {
        reason: String,
    },
}

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

/// One ballot's attempt.
#[derive(Debug, Clone)]
struct Round {
    grant: Grant,
    lanes: BTreeMap<NodeId, Lane>,
}

/// One node's part in a round.
#[derive(Debug, Clone)]
enum Lane {
    Sent { tries: usize },
    Waiting { tries: usize, until: UnixMillis },
    Stored(Receipt),
    GivenUp,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Proposer {
    chunk: ChunkId,
    digest: ChunkDigest,
    jitter: u64,
    stage: Stage,
    phase: Phase,
    exclude: BTreeSet<NodeId>,
    /// Nodes that hold the bytes, and under which ballot.
    holders: BTreeMap<NodeId, Ballot>,
    overtaken: u32,
    reasons: Vec<String>,
}

impl Proposer {
    /// A proposer for `chunk`, whose bytes have `digest`. `seed` decides the jitter.
    #[must_use]
    pub const fn new(chunk: ChunkId, digest: ChunkDigest, seed: u64) -> Self {
        Self {
            chunk,
            digest,
            jitter: seed,
            stage: Stage::Full,
            phase: Phase::New,
            exclude: BTreeSet::new(),
            holders: BTreeMap::new(),
            overtaken: 0,
            reasons: Vec::new(),
        }
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
            Input::Granted(grant) => self.granted(grant),
            Input::OpenFailed(failure) => self.open_failed(now, failure),
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
            REPLICA_MIN_ACK
        } else {
            REPLICA_COUNT
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
        let min_ack = u8::try_from(self.min_ack()).expect("the numbers of copies are single digits");
        Output::Open {
            exclude: self.exclude.clone(),
            min_ack,
        }
    }

    fn granted(&mut self, grant: Grant) -> Vec<Output> {
        if !matches!(self.phase, Phase::Opening { .. }) || grant.chunk_id != self.chunk {
            return Vec::new();
        }
        let lanes = grant
            .nodes
            .iter()
            .map(|&node| (node, Lane::Sent { tries: 1 }))
            .collect();
        let round = Round { grant, lanes };
        let sends = round
            .grant
            .nodes
            .iter()
            .map(|&node| self.send(&round.grant, node))
            .collect();
        self.phase = Phase::Storing(round);
        sends
    }

    fn send(&self, grant: &Grant, node: NodeId) -> Output {
        match self.holders.get(&node) {
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
        let fits = receipt.chunk_id == self.chunk && receipt.digest == self.digest;
        if fits && !receipt.ballot.is_plain() {
            let held = self.holders.entry(receipt.node).or_insert(receipt.ballot);
            *held = receipt.ballot.max(*held);
        }
        let Phase::Storing(round) = &mut self.phase else {
            return Vec::new();
        };
        // A receipt of another ballot proves nothing here, however good it is.
        if receipt.ballot != round.grant.ballot {
            return Vec::new();
        }
        match round.lanes.get_mut(&receipt.node) {
            None | Some(Lane::Stored(_)) => Vec::new(),
            Some(lane) if fits => {
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
        let Some(Lane::Sent { tries }) = round.lanes.get(&node) else {
            return Vec::new();
        };
        let tries = *tries;
        match failure {
            Failure::Transient { reason } => match self.pause(tries) {
                Some(pause) => {
                    let until = now + pause;
                    self.set_lane(node, Lane::Waiting { tries, until });
                    vec![Output::WakeAt(until)]
                }
                None => self.give_up(node, reason),
            },
            Failure::SourceMissing if self.holders.remove(&node).is_some() => self.resend(node, tries),
            Failure::Fenced => self.overtaken(),
            other => self.give_up(node, other.reason()),
        }
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
        self.holders.remove(&node);
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
        if round
            .lanes
            .values()
            .any(|lane| matches!(lane, Lane::Sent { .. } | Lane::Waiting { .. }))
        {
            return Vec::new();
        }
        let needed = usize::from(round.grant.min_ack).max(self.min_ack());
        if round.receipts().count() >= needed {
            let commit = round.commit(self.digest);
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
        if placement.digest != self.digest {
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
                vec![round.commit(self.digest)]
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
            Phase::Storing(round) => round.lanes.values().filter_map(Lane::until).min(),
            Phase::New | Phase::Finished => None,
        }
    }

    fn fail(&mut self, reason: String) -> Vec<Output> {
        self.phase = Phase::Finished;
        let reason = match self.reasons.is_empty() {
            true => reason,
            false => format!("{reason} ({})", self.reasons.join("; ")),
        };
        vec![Output::Failed { reason }]
    }

    /// The pause after `tries` tries, or `None` when they are used up.
    fn pause(&mut self, tries: usize) -> Option<u64> {
        let base = *BACKOFF_MS.get(tries.checked_sub(1)?)?;
        Some(base + self.draw() % (base / 2))
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    const fn draw(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.jitter ^ (self.jitter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Lane {
    const fn until(&self) -> Option<UnixMillis> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            Self::Sent { .. } | Self::Stored(_) | Self::GivenUp => None,
        }
    }
}

impl Round {
    fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.lanes.values().filter_map(|lane| match lane {
            Lane::Stored(receipt) => Some(receipt),
            _ => None,
        })
    }

    fn commit(&self, digest: ChunkDigest) -> Output {
        let receipts: Vec<_> = self.receipts().cloned().collect();
        let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
        let value = Placement::replicated(digest, self.grant.ballot, &nodes);
        Output::Commit {
            ballot: self.grant.ballot,
            value,
            receipts,
        }
    }

    fn due(&self, now: UnixMillis) -> Vec<(NodeId, usize)> {
        let due = self.lanes.iter().filter_map(|(&node, lane)| match lane {
            Lane::Waiting { tries, until } if *until <= now => Some((node, *tries)),
            _ => None,
        });
        due.collect()
    }
}

impl Failure {
    fn reason(self) -> String {
        match self {
            Self::Transient { reason }
            | Self::Permanent { reason }
            | Self::NotEnoughNodes { reason }
            | Self::Refused { reason } => reason,
            Self::SourceMissing => "the object to adopt is gone".to_owned(),
            Self::Fenced => "a newer ballot was opened".to_owned(),
            Self::Locked { .. } => "another owner is working on the chunk".to_owned(),
            Self::Decided(accepted) => format!("epoch {} is decided", accepted.ballot),
        }
    }
}

#[cfg(test)]
#[path = "proposer_tests.rs"]
mod tests;
