//! Rules R1 to R3 over one row, each with the attack that it stops.

mod inventory;
mod lives;
mod lost;
mod shards;

use std::collections::BTreeSet;

use super::*;
use crate::digest::ChunkDigest;
use crate::id::VideoId;
use crate::placement::Scheme;
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

fn incarnation(number: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(number + 1000))
}

/// Nodes 1 to 9 are registered, each in its first life.
fn live(id: NodeId) -> Option<Incarnation> {
    (1..=9).find(|&number| node(number) == id).map(incarnation)
}

fn request(kind: OpenKind, nodes: &[u128]) -> OpenRequest {
    OpenRequest {
        kind,
        owner: "a".into(),
        expect_epoch: None,
        nodes: nodes.iter().map(|&number| Target::whole(node(number))).collect(),
        min_ack: u8::try_from(nodes.len()).unwrap(),
        generation: 1,
        now: UnixMillis(1_000),
        lease_ms: 60_000,
        knowledge: Knowledge::Complete,
    }
}

fn receipt_of(number: u128, life: Incarnation, ballot: Ballot, bytes: &[u8]) -> Witness {
    let receipt_key = key().receipt_key(node(number));
    let receipt = Receipt::signed(
        &receipt_key,
        (chunk(), ballot),
        (node(number), life),
        ChunkDigest::of(bytes),
    );
    Witness::check(receipt, &key()).unwrap()
}

fn receipts(numbers: &[u128], ballot: Ballot, bytes: &[u8]) -> Vec<Witness> {
    numbers
        .iter()
        .map(|&number| receipt_of(number, incarnation(number), ballot, bytes))
        .collect()
}

fn value(numbers: &[u128], ballot: Ballot, bytes: &[u8]) -> Value {
    let nodes: Vec<_> = numbers.iter().copied().map(node).collect();
    Value::Placed(Placement::replicated(ChunkDigest::of(bytes), ballot, &nodes))
}

fn opened(row: &Row, nodes: &[u128]) -> Opened {
    open(chunk(), row, &request(OpenKind::Upload, nodes)).unwrap()
}

fn committed(nodes: &[u128]) -> Committed {
    let open = opened(&Row::default(), nodes);
    let proof = receipts(nodes, open.ballot, b"bytes");
    commit(
        chunk(),
        &open.row,
        open.ballot,
        &value(nodes, open.ballot, b"bytes"),
        &proof,
        live,
    )
    .unwrap()
}

fn named(garbage: &[Garbage]) -> Vec<(NodeId, u64)> {
    garbage
        .iter()
        .map(|garbage| (garbage.node, garbage.ballot.number()))
        .collect()
}

#[test]
fn three_receipts_of_the_open_ballot_decide() {
    let decided = committed(&[1, 2, 3]);
    assert_eq!(decided.row.epoch(), decided.row.promised);
    assert_eq!((decided.missing_parts, decided.garbage.len()), (0, 0));
    assert!(decided.row.open.is_none());
}

#[test]
fn the_same_commit_again_is_answered_with_what_was_decided() {
    let decided = committed(&[1, 2, 3]);
    let other = value(&[4, 5, 6], decided.accepted.ballot, b"other");
    let again = commit(chunk(), &decided.row, decided.accepted.ballot, &other, &[], live).unwrap();
    assert!(again.replayed);
    assert_eq!((again.accepted, again.row), (decided.accepted, decided.row));
}

#[test]
fn r1_an_overtaken_ballot_never_commits_and_its_objects_are_collected() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    let second = opened(&first.row, &[4, 5, 6]);
    assert!(second.ballot > first.ballot);
    let late = value(&[1, 2, 3], first.ballot, b"bytes");
    let proof = receipts(&[1, 2, 3], first.ballot, b"bytes");
    let refused = commit(chunk(), &second.row, first.ballot, &late, &proof, live);
    assert_eq!(
        refused,
        Err(Conflict::Fenced {
            promised: second.ballot,
            accepted: None
        })
    );
    let old = first.ballot.number();
    assert_eq!(
        named(&second.garbage),
        [(node(1), old), (node(2), old), (node(3), old)]
    );
}

#[test]
fn r1_an_aborted_ballot_never_commits() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    let abort = open(chunk(), &first.row, &request(OpenKind::Abort, &[])).unwrap();
    assert_eq!(abort.garbage.len(), 3);
    for ballot in [first.ballot, abort.ballot] {
        let proof = receipts(&[1, 2, 3], ballot, b"bytes");
        let refused = commit(
            chunk(),
            &abort.row,
            ballot,
            &value(&[1, 2, 3], ballot, b"bytes"),
            &proof,
            live,
        );
        assert!(matches!(refused, Err(Conflict::Fenced { .. })), "{refused:?}");
    }
}

fn check_unproven(nodes: &[u128], proof: impl FnOnce(Ballot) -> Vec<Witness>, expected: Fault) {
    let open = opened(&Row::default(), &[1, 2, 3]);
    let value = value(nodes, open.ballot, b"bytes");
    let refused = commit(chunk(), &open.row, open.ballot, &value, &proof(open.ballot), live);
    assert!(
        matches!(&refused, Err(Conflict::Unproven { fault, .. }) if *fault == expected),
        "{refused:?}"
    );
}

#[test]
fn r2_a_part_counts_only_by_a_receipt_of_this_ballot() {
    check_unproven(
        &[1, 2, 3],
        |ballot| receipts(&[1, 2], ballot, b"bytes"),
        Fault::NoReceipt,
    );
    let earlier = |ballot: Ballot| receipts(&[1, 2, 3], Ballot::from_number(ballot.number() - 1), b"bytes");
    check_unproven(&[1, 2, 3], earlier, Fault::NoReceipt);
}

#[test]
fn r2_a_part_counts_only_on_a_granted_node() {
    check_unproven(
        &[1, 2, 4],
        |ballot| receipts(&[1, 2, 4], ballot, b"bytes"),
        Fault::NotGranted,
    );
}

#[test]
fn r2_a_receipt_of_a_replaced_disk_counts_no_more() {
    let proof = |ballot| {
        let mut proof = receipts(&[1, 2], ballot, b"bytes");
        proof.push(receipt_of(3, incarnation(77), ballot, b"bytes"));
        proof
    };
    check_unproven(&[1, 2, 3], proof, Fault::OtherIncarnation);
}

#[test]
fn r2_a_receipt_for_other_bytes_counts_not() {
    check_unproven(
        &[1, 2, 3],
        |ballot| receipts(&[1, 2, 3], ballot, b"other"),
        Fault::OtherBytes,
    );
}

#[test]
fn a_receipt_with_a_foreign_signature_never_becomes_a_witness() {
    let ballot = Ballot::from_number(5);
    let foreign = key().receipt_key(node(2));
    let receipt = Receipt::signed(
        &foreign,
        (chunk(), ballot),
        (node(1), incarnation(1)),
        ChunkDigest::of(b"x"),
    );
    assert_eq!(
        Witness::check(receipt, &key()),
        Err(ForgedReceipt { node: node(1) })
    );
}

#[test]
fn two_parts_on_one_node_are_one_copy_too_few() {
    let open = opened(&Row::default(), &[1, 2, 3]);
    let value = value(&[1, 2, 2], open.ballot, b"bytes");
    let proof = receipts(&[1, 2], open.ballot, b"bytes");
    let refused = commit(chunk(), &open.row, open.ballot, &value, &proof, live);
    assert!(matches!(refused, Err(Conflict::BadValue { .. })), "{refused:?}");
}

#[test]
fn fewer_parts_than_the_ballot_asks_decide_nothing_unless_it_was_opened_for_fewer() {
    let mut request = request(OpenKind::Upload, &[1, 2, 3]);
    let open_all = open(chunk(), &Row::default(), &request).unwrap();
    let two = |ballot| {
        (
            value(&[1, 2], ballot, b"bytes"),
            receipts(&[1, 2], ballot, b"bytes"),
        )
    };
    let (value, proof) = two(open_all.ballot);
    let refused = commit(chunk(), &open_all.row, open_all.ballot, &value, &proof, live);
    assert_eq!(refused, Err(Conflict::TooFewParts { have: 2, need: 3 }));

    request.min_ack = 2;
    let open_two = open(chunk(), &open_all.row, &request).unwrap();
    let (value, proof) = two(open_two.ballot);
    let decided = commit(chunk(), &open_two.row, open_two.ballot, &value, &proof, live).unwrap();
    assert_eq!(decided.missing_parts, 1);
    // The third node may have stored it all the same.
    assert_eq!(named(&decided.garbage), [(node(3), open_two.ballot.number())]);
}

#[test]
fn a_repair_carries_parts_over_and_r3_collects_only_what_it_dropped() {
    let first = committed(&[1, 2, 3]);
    let repair = open(chunk(), &first.row, &request(OpenKind::Repair, &[4])).unwrap();
    let Value::Placed(mut placement) = first.accepted.value.clone() else {
        unreachable!("it was placed")
    };
    placement.parts.remove(0);
    let added = Placement::replicated(placement.digest, repair.ballot, &[node(4)]);
    placement.parts.extend(added.parts);
    let proof = receipts(&[4], repair.ballot, b"bytes");
    let decided = commit(
        chunk(),
        &repair.row,
        repair.ballot,
        &Value::Placed(placement),
        &proof,
        live,
    )
    .unwrap();
    assert_eq!(
        named(&decided.garbage),
        [(node(1), first.accepted.ballot.number())]
    );
    assert_eq!(decided.missing_parts, 0);
}

#[test]
fn a_repair_never_changes_the_bytes() {
    let first = committed(&[1, 2, 3]);
    let repair = open(chunk(), &first.row, &request(OpenKind::Repair, &[4, 5, 6])).unwrap();
    let other = value(&[4, 5, 6], repair.ballot, b"other");
    let proof = receipts(&[4, 5, 6], repair.ballot, b"other");
    let refused = commit(chunk(), &repair.row, repair.ballot, &other, &proof, live);
    assert!(matches!(refused, Err(Conflict::BadValue { .. })), "{refused:?}");
}

#[test]
fn a_deletion_is_final_and_collects_every_part() {
    let first = committed(&[1, 2, 3]);
    let deleted = delete(chunk(), &first.row, &request(OpenKind::Delete, &[])).unwrap();
    assert!(deleted.row.is_deleted());
    assert_eq!(deleted.garbage.len(), 3);
    for kind in [
        OpenKind::Upload,
        OpenKind::Repair,
        OpenKind::Convert,
        OpenKind::Abort,
    ] {
        assert_eq!(
            open(chunk(), &deleted.row, &request(kind, &[1])),
            Err(Conflict::Deleted)
        );
    }
    let again = delete(chunk(), &deleted.row, &request(OpenKind::Delete, &[])).unwrap();
    assert_eq!(
        again,
        Deleted {
            row: deleted.row,
            garbage: Vec::new()
        }
    );
}

#[test]
fn a_deletion_kills_an_upload_in_flight_and_collects_what_it_wrote() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    let mut other = request(OpenKind::Delete, &[]);
    other.owner = "b".into();
    let deleted = delete(chunk(), &first.row, &other).unwrap();
    assert_eq!(deleted.garbage.len(), 3);
    let proof = receipts(&[1, 2, 3], first.ballot, b"bytes");
    let late = commit(
        chunk(),
        &deleted.row,
        first.ballot,
        &value(&[1, 2, 3], first.ballot, b"bytes"),
        &proof,
        live,
    );
    assert!(matches!(late, Err(Conflict::Fenced { .. })));
}

#[test]
fn a_lease_keeps_other_owners_away_until_it_ends() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    let mut other = request(OpenKind::Upload, &[4, 5, 6]);
    other.owner = "b".into();
    assert!(matches!(
        open(chunk(), &first.row, &other),
        Err(Conflict::Leased { .. })
    ));
    other.now = UnixMillis(61_000);
    assert!(open(chunk(), &first.row, &other).is_ok());
}

#[test]
fn an_upload_never_replaces_a_committed_chunk() {
    let first = committed(&[1, 2, 3]);
    let refused = open(chunk(), &first.row, &request(OpenKind::Upload, &[4, 5, 6]));
    assert_eq!(
        refused,
        Err(Conflict::AlreadyCommitted {
            accepted: first.accepted
        })
    );
}

#[test]
fn a_repair_of_another_epoch_than_expected_is_refused() {
    let first = committed(&[1, 2, 3]);
    let expected = Ballot::from_number(3);
    let stale = OpenRequest {
        expect_epoch: Some(expected),
        ..request(OpenKind::Repair, &[4])
    };
    let refused = open(chunk(), &first.row, &stale);
    assert_eq!(
        refused,
        Err(Conflict::OtherEpoch {
            expected,
            accepted: first.accepted.ballot
        })
    );
    assert_eq!(
        open(chunk(), &Row::default(), &request(OpenKind::Repair, &[4])),
        Err(Conflict::NothingCommitted)
    );
}

#[test]
fn a_new_life_of_the_catalogue_never_grants_a_forgotten_ballot_again() {
    let forgotten = opened(&Row::default(), &[1, 2, 3]);
    // The row was lost with the un-synced tail; the catalogue starts again as generation 2.
    let request = OpenRequest {
        generation: 2,
        ..request(OpenKind::Upload, &[1, 2, 3])
    };
    assert!(open(chunk(), &Row::default(), &request).unwrap().ballot > forgotten.ballot);
}
