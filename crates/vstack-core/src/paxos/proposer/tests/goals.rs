//! Repairs and conversions: parts that are kept, and five shards.

use super::*;

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
