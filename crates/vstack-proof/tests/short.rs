//! A short form of each proof run, as every test run does it. The long ones are `cargo xtask prove NAME`.
//!
//! `VSTACK_PROOF_SEED` begins elsewhere; a failure prints the seed and the command that shows it again.

use std::path::Path;

use vstack_proof::fuzzing::Meter;
use vstack_proof::{Report, Settings, crash_points, flips, fuzzing, kill, nth_call};

/// From `VSTACK_PROOF_SEED`, so that a nightly run can try other seeds than every push.
fn settings(count: u64) -> Settings {
    let seed = std::env::var("VSTACK_PROOF_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    Settings { seed, count }
}

#[expect(clippy::print_stdout, reason = "the figures of a run are its result")]
fn check(report: &Report, least: u64) {
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert!(report.count >= least, "it did too little: {report}");
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    check(&crash_points::run(settings(50_000), |_| true), 50_000);
}

#[test]
fn no_failing_disk_call_loses_what_was_acknowledged() {
    check(&nth_call::run(settings(8000), |_| true), 8000);
}

#[test]
fn every_turned_bit_and_every_cut_is_called_what_it_is() {
    check(&flips::run(settings(20_000), |_| true), 20_000);
}

#[test]
fn no_kill_loses_what_was_acknowledged() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let program = Path::new(env!("CARGO_BIN_EXE_prove"));
    check(&kill::run(settings(15), program, scratch.path(), |_| true), 15);
}

#[test]
fn the_same_seed_does_the_same() {
    let run = || {
        let Report { count, facts, .. } = crash_points::run(settings(2000), |_| true);
        (count, facts)
    };
    assert_eq!(run(), run());
}

/// Every seed of a fuzz target, and every input that once was a finding.
fn check_corpus(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let inputs = std::fs::read_dir(folder).expect("a seed corpus").flatten();
    let mut count = 0;
    for input in inputs {
        run(&std::fs::read(input.path()).expect("readable"));
        count += 1;
    }
    assert!(count > 3, "{target} has hardly any seeds");
}

#[test]
fn the_seeds_of_every_fuzz_target_pass_its_oracle() {
    check_corpus("scan", |data| fuzzing::scan(data, Meter::NONE));
    check_corpus("snapshot", |data| fuzzing::snapshot(data, Meter::NONE));
    check_corpus("range", fuzzing::range);
}
