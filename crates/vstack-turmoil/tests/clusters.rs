//! Five hundred clusters of the real handlers, and the proof that the harness would notice.

use std::process::Command;

use vstack_turmoil::{Mutant, Report, replay_command, run};

fn ran(seed: u64, mutant: Option<Mutant>) -> Report {
    run(seed, mutant, false).expect("the system has room for a catalogue")
}

/// Seeds of one test; each test has a process of its own.
const AT_ONCE: u64 = 50;

fn check_that_rules_hold(first: u64) {
    let mut acknowledged = 0;
    for seed in first..first + AT_ONCE {
        let report = ran(seed, None);
        let replay = replay_command(seed, None);
        assert_eq!(report.violation, None, "seed {seed}; replay: {replay}");
        acknowledged += report.acknowledged;
    }
    assert!(
        acknowledged > 4 * 50,
        "only {acknowledged} chunks were acknowledged"
    );
}

macro_rules! fifties {
    ($($name:ident: $first:expr,)*) => {
        $(#[test]
        fn $name() {
            check_that_rules_hold($first);
        })*

        #[test]
        fn five_hundred_seeds_are_run() {
            let mut firsts = vec![$($first),*];
            firsts.dedup();
            assert_eq!(firsts.len() as u64 * AT_ONCE, 500);
        }
    };
}

fifties! {
    seeds_1_to_50_keep_what_they_acknowledge: 1,
    seeds_51_to_100_keep_what_they_acknowledge: 51,
    seeds_101_to_150_keep_what_they_acknowledge: 101,
    seeds_151_to_200_keep_what_they_acknowledge: 151,
    seeds_201_to_250_keep_what_they_acknowledge: 201,
    seeds_251_to_300_keep_what_they_acknowledge: 251,
    seeds_301_to_350_keep_what_they_acknowledge: 301,
    seeds_351_to_400_keep_what_they_acknowledge: 351,
    seeds_401_to_450_keep_what_they_acknowledge: 401,
    seeds_451_to_500_keep_what_they_acknowledge: 451,
}

/// What happened, on a thread of its own: maps of the standard library have another order on each.
fn traced_on_a_thread(seed: u64) -> Report {
    let traced = move || run(seed, None, true).expect("the system has room for a catalogue");
    std::thread::spawn(traced).join().expect("a run does not panic")
}

#[test]
fn a_seed_run_twice_gives_the_same_events_at_the_same_times() {
    // Each of them ran in several ways as long as connections were closed in the order of a map.
    for seed in [6, 9, 12, 16] {
        let (once, again) = (traced_on_a_thread(seed), traced_on_a_thread(seed));
        let pairs = once.trace.iter().zip(&again.trace);
        for (number, (one, other)) in pairs.enumerate() {
            assert_eq!(one, other, "seed {seed} ran in two ways from event {number} on");
        }
        assert_eq!(
            once.fingerprint, again.fingerprint,
            "seed {seed} ended in two ways"
        );
        let (replayed, told) = (replayed(seed), format!("fingerprint {}", once.fingerprint));
        assert!(
            replayed.contains(&told),
            "seed {seed} had {told}, its replay says {replayed}"
        );
    }
}

/// What the command says that a failing seed is replayed with, in a process of its own.
fn replayed(seed: u64) -> String {
    let replay = Command::new(env!("CARGO_BIN_EXE_vstack-turmoil"))
        .args(["--seed", &seed.to_string()])
        .output()
        .expect("the command runs");
    String::from_utf8_lossy(&replay.stdout).into_owned()
}

#[test]
fn a_trace_is_as_long_as_there_were_events() {
    let traced = run(4, None, true).expect("the system has room for a catalogue");
    assert_eq!(traced.trace.len() as u64, traced.events);
}

/// Seeds within which a bug must show.
const FEW: u64 = 40;

fn check_that_it_is_found(mutant: Mutant) {
    let violation = (1..=FEW).find_map(|seed| ran(seed, Some(mutant)).violation);
    assert!(violation.is_some(), "{mutant} goes unnoticed for {FEW} seeds");
}

#[test]
fn a_receipt_for_what_was_not_synced_is_found() {
    check_that_it_is_found(Mutant::NothingIsSynced);
}

#[test]
fn a_receipt_that_nobody_gave_is_found() {
    check_that_it_is_found(Mutant::UnaskedNodesCount);
}

#[test]
fn a_catalogue_that_forgets_what_it_answered_is_found() {
    check_that_it_is_found(Mutant::CatalogueForgets);
}
