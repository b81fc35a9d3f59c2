//! Whoever goes on with somebody's upload.

use super::*;

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
