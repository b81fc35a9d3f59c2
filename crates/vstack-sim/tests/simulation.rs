//! Some hundred simulated clusters, and the proof that the simulator would notice.

use vstack_sim::simulator::{self, Mutant, Report, replay_command};

fn run(seed: u64) -> Report {
    simulator::run(seed, None, false)
}

fn check_that_rules_hold(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let violation = run(seed).violation;
        let replay = replay_command(seed, None);
        assert_eq!(violation, None, "seed {seed}; replay: {replay}");
    }
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    let seen = |report: Report| {
        (
            report.fingerprint,
            report.events,
            report.decisions,
            report.virtual_ms,
        )
    };
    for seed in 1..12 {
        assert_eq!(seen(run(seed)), seen(run(seed)), "seed {seed} ran in two ways");
    }
    assert_ne!(run(1).fingerprint, run(2).fingerprint);
}

#[test]
fn a_trace_changes_nothing_but_that_it_is_there() {
    let traced = simulator::run(3, None, true);
    assert_eq!(traced.fingerprint, run(3).fingerprint);
    assert!(traced.trace.iter().any(|line| line.contains("loses its power")));
}

#[test]
fn every_rule_holds_in_the_first_hundred_clusters() {
    check_that_rules_hold(1..101);
}

#[test]
fn every_rule_holds_in_the_second_hundred_clusters() {
    check_that_rules_hold(101..201);
}

#[test]
fn every_rule_holds_in_a_hundred_clusters_elsewhere() {
    check_that_rules_hold(1 << 40..(1 << 40) + 100);
}

#[test]
fn clusters_of_thousands_of_chunks_are_among_them() {
    let large = (1..40).map(run).find(|report| report.chunks > 1000);
    let report = large.expect("one seed in 32 has thousands of chunks");
    assert!(report.decisions > 1000, "only {} decisions", report.decisions);
    assert!(report.acknowledged > 1000);
}

/// Seeds within which a bug must show. The rarest shows in the first hundred or two; the rest is room for a change of
/// the simulator that reshuffles them.
const FEW: u64 = 500;

fn check_that_it_is_found(mutant: Mutant) {
    let violation = (1..=FEW).find_map(|seed| simulator::run(seed, Some(mutant), false).violation);
    assert!(violation.is_some(), "{mutant} goes unnoticed for {FEW} seeds");
}

macro_rules! found {
    ($($name:ident: $mutant:ident,)*) => {
        $(#[test]
        fn $name() {
            check_that_it_is_found(Mutant::$mutant);
        })*

        #[test]
        fn every_mutant_has_its_test() {
            let tested = [$(Mutant::$mutant),*];
            assert!(Mutant::ALL.iter().all(|mutant| tested.contains(mutant)));
        }
    };
}

found! {
    a_receipt_before_the_sync_is_found: ReceiptBeforeSync,
    a_torn_write_that_is_trusted_is_found: TornWriteTrusted,
    a_commit_answered_before_its_sync_is_found: CommitBeforeSync,
    a_generation_that_comes_twice_is_found: GenerationNotRaised,
    a_restore_that_raises_the_generation_by_one_is_found: RestoreRaisesByOne,
    a_ballot_that_stays_open_in_a_restore_is_found: OpenBallotsSurviveRestore,
    collecting_without_a_fence_is_found: CollectWithoutFence,
    orders_before_their_open_is_synced_are_found: OrdersBeforeSync,
    deleting_what_a_conversion_has_not_replaced_yet_is_found: ReplacedBeforeCommit,
    receipts_of_a_disk_that_is_gone_are_found: IncarnationUnchecked,
    an_adoption_without_the_new_name_is_found: AdoptWithoutRetag,
    a_commit_of_an_overtaken_ballot_is_found: OldBallotCommits,
    one_object_a_chunk_is_found: OneObjectPerChunk,
    an_order_that_takes_earlier_ballots_along_is_found: DeletesEarlierBallots,
    collecting_what_a_restored_catalogue_does_not_know_is_found: UnknownCollected,
}
