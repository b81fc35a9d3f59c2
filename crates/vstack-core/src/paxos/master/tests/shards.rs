//! Conversions, and repairs of shards.

use super::*;

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
