//! The proposer step by step, and then in a world that loses, repeats and reorders everything.

mod goals;
mod takeover;
mod world;

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
