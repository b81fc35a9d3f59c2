//! The proposer step by step, and then in a world that loses, repeats and reorders everything.

use super::*;
use crate::id::{Incarnation, VideoId};
use crate::keys::ClusterKey;
use crate::paxos::acceptor::{self, Fence, Object, Refusal, Verdict};
use crate::paxos::master::{self, Conflict, Knowledge, OpenRequest, Row, Value, Witness};
use crate::paxos::{Held, Target};
use crate::placement::Placement;
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
    let nodes = nodes.iter().copied().map(node);
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

/// The answer to an OPEN that replaced no ballot.
fn granted(grant: Grant) -> Input {
    Input::Granted {
        grant,
        replaced: None,
    }
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
        assert_eq!(script.give(Input::Start), [excluded(&[], 3)]);
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
        kind: OpenKind::Upload,
        expect_epoch: None,
        parts: vec![None; 3],
        exclude: numbers.iter().copied().map(node).collect(),
        min_ack,
    }
}

#[test]
fn three_answers_lead_to_one_commit() {
    let mut script = Script::new();
    assert_eq!(script.give(granted(grant(5, &[1, 2, 3], 3))).len(), 3);
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
    script.give(granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    let gave_up = script.exhaust(3, 5);
    assert!(matches!(&gave_up[0], Output::GaveUpOn { node: lost, .. } if *lost == node(3)));
    assert_eq!(gave_up[1..], [excluded(&[3], 3)]);
    let sends = script.give(granted(grant(6, &[1, 2, 4], 3)));
    let from = Ballot::from_number(5);
    assert!(
        matches!(&sends[0], Output::Adopt { node: holder, from: held, .. } if *holder == node(1) && *held == from)
    );
    assert!(matches!(&sends[2], Output::Accept { node: fresh, .. } if *fresh == node(4)));
}

#[test]
fn two_copies_are_the_last_resort_and_count_as_under_replicated() {
    let mut script = Script::new();
    script.give(granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    script.exhaust(3, 5);
    let not_enough = Failure::NotEnoughNodes {
        reason: "2 healthy".into(),
    };
    assert_eq!(script.give(Input::OpenFailed(not_enough)), [excluded(&[3], 2)]);
    script.give(granted(grant(7, &[1, 2], 2)));
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
    script.give(granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.exhaust(2, 5);
    script.exhaust(3, 5);
    script.give(granted(grant(6, &[1, 4, 5], 3)));
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
    script.give(granted(grant(5, &[1, 2, 3], 3)));
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
    script.give(granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.give(Input::StoreFailed {
        node: node(2),
        ballot: Ballot::from_number(5),
        failure: Failure::Fenced,
    });
    script.give(granted(grant(6, &[1, 2, 3], 3)));
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
    script.give(granted(grant(5, &[1, 2, 3], 3)));
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

fn resumed(grant: Grant, ballot: u64, nodes: &[u128]) -> Input {
    let replaced = Replaced {
        ballot: Ballot::from_number(ballot),
        nodes: nodes.iter().map(|&number| Target::whole(node(number))).collect(),
    };
    Input::Granted {
        grant,
        replaced: Some(replaced),
    }
}

fn promise(number: u128, ballot: u64, objects: &[(u64, &[u8])]) -> Input {
    let held = |&(ballot, bytes): &(u64, &[u8])| Held {
        object: chunk(),
        ballot: Ballot::from_number(ballot),
        digest: ChunkDigest::of(bytes),
    };
    Input::Promised(Promise {
        chunk_id: chunk(),
        ballot: Ballot::from_number(ballot),
        node: node(number),
        objects: objects.iter().map(held).collect(),
    })
}

#[test]
fn who_takes_over_asks_first_and_sends_only_what_is_not_there() {
    let mut script = Script::new();
    let asked = script.give(resumed(grant(6, &[1, 2, 4], 3), 5, &[1, 2, 3]));
    let to: Vec<_> = asked
        .iter()
        .map(|output| match output {
            Output::Prepare { node, .. } => *node,
            other => unreachable!("{other:?}"),
        })
        .collect();
    assert_eq!(
        to,
        [1, 2, 3, 4].map(node),
        "the granted nodes and those of the replaced ballot"
    );
    let same = script.give(promise(1, 6, &[(5, b"bytes")]));
    assert!(
        matches!(&same[..], [Output::Adopt { from, .. }] if from.number() == 5),
        "{same:?}"
    );
    let other = script.give(promise(2, 6, &[(5, b"other")]));
    assert!(matches!(&other[..], [Output::Accept { .. }]), "{other:?}");
    assert_eq!(
        script.give(promise(3, 6, &[(5, b"bytes")])),
        [],
        "it was not granted"
    );
    let nothing = script.give(promise(4, 6, &[]));
    assert!(matches!(&nothing[..], [Output::Accept { .. }]), "{nothing:?}");
    assert_eq!(
        script.give(promise(4, 6, &[])),
        [],
        "a repeat sends nothing again"
    );
    script.stored(1, 6);
    script.stored(2, 6);
    assert!(matches!(&script.stored(4, 6)[..], [Output::Commit { .. }]));
}

#[test]
fn a_node_that_does_not_answer_prepare_gets_the_bytes_all_the_same() {
    let mut script = Script::new();
    script.give(resumed(grant(6, &[1, 2, 3], 3), 5, &[1, 2, 3]));
    let pause = script.lost(1, 6);
    assert!(matches!(&script.sleep(&pause)[..], [Output::Accept { .. }]));
    let failure = Failure::Permanent {
        reason: "what is PREPARE?".into(),
    };
    let (node, ballot) = (node(2), Ballot::from_number(6));
    let accept = script.give(Input::StoreFailed {
        node,
        ballot,
        failure,
    });
    assert!(matches!(&accept[..], [Output::Accept { .. }]), "{accept:?}");
}

#[test]
fn the_own_earlier_ballot_needs_no_prepare() {
    let mut script = Script::new();
    script.give(granted(grant(5, &[1, 2, 3], 3)));
    script.stored(1, 5);
    script.stored(2, 5);
    script.exhaust(3, 5);
    let sends = script.give(resumed(grant(6, &[1, 2, 4], 3), 5, &[1, 2, 3]));
    assert!(matches!(
        &sends[..],
        [Output::Adopt { .. }, Output::Adopt { .. }, Output::Accept { .. }]
    ));
}

/// A chunk that is placed at epoch 5 on nodes 1, 2, 3.
fn placed() -> Accepted {
    let ballot = Ballot::from_number(5);
    let value = Value::Placed(Placement::replicated(bytes(), ballot, &[1, 2, 3].map(node)));
    Accepted { ballot, value }
}

fn begin(goal: Goal) -> (Script, Output) {
    let mut script = Script {
        proposer: Proposer::with_goal(chunk(), goal, 1),
        now: UnixMillis(0),
    };
    let mut outputs = script.give(Input::Start);
    (script, outputs.remove(0))
}

#[test]
fn a_repair_keeps_what_is_well_and_places_the_rest() {
    let lost = |part: &crate::placement::Part| part.node == node(2);
    let goal = Goal::repair(&placed(), Contents::Whole(bytes()), lost).unwrap();
    let (mut script, open) = begin(goal);
    let expected = Output::Open {
        kind: OpenKind::Repair,
        expect_epoch: Some(Ballot::from_number(5)),
        parts: vec![None],
        exclude: [1, 3].map(node).into(),
        min_ack: 3,
    };
    assert_eq!(open, expected);
    let asked = script.give(granted(grant(8, &[4], 3)));
    assert!(matches!(&asked[..], [Output::Prepare { .. }]), "{asked:?}");
    script.give(promise(4, 8, &[]));
    let commit = script.stored(4, 8);
    let [Output::Commit { value, receipts, .. }] = &commit[..] else {
        unreachable!("{commit:?}")
    };
    let named: Vec<_> = value
        .parts
        .iter()
        .map(|part| (part.node, part.object_ballot.number()))
        .collect();
    assert_eq!(named, [(node(1), 5), (node(3), 5), (node(4), 8)]);
    assert_eq!(receipts.len(), 1);
}

fn shard_digests() -> [ChunkDigest; 5] {
    [0u8, 1, 2, 3, 4].map(|shard| ChunkDigest::of(&[shard]))
}

fn shard_receipt(shard: u8, ballot: u64) -> Input {
    let node = node(u128::from(shard) + 1);
    let object = (chunk().with_shard(shard).unwrap(), Ballot::from_number(ballot));
    let digest = shard_digests()[usize::from(shard)];
    Input::Stored(Receipt::signed(
        &key().receipt_key(node),
        object,
        (node, life(node)),
        digest,
    ))
}

fn shard_grant(ballot: u64, min_ack: u8) -> Grant {
    let ballots = (Ballot::from_number(ballot), Ballot::from_number(5));
    let targets = (0..5).map(|shard| Target::shard(node(u128::from(shard) + 1), shard));
    Grant::signed(
        &key().grant_key(),
        chunk(),
        ballots,
        targets,
        min_ack,
        UnixMillis(0),
    )
}

#[test]
fn a_conversion_wants_five_shards_then_others_then_four() {
    let contents = Contents::Shards {
        whole: bytes(),
        shards: Box::new(shard_digests()),
    };
    let goal = Goal::convert(&placed(), contents.clone()).unwrap();
    let asks = |outputs: &[Output], least: u8| {
        let open = outputs.last().unwrap();
        assert!(
            matches!(open, Output::Open { kind: OpenKind::Convert, parts, min_ack, .. } if parts.len() == 5 && *min_ack == least),
            "{open:?}"
        );
    };
    let (mut script, open) = begin(goal);
    asks(&[open], 5);
    for (ballot, least) in [(8, 5), (9, 4)] {
        script.give(Input::Granted {
            grant: shard_grant(ballot, 5),
            replaced: None,
        });
        for shard in 0..5 {
            script.give(promise(shard + 1, ballot, &[(5, b"bytes")]));
        }
        for shard in 0..4 {
            script.give(shard_receipt(shard, ballot));
        }
        let failure = Failure::Permanent {
            reason: "full".into(),
        };
        let (node, ballot) = (node(5), Ballot::from_number(ballot));
        let outputs = script.give(Input::StoreFailed {
            node,
            ballot,
            failure,
        });
        asks(&outputs, least);
    }
    script.give(Input::Granted {
        grant: shard_grant(10, 4),
        replaced: None,
    });
    for shard in 0..4 {
        assert_eq!(script.give(shard_receipt(shard, 10)), []);
    }
    let failure = Failure::Permanent {
        reason: "full".into(),
    };
    let (node, ballot) = (node(5), Ballot::from_number(10));
    let outputs = script.give(Input::StoreFailed {
        node,
        ballot,
        failure,
    });
    assert!(
        matches!(outputs.last(), Some(Output::Commit { value, .. }) if value.parts.len() == 4),
        "{outputs:?}"
    );
    assert_eq!(
        Goal::repair(&placed(), contents, |_| false),
        None,
        "another scheme is no repair"
    );
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
            Message::Request(from, Output::Open { .. }) | Message::Answer(from, Input::Granted { .. }) => {
                (from, Input::OpenFailed(transient()))
            }
            Message::Request(
                from,
                Output::Prepare { node, grant }
                | Output::Accept { node, grant }
                | Output::Adopt { node, grant, .. },
            ) => (
                from,
                Input::StoreFailed {
                    node,
                    ballot: grant.ballot,
                    failure: transient(),
                },
            ),
            Message::Answer(from, Input::Promised(promise)) => (
                from,
                Input::StoreFailed {
                    node: promise.node,
                    ballot: promise.ballot,
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
            Message::Request(from, Output::Open { exclude, min_ack, .. }) => {
                let answer = self.open(from, &exclude, min_ack);
                self.network.push(Message::Answer(from, answer));
            }
            Message::Request(from, Output::Prepare { node, grant }) => self.prepare(from, node, &grant),
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
            nodes: nodes.iter().copied().map(Target::whole).collect(),
            min_ack,
            generation: 1,
            now: self.now,
            // Leases only make duels rare; here they shall be frequent.
            lease_ms: 0,
            knowledge: Knowledge::Complete,
        };
        match master::open(chunk(), &self.row, &request) {
            Ok(opened) => {
                self.collect(&opened.garbage);
                self.row = opened.row;
                let ballots = (opened.ballot, Ballot::PLAIN);
                let key = key().grant_key();
                Input::Granted {
                    grant: Grant::signed(&key, chunk(), ballots, nodes, min_ack, self.now),
                    replaced: opened.replaced,
                }
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

    fn prepare(&mut self, from: usize, node: NodeId, grant: &Grant) {
        let held = self.objects.iter().filter(|((holder, _), _)| *holder == node);
        let objects = held.map(|(&(_, ballot), &digest)| Held {
            object: chunk(),
            ballot,
            digest,
        });
        let objects = objects.collect();
        let fence = self.fences.get_mut(&node).unwrap();
        let answer = match fence.prepare(grant, node, objects) {
            Ok(promise) => Input::Promised(promise),
            Err(_) => Input::StoreFailed {
                node,
                ballot: grant.ballot,
                failure: Failure::Fenced,
            },
        };
        self.network.push(Message::Answer(from, answer));
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
        let live = |node: NodeId| Some(life(node));
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
