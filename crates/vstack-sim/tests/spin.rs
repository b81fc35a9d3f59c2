//! The second opinion: `spec/chunkpaxos.pml`, checked by Spin. It holds, and each rule that is left out breaks it.
//!
//! Needs the Debian packages `spin` and `gcc`, which `cargo xtask setup` installs; without Spin it says so and passes.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/spec/chunkpaxos.pml");
/// Far more than the 300 MB that the largest of these needs.
const MEMORY_LIMIT: &str = "-DMEMLIM=2000";

fn has_spin() -> bool {
    Command::new("spin").arg("-V").output().is_ok()
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    output.unwrap_or_else(|error| unreachable!("{program} cannot be run: {error}"))
}

/// What Spin's search says about the spec with these definitions. Compiling takes most of the time of a short search.
fn search(definitions: &[&str], optimise: &str) -> String {
    let folder = TempDir::new().expect("a folder for what Spin makes");
    let made = run(folder.path(), "spin", &[definitions, &["-a", SPEC]].concat());
    assert!(
        made.status.success(),
        "spin: {}",
        String::from_utf8_lossy(&made.stdout)
    );
    let built = run(
        folder.path(),
        "cc",
        &[optimise, "-w", "-DSAFETY", MEMORY_LIMIT, "-o", "pan", "pan.c"],
    );
    assert!(
        built.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let program = folder.path().join("pan");
    let searched = run(folder.path(), &program.to_string_lossy(), &["-E", "-m100000"]);
    String::from_utf8_lossy(&searched.stdout).into_owned()
}

fn check_holds(definitions: &[&str]) {
    let said = search(definitions, "-O1");
    assert!(said.contains("errors: 0"), "{definitions:?}: {said}");
    assert!(!said.contains("Search not completed"), "{definitions:?}: {said}");
}

fn check_breaks(definitions: &[&str]) {
    let said = search(definitions, "-O0");
    assert!(
        said.contains("assertion violated"),
        "{definitions:?} breaks nothing: {said}"
    );
}

#[test]
fn the_spec_holds() {
    if !has_spin() {
        return eprintln!("SPIN NOT RUN: the Debian package spin is not here");
    }
    check_holds(&[]);
    check_holds(&["-DREPAIR"]);
}

#[test]
fn the_spec_breaks_without_any_one_of_its_rules() {
    if !has_spin() {
        return eprintln!("SPIN NOT RUN: the Debian package spin is not here");
    }
    for rule in ["-DUNFENCED", "-DIGNORE_BALLOT", "-DEARLY_RECEIPT", "-DIN_PLACE"] {
        check_breaks(&["-DREPAIR", rule]);
    }
}

#[test]
fn the_spec_reaches_a_repair() {
    if !has_spin() {
        return eprintln!("SPIN NOT RUN: the Debian package spin is not here");
    }
    check_breaks(&["-DREPAIR", "-DNO_SECOND_EPOCH"]);
}
