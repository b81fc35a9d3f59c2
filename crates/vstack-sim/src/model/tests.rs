//! The model checked in the tests: the small configurations hold, every mutant gives a counterexample.

use crate::model::{self, Run, Size};

fn report(run: &Run) -> model::Outcome {
    let outcome = model::check(run, 1);
    println!(
        "{:28} generated {:>9} unique {:>8} depth {:>2} in {:.2} s",
        run.name,
        outcome.states_generated,
        outcome.states_unique,
        outcome.depth,
        outcome.duration.as_secs_f64()
    );
    outcome
}

fn check_holds(name: &str) {
    let run = model::find(name).unwrap();
    assert_eq!(run.size, Size::Small);
    let outcome = report(&run);
    let told = outcome
        .violation
        .as_ref()
        .map(|trace| serde_json::to_string_pretty(trace).unwrap());
    assert!(told.is_none(), "{name} breaks:\n{}", told.unwrap_or_default());
    assert!(
        outcome.unreached.is_empty(),
        "{name} never reaches {:?}",
        outcome.unreached
    );
}

fn check_breaks(name: &str, invariant: &str) {
    let outcome = report(&model::find(name).unwrap());
    let trace = outcome
        .violation
        .unwrap_or_else(|| panic!("{name} has no counterexample"));
    println!("{} steps: {:?}", trace.steps.len(), trace.violated);
    let violated = trace.violated.unwrap();
    assert!(violated.starts_with(invariant), "{name} breaks {violated}");
}

macro_rules! holds {
    ($($test:ident: $name:literal)*) => { $(#[test] fn $test() { check_holds($name) })* };
}

macro_rules! breaks {
    ($($test:ident: $name:literal, $invariant:literal)*) => { $(#[test] fn $test() { check_breaks($name, $invariant) })* };
}

holds! {
    three_nodes_with_write_sync_and_receipt_apart_hold: "n3-b2"
    three_nodes_with_a_crash_hold: "n3-b3"
    three_nodes_with_a_lost_disk_hold: "n3-loss"
    nodes_that_promise_nothing_hold: "n3-b2-unfenced"
    fewer_copies_than_wanted_hold: "n3-reduced"
    four_nodes_hold: "n4-b3"
    conversion_to_shards_holds: "n4-shards"
    prepare_holds: "n3-b2-prepare"
    inventory_at_any_time_holds: "n3-inventory"
    plain_clients_hold: "n3-b2-plain"
    a_restored_catalogue_holds: "n3-b2-restore"
}

breaks! {
    objects_in_place_break: "in-place", "I"
    a_durable_fence_does_not_save_objects_in_place: "in-place-durable-fence", "I"
    r1_a_commit_of_an_overtaken_ballot_breaks: "commit-ignores-ballot", "I"
    r2_a_receipt_of_a_replaced_disk_breaks: "incarnation-ignored", "I5"
    r2_a_receipt_for_another_ballots_object_breaks: "adopt-without-new-name", "I"
    r2_a_lost_part_that_is_carried_over_breaks: "lost-parts-carried", "I5"
    r3_collecting_an_open_ballot_breaks: "collect-without-fence", "I"
    r4_a_receipt_before_the_sync_breaks: "receipt-before-sync", "I"
    r5_a_name_that_is_written_again_breaks: "tombstone-forgotten", "I6"
    a_tombstone_for_lower_ballots_breaks: "tombstone-spans-ballots", "I1"
    collecting_what_a_restored_catalogue_does_not_know_breaks: "unknown-collected", "I"
    a_repeated_generation_breaks: "generation-repeated", "I"
    a_generation_that_the_nodes_do_not_know_breaks: "generation-unannounced", "I"
    an_open_ballot_that_survives_a_restore_breaks: "open-survives-restore", "I"
    collecting_young_plain_objects_breaks: "plain-collected-young", "I8"
    a_plain_delete_that_reaches_ballots_breaks: "plain-delete-reaches-ballots", "I1"
    three_shards_break: "three-shards", "I7"
}

#[test]
fn every_mutant_is_tested_and_told_in_the_form_of_the_stories() {
    let source = include_str!("tests.rs");
    for run in model::mutants() {
        assert!(
            source.contains(&format!("\"{}\", \"I", run.name)),
            "{} is not tested",
            run.name
        );
    }
    let outcome = model::check(&model::find("commit-ignores-ballot").unwrap(), 1);
    let json = serde_json::to_value(outcome.violation.unwrap()).unwrap();
    assert_eq!(json["steps"][0]["message"], "OPEN upload");
    assert_eq!(json["steps"][0]["to"], "catalogue");
    assert!(json["violated"].as_str().unwrap().starts_with('I'));
}

#[test]
fn every_small_configuration_is_tested() {
    let source = include_str!("tests.rs");
    let small = model::configurations()
        .into_iter()
        .filter(|run| run.size == Size::Small);
    for run in small {
        assert!(
            source.contains(&format!(": \"{}\"", run.name)),
            "{} is not tested",
            run.name
        );
    }
}
