//! The proposer step by step, and then in a world that loses, repeats and reorders everything.

use super::*;
use crate::id::{Incarnation, VideoId};
use crate::keys::ClusterKey;
use crate::paxos::OpenKind;
use crate::paxos::acceptor::{self, Fence, Object, Refusal, Verdict};
use crate::paxos::master::{self, Conflict, OpenRequest, Row, Value, Witness};
use proptest::prelude::*;
use uuid::Uuid;

fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[7; 32]).unwrap()
}

fn chunk() -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(9)), 0)
}

fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

fn life(node: NodeId) -> Incarnation {
    Incarnation(Uuid::from_u128(node.0.as_u128() + 1000))
}

fn receipt(node: NodeId, ballot: Ballot, digest: ChunkDigest) -> Receipt {
    Receipt::signed(
        &key().receipt_key(node),
        (chunk(), ballot),
        (node, life(node)),
        digest,
    )
}

fn grant(ballot: u64, nodes: &[u128], min_ack: u8) -> Grant {
    let nodes = nodes.iter().copied().map(node).collect();
    let ballots = (Ballot::from_number(ballot), Ballot::PLAIN);
    Grant::signed(
        &key().grant_key(),
        chunk(),
        ballots,
        nodes,
        min_ack,
        UnixMillis(0),
    )
}

fn bytes() -> ChunkDigest {
    ChunkDigest::of(b"bytes")
}

/// A proposer and its clock.
struct Script {
    proposer: Proposer,
    now: UnixMillis,
}

impl Script {
    fn new() -> Self {
        let mut script = Self {
            proposer: Proposer::new(chunk(), bytes(), 1),
            now: UnixMillis(0),
        };
        assert_eq!(
            script.give(Input::Start),
            [Output::Open {
                exclude: BTreeSet::new(),
                min_ack: 3
            }]
        );
        script
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.proposer.step(self.now, input)
    }

    fn stored(&mut self, number: u128, ballot: u64) -> Vec<Output> {
        self.give(Input::Stored(receipt(
            node(number),
            Ballot::from_number(ballot),
            bytes(),
        )))
    }

    fn lost(&mut self, number: u128, ballot: u64) -> Vec<Output> {
        let failure = Failure::Transient {
            reason: "no answer".into(),
        };
        self.give(Input::StoreFailed {
            node: node(number),
            ballot: Ballot::from_number(ballot),
            failure,
        })
    }

    /// Waits as long as was asked.
    fn sleep(&mut self, outputs: &[Output]) -> Vec<Output> {
        let [Output::WakeAt(at)] = outputs else {
            unreachable!("no pause but {outputs:?}")
        };
        let early = self.proposer.step(UnixMillis(at.0 - 1), Input::Wake);
        assert_eq!(
            early,
            [Output::WakeAt(*at)],
            "an early wake asks for the same time again"
        );
        self.now = *at;
        self.give(Input::Wake)
    }

    /// Lets a node fail until the proposer gives up on it.
    fn exhaust(&mut self, number: u128, ballot: u64) -> Vec<Output> {
        let begin = self.now;
        for _ in 0..3 {
            let pause = self.lost(number, ballot);
            let again = self.sleep(&pause);
            assert!(
                matches!(&again[..], [Output::Accept { .. } | Output::Adopt { .. }]),
                "{again:?}"
            );
        }
        let waited = self.now.since(begin);
        assert!(
            (7_000..10_500).contains(&waited),
            "1 + 2 + 4 s and up to half of it more, not {waited} ms"
        );
        self.lost(number, ballot)
    }
}

fn excluded(numbers: &[u128], min_ack: u8) -> Output {
    Output::Open {
        exclude: numbers.iter().copied().map(node).collect(),
        min_ack,
    }
}

#[test]
fn three_answers_lead_to_one_commit() {
    let mut script = Script::new();
    assert_eq!(script.give(Input::Granted(grant(5, &[1, 2, 3], 3))).len(), 3);
    assert_eq!(script.stored(1, 5), []);
    assert_eq!(script.stored(1, 5), [], "a repeat counts once");
    assert_eq!(script.stored(2, 5), []);
    let commit = script.stored(3, 5);
    assert!(
        matches!(&commit[..], [Output::Commit { receipts, .. }] if receipts.len() == 3),
        "{commit:?}"
    );
    let ballot = Ballot::from_number(5);
    let value = Value::Placed(Placement::replicated(
        bytes(),
        ballot,
        &[node(1), node(2), node(3)],
    ));
    let accepted = Accepted { ballot, value };
    let done = script.give(Input::Committed(accepted.clone()));
    assert_eq!(
        done,
        [Output::Done {
            accepted,
            under_replicated: false
        }]
    );
    assert!(script.proposer.is_finished());
}

#[test]
fn a_silent_node_gets_the_same_ballot_three_times_more_and_is_then_replaced() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    let gave_up = script.exhaust(3, 5);
    assert!(matches!(&gave_up[0], Output::GaveUpOn { node: lost, .. } if *lost == node(3)));
    assert_eq!(gave_up[1..], [excluded(&[3], 3)]);
    let sends = script.give(Input::Granted(grant(6, &[1, 2, 4], 3)));
    let from = Ballot::from_number(5);
    assert!(
        matches!(&sends[0], Output::Adopt { node: holder, from: held, .. } if *holder == node(1) && *held == from)
    );
    assert!(matches!(&sends[2], Output::Accept { node: fresh, .. } if *fresh == node(4)));
}

#[test]
fn two_copies_are_the_last_resort_and_count_as_under_replicated() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    script.exhaust(3, 5);
    let not_enough = Failure::NotEnoughNodes {
        reason: "2 healthy".into(),
    };
    assert_eq!(script.give(Input::OpenFailed(not_enough)), [excluded(&[3], 2)]);
    script.give(Input::Granted(grant(7, &[1, 2], 2)));
    script.stored(1, 7);
    let commit = script.stored(2, 7);
    let [Output::Commit { value, .. }] = &commit[..] else {
        unreachable!("{commit:?}")
    };
    let accepted = Accepted {
        ballot: Ballot::from_number(7),
        value: Value::Placed(value.clone()),
    };
    let done = script.give(Input::Committed(accepted.clone()));
    assert_eq!(
        done,
        [Output::Done {
            accepted,
            under_replicated: true
        }]
    );
}

#[test]
fn when_two_copies_cannot_be_had_the_chunk_fails_and_says_why() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.exhaust(2, 5);
    script.exhaust(3, 5);
    script.give(Input::Granted(grant(6, &[1, 4, 5], 3)));
    script.stored(1, 6);
    script.exhaust(4, 6);
    assert_eq!(script.exhaust(5, 6)[1..], [excluded(&[2, 3, 4, 5], 2)]);
    let not_enough = Failure::NotEnoughNodes {
        reason: "1 healthy node".into(),
    };
    let failed = script.give(Input::OpenFailed(not_enough));
    let [Output::Failed { reason }] = &failed[..] else {
        unreachable!("{failed:?}")
    };
    assert!(
        reason.contains("1 healthy node") && reason.contains("no answer"),
        "{reason}"
    );
}

#[test]
fn receipts_of_another_ballot_or_node_or_for_other_bytes_never_count() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    assert_eq!(script.stored(3, 4), []);
    assert_eq!(script.stored(9, 5), []);
    let other = receipt(node(3), Ballot::from_number(5), ChunkDigest::of(b"other"));
    let gave_up = script.give(Input::Stored(other));
    assert_eq!(gave_up[1..], [excluded(&[3], 3)]);
}

#[test]
fn an_object_that_was_collected_meanwhile_is_sent_again() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.give(Input::StoreFailed {
        node: node(2),
        ballot: Ballot::from_number(5),
        failure: Failure::Fenced,
    });
    script.give(Input::Granted(grant(6, &[1, 2, 3], 3)));
    let (node, ballot) = (node(1), Ballot::from_number(6));
    let again = script.give(Input::StoreFailed {
        node,
        ballot,
        failure: Failure::SourceMissing,
    });
    assert_eq!(
        again,
        [Output::Accept {
            node,
            grant: grant(6, &[1, 2, 3], 3)
        }]
    );
}

#[test]
fn a_lost_commit_answer_makes_the_same_commit_again() {
    let mut script = Script::new();
    script.give(Input::Granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    let commit = script.stored(3, 5);
    let failure = Failure::Transient {
        reason: "no answer".into(),
    };
    let pause = script.give(Input::CommitFailed {
        ballot: Ballot::from_number(5),
        failure,
    });
    assert_eq!(script.sleep(&pause), commit);
}

#[test]
fn a_chunk_that_somebody_committed_with_the_same_bytes_is_done() {
    let mut script = Script::new();
    let ballot = Ballot::from_number(5);
    let value = |digest| {
        Value::Placed(Placement::replicated(
            digest,
            ballot,
            &[node(1), node(2), node(3)],
        ))
    };
    let accepted = Accepted {
        ballot,
        value: value(bytes()),
    };
    let mut other = Script::new();
    let done = script.give(Input::OpenFailed(Failure::Decided(accepted.clone())));
    assert_eq!(
        done,
        [Output::Done {
            accepted,
            under_replicated: false
        }]
    );
    let accepted = Accepted {
        ballot,
        value: value(ChunkDigest::of(b"other")),
    };
    let failed = other.give(Input::OpenFailed(Failure::Decided(accepted)));
    assert!(matches!(&failed[..], [Output::Failed { .. }]), "{failed:?}");
}

/// A message on its way. Requests carry the proposer they come from.
#[derive(Debug, Clone)]
enum Message {
    Request(usize, Output),
    Answer(usize, Input),
}

/// One row, five nodes, two proposers with different bytes for the same chunk, and a network that does as it likes.
struct World {
    row: Row,
    fences: BTreeMap<NodeId, Fence>,
    objects: BTreeMap<(NodeId, Ballot), ChunkDigest>,
    proposers: Vec<Proposer>,
    digests: Vec<ChunkDigest>,
    network: Vec<Message>,
    now: UnixMillis,
    random: u64,
    decided: Vec<Accepted>,
    outcomes: Vec<Output>,
}

impl World {
    fn new(seed: u64) -> Self {
        let digests = vec![ChunkDigest::of(b"one"), ChunkDigest::of(b"two")];
        Self {
            row: Row::default(),
            fences: (1..=5).map(|number| (node(number), Fence::default())).collect(),
            objects: BTreeMap::new(),
            proposers: digests
                .iter()
                .zip(seed..)
                .map(|(&digest, seed)| Proposer::new(chunk(), digest, seed))
                .collect(),
            digests,
            network: vec![Message::Answer(0, Input::Start), Message::Answer(1, Input::Start)],
            now: UnixMillis(0),
            random: seed,
            decided: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % below
    }

    /// Delivers a random message, or loses it, or delivers it and keeps it for later.
    fn tick(&mut self, faults: bool) {
        let index = self.draw(self.network.len());
        let message = self.network.swap_remove(index);
        match self.draw(10) {
            0 if faults => self.lose(message),
            1 if faults => {
                self.network.push(message.clone());
                self.deliver(message);
            }
            _ => self.deliver(message),
        }
    }

    fn lose(&mut self, message: Message) {
        let transient = || Failure::Transient {
            reason: "lost".into(),
        };
        let (from, answer) = match message {
            Message::Request(from, Output::Open { .. }) | Message::Answer(from, Input::Granted(_)) => {
                (from, Input::OpenFailed(transient()))
            }
            Message::Request(from, Output::Accept { node, grant } | Output::Adopt { node, grant, .. }) => (
                from,
                Input::StoreFailed {
                    node,
                    ballot: grant.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Stored(receipt)) => (
                from,
                Input::StoreFailed {
                    node: receipt.node,
                    ballot: receipt.ballot,
                    failure: transient(),
                },
            ),
            Message::Request(from, Output::Commit { ballot, .. }) => (
                from,
                Input::CommitFailed {
                    ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Committed(accepted)) => (
                from,
                Input::CommitFailed {
                    ballot: accepted.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, other) => (from, other),
            Message::Request(..) => return,
        };
        self.network.push(Message::Answer(from, answer));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Answer(to, input) => {
                for output in self.proposers[to].step(self.now, input) {
                    match output {
                        Output::WakeAt(at) => {
                            self.now = self.now.max(at);
                            self.network.push(Message::Answer(to, Input::Wake));
                        }
                        Output::Done { .. } | Output::Failed { .. } => self.outcomes.push(output),
                        Output::GaveUpOn { .. } => {}
                        request => self.network.push(Message::Request(to, request)),
                    }
                }
            }
            Message::Request(from, Output::Open { exclude, min_ack }) => {
                let answer = self.open(from, &exclude, min_ack);
                self.network.push(Message::Answer(from, answer));
            }
            Message::Request(from, Output::Accept { node, grant }) => self.store(from, node, &grant, None),
            Message::Request(
                from,
                Output::Adopt {
                    node,
                    grant,
                    from: source,
                },
            ) => {
                self.store(from, node, &grant, Some(source));
            }
            Message::Request(
                from,
                Output::Commit {
                    ballot,
                    value,
                    receipts,
                },
            ) => {
                let answer = self.commit(ballot, value, receipts);
                self.network.push(Message::Answer(from, answer));
            }
            Message::Request(..) => {}
        }
    }

    fn open(&mut self, from: usize, exclude: &BTreeSet<NodeId>, min_ack: u8) -> Input {
        let nodes: Vec<_> = (1..=5).map(node).filter(|node| !exclude.contains(node)).collect();
        let first = self.draw(5);
        let nodes: Vec<_> = nodes
            .iter()
            .cycle()
            .skip(first)
            .take(nodes.len().min(3))
            .copied()
            .collect();
        if nodes.len() < min_ack.into() {
            return Input::OpenFailed(Failure::NotEnoughNodes {
                reason: "too few".into(),
            });
        }
        let request = OpenRequest {
            kind: OpenKind::Upload,
            owner: from.to_string(),
            expect_epoch: None,
            nodes: nodes.clone(),
            min_ack,
            generation: 1,
            now: self.now,
            // Leases only make duels rare; here they shall be frequent.
            lease_ms: 0,
        };
        match master::open(chunk(), &self.row, &request) {
            Ok(opened) => {
                self.collect(&opened.garbage);
                self.row = opened.row;
                let ballots = (opened.ballot, Ballot::PLAIN);
                let key = key().grant_key();
                Input::Granted(Grant::signed(&key, chunk(), ballots, nodes, min_ack, self.now))
            }
            Err(Conflict::AlreadyCommitted { accepted }) => Input::OpenFailed(Failure::Decided(accepted)),
            Err(other) => Input::OpenFailed(Failure::Refused {
                reason: other.to_string(),
            }),
        }
    }

    /// Deletes what R3 lets go, sometimes.
    fn collect(&mut self, garbage: &[master::Garbage]) {
        for garbage in garbage {
            if self.draw(2) == 0 {
                self.objects.remove(&(garbage.node, garbage.ballot));
            }
        }
    }

    fn object(&self, node: NodeId, ballot: Ballot) -> Object {
        self.objects
            .get(&(node, ballot))
            .map_or(Object::Absent, |&digest| Object::Stored(digest))
    }

    fn store(&mut self, from: usize, node: NodeId, grant: &Grant, source: Option<Ballot>) {
        let outcome = self.stored_digest(from, node, grant, source);
        let answer = match outcome {
            Ok(digest) => Input::Stored(receipt(node, grant.ballot, digest)),
            Err(refusal) => {
                let failure = match refusal {
                    Refusal::Fenced { .. } => Failure::Fenced,
                    Refusal::SourceMissing => Failure::SourceMissing,
                    other => Failure::Permanent {
                        reason: other.to_string(),
                    },
                };
                Input::StoreFailed {
                    node,
                    ballot: grant.ballot,
                    failure,
                }
            }
        };
        self.network.push(Message::Answer(from, answer));
    }

    fn stored_digest(
        &mut self,
        from: usize,
        node: NodeId,
        grant: &Grant,
        source: Option<Ballot>,
    ) -> Result<ChunkDigest, Refusal> {
        let fence = self.fences.get_mut(&node).unwrap();
        fence.admit(grant, chunk(), node, Ballot::PLAIN)?;
        let target = self.object(node, grant.ballot);
        let (digest, verdict) = match source {
            Some(source) => {
                acceptor::adopt(self.object(node, source), Some(self.digests[from].sha256), target)?
            }
            None => (self.digests[from], acceptor::accept(target, &self.digests[from])?),
        };
        if verdict == Verdict::Write {
            self.objects.insert((node, grant.ballot), digest);
        }
        Ok(digest)
    }

    fn commit(&mut self, ballot: Ballot, value: Placement, receipts: Vec<Receipt>) -> Input {
        let witnesses: Vec<_> = receipts
            .into_iter()
            .map(|receipt| Witness::check(receipt, &key()).unwrap())
            .collect();
        let live = |node| Some(life(node));
        match master::commit(
            chunk(),
            &self.row,
            ballot,
            &Value::Placed(value),
            &witnesses,
            live,
        ) {
            Ok(done) => {
                self.row = done.row;
                self.collect(&done.garbage);
                if !done.replayed {
                    self.decided.push(done.accepted.clone());
                }
                Input::Committed(done.accepted)
            }
            Err(Conflict::Fenced {
                accepted: Some(accepted),
                ..
            }) => Input::CommitFailed {
                ballot,
                failure: Failure::Decided(accepted),
            },
            Err(Conflict::Fenced { .. }) => Input::CommitFailed {
                ballot,
                failure: Failure::Fenced,
            },
            Err(other) => Input::CommitFailed {
                ballot,
                failure: Failure::Refused {
                    reason: other.to_string(),
                },
            },
        }
    }

    fn run(&mut self, faults: bool) {
        for _ in 0..20_000 {
            if self.network.is_empty() {
                return;
            }
            self.tick(faults);
        }
        assert!(faults || self.network.is_empty(), "it never came to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lost_repeated_and_reordered_messages_never_decide_two_values(seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.run(true);
        prop_assert!(world.decided.len() <= 1, "{:?}", world.decided);
        if let Some(accepted) = world.decided.first() {
            let placement = accepted.value.placement().unwrap();
            for part in &placement.parts {
                let held = world.objects.get(&(part.node, part.object_ballot));
                prop_assert_eq!(held, Some(&placement.digest), "a decided part is not on its node");
            }
        }
        for outcome in &world.outcomes {
            if let Output::Done { accepted, .. } = outcome {
                prop_assert_eq!(Some(accepted), world.decided.first(), "a proposer was told what is not decided");
            }
        }
    }

    #[test]
    fn without_faults_somebody_always_succeeds(seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.run(false);
        prop_assert_eq!(world.decided.len(), 1);
        prop_assert!(world.proposers.iter().all(Proposer::is_finished));
    }
}
