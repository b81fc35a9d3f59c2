//! `vstack storage fsck` and `index`: what they say about a whole folder, a damaged one, one in use, and none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::path::{Path, PathBuf};

use common::process::{Answer, finish};
use common::{text, vstack};

/// The folder of the store's own format test: two superblocks, one lost object, two tombstones.
fn golden(into: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vstack-store/tests/golden_2");
    copy(&from, into);
    into.to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn storage(arguments: &[&str]) -> Answer {
    let mut command = vstack();
    command.arg("storage").args(arguments).arg("--json");
    finish(command)
}

#[test]
fn a_folder_with_a_lost_object_is_damaged_and_says_which() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = golden(&temporary.path().join("node"));
    for depth in [&[][..], &["--full"][..]] {
        let answer = storage(&[&["fsck", text(&folder)], depth].concat());
        assert_eq!(answer.code, Some(1), "{}", answer.stderr);
        let verdict = answer.lines.first().expect("a verdict");
        assert_eq!(verdict["clean"], false);
        assert_eq!(verdict["report"]["superblocks"], 2);
        let lost = verdict["report"]["corrupt"].as_array().expect("a list");
        assert!(
            lost.len() == 1 && lost[0][0].as_str().unwrap().ends_with("chunk-005"),
            "{verdict}"
        );
    }
}

#[test]
fn the_index_is_printed_line_by_line() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = golden(&temporary.path().join("node"));
    let answer = storage(&["index", text(&folder)]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let states: Vec<_> = answer
        .lines
        .iter()
        .map(|line| line["state"].as_str().unwrap())
        .collect();
    let count = |state: &str| states.iter().filter(|found| **found == state).count();
    assert_eq!((count("deleted"), count("corrupt")), (2, 1), "{states:?}");
    assert!(count("unchecked") >= 6, "{states:?}");
}

#[test]
fn nothing_can_be_said_about_a_folder_that_is_none() {
    let temporary = tempfile::tempdir().unwrap();
    let answer = storage(&["fsck", text(temporary.path())]);
    assert_eq!(answer.code, Some(2), "{}", answer.stderr);
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "something was made"
    );
}
