//! What an inventory may collect, and what a restored catalogue must not.

use super::*;

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
