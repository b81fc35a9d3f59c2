//! Rules R1 to R3 over one row, each with the attack that it stops.

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

fn shards(numbers: &[u8], ballot: Ballot) -> (Value, Vec<Witness>) {
    let shard_bytes = |shard: u8| [b's', shard];
    let part = |&shard: &u8| {
        let digest = ChunkDigest::of(&shard_bytes(shard));
        Part {
            node: node(u128::from(shard) + 1),
            object_ballot: ballot,
            shard: Some(shard),
            sha256: digest.sha256,
            leaf_root: digest.leaf_root,
        }
    };
    let placement = Placement {
        scheme: Scheme::Erasure,
        digest: ChunkDigest::of(b"bytes"),
        parts: numbers.iter().map(part).collect(),
    };
    let witness = |&shard: &u8| {
        let number = u128::from(shard) + 1;
        let object = (chunk().with_shard(shard).unwrap(), ballot);
        let key_of_node = key().receipt_key(node(number));
        let digest = ChunkDigest::of(&shard_bytes(shard));
        let life = (node(number), incarnation(number));
        Witness::check(Receipt::signed(&key_of_node, object, life, digest), &key()).unwrap()
    };
    (Value::Placed(placement), numbers.iter().map(witness).collect())
}

/// A conversion to five shards, shard 0 on node 1 and so on.
fn conversion(row: &Row) -> Opened {
    let targets = (0..5).map(|shard| Target::shard(node(u128::from(shard) + 1), shard));
    let request = OpenRequest {
        nodes: targets.collect(),
        min_ack: 4,
        ..request(OpenKind::Convert, &[])
    };
    open(chunk(), row, &request).unwrap()
}

fn converted(numbers: &[u8]) -> (Opened, Result<Committed, Conflict>) {
    let convert = conversion(&committed(&[1, 2, 3]).row);
    let (value, proof) = shards(numbers, convert.ballot);
    let decided = commit(chunk(), &convert.row, convert.ballot, &value, &proof, live);
    (convert, decided)
}

#[test]
fn four_shards_decide_and_three_never_do() {
    let decided = converted(&[0, 1, 2, 4]).1.unwrap();
    assert_eq!(decided.missing_parts, 1);
    let (_, refused) = converted(&[0, 1, 2]);
    assert_eq!(refused, Err(Conflict::TooFewParts { have: 3, need: 4 }));
}

#[test]
fn a_conversion_collects_the_copies_it_replaced_and_the_shard_that_nobody_acknowledged() {
    let (convert, decided) = converted(&[0, 1, 2, 4]);
    let old = Ballot::PLAIN.next(1).number();
    let new = convert.ballot.number();
    let garbage = decided.unwrap().garbage;
    let mut expected = vec![(node(1), old), (node(2), old), (node(3), old), (node(4), new)];
    expected.sort();
    assert_eq!(named(&garbage), expected);
    let shard = garbage.iter().find(|garbage| garbage.ballot == convert.ballot);
    assert_eq!(shard.unwrap().object, chunk().with_shard(3).unwrap());
}

#[test]
fn a_receipt_for_another_shard_than_granted_counts_not() {
    let convert = conversion(&committed(&[1, 2, 3]).row);
    let (mut value, proof) = shards(&[0, 1, 2, 3], convert.ballot);
    let Value::Placed(placement) = &mut value else {
        unreachable!("it is a placement")
    };
    placement.parts[3].shard = Some(4);
    let refused = commit(chunk(), &convert.row, convert.ballot, &value, &proof, live);
    let fault = Fault::NotGranted;
    assert_eq!(refused, Err(Conflict::Unproven { node: node(4), fault }));
}

#[test]
fn a_repaired_shard_has_the_bytes_it_had() {
    let decided = converted(&[0, 1, 2, 3, 4]).1.unwrap();
    let request = OpenRequest {
        nodes: vec![Target::shard(node(6), 4)],
        min_ack: 4,
        ..request(OpenKind::Repair, &[])
    };
    let repair = open(chunk(), &decided.row, &request).unwrap();
    let Value::Placed(mut placement) = decided.accepted.value else {
        unreachable!("it was placed")
    };
    let other = ChunkDigest::of(b"other");
    placement.parts[4] = Part {
        node: node(6),
        object_ballot: repair.ballot,
        sha256: other.sha256,
        leaf_root: other.leaf_root,
        ..placement.parts[4]
    };
    let value = Value::Placed(placement);
    let refused = commit(chunk(), &repair.row, repair.ballot, &value, &[], live);
    assert!(matches!(refused, Err(Conflict::BadValue { .. })), "{refused:?}");
}

/// Node 1's disk is known to be lost.
struct OneLost;

impl Registry for OneLost {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        live(node)
    }

    fn is_lost(&self, part: &Part) -> bool {
        part.node == node(1)
    }
}

#[test]
fn r2_a_lost_part_is_not_carried_over() {
    let first = committed(&[1, 2, 3]);
    let repair = open(chunk(), &first.row, &request(OpenKind::Repair, &[4])).unwrap();
    let refused = commit(
        chunk(),
        &repair.row,
        repair.ballot,
        &first.accepted.value,
        &[],
        OneLost,
    );
    let fault = Fault::Lost;
    assert_eq!(refused, Err(Conflict::Unproven { node: node(1), fault }));
}

#[test]
fn an_open_names_the_ballot_it_replaced_with_its_nodes() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    assert_eq!(first.replaced, None);
    let replaced = opened(&first.row, &[2, 3, 4]).replaced.unwrap();
    assert_eq!(replaced.ballot, first.ballot);
    assert_eq!(
        replaced.nodes,
        [1, 2, 3].map(|number| Target::whole(node(number)))
    );
}

const DAY_MS: u64 = 24 * 3_600_000;

fn check_fate(
    row: &Row,
    number: u128,
    ballot: Ballot,
    (age_ms, knowledge): (u64, Knowledge),
    expected: Fate,
) {
    let now = UnixMillis(100 * DAY_MS);
    let reported = ReportedObject {
        object: chunk(),
        ballot,
        stored_at: UnixMillis(now.0 - age_ms),
    };
    let found = fate(chunk(), row, node(number), &reported, (now, knowledge));
    assert_eq!(found, expected, "{ballot:?} on node {number} of {row:?}");
}

#[test]
fn inventory_keeps_what_is_named_or_in_flight_and_collects_the_rest() {
    let old = (30 * DAY_MS, Knowledge::Complete);
    let decided = committed(&[1, 2, 3]);
    let epoch = decided.accepted.ballot;
    check_fate(&decided.row, 1, epoch, old, Fate::Named);
    check_fate(&decided.row, 4, epoch, old, Fate::Garbage);
    let repair = open(chunk(), &decided.row, &request(OpenKind::Repair, &[4])).unwrap();
    check_fate(&repair.row, 4, repair.ballot, old, Fate::InFlight);
    check_fate(&repair.row, 1, epoch, old, Fate::Named);
    let abort = open(chunk(), &repair.row, &request(OpenKind::Abort, &[])).unwrap();
    check_fate(&abort.row, 4, repair.ballot, old, Fate::Garbage);
    let deleted = delete(chunk(), &abort.row, &request(OpenKind::Delete, &[])).unwrap();
    check_fate(&deleted.row, 1, epoch, old, Fate::Garbage);
}

#[test]
fn unknown_and_plain_objects_have_a_day_and_a_catalogue_that_is_behind_collects_nothing() {
    let complete = |age_ms| (age_ms, Knowledge::Complete);
    let unknown = Ballot::PLAIN.next(7);
    for ballot in [unknown, Ballot::PLAIN] {
        let row = Row::default();
        check_fate(&row, 1, ballot, complete(DAY_MS - 1), Fate::Young);
        check_fate(&row, 1, ballot, complete(DAY_MS), Fate::Garbage);
        check_fate(&row, 1, ballot, (30 * DAY_MS, Knowledge::Behind), Fate::Kept);
    }
    let decided = committed(&[1, 2, 3]).row;
    check_fate(&decided, 9, Ballot::PLAIN, complete(1), Fate::Young);
    check_fate(
        &decided,
        9,
        Ballot::PLAIN,
        (DAY_MS, Knowledge::Behind),
        Fate::Kept,
    );
}

#[test]
fn a_catalogue_that_is_behind_collects_nothing_that_an_earlier_life_granted() {
    let before = opened(&Row::default(), &[1, 2, 3]);
    let request = OpenRequest {
        knowledge: Knowledge::Behind,
        generation: 2,
        ..request(OpenKind::Upload, &[4, 5, 6])
    };
    let again = open(chunk(), &before.row, &request).unwrap();
    assert_eq!(again.garbage, []);
    assert_eq!(again.replaced.unwrap().ballot, before.ballot);
}

#[test]
fn a_restored_catalogue_learns_a_later_decision_and_fences_what_it_opened_meanwhile() {
    let lost = committed(&[1, 2, 3]);
    let request = OpenRequest {
        generation: 2,
        ..request(OpenKind::Upload, &[4, 5, 6])
    };
    let meanwhile = open(chunk(), &Row::default(), &request).unwrap();
    let learned = learn(&meanwhile.row, &lost.accepted).unwrap();
    assert_eq!(learned.accepted.as_ref(), Some(&lost.accepted));
    let ballot = meanwhile.ballot;
    let late = value(&[4, 5, 6], ballot, b"bytes");
    let proof = receipts(&[4, 5, 6], ballot, b"bytes");
    let refused = commit(chunk(), &learned, ballot, &late, &proof, live);
    assert!(matches!(refused, Err(Conflict::Fenced { .. })), "{refused:?}");
    assert_eq!(learn(&learned, &lost.accepted), None, "nothing is learned twice");
    let deleted = delete(chunk(), &learned, &request).unwrap();
    assert_eq!(learn(&deleted.row, &lost.accepted), None, "a deletion is final");
}

#[test]
fn a_restored_row_lets_no_ballot_of_the_lost_life_commit() {
    let before = opened(&Row::default(), &[1, 2, 3]);
    let row = restored(&before.row);
    let late = value(&[1, 2, 3], before.ballot, b"bytes");
    let proof = receipts(&[1, 2, 3], before.ballot, b"bytes");
    let refused = commit(chunk(), &row, before.ballot, &late, &proof, live);
    assert!(matches!(refused, Err(Conflict::Fenced { .. })), "{refused:?}");
}

#[test]
fn a_generation_is_above_the_stored_one_and_above_all_that_nodes_saw() {
    assert_eq!(next_generation(3, []), 4);
    assert_eq!(next_generation(3, [1, 9, 2]), 10);
    assert_eq!(next_generation(3, [2]), 4);
}

#[test]
fn a_restore_leaps_over_the_lost_life_and_over_an_earlier_restore_of_the_same_backup() {
    let hour_ms = 3_600_000;
    let now = UnixMillis(1_780_000_000_000);
    let first = restored_generation(5, now);
    assert!(first >= 5 + 1024);
    assert!(restored_generation(5, now + hour_ms) > first);
    assert!(restored_generation(first, now) > first);
    // A clock that was never set is no harm.
    assert_eq!(restored_generation(5, UnixMillis(0)), 5 + 1024);
    let in_30_years = UnixMillis(now.0 + 30 * 365 * 24 * hour_ms);
    assert!(restored_generation(5, in_30_years) < 1 << 22);
}

#[test]
fn the_values_have_the_documented_json() {
    assert_eq!(
        serde_json::to_string(&Value::DELETED).unwrap(),
        r#"{"deleted":true}"#
    );
    assert_eq!(
        serde_json::from_str::<Value>(r#"{"deleted":true}"#).unwrap(),
        Value::DELETED
    );
    let placed = value(&[1, 2], Ballot::from_number(5), b"bytes");
    let json = serde_json::to_string(&placed).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), placed);
}

/// One random event in the life of a row.
#[derive(Debug, Clone)]
enum Event {
    Open {
        kind: OpenKind,
        first_node: u128,
        generation: u64,
    },
    /// COMMIT of the ballot that was granted so many OPENs ago.
    Commit {
        grants_ago: usize,
        nodes: usize,
    },
    Delete,
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        OpenKind::Upload,
        OpenKind::Repair,
        OpenKind::Convert,
        OpenKind::Abort,
    ]);
    prop_oneof![
        4 => (kind, 1u128..6, 1u64..3).prop_map(|(kind, first_node, generation)| Event::Open { kind, first_node, generation }),
        4 => (0usize..4, 1usize..4).prop_map(|(grants_ago, nodes)| Event::Commit { grants_ago, nodes }),
        1 => Just(Event::Delete),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_epochs_grow_and_no_live_object_is_garbage(events in prop::collection::vec(any_event(), 1..40)) {
        let mut row = Row::default();
        let mut grants: Vec<(Ballot, Vec<u128>)> = Vec::new();
        let mut garbage = BTreeSet::new();
        for event in events {
            let before = row.clone();
            match event {
                Event::Open { kind, first_node, generation } => {
                    let nodes: Vec<u128> = (first_node..first_node + 3).collect();
                    let request = OpenRequest { generation, ..request(kind, &nodes) };
                    if let Ok(opened) = open(chunk(), &row, &OpenRequest { min_ack: 1, ..request }) {
                        garbage.extend(opened.garbage);
                        grants.push((opened.ballot, nodes));
                        row = opened.row;
                    }
                }
                Event::Commit { grants_ago, nodes: count } => {
                    let Some((ballot, nodes)) = grants.iter().rev().nth(grants_ago) else { continue };
                    let nodes = &nodes[..count];
                    let proof = receipts(nodes, *ballot, b"bytes");
                    if let Ok(done) = commit(chunk(), &row, *ballot, &value(nodes, *ballot, b"bytes"), &proof, live) {
                        garbage.extend(done.garbage);
                        row = done.row;
                    }
                }
                Event::Delete => {
                    let deleted = delete(chunk(), &row, &request(OpenKind::Delete, &[])).unwrap();
                    garbage.extend(deleted.garbage);
                    row = deleted.row;
                }
            }
            prop_assert!(row.is_consistent());
            prop_assert!(row.epoch() >= before.epoch() && row.promised >= before.promised);
            if row.epoch() == before.epoch() {
                prop_assert_eq!(&row.accepted, &before.accepted);
            }
            prop_assert!(!before.is_deleted() || row.is_deleted());
            // I3: nothing that is live, and nothing that may still become so, was ever called garbage.
            for part in row.placement().map_or(&[][..], |placement| &placement.parts) {
                let live = Garbage { node: part.node, object: chunk(), ballot: part.object_ballot };
                prop_assert!(!garbage.contains(&live));
            }
            if row.open.is_some() {
                prop_assert!(garbage.iter().all(|garbage| garbage.ballot < row.promised));
            }
        }
    }
}
